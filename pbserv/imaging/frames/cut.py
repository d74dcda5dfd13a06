"""Where a stream is cut into frames: at fixed addresses of the device, whatever is used there. Pure.

One rule: the pieces of a stream, joined, are the stream; and the same blocks of a device make the same piece.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from pbserv.imaging.faults import ShortBody
from pbserv.imaging.formats.model import FormatError
from pbserv.imaging.frames.head import CRC_BYTES, PartcloneHead, plain_header
from pbserv.imaging.frames.index import Buffer, Section

PIECE_BYTES: Final = 1 << 20
"""Files that are kept as they came are cut into pieces of this size."""
_WINDOW: Final = 64 * 1024


@dataclass(frozen=True, slots=True)
class Piece:
    """The uncompressed bytes of one frame; ``address`` counts in the device, or in the bitmap for its pieces."""

    section: Section
    address: int
    data: bytes


def effective_extent(extent: int, block: int) -> int:
    """``extent`` where blocks fit into it, else the smallest multiple of the block size that is not below it."""
    return -(-extent // block) * block


def extents(bitmap: Buffer, block: int, total: int, extent: int, first: int = 0) -> Iterator[tuple[int, int]]:
    """(address, used bytes) of every extent that has used blocks, ascending, from address ``first`` on.

    ``extent`` is a multiple of ``block``; ``first`` a multiple of ``extent``.
    """
    step = extent // block
    view = memoryview(bitmap)
    number = first // extent
    while number * step < total:
        start = number * step
        number = max(number, _next_used(view, start) // step)
        start = number * step
        if start >= total:
            return
        used = _count(view, start, min(start + step, total))
        if used:
            yield number * extent, used * block
        number += 1


def _next_used(view: memoryview, start: int) -> int:
    """A block at or before the first used one from ``start`` on: empty bytes of the bitmap are passed over at once."""
    at = start >> 3
    if at >= len(view) or view[at]:
        return start
    while at < len(view):
        window = bytes(view[at : at + _WINDOW])
        empty = len(window) - len(window.lstrip(b"\0"))
        at += empty
        if empty < len(window):
            return max(start, at << 3)
    return len(view) << 3


def _count(view: memoryview, start: int, end: int) -> int:
    """Used blocks from ``start`` up to ``end``."""
    low = start >> 3
    word = int.from_bytes(view[low : (end + 7) >> 3], "little") >> (start - (low << 3))
    return (word & ((1 << (end - start)) - 1)).bit_count()


def used_block(bitmap: Buffer, nth: int) -> int:
    """The number of the ``nth`` used block (from 0); the number of blocks where there are not so many."""
    view = memoryview(bitmap)
    for at in range(0, len(view), _WINDOW):
        window = view[at : at + _WINDOW]
        found = int.from_bytes(window, "little").bit_count()
        if nth < found:
            return (at << 3) + _nth_bit(window, nth)
        nth -= found
    return len(view) << 3


def _nth_bit(window: memoryview, nth: int) -> int:
    for place, byte in enumerate(window):
        if nth < byte.bit_count():
            bits = [bit for bit in range(8) if byte >> bit & 1]
            return (place << 3) + bits[nth]
        nth -= byte.bit_count()
    raise IndexError(nth)


class _Gatherer:
    """Bytes that wait for the rest of their piece."""

    def __init__(self, tail: bytes = b"") -> None:
        self._parts: list[Buffer] = [tail] if tail else []
        self.size = len(tail)

    def add(self, data: memoryview) -> None:
        self._parts.append(bytes(data))
        self.size += len(data)

    def take(self, data: memoryview) -> bytes:
        """Everything so far and ``data``, as one."""
        whole = b"".join([*self._parts, data]) if self._parts else bytes(data)
        self._parts.clear()
        self.size = 0
        return whole

    @property
    def bytes(self) -> bytes:
        """All of them, joined once: a checkpoint holds the same bytes."""
        if len(self._parts) > 1:
            self._parts = [b"".join(self._parts)]
        return bytes(self._parts[0]) if self._parts else b""


class PartcloneCutter:
    """Used blocks of a partclone stream (without its checksums), cut at multiples of the extent.

    ``extent`` is what was configured. To go on, give ``first``, the address of the piece that is being gathered, and
    ``tail``, what of it was there; ``position`` counts plain bytes of the body from the stream's beginning.
    """

    def __init__(
        self, head: PartcloneHead, bitmap: Buffer, extent: int, *, first: int = 0, position: int = 0, tail: bytes = b""
    ) -> None:
        self.extent = effective_extent(extent, head.block_bytes)
        self.position = position
        self._head = head
        self._configured = extent
        self._bitmap = memoryview(bitmap)
        self._plan = extents(bitmap, head.block_bytes, head.blocks, self.extent, first)
        self._gathered = _Gatherer(tail)
        self.address, self._size = next(self._plan, (-1, 0))

    @property
    def tail(self) -> bytes:
        """The bytes of the piece that is not complete."""
        return self._gathered.bytes

    def head_pieces(self) -> Iterator[Piece]:
        """The frames before the blocks: the header as ``-a 0`` writes it, then the bitmap with its checksum."""
        yield Piece("header", 0, plain_header(self._head))
        size, step, crc = self._head.bitmap_bytes, self._configured, 0
        for at in range(0, max(size, 1), step):
            piece = bytes(self._bitmap[at : min(at + step, size)])
            crc = zlib.crc32(piece, crc)
            if at + step >= size:
                piece += (crc ^ 0xFFFFFFFF).to_bytes(CRC_BYTES, "little")
            yield Piece("bitmap", at, piece)

    def feed(self, data: Buffer) -> Iterator[Piece]:
        """The pieces that ``data`` completes; raises FormatError for bytes after the last used block."""
        view = memoryview(data)
        self.position += len(view)
        while view:
            if self.address < 0:
                raise FormatError(f"{len(view)} bytes after the end of {self._head.used} used blocks")
            missing = self._size - self._gathered.size
            if len(view) < missing:
                self._gathered.add(view)
                return
            piece = Piece("device", self.address, self._gathered.take(view[:missing]))
            view = view[missing:]
            self.address, self._size = next(self._plan, (-1, 0))
            yield piece

    def finish(self) -> Iterator[Piece]:
        """Nothing is left over at the end; raises ShortBody otherwise."""
        if self.address >= 0:
            raise ShortBody(
                f"the stream ends {self._size - self._gathered.size} bytes before the end of the extent at device "
                f"address {self.address:#x}"
            )
        yield from ()


class RawCutter:
    """A device byte by byte, or (with PIECE_BYTES) a file that is kept as it came; the last piece may be shorter."""

    def __init__(self, extent: int, *, position: int = 0, tail: bytes = b"") -> None:
        self.extent = extent
        self.position = position
        self._gathered = _Gatherer(tail)

    @property
    def tail(self) -> bytes:
        """The bytes of the piece that is not complete."""
        return self._gathered.bytes

    @property
    def address(self) -> int:
        """Where the piece begins that is being gathered."""
        return self.position - self._gathered.size

    def feed(self, data: Buffer) -> Iterator[Piece]:
        """The pieces that ``data`` completes."""
        view = memoryview(data)
        while view:
            missing = self.extent - self._gathered.size
            if len(view) < missing:
                self._gathered.add(view)
                self.position += len(view)
                return
            address = self.address
            whole = self._gathered.take(view[:missing])
            self.position = address + self.extent
            view = view[missing:]
            yield Piece("device", address, whole)

    def finish(self) -> Iterator[Piece]:
        """The last piece. An empty stream is one empty piece: a file without any frame is no zstd file."""
        if self._gathered.size or not self.position:
            yield Piece("device", self.address, self._gathered.take(memoryview(b"")))


def piece_cutter(*, position: int = 0, tail: bytes = b"") -> RawCutter:
    """The cutter of files that are kept as they came."""
    return RawCutter(PIECE_BYTES, position=position, tail=tail)
