"""A large text file sent as netascii: converted piece by piece while it is sent.

One rule: a block's bytes depend on all line ends before it, so the file is counted once before anything is agreed on;
the count gives the size of the transfer and marks from which any block is found again.
"""

from __future__ import annotations

import os
from array import array
from bisect import bisect_right
from typing import ClassVar, NamedTuple

from pbserv.tftp.content import FileFault, FileId, Watch
from pbserv.tftp.netascii import to_netascii
from pbserv.tftp.readahead import ReadAhead
from pbserv.tftp.readers import Readers

PIECE_BYTES = 16 << 10
COUNTED_AT_ONCE = 64 << 20
"""After this many bytes a count goes to the end of the line, so that it holds nobody up."""
_COUNT_BYTES = 256 << 10
_STEP_BYTES = 1 << 20
_MOST_MARKS = 4096


class LineIndex(NamedTuple):
    """``marks[i]`` bytes come out of the first ``i * step`` bytes of the file, ``size_bytes`` out of all."""

    size_bytes: int
    step: int
    marks: array[int]


class Counting:
    """The first pass over a file; ``index`` is None until it is done."""

    def __init__(self, fd: int, identity: FileId) -> None:
        self._fd = fd
        self._watch = Watch(fd, identity)
        self._file_bytes = identity.size
        self._step = _STEP_BYTES * (1 + identity.size // (_STEP_BYTES * _MOST_MARKS))
        self._marks = array("Q", [0])
        self._offset = self._converted = 0
        self.index: LineIndex | None = None

    def advance(self) -> None:
        """Count some of the file; for a thread. Raises FileFault."""
        stop = min(self._offset + COUNTED_AT_ONCE, self._file_bytes)
        try:
            while self._offset < stop:
                self._count(min(_COUNT_BYTES, stop - self._offset, self._step - self._offset % self._step))
            self._watch.compare()
        except OSError as fault:
            raise FileFault(f"cannot be read: {fault.strerror}") from None
        if stop == self._file_bytes:
            self.index = LineIndex(self._converted, self._step, self._marks)

    def _count(self, most: int) -> None:
        raw = os.pread(self._fd, most, self._offset)
        if not raw:
            raise FileFault("the file became shorter while it was read")
        self._offset += len(raw)
        self._converted += len(raw) + raw.count(b"\n") + raw.count(b"\r")
        if self._offset % self._step == 0:
            self._marks.append(self._converted)


class Lines(ReadAhead):
    """The file after conversion; owns its descriptor. Blocks that were not acknowledged stay in the buffer."""

    __slots__ = ("_at", "_index", "_offset", "_rest", "_skip")

    _rereads: ClassVar[bool] = False  # converting once more costs more than keeping

    def __init__(
        self,
        fd: int,
        identity: FileId,
        index: LineIndex,
        block_size: int,
        window: int,
        readers: Readers,
        rollover: int = 0,
    ) -> None:
        super().__init__(fd, identity, index.size_bytes, block_size, window, readers, rollover)
        self._index = index
        self._offset = 0  # in the file: what is to be converted next
        self._rest = b""  # converted, and not in a block yet from _at on
        self._at = 0
        self._skip = 0  # converted bytes that lie before the block that was asked for

    def _seek(self, block: int) -> None:
        wanted = (block - 1) * self._block_size
        mark = bisect_right(self._index.marks, wanted) - 1
        self._offset = mark * self._index.step
        self._skip = wanted - self._index.marks[mark]
        self._rest, self._at = b"", 0

    def _fill(self, slot: int, block: int, count: int, flags: int) -> int:
        size = self._block_size
        for done in range(count):
            if not self._convert(flags, first=done == 0):
                return done
            data = self._rest[self._at : self._at + size]
            if len(data) != min(size, self.size_bytes - (block + done - 1) * size):
                raise FileFault("the file changed while it was sent")
            self._slots.data(slot + done)[: len(data)] = data
            self._at += len(data)
        return count

    def _convert(self, flags: int, *, first: bool) -> bool:
        """Have a block's worth of bytes, or all that are left. False: the kernel has not got them at hand. Raises
        OSError only when ``first``, because blocks that were converted must be counted before."""
        while len(self._rest) - self._at < self._block_size and self._offset < self._file_bytes:
            raw = bytearray(min(PIECE_BYTES, self._file_bytes - self._offset))
            try:
                got = os.preadv(self._fd, (raw,), self._offset, flags)
            except OSError:
                if first:
                    raise
                return False
            if not got and flags:
                return False
            if not got:
                raise FileFault("the file became shorter while it was sent")
            self._offset += got
            text = to_netascii(bytes(raw[:got]))
            passed = min(self._skip, len(text))
            self._skip -= passed
            self._rest, self._at = self._rest[self._at :] + text[passed:], 0
        return True
