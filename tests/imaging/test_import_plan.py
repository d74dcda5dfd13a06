"""What is planned of names and findings alone: names, refusals, warnings; any bytes are a plan or an error."""

from __future__ import annotations

import contextlib
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pbserv.imaging.convert import plain_limit, refusal
from pbserv.imaging.formats.model import FormatError, Found
from pbserv.imaging.import_plan import ENDINGS, Plan, Seen, beside, plan_directory, plan_file, proposal, wanted
from pbserv.imaging.manifest import Fact, Manifest, ManifestItem, check_new_name, parse, print_manifest
from pbserv.imaging.version_facts import VersionFacts, with_origin
from tests.imaging.formats.test_sidecars import NVME, OLD

MIB = 1 << 20
PARTCLONE = Found("partclone", "EXTFS", 16 * MIB, MIB, 4096, "crc32", facts=(("Format", "0002"), ("Bitmap", "bit")))


def seen(name: str, found: Found = PARTCLONE, compressor: str = "gzip", missing: tuple[str, ...] = ()) -> Seen:
    return Seen(name, (name,), missing, compressor, 1000, found)


@pytest.mark.parametrize(
    ("name", "made"),
    [("windows 10.img.gz", "windows-10"), ("graphical.i686-3.1.4", "graphical-i686-3-1-4"), (".img", "img"),
     ("...", "image"), ("a" * 80, "a" * 64), ("[lab] (1)", "lab-1"), ("x.vmdk", "x"), ("été.img", "t"), ("-", "image")],
)  # fmt: skip
def test_a_proposal_is_a_name_that_an_image_may_have(name: str, made: str) -> None:
    assert proposal(name) == made


@given(st.text(max_size=100))
def test_every_proposal_can_be_used(name: str) -> None:
    assert check_new_name(proposal(name))


def whole(plan: Plan) -> Manifest:
    """The manifest that the plan comes to, whatever the sizes; it must be one that parses."""
    items = tuple(ManifestItem(i.name, i.kind, i.partition, 1, "0" * 64, i.plain_bytes) for i in plan.items)
    facts = tuple(Fact(item.name, key, value) for item in plan.items for key, value in item.facts)
    manifest = Manifest(plan.disk, items, facts)
    assert parse(print_manifest(manifest)) == manifest
    return manifest


def test_a_fog_directory_of_two_disks() -> None:
    small = {"d1.partitions": OLD, "d2.partitions": NVME, "d1.original.swapuuids": b"5 1111\n"}
    one, two = plan_directory("FOG", "lab", [seen("d1p1.img"), seen("d2p2.img", compressor="zstd")], small)
    assert (one.name, two.name) == ("lab-d1", "lab-d2")
    assert [item.name for item in one.items] == ["table.sfdisk", "p1.extfs.gz", "p5.swap"]
    assert [item.name for item in two.items] == ["table.sfdisk", "p2.extfs.zst"]
    assert one.warnings == ("partition 1: its file system is smaller than the partition; restore with a resize",)
    assert "partition 1 has no image; a restore makes it and leaves it empty" in two.warnings
    assert (two.disk.table, two.disk.sector_bytes, two.disk.firmware) == ("gpt", 4096, "uefi")
    assert (whole(one).disk.table, whole(two).disk.table) == ("dos", "gpt")


def origin(plan: Plan) -> tuple[str, str]:
    """(disk, partition) that a version of it is said to be of."""
    facts = with_origin(VersionFacts(), whole(plan))
    return facts.disk, facts.partition


def test_where_an_image_was_taken_is_kept() -> None:
    images = [seen("sda1.ext4-ptcl-img.gz"), seen("sda2.ext4-ptcl-img.gz")]
    (plan,) = plan_directory("Clonezilla", "lab", images[:1], {"sda-pt.sf": OLD})
    assert origin(plan) == ("/dev/sda", "/dev/sda1")
    (plan,) = plan_directory("FOG", "lab", [seen("d1p2.img")], {"d1.partitions": NVME})
    assert origin(plan) == ("/dev/nvme0n1", "/dev/nvme0n1p2")
    taken = Found("partimage", "ext3", MIB, facts=(("Taken from", "/dev/sdb 7"),))
    assert origin(plan_file(seen("root.000", taken), {}, (), "")) == ("", "/dev/sdb 7")
    assert origin(plan_file(seen("root.img"), {}, (), "")) == ("", "")


def test_a_resize_is_advised_where_it_helps() -> None:
    """The imaging client fits the last file system, and not every one."""
    dump = b"label: dos\nunit: sectors\n\n" + b"".join(
        b"/dev/sda%d : start=%d, size=65536, type=83\n" % (number, 65536 * number) for number in (1, 2, 3)
    )
    images = [seen("d1p1.img"), seen("d1p2.img")]
    small = {"d1.partitions": dump, "d1.original.swapuuids": b"3 1111\n"}
    (plan,) = plan_directory("FOG", "lab", images, small)
    assert plan.warnings == ("partition 2: its file system is smaller than the partition; restore with a resize",)
    fat = replace(PARTCLONE, file_system="FAT32")
    (plan,) = plan_directory("FOG", "lab", [images[0], seen("d1p2.img", fat)], small)
    assert plan.warnings == ()


def test_a_disk_without_images_is_named() -> None:
    small = {"d1.partitions": OLD, "d2.partitions": NVME}
    (plan,) = plan_directory("FOG", "lab", [seen("d1p1.img")], small)
    assert "disk d2 has no image of a partition and is left out" in plan.warnings


def test_what_dd_saved_is_as_large_as_its_partition() -> None:
    small = {"sda-pt.sf": OLD, "parts": b"sda1", "disk": b"sda", "swappt-sda5.info": b'UUID="1111"\n'}
    (plan,) = plan_directory("Clonezilla", "lab", [seen("sda1.dd-ptcl-img.gz", Found("raw", "unknown"))], small)
    (item,) = (item for item in plan.items if item.partition == 1)
    assert (item.name, item.kind) == ("p1.raw.gz", "raw")
    assert item.found == Found("raw", "unknown", 74838016 * 512)
    assert not plan.warnings


def test_an_old_table_gets_the_signature_of_the_first_sector() -> None:
    mbr = bytes(440) + bytes.fromhex("c3548744") + bytes(66) + b"\x55\xaa"
    (plan,) = plan_directory("Clonezilla", "lab", [seen("sda1.ext4-ptcl-img.gz")], {"sda-pt.sf": OLD, "sda-mbr": mbr})
    assert b"label-id: 0x448754c3\n" in plan.items[0].content
    assert [(item.name, item.kind) for item in plan.items] == [
        ("table.sfdisk", "sfdisk"), ("boot.zst", "boot"), ("p1.ext4.gz", "partclone.ext4"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("system", "images", "small", "why"),
    [
        ("FOG", [seen("d1p1.img")], {}, r"d1\.partitions is missing"),
        ("FOG", [seen("d1p9.img")], {"d1.partitions": OLD}, "no partition 9"),
        ("FOG", [seen("d1p1.img", missing=("d1p1.img.001",))], {"d1.partitions": OLD}, r"missing: d1p1\.img\.001"),
        ("FOG", [seen("d1p1.img")], {"d1.partitions": b"nothing"}, r"d1\.partitions: line 1"),
        ("Clonezilla", [seen("sda1.ext4-ptcl-img.gz")], {}, "no partition table lies beside"),
        ("Clonezilla", [seen("sdb1.ext4-ptcl-img.gz")], {"sda-pt.sf": OLD}, r"sdb1\.ext4-ptcl-img\.gz: of no disk"),
        ("Clonezilla", [seen("vg-root.ext4-ptcl-img.gz")], {"sda-pt.sf": OLD, "parts": b"sda1"}, "a volume of LVM"),
        (
            "Clonezilla",
            [seen("sda1.ext4-ptcl-img.gz")],
            {"sda-pt.sf": OLD, "sdb-pt.sf": OLD.replace(b"sda", b"sdb"), "disk": b"sda sdb", "parts": b"sda1 sdb1"},
            "parts names sdb1, and its image is not here",
        ),
        (
            "Clonezilla",
            [seen("sda1.ext4-ptcl-img.gz")],
            {"sda-pt.sf": OLD, "disk": b"sda", "parts": b"sda1 sda2 sda5"},
            "parts names sda5, and its image is not here",
        ),
        (
            "Clonezilla",
            [seen("sda1.ext4-ptcl-img.gz")],
            {"sda-pt.sf": OLD, "disk": b"sda sdb", "parts": b"sda1"},
            r"disk names sdb, and sdb-pt\.sf is not here",
        ),
        (
            "Clonezilla",
            [seen("sda1.ext4-ptcl-img.gz"), seen("sda1.ntfs-ptcl-img")],
            {"sda-pt.sf": OLD},
            "both of partition 1",
        ),
        (
            "Clonezilla",
            [seen("sda1.ext4-ptcl-img.gz", Found("raw", "ext4", 1 << 50))],
            {"sda-pt.sf": OLD},
            r"needs 1125899906842624 bytes, and partition 1 has",
        ),
    ],
)
def test_directories_that_are_refused(system: str, images: list[Seen], small: dict[str, bytes], why: str) -> None:
    with pytest.raises(FormatError, match=why):
        plan_directory(system, "lab", images, small)


@pytest.mark.parametrize("tool", ["partimage", "ntfsclone", "fsarchiver", "raw"])
@pytest.mark.parametrize("compressor", ENDINGS)
def test_one_file_of_every_tool(tool: str, compressor: str) -> None:
    plan = plan_file(seen("lab.img", Found(tool, "ntfs", MIB), compressor), {}, {"lab.img"}, "")
    (item,) = whole(plan).items
    assert (item.kind, item.partition, plan.name) == (tool, 0, "lab")
    assert item.name.startswith("part.raw" if tool == "raw" else f"part.ntfs.{tool}")
    assert bool(refusal(plan.items[0].found or PARTCLONE)) == (tool != "raw")


def test_one_file_that_is_refused() -> None:
    with pytest.raises(FormatError, match="differences to another image"):
        plan_file(seen("lab.img.diff"), {}, set(), "OpenGnSys")
    with pytest.raises(FormatError, match="uncompress it first"):
        plan_file(seen("lab.qcow2.gz", Found("qcow2", "disk", MIB)), {}, set(), "")
    with pytest.raises(FormatError, match="size of the disk is not known"):
        plan_file(seen("lab.vhdx", Found("vhdx", "disk"), "none"), {}, set(), "")


def test_checksums_of_others_are_passed_over_with_a_word() -> None:
    small = {"lab.img.full.sum": b"none", "lab.img.md5": b"0123456789abcdef0123456789abcdef  lab.img\n"}
    plan = plan_file(seen("lab.img"), small, set(), "OpenGnSys")
    assert not plan.items[0].checks
    assert len(plan.warnings) == 2


def test_which_files_are_wanted() -> None:
    names = ["d1.partitions", "d1.mbr", "d1p1.img", "sda-pt.sf", "sda-mbr", "swappt-sda5.info", "parts", "etc-passwd"]
    assert set(wanted(names)) == {"d1.partitions", "d1.mbr", "sda-pt.sf", "sda-mbr", "swappt-sda5.info", "parts"}
    assert "a-1.2.3.md5" in beside("a-1.2.3.gz")


@pytest.mark.parametrize(
    ("found", "why"),
    [
        (PARTCLONE, ""),
        (Found("raw", "ext4"), ""),
        (Found("qcow2", "disk"), ""),
        (Found("partclone", "NTFS", facts=(("Format", "0001"),)), "0001"),
        (Found("partclone", "NTFS", checksum="xxh64", facts=(("Format", "0002"), ("Bitmap", "bit"))), "XXH64"),
        (Found("partclone", "NTFS", facts=(("Format", "0002"), ("Bitmap", "none"))), "no bitmap"),
        (Found("partimage", "ntfs"), "only partimage itself"),
        (Found("fsarchiver", "ext4"), "no device addresses"),
        (Found("wim", "ntfs"), "not known"),
    ],
)
def test_what_can_be_cut_into_frames(found: Found, why: str) -> None:
    assert why in refusal(found)
    assert bool(refusal(found)) == bool(why)


def test_a_partclone_stream_cannot_be_longer_than_its_header_says() -> None:
    assert 2 * MIB > plain_limit(PARTCLONE, 1 << 44) >= 110 + 512 + 4 + MIB + 4 * 256
    assert plain_limit(Found("raw", "ext4", MIB), 1 << 44) == 1 << 44


FILES = ("d1.partitions", "d1.mbr", "d1.original.swapuuids", "d1.size", "sda-pt.sf", "sda-pt.parted", "sda-mbr",
         "sda-hidden-data-after-mbr", "swappt-sda5.info", "parts", "disk")  # fmt: skip


@given(
    st.sampled_from(["FOG", "Clonezilla"]),
    st.dictionaries(st.sampled_from(FILES), st.binary(max_size=600) | st.sampled_from([OLD, NVME]), max_size=8),
    st.lists(st.sampled_from(["d1p1.img", "d1p2.img", "sda1.ext4-ptcl-img.gz", "sda5.dd-img", "x"]), max_size=3),
)
def test_any_bytes_beside_the_images_are_a_plan_or_an_error(
    system: str, small: dict[str, bytes], names: list[str]
) -> None:
    with contextlib.suppress(FormatError):
        for plan in plan_directory(system, "lab", [seen(name) for name in names], small):
            assert whole(plan).items


@given(st.binary(max_size=200), st.binary(max_size=200))
def test_any_checksum_files_are_a_plan_or_an_error(full: bytes, md5: bytes) -> None:
    small = {"a-1.2.3.full.sum": full, "a-1.2.3.md5": md5}
    with contextlib.suppress(FormatError):
        assert whole(plan_file(seen("a-1.2.3"), small, set(), "SLEPOS")).items
