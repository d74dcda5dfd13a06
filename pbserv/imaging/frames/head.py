"""The head of a partclone stream of format 0002: header, bitmap, checksum of the bitmap. Pure.

One rule: the bitmap is checked while it passes and is never in memory here; whoever reads gives a place to keep it.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from pbserv.imaging.formats.model import FormatError
from pbserv.imaging.formats.partclone import HEADER_BYTES, MAGIC, read
from pbserv.imaging.frames.index import Buffer

CRC_BYTES: Final = 4
MAX_BLOCKS: Final = 1 << 40
MAX_BITMAP_BYTES: Final = 4 << 30

_CRC32_MODES: Final = (0x20, 1)


class NotNative(Exception):
    """A stream that is partclone's and sound as far as seen, but not one that is cut here; the text says why."""


@dataclass(frozen=True, slots=True)
class PartcloneHead:
    """The header's figures. ``per_checksum`` is 0 where the blocks have no checksums; ``header`` are its 110 bytes."""

    device_bytes: int
    blocks: int
    used: int
    block_bytes: int
    per_checksum: int
    reseed: bool
    file_system: str
    version: str
    header: bytes

    @property
    def bitmap_bytes(self) -> int:
        return (self.blocks + 7) // 8

    @property
    def head_bytes(self) -> int:
        """Header, bitmap and the bitmap's checksum."""
        return HEADER_BYTES + self.bitmap_bytes + CRC_BYTES

    @property
    def body_bytes(self) -> int:
        """Bytes of the used blocks, without checksums."""
        return self.used * self.block_bytes

    @property
    def checksums_bytes(self) -> int:
        """Bytes of the checksums between the blocks as they arrive."""
        return CRC_BYTES * -(-self.used // self.per_checksum) if self.per_checksum else 0


def parse_header(data: Buffer) -> PartcloneHead:
    """Read the 110 bytes; raises FormatError where they are damaged, NotNative where they are not for us."""
    header = bytes(data[:HEADER_BYTES])
    if not header.startswith(MAGIC):
        begins = header[: len(MAGIC)].hex(" ") or "nothing"
        raise FormatError(f"this is no partclone stream: it begins with {begins}, not with {MAGIC.decode()!r}")
    found = read(header)
    if found is None or header[30:34] != b"0002":
        raise NotNative("partclone's format 0001 cannot be verified")
    if found.checksum not in ("none", "crc32"):
        raise NotNative(f"its checksums are {found.checksum}, which is not verified here")
    if header[105] != 1:
        raise NotNative("its bitmap is not one of bits")
    head = PartcloneHead(
        found.device_bytes, _little(header, 60, 8), _little(header, 76, 8), found.block_bytes,
        _little(header, 100, 4) if _little(header, 96, 2) in _CRC32_MODES else 0,
        header[104] == 1, found.file_system, found.version, header,
    )  # fmt: skip
    if head.blocks > MAX_BLOCKS or head.bitmap_bytes > MAX_BITMAP_BYTES:
        raise FormatError(f"partclone header: byte 60: {head.blocks} blocks are more than a device has here")
    return head


def plain_header(head: PartcloneHead) -> bytes:
    """The header that says "no checksums", everything else as it came: what ``-a 0`` writes."""
    start = head.header[:96] + bytes(8) + head.header[104:106]
    return start + (zlib.crc32(start) ^ 0xFFFFFFFF).to_bytes(4, "little")


class HeadReader:
    """Takes a stream until its head is complete; ``keep`` is given every byte of the head, in order, once."""

    def __init__(self, keep: Callable[[memoryview], object]) -> None:
        self.head: PartcloneHead | None = None
        self.position = 0
        self._keep = keep
        self._header = bytearray()
        self._crc = 0
        self._used = 0
        self._last = 0
        self._check = bytearray()

    @property
    def complete(self) -> bool:
        return self.head is not None and self.position == self.head.head_bytes

    def feed(self, data: Buffer) -> memoryview | None:
        """Take the next bytes; the rest after the head when it is complete, else None.

        Raises FormatError and NotNative as ``parse_header`` does, and FormatError where bitmap and header disagree.
        """
        view = memoryview(data)
        if self.head is None:
            view = self._take(view, HEADER_BYTES - len(self._header), self._header)
            if len(self._header) < HEADER_BYTES:
                return None
            self.head = parse_header(self._header)
            self._keep(memoryview(self._header))
            self.position = HEADER_BYTES
        head = self.head
        left = HEADER_BYTES + head.bitmap_bytes - self.position
        if left > 0 and view:
            self._bitmap(view[:left])
            view = view[left:]
        if self.position < HEADER_BYTES + head.bitmap_bytes or self.complete:
            return view if self.complete else None
        before = len(self._check)
        rest = self._take(view, CRC_BYTES - before, self._check)
        self._keep(view[: len(self._check) - before])
        self.position += len(self._check) - before
        if not self.complete:
            return None
        self._finish(head)
        return rest

    @staticmethod
    def _take(view: memoryview, count: int, into: bytearray) -> memoryview:
        into += view[:count]
        return view[count:]

    def _bitmap(self, piece: memoryview) -> None:
        self._keep(piece)
        self._crc = zlib.crc32(piece, self._crc)
        self._used += int.from_bytes(piece, "little").bit_count()
        self._last = piece[-1]
        self.position += len(piece)

    def _finish(self, head: PartcloneHead) -> None:
        found = int.from_bytes(self._check, "little")
        if found != self._crc ^ 0xFFFFFFFF:
            raise FormatError("partclone bitmap: its checksum does not fit; it was damaged on the way: send it again")
        # partclone.fat marks blocks after the last one as used (measured: 0.3.23); they mean nothing.
        used = self._used - ((self._last >> head.blocks % 8).bit_count() if head.blocks % 8 else 0)
        if used != head.used:
            raise FormatError(f"partclone bitmap: {used} blocks are used, the header says {head.used}")


def _little(data: bytes, offset: int, size: int) -> int:
    return int.from_bytes(data[offset : offset + size], "little")
