"""Headers of partclone images, formats 0001 and 0002 (partclone's IMAGE_FORMATS.md). Pure."""

from __future__ import annotations

import zlib

from pbserv.imaging.formats.model import FormatError, Found, Head

MAGIC = b"partclone-image"
HEADER_BYTES = 110
_MAX_BLOCK = 64 << 20
_CHECKSUMS = {0x00: ("none", 0), 0x20: ("crc32", 4), 0x30: ("xxh64", 8), 0x31: ("xxh128", 16)}
_SYNONYMS = {1: 0x20, 2: 0x30, 3: 0x31}
"""IMAGE_FORMATS.md has these numbers, partclone writes the others."""


def read(data: bytes) -> Found | None:
    """The header, None where this is no partclone image; raises FormatError."""
    if not data.startswith(MAGIC):
        return None
    head = Head(data, "partclone header")
    version = head.take(30, 4)
    if version == b"0002":
        return _second(head)
    if version == b"0001":
        return _first(head)
    raise FormatError(f"partclone header: byte 30: format {version!r} is not known; 0001 and 0002 are")


def _second(head: Head) -> Found:
    head.must(head.take(34, 2) != b"\xc0\xde", 34, "written on a big-endian machine, which partclone does not restore")
    head.must(head.take(34, 2) == b"\xde\xc0", 34, "no mark of the byte order")
    crc = zlib.crc32(head.take(0, HEADER_BYTES - 4)) ^ 0xFFFFFFFF
    head.must(head.little(106, 4) == crc, 106, "the header's checksum does not fit")
    device, total, used = head.little(52, 8), head.little(60, 8), head.little(76, 8)
    block, per_checksum = head.little(84, 4), head.little(100, 4)
    mode = head.little(96, 2)
    name, size = _CHECKSUMS.get(_SYNONYMS.get(mode, mode), ("", -1))
    head.must(head.little(98, 2) == size, 96, f"checksum mode {mode:#x} with {head.little(98, 2)} bytes is none")
    head.must(size == 0 or per_checksum > 0, 100, "a checksum after every 0 blocks")
    _sane(head, 84, block, device, total, used)
    bitmap = {0: "none", 1: "bit", 8: "byte"}.get(head.little(105, 1))
    head.must(bitmap is not None, 105, "no kind of bitmap that partclone has")
    counted = head.little(68, 8)
    facts = (
        ("Format", "0002"),
        ("Used by superblock", f"{counted * block} bytes" if counted != used else ""),
        ("Blocks per checksum", str(per_checksum) if size else ""),
        ("Bitmap", str(bitmap)),
    )
    return Found(
        "partclone", head.text(36, 16), device, used * block, block, name, version=head.text(16, 14), facts=facts
    )


def _first(head: Head) -> Found:
    """Format 0001 has a checksum after every block that is defective in most images; it cannot be verified."""
    block, device, total, used = head.little(36, 4), head.little(40, 8), head.little(48, 8), head.little(56, 8)
    _sane(head, 36, block, device, total, used)
    facts = (("Format", "0001"), ("Verification", "not possible: this format's checksums are defective"))
    return Found("partclone", head.text(15, 15), device, used * block, block, "crc32", facts=facts)


def _sane(head: Head, offset: int, block: int, device: int, total: int, used: int) -> None:
    head.must(0 < block <= _MAX_BLOCK, offset, f"a block size of {block} bytes")
    head.must(used <= total, offset, f"{used} used of {total} blocks")
    head.must(total * block <= device, offset, f"{total} blocks of {block} bytes on a device of {device} bytes")
