"""File contents laid out for the wire: every block already stands behind its 4-byte DATA header.

One rule: a window of blocks is one slice of one buffer, so no block is ever touched by Python when it is sent.
What is kept in memory is bounded; a file that does not fit is read window by window into a small buffer of its own.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import NamedTuple, Protocol

from pbserv.net.mmsg import address_of

HEADER_BYTES = 4
LARGEST_DIRECT_READ = 2 << 20
"""Bytes that are read at once in the event loop; larger files are read in a thread."""
MOST_BLOCKS_KEPT = 200_000
STREAM_BUFFER_BYTES = 44 << 10
_IOVECS = 1024  # IOV_MAX
_HIGH = bytes(number >> 8 for number in range(65536)) * 2
_LOW = bytes(number & 255 for number in range(65536)) * 2


class FileFault(Exception):
    """The file is not what it was when the transfer was agreed on: shorter, rewritten, or unreadable."""


class FileId(NamedTuple):
    """Two opens with the same identity have the same content."""

    device: int
    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int
    links: int

    @classmethod
    def of(cls, facts: os.stat_result) -> FileId:
        return cls(facts.st_dev, facts.st_ino, facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns, facts.st_nlink)

    def still(self, facts: os.stat_result) -> bool:
        """Whether an open file has the content that it had. A file that was replaced by rename or deleted has: it
        lost a name, which changes its ctime and nothing else."""
        now = FileId.of(facts)
        return now == self or (now.links != self.links and now[:4] == self[:4])


class Content(Protocol):
    """What a transfer sends."""

    @property
    def size_bytes(self) -> int: ...

    def flight(self, first: int, count: int, again: Callable[[], None] = print) -> memoryview | None:
        """``count`` blocks from block ``first`` (from 1) with their headers; valid until the next call.

        Raises FileFault.
        """

    def close(self) -> None: ...


def block_count(size_bytes: int, block_size: int) -> int:
    """The last block is always a short one, if need be an empty one."""
    return size_bytes // block_size + 1


def laid_out_bytes(size_bytes: int, block_size: int) -> int:
    return size_bytes + HEADER_BYTES * block_count(size_bytes, block_size)


def _write_headers(buffer: bytearray, stride: int, first: int) -> None:
    """DATA headers of consecutive blocks from ``first``; numbers go from 65535 to 0."""
    count = len(range(0, len(buffer), stride))
    buffer[1::stride] = b"\3" * count
    start = first & 0xFFFF
    high, low = _HIGH, _LOW
    if start + count > len(high):
        repeats = (start + count) // 65536 + 1
        high, low = high[:65536] * repeats, low[:65536] * repeats
    buffer[2::stride] = high[start : start + count]
    buffer[3::stride] = low[start : start + count]


class LaidOut:
    """A whole file in one buffer, shared by all transfers of it; ``users`` is kept by the store."""

    __slots__ = ("_stride", "_view", "address", "held_bytes", "length", "size_bytes", "users")

    def __init__(self, buffer: bytearray, size_bytes: int, block_size: int) -> None:
        self._view = memoryview(buffer)
        self.address, self.length = address_of(buffer), len(buffer)
        self._stride = block_size + HEADER_BYTES
        self.held_bytes = len(buffer)
        self.size_bytes = size_bytes
        self.users = 0

    @classmethod
    def of_bytes(cls, data: bytes, block_size: int) -> LaidOut:
        """Content that never was a file."""
        buffer, slots = _prepared(len(data), block_size)
        position = 0
        for slot in slots:
            slot[:] = data[position : position + len(slot)]
            position += len(slot)
        return cls(buffer, len(data), block_size)

    @classmethod
    def of_file(cls, fd: int, identity: FileId, block_size: int) -> LaidOut:
        """Read all of ``fd``; raises FileFault when it changed meanwhile."""
        buffer, slots = _prepared(identity.size, block_size)
        position = 0
        try:
            for start in range(0, len(slots), _IOVECS):
                part = slots[start : start + _IOVECS]
                wanted = sum(map(len, part))
                if wanted and os.preadv(fd, part, position) != wanted:
                    raise FileFault("the file became shorter while it was read")
                position += wanted
            if not identity.still(os.fstat(fd)):
                raise FileFault("the file changed while it was read")
        except OSError as fault:
            raise FileFault(f"cannot be read: {fault.strerror}") from None
        return cls(buffer, identity.size, block_size)

    def flight(self, first: int, count: int, again: Callable[[], None] = print) -> memoryview | None:
        start = (first - 1) * self._stride
        return self._view[start : start + count * self._stride]

    def close(self) -> None:
        self.users -= 1


def _prepared(size_bytes: int, block_size: int) -> tuple[bytearray, list[memoryview]]:
    buffer = bytearray(laid_out_bytes(size_bytes, block_size))
    stride = block_size + HEADER_BYTES
    _write_headers(buffer, stride, 1)
    view = memoryview(buffer)
    return buffer, [view[start + HEADER_BYTES : start + stride] for start in range(0, len(buffer), stride)]


class Streamed:
    """A file read piece by piece with one preadv each; owns its descriptor."""

    __slots__ = ("_block_size", "_buffer", "_count", "_fd", "_first", "_identity", "_slots", "_stride", "_view",
                 "size_bytes")  # fmt: skip

    def __init__(self, fd: int, identity: FileId, block_size: int, window: int) -> None:
        self._fd = fd
        self._identity = identity
        self._block_size = block_size
        self._stride = block_size + HEADER_BYTES
        windows = max(1, STREAM_BUFFER_BYTES // (self._stride * window))
        self._count = min(windows * window, _IOVECS if window <= _IOVECS else window)
        self._buffer = bytearray(self._count * self._stride)
        self._view = memoryview(self._buffer)
        self._slots = [
            self._view[start + HEADER_BYTES : start + self._stride]
            for start in range(0, len(self._buffer), self._stride)
        ]
        self._first = 0  # block at the start of the buffer; 0: nothing read yet
        self.size_bytes = identity.size
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_SEQUENTIAL)

    def flight(self, first: int, count: int, again: Callable[[], None] = print) -> memoryview | None:
        final = block_count(self.size_bytes, self._block_size)
        if not self._first or first < self._first or first + count > self._first + self._count:
            self._read(first)
        elif first + count > final:  # the end of the file must still be the end of the file that was agreed on
            self._compare()
        start = (first - self._first) * self._stride
        left = self.size_bytes - (first - 1) * self._block_size
        length = min(count * self._stride, left + HEADER_BYTES * min(count, final - first + 1))
        return self._view[start : start + length]

    def _read(self, first: int) -> None:
        offset = (first - 1) * self._block_size
        wanted = min(self._count * self._block_size, self.size_bytes - offset)
        self._first = 0
        try:
            got = 0
            for start in range(0, len(self._slots), _IOVECS):
                got += os.preadv(self._fd, self._slots[start : start + _IOVECS], offset + got)
        except OSError as fault:
            raise FileFault(f"cannot be read: {fault.strerror}") from None
        if got < wanted:
            raise FileFault("the file became shorter while it was sent")
        self._compare()
        _write_headers(self._buffer, self._stride, first)
        self._first = first

    def _compare(self) -> None:
        if not self._identity.still(os.fstat(self._fd)):
            raise FileFault("the file changed while it was sent")

    def close(self) -> None:
        os.close(self._fd)


Ready = Callable[["Content | FileFault"], None]
Start = Callable[[Callable[[], LaidOut], Callable[["LaidOut | FileFault"], None]], None]
"""Run the first in a thread and hand its result to the second in the event loop."""


class ContentStore:
    """Recently used files, per block size, bounded in bytes. Files in use are never evicted."""

    def __init__(self, limit_bytes: int, in_thread: Start) -> None:
        self.limit_bytes = limit_bytes
        self.hits = self.misses = self.streams = 0
        self._in_thread = in_thread
        self._kept: dict[tuple[FileId, int], LaidOut] = {}  # oldest first
        self._loading: dict[tuple[FileId, int], list[Ready]] = {}
        self._held = 0

    @property
    def held_bytes(self) -> int:
        """Bytes kept or being read."""
        return self._held

    def obtain(self, fd: int, identity: FileId, block_size: int, window: int, ready: Ready) -> None:
        """Hand the content of ``fd`` to ``ready``, at once or later; takes ``fd`` over."""
        key = (identity, block_size)
        kept = self._kept.pop(key, None)
        if kept is not None:
            os.close(fd)
            self.hits += 1
            self._kept[key] = kept
            kept.users += 1
            ready(kept)
        elif key in self._loading:
            os.close(fd)
            self.hits += 1
            self._loading[key].append(ready)
        elif self._reserve(laid_out_bytes(identity.size, block_size), block_count(identity.size, block_size)):
            self.misses += 1
            self._load(fd, key, ready)
        else:
            self.streams += 1
            ready(Streamed(fd, identity, block_size, window))

    def resize(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self._evict(0)

    def _reserve(self, needed: int, blocks: int) -> bool:
        if needed > self.limit_bytes or blocks > MOST_BLOCKS_KEPT:
            return False
        self._evict(needed)
        if self._held + needed > self.limit_bytes:
            return False
        self._held += needed
        return True

    def _evict(self, needed: int) -> None:
        for key, kept in list(self._kept.items()):
            if self._held + needed <= self.limit_bytes:
                return
            if kept.users == 0:
                del self._kept[key]
                self._held -= kept.held_bytes

    def _load(self, fd: int, key: tuple[FileId, int], ready: Ready) -> None:
        identity, block_size = key
        self._loading[key] = [ready]

        def read() -> LaidOut:
            try:
                return LaidOut.of_file(fd, identity, block_size)
            finally:
                os.close(fd)

        if identity.size > LARGEST_DIRECT_READ:
            self._in_thread(read, lambda result: self._loaded(key, result))
            return
        try:
            content: LaidOut | FileFault = read()
        except FileFault as fault:
            content = fault
        self._loaded(key, content)

    def _loaded(self, key: tuple[FileId, int], result: LaidOut | FileFault) -> None:
        waiting = self._loading.pop(key)
        if isinstance(result, FileFault):
            self._held -= laid_out_bytes(key[0].size, key[1])
        else:
            self._kept[key] = result
            result.users += len(waiting)
        for ready in waiting:
            ready(result)
