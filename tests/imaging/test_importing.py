"""Directories and files of other systems are planned, sent, and what was sent restores to the same file systems."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import zstandard

from pbserv.imaging import importing
from pbserv.imaging.importing import Received, as_it_is, send, survey
from pbserv.imaging.inspection import InspectionError
from pbserv.imaging.manifest import Manifest, ManifestItem, parse
from pbserv.imaging.unpack import unpacked
from pbserv.imaging.verifying import verified
from tests.client.disks import loop
from tests.imaging import trees
from tests.imaging.trees import MIB, Disk

_ZSTD = b"\x28\xb5\x2f\xfd"


class Shelf:
    """An uploader that keeps what it is sent; ``lose`` parts are refused once, as a broken connection does."""

    def __init__(self, part_bytes: int = MIB, lose: frozenset[tuple[str, int]] = frozenset()) -> None:
        self.part_bytes = part_bytes
        self.parts: dict[str, list[bytes]] = {}
        self.plain: dict[str, int] = {}
        self.manifest = ""
        self._lose = set(lose)

    def next_part(self, item: str) -> int:
        return len(self.parts.get(item, ())) + 1

    def part(self, item: str, kind: str, number: int, body: bytes, sha256: str) -> None:
        if (item, number) in self._lose:
            self._lose.discard((item, number))
            raise ConnectionError("the server went away")
        assert hashlib.sha256(body).hexdigest() == sha256
        assert number == self.next_part(item)
        assert len(body) <= self.part_bytes
        self.parts.setdefault(item, []).append(body)

    def complete(self, item: str, parts: int, plain_bytes: int) -> Received:
        data = self.data(item)
        assert len(self.parts[item]) == parts
        self.plain[item] = plain_bytes
        digests = "".join(hashlib.sha256(part).hexdigest() for part in self.parts[item])
        return Received(len(data), hashlib.sha256(digests.encode()).hexdigest())

    def commit(self, manifest: str) -> Mapping[str, Any]:
        for item, plain_bytes in self.plain.items():
            assert plain_bytes == len(self.data(item)) or plain_bytes == len(self.unpacked(item))
        self.manifest = manifest
        return {"version": 1}

    def data(self, item: str) -> bytes:
        return b"".join(self.parts[item])

    def unpacked(self, item: str) -> bytes:
        """What the server makes of parts that are compressed one by one."""
        return b"".join(
            b"".join(unpacked([part], "zstd" if part[:4] == _ZSTD else "none")) for part in self.parts[item]
        )


@pytest.fixture(scope="module")
def gpt(tmp_path_factory: pytest.TempPathFactory) -> Disk:
    return trees.disk(tmp_path_factory.mktemp("gpt"), "gpt", ("vfat", "ext4", "swap"))


@pytest.fixture(scope="module")
def dos(tmp_path_factory: pytest.TempPathFactory) -> Disk:
    return trees.disk(tmp_path_factory.mktemp("dos"), "dos", ("ntfs", "ext4", "swap"))


def imported(path: Path, *, convert: bool = False) -> tuple[Shelf, Manifest]:
    source = survey(path)
    plan = verified(source, source.plans[0])
    assert len(source.plans) == 1
    as_it_is(plan, convert)
    shelf = Shelf()
    send(source, plan, shelf, convert=convert)
    return shelf, parse(shelf.manifest)


def plain(shelf: Shelf, manifest: Manifest, item: ManifestItem) -> bytes:
    """Uncompressed as the imaging client does it: by the item's facts; what becomes frames as the server does it."""
    kind = manifest.fact(item.name, "compressor")
    return b"".join(unpacked([shelf.data(item.name)], kind)) if kind else shelf.unpacked(item.name)


def same_disk(made: Disk, shelf: Shelf, manifest: Manifest, folder: Path) -> None:
    """What was sent is the sample disk: table, boot area, file systems bit for bit, swap by its UUID."""
    disk = manifest.disk
    assert (disk.sector_bytes, disk.table) == (512, made.label)
    assert disk.firmware == ("uefi" if made.label == "gpt" else "bios")
    assert made.parts[-1].start + made.parts[-1].size <= disk.size_bytes // 512 <= made.size // 512
    assert shelf.data("table.sfdisk") == made.table
    table = trees.empty(folder / "table", disk.size_bytes)
    trees.run("sfdisk", "-q", str(table), stdin=shelf.data("table.sfdisk"))
    assert trees.run("sfdisk", "-d", str(table)).count(b"start=") == len(made.parts)
    boot = zstandard.ZstdDecompressor().decompress(shelf.data("boot.zst"))
    assert made.path.read_bytes().startswith(boot[:440])
    assert boot.startswith(b"\xeb\x63\x90BOOT CODE")
    for part in made.parts:
        (item,) = (one for one in manifest.items if one.partition == part.number)
        if part.system == "swap":
            assert f"UUID={trees.SWAP_UUID}\n".encode() in shelf.data(item.name)
            assert item.kind == "swap"
        else:
            assert item.kind.startswith("partclone.")
            assert int(manifest.fact(item.name, "device_bytes")) == part.size * 512
            trees.blocks_equal(part, plain(shelf, manifest, item), folder)


@pytest.mark.parametrize(("label", "kind", "split"), [("gpt", "zstd", 0), ("dos", "gzip", 0), ("dos", "zstd", 4_000)])
def test_fog(tmp_path: Path, gpt: Disk, dos: Disk, label: str, kind: str, split: int) -> None:
    made = gpt if label == "gpt" else dos
    shelf, manifest = imported(trees.fog(tmp_path / "lab 1", made, kind, split=split))
    same_disk(made, shelf, manifest, tmp_path)
    boot = zstandard.ZstdDecompressor().decompress(shelf.data("boot.zst"))
    # On GPT the file is sgdisk's backup, of which the first sector alone has that place on the disk.
    assert boot == made.path.read_bytes()[: 512 if label == "gpt" else 2048 * 512]
    assert survey(tmp_path / "lab 1").plans[0].name == "lab-1"


@pytest.mark.parametrize(
    ("label", "kind"), [("gpt", "gzip"), ("dos", "zstd"), ("dos", "xz"), ("gpt", "lzop"), ("dos", "none")]
)
def test_clonezilla(tmp_path: Path, gpt: Disk, dos: Disk, label: str, kind: str) -> None:
    made = gpt if label == "gpt" else dos
    shelf, manifest = imported(trees.clonezilla(tmp_path / "classroom", made, kind, split=50_000))
    same_disk(made, shelf, manifest, tmp_path)
    assert zstandard.ZstdDecompressor().decompress(shelf.data("boot.zst")) == made.path.read_bytes()[: 2048 * 512]
    assert manifest.disk.size_bytes == made.size
    assert {item.kind for item in manifest.items} >= {"partclone.ext4", "swap", "sfdisk", "boot"}


def test_a_partition_that_clonezilla_copied_by_dd(tmp_path: Path, dos: Disk) -> None:
    shelf, manifest = imported(trees.clonezilla(tmp_path / "lab", dos, "gzip", raw=(2,)))
    (item,) = (one for one in manifest.items if one.partition == 2)
    assert (item.kind, item.name) == ("raw", "p2.raw.gz")
    assert plain(shelf, manifest, item) == dos.parts[1].raw.read_bytes()


@pytest.mark.parametrize("kind", ["gzip", "none"])
def test_a_partition_of_zeros_as_windows_has_one(tmp_path: Path, dos: Disk, kind: str) -> None:
    """Microsoft's reserved partition; outside of Clonezilla zeros are no image."""
    path = trees.clonezilla(tmp_path / "lab", dos, kind, raw=(2,))
    for old in path.glob("sda2.*"):
        old.unlink()
    zeros = bytes(dos.parts[1].size * 512)
    image = path / f"sda2.dd-ptcl-img{trees._SUFFIX[kind]}.aa"
    image.write_bytes(trees.packed(zeros, kind))
    shelf, manifest = imported(path)
    (item,) = (one for one in manifest.items if one.partition == 2)
    assert (item.kind, item.uncompressed_bytes) == ("raw", len(zeros))
    assert plain(shelf, manifest, item) == zeros
    image.write_bytes(trees.packed(zeros[:-1], kind))
    with pytest.raises(InspectionError, match="cut off"):
        imported(path)
    image.write_bytes(b"")
    with pytest.raises(InspectionError, match="empty"):
        imported(path)
    image.rename(tmp_path / "zeros")
    (tmp_path / "zeros").write_bytes(zeros)
    with pytest.raises(InspectionError, match="no image that is known"):
        survey(tmp_path / "zeros")


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: partimage reads block devices only")
def test_a_partition_that_clonezilla_saved_by_partimage(tmp_path: Path, dos: Disk) -> None:
    path = trees.clonezilla(tmp_path / "lab", dos, "gzip", raw=(2,))
    with loop(tmp_path / "fat", 16 * MIB, scan=False) as device:
        trees.run("mkfs.fat", "-F", "16", "-s", "4", device)
        options = ("-f3", "-o", "-d", "-B", "gui=no", "-c", "-z0", "--volume=0")
        stored = trees.packed(trees.run("partimage", *options, "save", device, "stdout"), "gzip")
    for volume in path.glob("sda2.*"):
        volume.unlink()
    (path / "sda2.aa").write_bytes(stored[:3000])
    (path / "sda2.ab").write_bytes(stored[3000:])
    shelf, manifest = imported(path)
    (item,) = (one for one in manifest.items if one.partition == 2)
    assert (item.kind, item.name) == ("partimage", "p2.fat16.partimage.gz")
    assert shelf.data(item.name) == stored


def test_converted_images_are_sent_uncompressed(tmp_path: Path, gpt: Disk) -> None:
    shelf, manifest = imported(trees.clonezilla(tmp_path / "lab", gpt, "gzip"), convert=True)
    same_disk(gpt, shelf, manifest, tmp_path)
    for item in manifest.items:
        if item.kind.startswith("partclone."):
            assert manifest.fact(item.name, "compressor") == ""
            assert item.uncompressed_bytes == len(shelf.unpacked(item.name))


@pytest.mark.parametrize("kind", ["lzop", "gzip", "none", "bzip2", "lz4"])
def test_opengnsys(tmp_path: Path, dos: Disk, kind: str) -> None:
    image = trees.opengnsys(tmp_path / "images", dos.parts[1], kind)
    (plan,) = survey(image).plans
    assert (plan.name, plan.system) == ("windows10", "OpenGnSys")
    shelf, manifest = imported(image)
    (item,) = manifest.items
    assert (item.kind, item.partition) == ("partclone.extfs", 0)
    assert (manifest.disk.size_bytes, manifest.disk.table) == (0, "none")
    assert shelf.data(item.name) == image.read_bytes()
    assert manifest.fact(item.name, "serves_as") == "windows10.img"
    trees.blocks_equal(dos.parts[1], plain(shelf, manifest, item), tmp_path)
    image.with_name("windows10.img.full.sum").write_text("0" * 32)
    with pytest.raises(InspectionError, match=r"windows10\.img\.full\.sum says 0000"):
        imported(image)
    image.with_name("windows10.img.lock").touch()
    with pytest.raises(InspectionError, match="OpenGnSys works on the image"):
        survey(image)


@pytest.mark.parametrize("kind", ["none", "gzip", "xz"])
def test_slepos(tmp_path: Path, dos: Disk, kind: str) -> None:
    image = trees.slepos(tmp_path / "image", dos.parts[1], kind)
    (plan,) = survey(image).plans
    assert (plan.name, plan.system) == ("graphical-i686-3-1-4", "SLEPOS")
    shelf, manifest = imported(image)
    (item,) = manifest.items
    assert (item.kind, item.uncompressed_bytes) == ("raw", 16 * MIB)
    assert plain(shelf, manifest, item) == dos.parts[1].raw.read_bytes()
    assert manifest.fact(item.name, "serves_as") == image.name
    md5 = tmp_path / "image" / "graphical.i686-3.1.4.md5"
    right = md5.read_text()
    md5.write_text("f" * 32 + right[32:])
    with pytest.raises(InspectionError, match=r"graphical\.i686-3\.1\.4\.md5 says ffff"):
        imported(image)
    md5.write_text(right.replace(" 4096 4096", " 5000 4096"))
    with pytest.raises(InspectionError, match=r"less than|is of 20480000 bytes"):
        imported(image)
    md5.write_text("nothing")
    with pytest.raises(InspectionError, match="not an MD5"):
        survey(image)


@pytest.mark.parametrize("kind", ["gzip", "xz", "lzop", "lz4", "zstd", "bzip2", "none"])
def test_a_raw_disk_in_every_compressor(tmp_path: Path, dos: Disk, kind: str) -> None:
    image = tmp_path / f"disk{trees._SUFFIX[kind]}"
    image.write_bytes(trees.packed(dos.path.read_bytes(), kind))
    for convert in (False, True):
        shelf, manifest = imported(image, convert=convert)
        (item,) = manifest.items
        assert (item.kind, item.partition) == ("raw", 0)
        assert manifest.disk.size_bytes == item.uncompressed_bytes == dos.size
        assert plain(shelf, manifest, item) == dos.path.read_bytes()


@pytest.mark.parametrize("form", ["qcow2", "vmdk", "vdi", "vhdx"])
def test_disks_of_virtual_machines(tmp_path: Path, dos: Disk, form: str) -> None:
    image = tmp_path / f"server.{form}"
    trees.run("qemu-img", "convert", "-f", "raw", "-O", form, str(dos.path), str(image))
    source = survey(image)
    assert source.plans[0].name == "server"
    assert not as_it_is(source.plans[0], False)
    shelf, manifest = imported(image)
    (item,) = manifest.items
    assert (item.kind, manifest.disk.size_bytes) == ("raw", dos.size)
    data = shelf.unpacked(item.name)
    assert data[: dos.size] == dos.path.read_bytes()
    assert not any(data[dos.size :])


def test_a_virtual_disk_that_draws_on_other_files_is_refused(tmp_path: Path, dos: Disk) -> None:
    """Else whoever made it would have any file of this host imported."""
    secret = tmp_path / "secret"
    secret.write_bytes(bytes(MIB))
    image = tmp_path / "server.qcow2"
    trees.run("qemu-img", "create", "-f", "qcow2", "-b", str(secret), "-F", "raw", str(image))
    with pytest.raises(InspectionError, match=r"draws on another file, .*secret"):
        imported(image)
    data = tmp_path / "data.qcow2"
    trees.run(
        "qemu-img", "create", "-f", "qcow2", "-o", f"data_file={tmp_path}/outside,data_file_raw=on", str(data), "8M"
    )
    with pytest.raises(InspectionError, match=r"draws on another file, .*outside"):
        imported(data)
    flat = tmp_path / "flat.vmdk"
    trees.run("qemu-img", "create", "-f", "vmdk", "-o", "subformat=monolithicFlat", str(flat), "8M")
    with pytest.raises(InspectionError, match="draws on another file"):
        imported(flat)


def test_an_upload_goes_on_where_it_broke(tmp_path: Path, dos: Disk) -> None:
    path = trees.clonezilla(tmp_path / "lab", dos, "none")
    source = survey(path)
    (plan,) = source.plans
    whole, broken = Shelf(), Shelf(lose=frozenset({("p2.ext4", 3), ("p2.swap", 1)}))
    send(source, plan, whole, convert=False)
    with pytest.raises(ConnectionError):
        send(source, plan, broken, convert=False)
    send(source, plan, broken, convert=False)
    assert (broken.manifest, broken.parts) == (whole.manifest, whole.parts)


@pytest.mark.parametrize(("begun", "gone_on"), [(False, True), (True, False)])
def test_an_upload_does_not_go_on_in_another_form(tmp_path: Path, dos: Disk, begun: bool, gone_on: bool) -> None:
    image = trees.opengnsys(tmp_path, dos.parts[1], "gzip")
    source = survey(image)
    name = source.plans[0].items[0].name
    shelf = Shelf(part_bytes=4_000, lose=frozenset({(name, 2)}))
    with pytest.raises(ConnectionError):
        send(source, source.plans[0], shelf, convert=begun)
    with pytest.raises(InspectionError, match="of other bytes than it has now; import again without --resume"):
        send(source, source.plans[0], shelf, convert=gone_on)
    assert not shelf.manifest


@pytest.mark.parametrize("size", [5 * MIB, 4 * MIB - 1, MIB])
def test_an_upload_does_not_go_on_with_another_file(tmp_path: Path, size: int) -> None:
    """Longer, of the same number of parts, shorter than what came: as a disk that was worked with meanwhile."""
    image = tmp_path / "disk.raw"
    disk = bytearray(trees.empty(image, 4 * MIB).read_bytes())
    disk[446:462] = b"\0\0\0\0\x83\0\0\0" + (2048).to_bytes(4, "little") + (4096).to_bytes(4, "little")
    disk[510:512] = b"\x55\xaa"
    image.write_bytes(disk)
    source = survey(image)
    shelf = Shelf(lose=frozenset({("disk.raw", 3)}))
    with pytest.raises(ConnectionError):
        send(source, source.plans[0], shelf, convert=False)
    disk[1000] = 7
    image.write_bytes(disk[:size].ljust(size, b"\0"))
    source = survey(image)
    with pytest.raises(InspectionError, match="of other bytes"):
        send(source, source.plans[0], shelf, convert=False)
    assert not shelf.manifest


def test_a_file_that_changes_after_it_was_looked_at_is_not_sent(tmp_path: Path, dos: Disk) -> None:
    image = trees.opengnsys(tmp_path, dos.parts[1], "none")
    source = survey(image)
    with image.open("ab") as file:
        file.write(b"more")
    with pytest.raises(InspectionError, match="somebody writes to it"):
        send(source, source.plans[0], Shelf(), convert=False)


def test_a_damaged_stream_is_not_committed(tmp_path: Path, dos: Disk) -> None:
    image = trees.opengnsys(tmp_path, dos.parts[1], "gzip")
    data = bytearray(image.read_bytes())
    data[-20] ^= 1
    image.write_bytes(data)
    image.with_name("windows10.img.full.sum").unlink()
    shelf = Shelf()
    source = survey(image)
    with pytest.raises(InspectionError, match=r"windows10\.img: gzip cannot read it"):
        send(source, source.plans[0], shelf, convert=True)
    assert not shelf.manifest


def test_what_cannot_be_converted_says_why(tmp_path: Path, dos: Disk) -> None:
    ntfs = tmp_path / "windows.img"
    trees.run("ntfsclone", "--save-image", "-O", str(ntfs), str(dos.parts[0].raw))
    source = survey(ntfs)
    (plan,) = source.plans
    assert plan.items[0].kind == "ntfsclone"
    assert as_it_is(plan, False)
    with pytest.raises(InspectionError, match="only ntfsclone itself reads its clusters"):
        as_it_is(plan, True)
    shelf, manifest = imported(ntfs)
    assert shelf.data(manifest.items[0].name) == ntfs.read_bytes()


def test_qemu_img_is_named_where_it_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = tmp_path / "server.qcow2"
    trees.run("qemu-img", "create", "-f", "qcow2", str(image), "8M")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InspectionError, match="apt-get install qemu-utils"):
        imported(image)


def test_missing_volumes_and_missing_tables(tmp_path: Path, dos: Disk) -> None:
    path = trees.clonezilla(tmp_path / "lab", dos, "gzip", split=5_000)
    volumes = sorted(path.glob("sda2.ext4*"))
    kept = volumes[1].read_bytes()
    volumes[1].unlink()
    with pytest.raises(InspectionError, match=rf"volumes are missing: {volumes[1].name}"):
        survey(path)
    volumes[1].write_bytes(kept)
    (path / "sda-pt.sf").unlink()
    with pytest.raises(InspectionError, match="no partition table lies beside the images"):
        survey(path)


def test_parts_are_exact() -> None:
    assert list(importing._parts([b"ab", b"cdefg", b""], 3)) == [b"abc", b"def", b"g"]
    assert list(importing._parts([b"abc"], 3)) == [b"abc"]
    assert list(importing._parts([], 3)) == [b""]
    assert list(importing._parts([bytes(10)] * 10, 10)) == [bytes(10)] * 10
