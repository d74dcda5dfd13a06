"""Compressors by their magic. Pure."""

from __future__ import annotations

_MAGICS = (
    ("gzip", b"\x1f\x8b"),
    ("lzop", b"\x89LZO\0\r\n\x1a\n"),
    ("bzip2", b"BZh"),
    ("xz", b"\xfd7zXZ\0"),
    ("lz4", b"\x04\x22\x4d\x18"),
    ("lz4", b"\x02\x21\x4c\x18"),  # the legacy frame
    ("zstd", b"\x28\xb5\x2f\xfd"),
)


def compressor(head: bytes) -> str:
    """gzip, lzop, bzip2, xz, lz4, zstd or none."""
    if len(head) >= 4 and 0x50 <= head[0] <= 0x5F and head[1:4] == b"\x2a\x4d\x18":
        return "zstd"  # a skippable frame; lz4 has the same, and no imaging tool writes one there
    if head[:3] == b"BZh" and head[3:4] not in b"123456789":
        return "none"
    return next((name for name, magic in _MAGICS if head.startswith(magic)), "none")
