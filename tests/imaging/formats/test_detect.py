"""Detection from bytes: headers that no small program here writes, OpenGnSys' sizes, and any bytes at all."""

from __future__ import annotations

import struct
import zlib
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pbserv.imaging.formats.compressors import compressor
from pbserv.imaging.formats.detect import detect, kilobytes, line
from pbserv.imaging.formats.model import FormatError, Found


def placed(*pieces: tuple[int, bytes], size: int = 4096) -> bytes:
    """Zeros with ``pieces`` at their offsets."""
    data = bytearray(size)
    for offset, piece in pieces:
        data[offset : offset + len(piece)] = piece
    return bytes(data)


def partclone2(**changed: int) -> bytes:
    """A header of format 0002 with a checksum that fits."""
    field = {
        "device": 72_100_000_256, "total": 17602539, "used": 4_000_000, "block": 4096,
        "mode": 0x20, "size": 4, "per": 256, "bitmap": 1, **changed,
    }  # fmt: skip
    head = b"partclone-image\0" + b"0.3.23".ljust(14, b"\0") + b"0002" + b"\xde\xc0" + b"NTFS".ljust(16, b"\0")
    head += struct.pack("<QQQQII", field["device"], field["total"], field["used"], field["used"], field["block"], 18)
    head += struct.pack("<HHHHIBB", 2, 64, field["mode"], field["size"], field["per"], 1, field["bitmap"])
    return head + struct.pack("<I", zlib.crc32(head) ^ 0xFFFFFFFF)


PARTCLONE1 = (
    b"partclone-image"
    + b"FAT32".ljust(15, b"\0")
    + b"0001\0\0"
    + struct.pack("<iQQQ", 512, 1 << 30, 1 << 21, 5000)
    + bytes(4096)
)
PARTIMAGE = placed(
    (0, b"PaRtImAgE-VoLuMe"), (32, b"0.6.1"), (512, b"ntfs"), (512 + 4608, b"/dev/sda1"),
    (512 + 9592, struct.pack("<Q", 40 << 20)), (17000, b"MAGIC-BEGIN-LOCALHEADER"),
    (17023, struct.pack("<QQQ", 4096, 300, 10240)), (17063, b"Windows"), size=40000,
)  # fmt: skip
QCOW2 = placed((0, struct.pack(">4sIQIIQI", b"QFI\xfb", 3, 0, 0, 16, 10 << 30, 0)))
VMDK = placed((0, struct.pack("<4sIIQQ", b"KDMV", 1, 3, 20971520, 128)))
VMDK_TEXT = b'# Disk DescriptorFile\nversion=1\nRW 4192256 SPARSE "a-s001.vmdk"\nRW 2048 SPARSE "a-s002.vmdk"\n'
LUKS2 = placed((0, b"LUKS\xba\xbe\0\2"), (24, b"secret"))
LVM2 = placed((512, b"LABELONE"), (532, struct.pack("<I", 32)), (536, b"LVM2 001"), (544, b"x" * 32),
              (576, struct.pack("<Q", 5 << 30)))  # fmt: skip
HFS = placed((1024, b"H+\0\4"), (1064, struct.pack(">III", 4096, 1000, 400)))


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (partclone2(), "PARTCLONE:NONE:NTFS:72100000"),
        (PARTCLONE1, "PARTCLONE:NONE:FAT32:1100000"),
        (PARTIMAGE, "PARTIMAGE:NONE:NTFS:40960"),
        (QCOW2, "QCOW2:NONE:DISK:10485760"),
        (VMDK, "VMDK:NONE:DISK:10485760"),
        (VMDK_TEXT, "VMDK:NONE:DISK:2097152"),
        (LUKS2, "DD:NONE:LUKS:0"),
        (LVM2, "DD:NONE:LVM2:5242880"),
        (HFS, "DD:NONE:HFSPLUS:4000"),
        (placed((0, b"\xeb\x58\x90-FVE-FS-"), (510, b"\x55\xaa")), "DD:NONE:BITLOCKER:0"),
    ],
)
def test_each_format_has_its_line(data: bytes, said: str) -> None:
    assert line(detect(data), "none") == said


def test_partclone_header_in_full() -> None:
    found = detect(partclone2())
    assert (found.used_bytes, found.block_bytes, found.checksum, found.version) == (
        4_000_000 * 4096,
        4096,
        "crc32",
        "0.3.23",
    )
    assert detect(partclone2(mode=0, size=0, per=0)).checksum == "none"
    assert detect(partclone2(mode=2, size=8)).checksum == detect(partclone2(mode=0x30, size=8)).checksum == "xxh64"


def test_partimage_header_in_full() -> None:
    found = detect(PARTIMAGE)
    assert (found.used_bytes, found.block_bytes, found.label) == (300 * 4096, 4096, "Windows")
    assert dict(found.facts) == {"Taken from": "/dev/sda1"}


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (partclone2()[:80], "partclone header: ends at byte 80"),
        (partclone2()[:-1] + b"?", "byte 106: the header's checksum"),
        (partclone2(block=0), "a block size of 0"),
        (partclone2(used=1 << 40), "used of 17602539 blocks"),
        (partclone2(total=1 << 40), "on a device of"),
        (partclone2(size=16), "checksum mode 0x20 with 16 bytes"),
        (partclone2(per=0), "after every 0 blocks"),
        (partclone2(bitmap=7), "no kind of bitmap"),
        (partclone2()[:34] + b"\xc0\xde" + partclone2()[36:], "big-endian"),
        (b"partclone-image\0" + bytes(14) + b"0003" + bytes(200), "0001 and 0002 are"),
        (PARTIMAGE[:96] + b"\2" + PARTIMAGE[97:], "this is volume 2, not the first"),
        (b"\0ntfsclone-image" + bytes([99, 0]) + bytes(60), "version 99.0"),
        (b"FsA0" + bytes(6) + b"\xff\xff\xff\x7f", "ends at byte 14"),
        (b"MZ" + bytes(600), "begins with 4d 5a"),
        (b"", "empty"),
    ],
)
def test_what_is_damaged_or_unknown_is_said(data: bytes, why: str) -> None:
    with pytest.raises(FormatError) as caught:
        detect(data)
    assert why in str(caught.value)


@pytest.mark.parametrize(
    ("device_bytes", "kilobyte"),
    [
        (72_100_000_256, 72_100_000),  # partclone prints 72.1 GB
        (72_149_999_999, 72_100_000),
        (41_943_040, 42_905),  # 41.9 MB x 1024, whole numbers
        (999_000, 999),
        (2_000_398_934_016, 2_000_000_000),
    ],
)
def test_sizes_are_rounded_as_opengnsys_reads_them_from_partclone(device_bytes: int, kilobyte: int) -> None:
    found = Found("partclone", "NTFS", device_bytes)
    assert kilobytes(found) == kilobyte
    assert kilobytes(replace(found, tool="ntfsclone")) == device_bytes // 1000
    assert kilobytes(replace(found, tool="partimage")) == device_bytes // 1024


MAGICS = (
    partclone2(), PARTCLONE1[:64], PARTIMAGE[:20], b"\0ntfsclone-image", b"FsA0", QCOW2, VMDK, VMDK_TEXT, LUKS2,
    LVM2, HFS, b"XFSB", placed((1080, b"\x53\xef")), placed((65600, b"_BHRfS_M"), size=70000),
    placed((1024, b"\x10\x20\xf5\xf2")), placed((4086, b"SWAPSPACE2")), b"\xeb\x52\x90NTFS    ",
    b"\xeb\x76\x90EXFAT   ",
    placed((0, b"\xeb\x3c\x90"), (11, b"\0\2\4\1\0\2"), (21, b"\xf8\1"), (510, b"\x55\xaa")),
    placed((446, bytes(16)), (510, b"\x55\xaa"), (512, b"EFI PART\0\0\1\0\x5c\0\0\0")),
)  # fmt: skip


@settings(max_examples=400)
@given(st.sampled_from(MAGICS), st.lists(st.tuples(st.integers(0, 1200), st.binary(max_size=16)), max_size=4),
       st.integers(0, 70000))  # fmt: skip
def test_any_bytes_are_an_image_or_a_clear_error(data: bytes, changes: list[tuple[int, bytes]], size: int) -> None:
    changed = bytearray(data)
    for offset, piece in changes:
        changed[offset : offset + len(piece)] = piece
    _answers(bytes(changed[:size]))


@given(st.binary(max_size=2000))
def test_bytes_of_nothing_are_a_clear_error_or_an_image(data: bytes) -> None:
    compressor(data)
    _answers(data)


def _answers(data: bytes) -> None:
    try:
        found = detect(data)
    except FormatError as fault:
        said = str(fault)
    else:
        said = line(found, "none")
        assert min(found.device_bytes, found.used_bytes, found.block_bytes) >= 0
    assert said.isprintable()
