"""Reads stored frames and says which are damaged, without restoring anything. Blocking, for worker threads.

One rule: a damage is named by frame number, byte of the item and address of the device; reading goes on behind it.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, Literal

import zstandard

from pbserv.imaging.faults import DamagedImage
from pbserv.imaging.formats.model import FormatError
from pbserv.imaging.frames.cut import extents
from pbserv.imaging.frames.head import HeadReader, NotNative, PartcloneHead
from pbserv.imaging.frames.index import Index, Record, Section, Stream, decode, digest_of

_BATCH_BYTES: Final = 1 << 20
_MOST_COPIED: Final = 256 << 20
"""Of an index: 190 GB that are used. Larger ones are mapped."""


class OpenIndex:
    """An index file in memory as far as it is looked at; ``index`` is of no use after ``close``."""

    def __init__(self, fd: int, *, copied: bool = False) -> None:
        """Read it once, map and check it; the descriptor may be closed afterwards. Raises DamagedImage, OSError.

        A page of a mapped file that the disk cannot read ends the process (SIGBUS); read before, it is an error.
        ``copied``: what was read is kept instead, for work so long that mapped pages may have to be read again.
        """
        size = os.fstat(fd).st_size
        if not size:
            raise DamagedImage("frame index, byte 0: the file is empty")
        copy = mmap.mmap(-1, size) if copied and size <= _MOST_COPIED else None
        for at, block in _blocks(fd, size):
            if copy is not None:
                copy[at : at + len(block)] = block
        self._map = mmap.mmap(fd, size, access=mmap.ACCESS_READ) if copy is None else copy
        self._view = memoryview(self._map)
        try:
            self.index = decode(self._view)
        except DamagedImage:
            self._view.release()
            raise

    @property
    def size_bytes(self) -> int:
        """Of the whole index."""
        return len(self._map)

    def read(self, start: int, end: int) -> bytes:
        """Its bytes as they are; may wait for the disk."""
        return bytes(self._view[start:end])

    def sha256(self) -> str:
        """Of the whole file, hexadecimal."""
        return hashlib.sha256(self._view).hexdigest()

    def close(self) -> None:
        """Give the memory back; it goes at the latest with the last view of it."""
        self.index.close()
        self._view.release()
        self._map.close()


@dataclass(frozen=True, slots=True)
class FrameDamage:
    """One frame that is not what was committed; ``address`` is of the device, or of the bitmap in its pieces.

    ``section`` file: a piece of a file that is kept as it came, where no address of a device is known.
    """

    frame: int
    offset: int
    section: Section | Literal["file"]
    address: int
    why: str

    def __str__(self) -> str:
        if self.section == "file":
            return f"piece {self.frame} at byte {self.offset}: {self.why}"
        place = {"header": "the stream's header", "bitmap": f"byte {self.address:#x} of the bitmap"}.get(
            self.section, f"device address {self.address:#x}"
        )
        return f"frame {self.frame} at byte {self.offset}, {place}: {self.why}"


def _blocks(fd: int, size: int) -> Iterator[tuple[int, bytes]]:
    """All of an index; raises DamagedImage."""
    at = 0
    while at < size:
        try:
            block = os.pread(fd, min(_BATCH_BYTES, size - at), at)
        except OSError as fault:
            raise DamagedImage(f"frame index, byte {at}: it cannot be read: {fault.strerror}") from fault
        if not block:
            raise DamagedImage(f"frame index, byte {at}: the file ends here, it had {size} bytes")
        yield at, block
        at += len(block)


def read_exactly(fd: int, size: int, offset: int) -> bytes:
    """Exactly these bytes; raises DamagedImage where the file ends before."""
    data = os.pread(fd, size, offset)
    while len(data) < size:
        more = os.pread(fd, size - len(data), offset + len(data))
        if not more:
            raise DamagedImage(f"the file ends at byte {offset + len(data)}, {size} bytes are needed at {offset}")
        data += more
    return data


def plain(fd: int, record: Record, stream: Stream) -> bytes:
    """The uncompressed bytes of one frame; raises DamagedImage. What is made is never more than the index says."""
    return _uncompressed(read_exactly(fd, record.stored_bytes, record.offset), record, stream)


def verify(
    fd: int, index: Index, *, deep: bool = False, pace: Callable[[int], None] | None = None
) -> Iterator[FrameDamage | int]:
    """Compare every stored frame with its digest; yields damages, and the bytes that were read, about 1 MiB each.

    ``deep`` uncompresses them too, compares their identities, and compares the bitmap with the frames that there are.
    ``pace`` is called with the number of bytes before they are read: it may wait.
    """
    if deep:
        deeper = _Deep(index)
    number, kept = 0, index.header.stream is Stream.PIECES
    for batch in _batches(index):
        size = sum(record.stored_bytes for record in batch)
        if pace:
            pace(size)
        data, why = _batch(fd, batch[0].offset, size)
        at = 0
        for record in batch:
            frame = data[at : at + record.stored_bytes]
            at += record.stored_bytes
            problem = why if len(frame) < record.stored_bytes else _wrong(frame, record)
            if deep:
                problem = deeper.wrong(frame, number, record, problem)
            if problem:
                section = "file" if kept else index.section(number)
                yield FrameDamage(number, record.offset, section, record.address, problem)
            number += 1
        yield size
    if deep:
        yield from deeper.finish()
    extra = os.fstat(fd).st_size - index.header.stored_bytes
    if extra > 0:
        section = "file" if kept else "device"
        yield FrameDamage(number, index.header.stored_bytes, section, 0, f"{extra} bytes after the last frame")


class _Deep:
    """The uncompressed side of ``verify``: identities, and the plan of frames that the bitmap makes."""

    def __init__(self, index: Index) -> None:
        self._index = index
        self._head = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115  (``finish`` closes it)
        self._damaged = False

    def wrong(self, frame: bytes, number: int, record: Record, known: str) -> str:
        """What is wrong with a frame, if its stored bytes are right (``known`` is ''); '' when nothing is."""
        if known:
            self._damaged = True
            return known
        try:
            data = _uncompressed(frame, record, self._index.header.stream)
        except DamagedImage as fault:
            self._damaged = True
            return str(fault)
        if digest_of(data) != record.identity:
            self._damaged = True
            return "its uncompressed bytes are not those that the index names"
        if number < self._index.header.head_frames:
            view = memoryview(data)
            while view:  # a disk that gets full takes less than it is given, once
                view = view[self._head.write(view) :]
        return ""

    def finish(self) -> Iterator[FrameDamage]:
        """Whether bitmap and frames belong together; only where every frame was right."""
        with self._head:
            if self._index.header.stream is Stream.PARTCLONE and not self._damaged:
                self._head.seek(0)
                why = self._plan()
                if why:
                    yield FrameDamage(0, 0, "header", 0, why)

    def _plan(self) -> str:
        reader = HeadReader(lambda _: None)
        try:
            while block := self._head.read(_BATCH_BYTES):
                reader.feed(block)
        except (FormatError, NotNative) as fault:
            return str(fault)
        if reader.head is None or not reader.complete:
            return "the head is not complete"
        with mmap.mmap(self._head.fileno(), 0, access=mmap.ACCESS_READ) as whole, memoryview(whole) as view:
            return self._compare(reader.head, view)

    def _compare(self, head: PartcloneHead, view: memoryview) -> str:
        header = self._index.header
        with view[len(head.header) : len(head.header) + head.bitmap_bytes] as bitmap:
            number = header.head_frames
            for address, used in extents(bitmap, head.block_bytes, head.blocks, header.effective_bytes):
                if number == len(self._index):
                    return f"the bitmap has blocks at device address {address:#x}, the index has no frame for them"
                record = self._index.record(number)
                if (record.address, record.plain_bytes) != (address, used):
                    return f"the bitmap has {used} bytes at device address {address:#x}, frame {number} is another"
                number += 1
        return "" if number == len(self._index) else f"the bitmap knows nothing of frame {number} and those after it"


def _batches(index: Index) -> Iterator[list[Record]]:
    batch, size = list[Record](), 0
    for record in index.frames():
        batch.append(record)
        size += record.stored_bytes
        if size >= _BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _batch(fd: int, offset: int, size: int) -> tuple[bytes, str]:
    """What can be read, and why it is less."""
    try:
        data = os.pread(fd, size, offset)
        while len(data) < size and (more := os.pread(fd, size - len(data), offset + len(data))):
            data += more
    except OSError as fault:
        return b"", f"it cannot be read: {fault.strerror}"
    return data, f"the file ends at byte {offset + len(data)}"


def _wrong(frame: bytes, record: Record) -> str:
    return "" if digest_of(frame) == record.digest else "its stored bytes are not those that the index names"


def _uncompressed(frame: bytes, record: Record, stream: Stream) -> bytes:
    if stream is Stream.PIECES:
        return frame
    try:
        size = zstandard.frame_content_size(frame)
        if size != record.plain_bytes:
            raise DamagedImage(f"the frame says {size} bytes, the index {record.plain_bytes}")
        return zstandard.ZstdDecompressor().decompress(frame)
    except zstandard.ZstdError as fault:
        raise DamagedImage(f"zstd cannot read the frame: {fault}") from fault
