"""Writes an item and its index, frame by frame. Blocking, for worker threads.

One rule: ``rollback`` goes back to where ``keep`` was called the last time; ``keep`` is called when a checkpoint counts
what ``sync`` put on the disk, and is there itself.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

import zstandard

from pbserv.imaging.faults import ImagingFault
from pbserv.imaging.frames.cut import Piece
from pbserv.imaging.frames.index import (
    HEADER_BYTES,
    RECORD_BYTES,
    Buffer,
    Header,
    Index,
    Record,
    Stream,
    digest_of,
    encode_header,
    encode_record,
)
from pbserv.imaging.frames.reader import plain, read_exactly

_FLUSH_BYTES: Final = 1 << 20
_READ_BYTES: Final = 1 << 20
_threads = threading.local()


@dataclass(frozen=True, slots=True)
class Reuse:
    """The same item of an older version: its index and a descriptor of the item; ``close`` is called at the end."""

    index: Index
    fd: int
    close: Callable[[], None]


@dataclass(frozen=True, slots=True)
class Point:
    """So far the files are written; all that a writer needs to go on, in bytes and frames."""

    stored_bytes: int = 0
    frames: int = 0
    head_frames: int = 0
    head_bytes: int = 0
    used_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Shape:
    """What the index says besides what the writer counts; ``device_bytes`` None is as many as were used."""

    extent_bytes: int
    effective_bytes: int
    block_bytes: int = 0
    device_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class ItemFacts:
    """A complete item. ``body_sha256`` is that of the device's bytes alone, without head."""

    header: Header
    body_sha256: bytes
    index_sha256: bytes


class FrameWriter:
    """Descriptors of the two files belong to the caller; they are read again when hashes have to be made anew.

    ``charge`` is asked before bytes are written (it may raise) and given a negative number when they are taken back.
    """

    def __init__(
        self,
        item_fd: int,
        index_fd: int,
        stream: Stream,
        level: int,
        *,
        charge: Callable[[int], None],
        reuse: Reuse | None = None,
        at: Point | None = None,
        go_on: Callable[[], None] = lambda: None,
    ) -> None:
        """``go_on`` is asked during long work on what is there already, and raises where it is not wanted any more."""
        self._item_fd = item_fd
        self._index_fd = index_fd
        self._stream = stream
        self._level = level if stream is not Stream.PIECES else 0
        self._charge = charge
        self._go_on = go_on
        self._reuse = reuse
        self._at = self._kept = at or Point()
        self._written = self._at
        self._frames: list[bytes] = []
        self._records: list[bytes] = []
        self._waiting = 0
        fresh = None if self._at.frames else (hashlib.sha256(), hashlib.sha256())
        self._hashes = fresh
        self._kept_hashes = self._copies()
        self.reused_frames = 0

    @property
    def point(self) -> Point:
        """Where the writer stands, with what is not yet on the disk."""
        return self._at

    def put(self, piece: Piece) -> None:
        """Append one frame. Raises what ``charge`` raises, and OSError."""
        identity = digest_of(piece.data)
        frame, digest = self._frame(piece, identity)
        at = self._at
        record = Record(piece.address, at.stored_bytes, len(frame), len(piece.data), identity, digest)
        self._frames.append(frame)
        self._records.append(encode_record(record))
        self._waiting += len(frame)
        if self._hashes is not None:
            self._hashes[0].update(frame)
            if piece.section == "device":
                self._hashes[1].update(piece.data)
        inside = piece.section != "device"
        self._at = Point(
            at.stored_bytes + len(frame),
            at.frames + 1,
            at.head_frames + inside,
            at.head_bytes + (len(piece.data) if inside else 0),
            at.used_bytes + (0 if inside else len(piece.data)),
        )
        if self._waiting >= _FLUSH_BYTES:
            self.flush()

    def flush(self) -> None:
        """Write what was gathered."""
        if not self._frames:
            return
        item, records = b"".join(self._frames), b"".join(self._records)
        self._charge(len(item) + len(records))
        before, self._written = self._written, self._at
        write_all(self._item_fd, item, before.stored_bytes)
        write_all(self._index_fd, records, HEADER_BYTES + before.frames * RECORD_BYTES)
        self._frames.clear()
        self._records.clear()
        self._waiting = 0

    def sync(self) -> None:
        """Make everything durable that was put."""
        self.flush()
        os.fdatasync(self._item_fd)
        os.fdatasync(self._index_fd)

    def keep(self) -> None:
        """A checkpoint counts what was put, and is on the disk itself: from now on there is no way back."""
        self._kept = self._at
        self._kept_hashes = self._copies()

    def rollback(self) -> None:
        """Forget what was put since the last ``keep``."""
        surplus = _disk_bytes(self._written) - _disk_bytes(self._kept)
        self._frames.clear()
        self._records.clear()
        self._waiting = 0
        self._at = self._written = self._kept
        self._hashes, self._kept_hashes = self._kept_hashes, None
        self._kept_hashes = self._copies()
        cut(self._item_fd, self._index_fd, self._kept)
        if surplus:
            self._charge(-surplus)

    def close(self, shape: Shape) -> ItemFacts:
        """Write the index's header and make both files durable. The writer is of no use afterwards."""
        self.flush()
        if self._hashes is None:
            self._hashes = self._hash_again()
        at, body = self._at, self._hashes[1].digest()
        whole = self._hashes[0].digest()
        device = at.used_bytes if shape.device_bytes is None else shape.device_bytes
        header = Header(
            self._stream, shape.extent_bytes, shape.effective_bytes, shape.block_bytes, self._level, at.head_frames,
            device, at.frames, at.stored_bytes, at.head_bytes + at.used_bytes, at.used_bytes, at.head_bytes,
            whole, self._digest_records("sha512_256"),
        )  # fmt: skip
        encoded = encode_header(header)
        self._charge(HEADER_BYTES)
        write_all(self._index_fd, encoded, 0)
        os.fsync(self._item_fd)
        os.fsync(self._index_fd)
        return ItemFacts(header, body, self._digest_records("sha256", encoded))

    def _frame(self, piece: Piece, identity: bytes) -> tuple[bytes, bytes]:
        """The stored bytes and their digest: an older version's where they are the same, else made now."""
        if self._stream is Stream.PIECES:
            return piece.data, identity
        there = self._older(piece, identity)
        if there is not None:
            return there
        frame = _compressor(self._level).compress(piece.data)
        return frame, digest_of(frame)

    def _older(self, piece: Piece, identity: bytes) -> tuple[bytes, bytes] | None:
        if self._reuse is None or self._reuse.index.header.stream is not self._stream:
            return None
        record = self._reuse.index.at(piece.section, piece.address)
        if record is None or record.identity != identity:
            return None
        try:
            frame = read_exactly(self._reuse.fd, record.stored_bytes, record.offset)
        except (OSError, ImagingFault):
            return None  # the older version is damaged; that must not spoil this one
        if digest_of(frame) != record.digest:
            return None
        self.reused_frames += 1
        return frame, record.digest

    def _copies(self) -> tuple[hashlib._Hash, hashlib._Hash] | None:
        return None if self._hashes is None else (self._hashes[0].copy(), self._hashes[1].copy())

    def _hash_again(self) -> tuple[hashlib._Hash, hashlib._Hash]:
        """Of an upload that went on after a restart: the running hashes were lost with the process."""
        whole, body = hashlib.sha256(), hashlib.sha256()
        for at in range(0, self._at.stored_bytes, _READ_BYTES):
            self._go_on()
            whole.update(read_exactly(self._item_fd, min(_READ_BYTES, self._at.stored_bytes - at), at))
        for number in range(self._at.head_frames, self._at.frames):
            self._go_on()
            data = read_exactly(self._index_fd, RECORD_BYTES, HEADER_BYTES + number * RECORD_BYTES)
            body.update(plain(self._item_fd, Record.unpack(data), self._stream))
        return whole, body

    def _digest_records(self, algorithm: str, before: bytes = b"") -> bytes:
        running = hashlib.new(algorithm, before)
        for block in _blocks(self._index_fd, HEADER_BYTES, HEADER_BYTES + self._at.frames * RECORD_BYTES):
            running.update(block)
        return running.digest()


def cut(item_fd: int, index_fd: int, point: Point) -> None:
    """Truncate both files to a point; what is missing there makes itself known when the hashes are made."""
    os.ftruncate(item_fd, point.stored_bytes)
    os.ftruncate(index_fd, HEADER_BYTES + point.frames * RECORD_BYTES)


def write_all(fd: int, data: Buffer, offset: int) -> None:
    """Write everything at ``offset``; raises OSError."""
    view = memoryview(data)
    while view:
        done = os.pwrite(fd, view, offset)
        view, offset = view[done:], offset + done


def _blocks(fd: int, start: int, end: int) -> Iterator[bytes]:
    for at in range(start, end, _READ_BYTES):
        yield read_exactly(fd, min(_READ_BYTES, end - at), at)


def _disk_bytes(point: Point) -> int:
    return point.stored_bytes + point.frames * RECORD_BYTES


def _compressor(level: int) -> zstandard.ZstdCompressor:
    """One for each thread and level: a context is a megabyte, and an upload must not have one of its own."""
    made: dict[int, zstandard.ZstdCompressor] = _threads.__dict__.setdefault("compressors", {})
    if level not in made:
        made[level] = zstandard.ZstdCompressor(
            level=level, write_checksum=True, write_content_size=True, write_dict_id=False
        )
    return made[level]
