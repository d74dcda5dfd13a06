"""Tables and notes that other systems leave beside their images; any bytes are facts or an error."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pbserv.imaging.formats import clonezilla, fog, sfdisk, slepos
from pbserv.imaging.formats.model import FormatError

OLD = b"""# partition table of /dev/sda
unit: sectors

/dev/sda1 : start=     2048, size= 74838016, Id=83, bootable
/dev/sda2 : start= 74842110, size=  3297282, Id= 5
/dev/sda3 : start=        0, size=        0, Id= 0
/dev/sda4 : start=        0, size=        0, Id= 0
/dev/sda5 : start= 74842112, size=  3297280, Id=82
"""
NVME = b"""label: gpt
label-id: 6F4C6CD9-0E7C-4B0B-93D8-3E5A0F1C2B3D
device: /dev/nvme0n1
unit: sectors
first-lba: 6
last-lba: 131066
sector-size: 4096

/dev/nvme0n1p1 : start=  256, size=  1024, type=C12A7328-F81F-11D2-BA4B-00A0C93EC93B, name="EFI, start=5 : x"
/dev/nvme0n1p2 : start= 1280, size= 65536, type=0FC63DAF-8483-4772-8E79-3D69D8477DE4, attrs="RequiredPartition GUID:63"
"""


def test_a_dump_of_an_old_sfdisk_is_rewritten() -> None:
    table = sfdisk.parse(OLD, "sda-pt.sf")
    assert (table.label, table.sector_bytes, table.firmware) == ("dos", 512, "bios")
    assert [(one.number, one.kind, one.extended) for one in table.entries] == [
        (1, "83", False), (2, "5", True), (5, "82", False),
    ]  # fmt: skip
    assert table.disk_bytes == (74842110 + 3297282) * 512
    signed = sfdisk.rewritten(table, "0x448754c3")
    assert b"label-id: 0x448754c3\n" in signed.text
    assert b"/dev/sda1 : start=        2048, size=    74838016, type=83, bootable\n" in signed.text
    again = sfdisk.parse(signed.text, "again")
    assert (again.entries, again.label_id, again.text) == (table.entries, "0x448754c3", signed.text)


def test_a_gpt_disk_of_an_old_sfdisk_is_refused() -> None:
    """It prints the entry that protects the disk, and would be restored as a table of DOS with one partition."""
    old = b"unit: sectors\n\n/dev/sda1 : start=        1, size=1000215215, Id=ee\n"
    for text in (old, OLD.replace(b"Id=83", b"Id=ee"), OLD.replace(b"Id=83", b"Id=EE")):
        with pytest.raises(FormatError, match=r"a GPT disk that an sfdisk before 2\.26 could not read"):
            sfdisk.parse(text, "sda-pt.sf")


def test_a_dump_of_today_is_kept_as_it_is() -> None:
    table = sfdisk.parse(NVME, "d1.partitions")
    assert (table.text, table.label, table.sector_bytes, table.firmware) == (NVME, "gpt", 4096, "uefi")
    assert [(one.number, one.start, one.size) for one in table.entries] == [(1, 256, 1024), (2, 1280, 65536)]
    assert table.disk_bytes == (131066 + 1 + 5) * 4096


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (b"", "without partitions"),
        (b"label: mac\n", "type 'mac'"),
        (b"label: dos\n/dev/sda : start=1, size=2, type=83\n", "is no partition"),
        (b"label: dos\n/dev/sda1 : start=1, size=2\n", "type ''"),
        (b"label: dos\n/dev/sda1 : start=x, size=2, type=83\n", "start: 'x' is no number"),
        (b"label: dos\n/dev/sda1 : start=1, size=9999999999999999, type=83\n", "which no disk has"),
        (b"label: dos\n/dev/sda1 : start=1, size=2, type=83\n/dev/sda1 : start=3, size=2, type=83\n", "twice"),
        (b"label: dos\nsector-size: 700\n/dev/sda1 : start=1, size=2, type=83\n", "sectors of 700"),
        (b"label: dos\n/dev/sda1 : start=1, size=2, type=83\nnonsense\n", "no line of sfdisk's"),
        (bytes(sfdisk.MAX_BYTES + 1), "no partition table"),
    ],
)
def test_tables_that_are_none(text: bytes, why: str) -> None:
    with pytest.raises(FormatError, match=why):
        sfdisk.parse(text, "d1.partitions")


@given(st.binary(max_size=400) | st.text('/devsda123 :=,startsizetype83label\n"\\').map(str.encode))
def test_any_bytes_are_a_table_or_an_error(data: bytes) -> None:
    with contextlib.suppress(FormatError):
        table = sfdisk.parse(data, "table")
        assert table.entries
        assert table.disk_bytes > 0
        assert sfdisk.parse(sfdisk.rewritten(table).text, "again").entries == table.entries


@given(st.integers(0, len(NVME)), st.binary(max_size=3), st.integers(0, 3))
def test_a_damaged_table_is_a_table_or_an_error(at: int, put: bytes, cut: int) -> None:
    with contextlib.suppress(FormatError):
        sfdisk.parse(NVME[:at] + put + NVME[at + cut :], "table")


@pytest.mark.parametrize(
    ("node", "device", "number"),
    [("/dev/sda3", "/dev/sda", 3), ("/dev/nvme0n1p12", "/dev/nvme0n1", 12), ("d.img4", "d.img", 4),
     ("/dev/sda", "", None), ("/dev/nvme0n1", "/dev/nvme0n1", None), ("/dev/sda0", "", None),
     ("/dev/sda99999", "", None)],
)  # fmt: skip
def test_numbers_of_partitions(node: str, device: str, number: int | None) -> None:
    assert sfdisk.partition_number(node, device) == number


def test_fog() -> None:
    assert fog.image("d1p2.img") == (1, 2)
    assert fog.image("d1p2.img.000") is None
    assert fog.disks(["d1.partitions", "d2p1.img.000", "d1p1.img", "d3.mbr"]) == [1, 2]
    said = b"2 1111-22\n\n/dev/sda5 3333\na1 4444\n"
    assert fog.swaps(said, "d1.original.swapuuids") == {2: "1111-22", 5: "3333", 1: "4444"}
    with pytest.raises(FormatError, match="line 1"):
        fog.swaps(b"2 $(reboot)\n", "d1.original.swapuuids")
    assert [fog.disk_bytes(text) for text in (b"1:64424509440\n", b"64424509440", b"x", b"")] == [64424509440] * 2 + [
        0
    ] * 2


def test_clonezilla() -> None:
    assert clonezilla.image("sda1.vfat-ptcl-img.gz") == ("sda1", "vfat")
    assert clonezilla.image("nvme0n1p2.ext4-ptcl-img.zst") == ("nvme0n1p2", "ext4")
    assert clonezilla.image("sda3.dd-img") == ("sda3", "dd")
    assert clonezilla.image("sda3.dd-ptcl-img.uncomp") == ("sda3", "dd")
    assert clonezilla.image("sda10") == ("sda10", "")
    assert clonezilla.image("sda-pt.sf") is None
    nodes = [("sda1", "sda"), ("nvme0n1p2", "nvme0n1"), ("sdab1", "sda"), ("sda", "sda"), ("nvme0n12", "nvme0n1")]
    assert [clonezilla.of_disk(*pair) for pair in nodes] == [1, 2, None, None, None]
    parted = b"Model: X\nDisk /dev/sda: 41943040s\nSector size (logical/physical): 512B/4096B\n"
    assert clonezilla.geometry(parted) == (41943040 * 512, 512)
    assert clonezilla.geometry(b"nothing") == (0, 0)
    assert clonezilla.swap(b'LABEL=""\nUUID="11-22"\n') == {"UUID": "11-22"}
    with pytest.raises(FormatError, match="no name of a device"):
        clonezilla.words(b"sda1 ../../x;y", "parts")


def test_slepos() -> None:
    md5 = "0123456789abcdef" * 2
    assert slepos.name("graphical.i686-3.1.4.gz") == ("graphical.i686", "3.1.4")
    assert slepos.sidecars("a-1.2.3.gz") == ("a-1.2.3.md5", "a-1.2.3.gz.md5")
    assert slepos.md5(f"{md5} 100 4096\n".encode(), "a") == slepos.Md5File(md5, 409600)
    assert slepos.md5(f"{md5.upper()} 100 4096 7 512".encode(), "a") == slepos.Md5File(md5, 409600, 3584)
    for text in ("", md5, f"{md5} 1", f"{md5} 0 4096", f"{md5} x 4096", f"{md5} 1 2 3", f"{md5} *browser-2.0.21 x"):
        with pytest.raises(FormatError, match=r"a-1\.2\.3\.md5"):
            slepos.md5(text.encode(), "a-1.2.3.md5")


@given(st.binary(max_size=200))
def test_any_bytes_are_facts_or_an_error(data: bytes) -> None:
    clonezilla.geometry(data)
    clonezilla.swap(data)
    fog.disk_bytes(data)
    for read in (fog.swaps, clonezilla.words, slepos.md5):
        with contextlib.suppress(FormatError):
            read(data, "file")
