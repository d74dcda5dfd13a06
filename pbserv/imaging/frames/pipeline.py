"""One item's uncompressed stream on its way into frames: head, checksums, cuts, writer. Blocking, for worker threads.

One rule: where it stands is a value (``Checkpoint``), and a pipeline made from that value goes on as if nothing had
happened; the bitmap is on the disk, never in memory.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Final

from pbserv.imaging.faults import BadStream, DamagedImage, ShortBody
from pbserv.imaging.formats.model import FormatError
from pbserv.imaging.formats.partclone import HEADER_BYTES, MAGIC
from pbserv.imaging.frames.checkpoint import Checkpoint
from pbserv.imaging.frames.cut import PIECE_BYTES, PartcloneCutter, RawCutter, effective_extent, used_block
from pbserv.imaging.frames.head import HeadReader, NotNative, PartcloneHead, parse_header
from pbserv.imaging.frames.index import Buffer, Stream
from pbserv.imaging.frames.strip import Stripper
from pbserv.imaging.frames.writer import FrameWriter, ItemFacts, Shape, write_all

_READ_BYTES: Final = 1 << 20
_RAW_KINDS: Final = ("raw", "partclone.dd")
LARGEST_BLOCK: Final = 1 << 20
"""Of a stream that comes: an extent has a block at least, and each upload holds one in memory."""

Answer = tuple[Stream, str]


def stream_of(kind: str, name: str, first: bytes, compressed: bool) -> Answer | None:
    """How an item is cut, by its kind and its first uncompressed bytes, and why it is kept as it is if so.

    None: more bytes are needed. ``kind`` '' is unknown: then the content decides, and of raw devices the name of the
    item, as the imaging client forms it. Raises BadStream where a partclone stream was promised and this is none.
    """
    if kind in _RAW_KINDS or (not kind and compressed and name.endswith(".raw.zst")):
        return Stream.RAW, ""
    promised = kind.startswith("partclone.")
    if not promised and kind:
        return Stream.PIECES, ""
    if len(first) < HEADER_BYTES and (promised or MAGIC.startswith(first[: len(MAGIC)])):
        return None
    if not promised and not first.startswith(MAGIC):
        return Stream.PIECES, ""
    with bad_streams():
        try:
            head = parse_header(first)
        except NotNative as why:
            return Stream.PIECES, str(why)
    if head.block_bytes > LARGEST_BLOCK:
        return Stream.PIECES, f"its blocks of {head.block_bytes} bytes are larger than {LARGEST_BLOCK}"
    return Stream.PARTCLONE, ""


@contextmanager
def bad_streams() -> Iterator[None]:
    """FormatError, which files have, becomes BadStream, which is an answer to the sender."""
    try:
        yield
    except (FormatError, NotNative) as fault:
        raise BadStream(str(fault)) from fault


class Pipeline:
    """From the point on; ``head_fd`` is the file that keeps head and bitmap of a partclone stream."""

    def __init__(
        self, point: Checkpoint, writer: FrameWriter, open_head: Callable[[], int], charge: Callable[[int], None]
    ) -> None:
        self._point = point
        self._writer = writer
        self._open_head = open_head
        self._charge = charge
        self._stream = point.stream or Stream.PIECES
        self._reader: HeadReader | None = None
        self._map: mmap.mmap | None = None
        self._stripper: Stripper | None = None
        self._cutter: PartcloneCutter | RawCutter | None = None
        self._head_fd = -1
        self.position = point.stream_bytes
        if self._stream is Stream.PARTCLONE:
            self._resume_head()
        else:
            extent = PIECE_BYTES if self._stream is Stream.PIECES else point.extent_bytes
            position = point.used_bytes + len(point.tail)
            self._cutter = RawCutter(extent, position=position, tail=point.tail)

    def feed(self, data: Buffer) -> None:
        """Take the next bytes. Raises BadStream, ChecksumMismatch, OSError and what ``charge`` raises."""
        self.position += len(data)
        with bad_streams():
            if self._cutter is None:
                rest = self._head(data)
                if rest is None:
                    return
                data = rest
            self._body(data)

    def point(self, point: Checkpoint) -> Checkpoint:
        """``point`` with where this stands; what was put is on the disk with the writer's next checkpoint."""
        at = self._writer.point
        point = replace(
            point, stream_bytes=self.position, stored_bytes=at.stored_bytes, frames=at.frames,
            head_frames=at.head_frames, head_bytes=at.head_bytes, used_bytes=at.used_bytes,
        )  # fmt: skip
        if self._cutter is not None:
            point = replace(point, address=self._cutter.address, tail=self._cutter.tail)
        return point if self._stripper is None else replace(point, strip=self._stripper.checkpoint())

    def sync(self) -> None:
        """Make the head durable while it is not complete; later it does not change."""
        if self._head_fd >= 0:
            os.fdatasync(self._head_fd)

    def finish(self) -> tuple[Shape, PartcloneHead | None]:
        """The stream has ended: the last piece is put. Raises ShortBody."""
        point, head = self._point, self._reader.head if self._reader else None
        if self._cutter is None:
            raise ShortBody(f"the partclone stream ends after {self.position} bytes, in its head")
        if self._stripper is not None:
            self._stripper.finish()
        for piece in self._cutter.finish():
            self._writer.put(piece)
        if head is not None:
            extent = effective_extent(point.extent_bytes, head.block_bytes)
            return Shape(point.extent_bytes, extent, head.block_bytes, head.device_bytes), head
        extent = self._cutter.extent
        return Shape(extent if self._stream is Stream.PIECES else point.extent_bytes, extent), None

    def close(self) -> None:
        """Let go of the bitmap (it is unmapped with the last view of it) and of the head's file. Idempotent."""
        self._cutter = self._stripper = self._map = None
        if self._head_fd >= 0:
            os.close(self._head_fd)
            self._head_fd = -1

    def _resume_head(self) -> None:
        self._head_fd = self._open_head()
        self._reader = reader = HeadReader(self._keep)
        size, at = self.position, 0
        kept = os.fstat(self._head_fd).st_size
        while at < min(size, kept) and not reader.complete:
            block = os.pread(self._head_fd, min(_READ_BYTES, size - at), at)
            with bad_streams():
                reader.feed(block)
            at += len(block)
        if not reader.complete and at < size:
            raise DamagedImage(f"the head of the upload has {kept} bytes, {size} arrived; send the item anew")
        os.ftruncate(self._head_fd, reader.position)
        if kept > reader.position:
            self._charge(reader.position - kept)
        if reader.head is not None and reader.complete:
            self._begin_body(reader.head)

    def _keep(self, data: memoryview) -> None:
        """The next bytes of the head; those that are read again after a restart are there already."""
        reader = self._reader
        at = 0 if reader is None or reader.head is None or reader.position < HEADER_BYTES else reader.position
        if at + len(data) <= os.fstat(self._head_fd).st_size:
            return
        self._charge(len(data))
        write_all(self._head_fd, data, at)

    def _head(self, data: Buffer) -> memoryview | None:
        reader = self._reader
        assert reader is not None  # noqa: S101
        rest = reader.feed(data)
        if rest is None or reader.head is None:
            return None
        os.fdatasync(self._head_fd)
        self._begin_body(reader.head)
        assert isinstance(self._cutter, PartcloneCutter)  # noqa: S101
        for piece in self._cutter.head_pieces():
            self._writer.put(piece)
        return rest

    def _begin_body(self, head: PartcloneHead) -> None:
        point = self._point
        self._map = mmap.mmap(self._head_fd, head.head_bytes, access=mmap.ACCESS_READ)
        bitmap = memoryview(self._map)[HEADER_BYTES : HEADER_BYTES + head.bitmap_bytes]
        extent = effective_extent(point.extent_bytes, head.block_bytes)
        first = point.address if point.address >= 0 else -(-head.blocks * head.block_bytes // extent) * extent
        position = point.used_bytes + len(point.tail)
        self._cutter = PartcloneCutter(
            head, bitmap, point.extent_bytes, first=first, position=position, tail=point.tail
        )
        self._stripper = Stripper(head, lambda nth: used_block(bitmap, nth) * head.block_bytes, point.strip)

    def _body(self, data: Buffer) -> None:
        cutter, writer = self._cutter, self._writer
        assert cutter is not None  # noqa: S101
        for plain in self._stripper.feed(data) if self._stripper else (data,):
            for piece in cutter.feed(plain):
                writer.put(piece)


def facts_of(stream: Stream, kept: str, facts: ItemFacts, head: PartcloneHead | None) -> dict[str, str]:
    """What of a complete item stands in the manifest."""
    header = facts.header
    said = {"extent_bytes": str(header.extent_bytes), "index_sha256": facts.index_sha256.hex()}
    if stream is Stream.PIECES:
        return said | ({"kept": kept} if kept else {})
    said |= {
        "compressor": "zstd",
        "device_bytes": str(header.device_bytes),
        "used_bytes": str(header.used_bytes),
        "body_sha256": facts.body_sha256.hex(),
    }
    if head is not None:
        said |= {"tool": f"partclone-{head.version}", "fs": head.file_system, "head_bytes": str(header.head_bytes)}
    return said
