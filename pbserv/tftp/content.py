"""What a transfer sends, seen from the transfer: blocks that already stand behind their DATA headers.

One rule: whatever cannot be sent as it was agreed on is a FileFault, raised before a wrong byte leaves.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import NamedTuple, Protocol

HEADER_BYTES = 4
_HIGH = bytes(number >> 8 for number in range(65536))
_LOW = bytes(number & 255 for number in range(65536))


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
        lost a name, which changes its ctime and nothing else.

        A write shows in mtime, and one whose mtime was set back shows in ctime. With another number of links ctime
        proves nothing, so mtime alone must answer: see Watch.
        """
        now = FileId.of(facts)
        return now == self or (now.links != self.links and now[:4] == self[:4])


class Watch:
    """An open file that must stay what it was.

    After a change of its links the new ctime is what it is compared with, so a write cannot hide behind a link that
    came or went earlier. What is left is a write, a new link and mtime set back, all between two comparisons.
    A comparison is one fstat(2), which does not wait for a disk; on NFS its attribute cache answers.
    """

    __slots__ = ("_fd", "_identity")

    def __init__(self, fd: int, identity: FileId) -> None:
        self._fd = fd
        self._identity = identity

    def compare(self) -> None:
        """After a read: the kernel changes the time stamps before the bytes. Raises FileFault."""
        known = self._identity
        facts = os.fstat(self._fd)
        if facts.st_ctime_ns == known.ctime_ns and facts.st_mtime_ns == known.mtime_ns and facts.st_size == known.size:
            return
        if not known.still(facts):
            raise FileFault("the file changed while it was sent")
        self._identity = FileId.of(facts)


class Content(Protocol):
    """What a transfer sends."""

    @property
    def size_bytes(self) -> int: ...

    def flight(self, first: int, count: int, again: Callable[[], None] = ..., /) -> memoryview | None:
        """``count`` blocks from block ``first`` (from 1) with their headers; valid until the next call.

        None: they are being read in a thread. ``again`` is called once, in the event loop, when it is worth asking
        again; the answer is then the bytes or a fault. Raises FileFault.
        """

    def close(self) -> None: ...


def no_matter() -> None:
    """An ``again`` for callers that ask again by themselves."""


def block_count(size_bytes: int, block_size: int) -> int:
    """The last block is always a short one, if need be an empty one."""
    return size_bytes // block_size + 1


def laid_out_bytes(size_bytes: int, block_size: int) -> int:
    return size_bytes + HEADER_BYTES * block_count(size_bytes, block_size)


def write_numbers(buffer: bytearray, start: int, stride: int, first: int, count: int, rollover: int = 0) -> None:
    """Number ``count`` blocks from block ``first``, the header of the first of them at ``start``.

    ``rollover`` follows 65535: usually 0, with tftp-hpa's option of that name any number.
    """
    stop = start + (count - 1) * stride + HEADER_BYTES
    buffer[start + 2 : stop : stride], buffer[start + 3 : stop : stride] = _numbers(first, count, rollover)


def write_opcodes(buffer: bytearray, stride: int) -> None:
    buffer[1::stride] = b"\3" * len(range(1, len(buffer), stride))


def _numbers(first: int, count: int, rollover: int) -> tuple[bytes, bytes]:
    """The high and the low bytes of consecutive block numbers."""
    if first + count <= 65536:
        return _HIGH[first : first + count], _LOW[first : first + count]
    if first < 65536:
        lower, upper = _numbers(first, 65536 - first, rollover), _numbers(65536, first + count - 65536, rollover)
        return lower[0] + upper[0], lower[1] + upper[1]
    period = 65536 - rollover
    start = (first - 65536) % period
    if start + count <= period:
        start += rollover
        return _HIGH[start : start + count], _LOW[start : start + count]
    repeats = (start + count) // period + 1
    stop = start + count
    return (_HIGH[rollover:] * repeats)[start:stop], (_LOW[rollover:] * repeats)[start:stop]
