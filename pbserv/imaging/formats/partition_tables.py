"""Raw disks: MBR and GPT. Pure."""

from __future__ import annotations

import zlib

from pbserv.imaging.formats.model import Found, Head

_PROTECTIVE = 0xEE
_ENTRIES = 128
_EXTENDED = (0x05, 0x0F, 0x85)


def read(data: bytes) -> Found | None:
    """The table, None where there is none; raises FormatError."""
    head = Head(data, "partition table")
    if not head.has(510, b"\x55\xaa"):
        return None
    for sector in (512, 4096):
        if head.has(sector, b"EFI PART"):
            return _gpt(Head(data, "GPT header"), sector)
    parts = [_entry(head, 446 + 16 * index) for index in range(4)]
    used = [part for part in parts if part[1]]
    if not used or any(data[446 + 16 * index] not in (0x00, 0x80) for index in range(4)):
        return None
    if any(kind == _PROTECTIVE for _, kind, _, _ in used):
        head.must(len(data) < 8192, 512, "a protective MBR without a GPT behind it")
    end = max(start + size for _, _, start, size in used) * 512
    facts = tuple((f"Partition {number}", _shown(kind, start, size)) for number, kind, start, size in _numbered(parts))
    return Found("raw", "mbr", end, block_bytes=512, facts=facts)


Entry = tuple[int, int, int, int]


def _entry(head: Head, at: int) -> Entry:
    """(boot flag, kind, first sector, sectors)"""
    return head.little(at, 1), head.little(at + 4, 1), head.little(at + 8, 4), head.little(at + 12, 4)


def _numbered(parts: list[Entry]) -> list[Entry]:
    return [(number, *part[1:]) for number, part in enumerate(parts, 1) if part[1]]


def _shown(kind: int, start: int, size: int) -> str:
    note = ", logical partitions inside" if kind in _EXTENDED else ""
    return f"type {kind:02x}, {size * 512} bytes from sector {start}{note}"


def _gpt(head: Head, sector: int) -> Found:
    size = head.little(sector + 12, 4)
    head.must(92 <= size <= sector, sector + 12, f"a header of {size} bytes")
    raw = head.take(sector, size)
    crc = zlib.crc32(raw[:16] + b"\0\0\0\0" + raw[20:])
    head.must(crc == head.little(sector + 16, 4), sector + 16, "the header's checksum does not fit")
    count, step = head.little(sector + 80, 4), head.little(sector + 84, 4)
    head.must(step >= 128, sector + 84, f"entries of {step} bytes")
    table = head.little(sector + 72, 8) * sector
    entries = range(min(count, _ENTRIES))
    facts = tuple(
        (f"Partition {index + 1}", shown)
        for index in entries
        if table + (index + 1) * step <= len(head.data) and (shown := _gpt_entry(head, table + index * step, sector))
    )
    last = max(head.little(sector + 32, 8), head.little(sector + 24, 8))
    return Found("raw", "gpt", (last + 1) * sector, block_bytes=sector, checksum="crc32", facts=facts)


def _gpt_entry(head: Head, at: int, sector: int) -> str:
    if not any(head.take(at, 16)):
        return ""
    first, last = head.little(at + 32, 8), head.little(at + 40, 8)
    name = head.text(at + 56, 72, "utf-16-le")
    return f"{max(0, last - first + 1) * sector} bytes from sector {first}" + (f", {name}" if name else "")
