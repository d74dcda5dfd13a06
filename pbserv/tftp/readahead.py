"""Content that is read while it is sent: a buffer of two windows or a little more, filled without waiting if the
kernel has the bytes in memory, in a thread if it has not.

One rule: the event loop never waits for a disk. In a file that has to be waited for once, the next window is read
while the last one travels.

Which blocks are where: those from ``_low`` to ``_end`` stand in a row, block ``_origin`` at the start of the buffer.
Behind them in the file, but at the start of the buffer, stand ``_wrapped`` blocks that were read ahead into the place
of blocks that are done with. Done with is what lies a window or more behind the newest block that was asked for: the
sender's base cannot be behind that, and it never asks for what lies before its base.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar

from pbserv.tftp.content import HEADER_BYTES, FileFault, FileId, Watch, block_count, no_matter, write_numbers
from pbserv.tftp.readers import Readers
from pbserv.tftp.scatter import IOVECS, NOWAIT, Slots, in_memory, without_waiting

BUFFER_BYTES = 45 << 10
"""Two windows of 16 blocks of 1428 bytes. Smaller windows are read several at once; larger ones get two anyway."""


class ReadAhead(ABC):
    """Owns its descriptor."""

    __slots__ = (
        "_again", "_block_size", "_closed", "_cold", "_end", "_fault", "_fd", "_file_bytes", "_final", "_flags", "_low",
        "_origin", "_readers", "_reading", "_rollover", "_sent", "_slots", "_stride", "_view", "_watch", "_window",
        "_wrapped", "size_bytes",
    )  # fmt: skip

    def __init__(
        self,
        fd: int,
        identity: FileId,
        size_bytes: int,
        block_size: int,
        window: int,
        readers: Readers,
        rollover: int = 0,
    ) -> None:
        self._fd = fd
        self._watch = Watch(fd, identity)
        self._file_bytes = identity.size
        self.size_bytes = size_bytes
        self._block_size = block_size
        self._window = window
        self._rollover = rollover
        self._readers = readers
        self._final = block_count(size_bytes, block_size)
        stride = block_size + HEADER_BYTES
        blocks = window * max(2, min(BUFFER_BYTES // stride, IOVECS) // window)
        self._slots = Slots(bytearray(min(blocks, self._final) * stride), block_size)
        self._view, self._stride = self._slots.view, stride
        self._origin = self._low = self._end = self._sent = 1
        self._wrapped = 0
        self._cold = self._closed = self._reading = False
        self._flags: int | None = NOWAIT  # None: only a thread may read
        self._fault: FileFault | None = None
        self._again: Callable[[], None] | None = None
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_SEQUENTIAL)

    # -- what the kinds of content differ in ----------------------------------------------------------------------

    _rereads: ClassVar[bool] = True
    """Blocks that were sent need not be kept while the kernel has them at hand."""

    @abstractmethod
    def _fill(self, slot: int, block: int, count: int, flags: int) -> int:
        """Write up to ``count`` blocks from ``block`` into the buffer, and say how many came: with NOWAIT fewer if
        the kernel has not got them, without all of them. Raises FileFault or OSError. May run in a thread."""

    @abstractmethod
    def _seek(self, block: int) -> None:
        """The next block to be filled is not the one behind the last."""

    # -- what a transfer calls ------------------------------------------------------------------------------------

    def flight(self, first: int, count: int, again: Callable[[], None] = no_matter, /) -> memoryview | None:
        end = first + count
        final = self._final
        if end > final:
            end = final + 1
        if self._fault is not None:
            raise self._fault
        if (first < self._low or end > self._end) and not self._obtain(first, end):
            self._again = again
            return None
        if end > self._sent:
            self._sent = end
        stride = self._stride
        start = (first - self._origin) * stride
        stop = (end - self._origin) * stride
        if end > final:
            stop -= self._block_size - self.size_bytes % self._block_size
            self._check()  # the end of the file must still be the end of the file that was agreed on
        if self._cold:
            self._read_ahead(first, end)
        return self._view[start:stop]

    def close(self) -> None:
        self._closed = True
        self._again = None
        if not self._reading:
            os.close(self._fd)

    # -- the buffer -----------------------------------------------------------------------------------------------

    def _obtain(self, first: int, end: int) -> bool:
        """Have the blocks up to ``end`` in a row. False: a thread reads."""
        if self._reading:
            return False
        if end - first > self._slots.count:
            raise ValueError(f"{end - first} blocks are more than the window of {self._window}")
        if not self._low <= first <= self._end + self._wrapped:
            self._restart(first)
        floor = min(first, max(self._sent, end) - self._window)
        if self._wrapped:
            self._unwrap(floor)
        if end > self._end:
            self._to_front(min(first, self._end) if self._rereads and not self._cold else floor)
            self._fill_now()
        if end > self._end:
            self._cold = True
            self._fill_later()
            return False
        return True

    def _restart(self, first: int) -> None:
        self._origin = self._low = self._end = self._sent = first
        self._wrapped = 0
        self._seek(first)

    def _unwrap(self, floor: int) -> None:
        """Make one row of both parts; what lies before ``floor`` goes. Usually nothing has to be moved."""
        end, wrapped, stride = self._end, self._wrapped, self._stride
        floor = max(floor, self._low)
        if floor < end:
            tail = bytes(self._view[(floor - self._origin) * stride : (end - self._origin) * stride])
            self._view[len(tail) : len(tail) + wrapped * stride] = self._view[: wrapped * stride]
            self._view[: len(tail)] = tail
        self._origin = self._low = min(floor, end)
        self._end = end + wrapped
        self._wrapped = 0

    def _to_front(self, floor: int) -> None:
        floor = max(floor, self._low)
        start, stop = (floor - self._origin) * self._stride, (self._end - self._origin) * self._stride
        if 0 < start < stop:
            self._view[: stop - start] = self._view[start:stop]
        self._origin = self._low = floor

    def _fill_now(self) -> None:
        """Behind the row, as much as there is place for and the kernel has at hand."""
        slot = self._end - self._origin
        self._end += self._now(slot, self._end, min(self._slots.count - slot, self._final + 1 - self._end))

    def _now(self, slot: int, block: int, count: int) -> int:
        """How many blocks came without waiting."""
        if self._flags is None or count <= 0:
            return 0
        self._number(slot, block, count)
        try:
            got = self._fill(slot, block, count, self._flags)
        except OSError as fault:
            later = without_waiting(fault)
            if later is None:
                raise self._broken(_unreadable(fault)) from None
            if not later:
                self._flags = 0 if in_memory(self._fd) else None
                return self._now(slot, block, count)
            return 0
        except FileFault as fault:
            raise self._broken(fault) from None
        self._check()
        return got

    def _fill_later(self) -> None:
        slot = self._end - self._origin
        self._later(slot, self._end, min(self._slots.count - slot, self._final + 1 - self._end, self._window))

    def _read_ahead(self, first: int, end: int) -> None:
        """While blocks up to ``end`` travel, get the window behind them."""
        behind = self._end + self._wrapped
        if self._reading or behind > self._final or behind - end >= self._window:
            return
        slot = behind - self._origin
        place = self._slots.count - slot
        if self._wrapped or place <= 0:  # go on at the start of the buffer, up to what may be asked for again
            floor = max(self._low, min(first, self._sent - self._window))
            slot, place = self._wrapped, floor - self._origin - self._wrapped
            self._low = floor
        count = min(place, self._window, self._final + 1 - behind)
        if count <= 0:
            return
        wraps = slot < self._end - self._origin
        got = self._now(slot, behind, count)
        if wraps:
            self._wrapped += got
        else:
            self._end += got
        if got < count:
            self._later(slot + got, behind + got, count - got)

    def _number(self, slot: int, block: int, count: int) -> None:
        write_numbers(self._slots.buffer, slot * self._stride, self._stride, block, count, self._rollover)

    # -- the thread -----------------------------------------------------------------------------------------------

    def _later(self, slot: int, block: int, count: int) -> None:
        self._reading = True
        self._number(slot, block, count)
        wraps = slot < self._end - self._origin

        def read() -> int:
            if self._closed:
                return 0
            try:
                got = self._fill(slot, block, count, 0)
                self._watch.compare()
            except OSError as fault:
                raise _unreadable(fault) from None
            return got

        self._readers.run(read, lambda result: self._came(wraps, result))

    def _came(self, wraps: bool, result: int | FileFault) -> None:
        self._reading = False
        if self._closed:
            os.close(self._fd)
            return
        if isinstance(result, FileFault):
            self._broken(result)
        elif wraps:
            self._wrapped += result
        else:
            self._end += result
        again, self._again = self._again, None
        if again is not None:
            again()

    # -- faults ---------------------------------------------------------------------------------------------------

    def _check(self) -> None:
        try:
            self._watch.compare()
        except FileFault as fault:
            raise self._broken(fault) from None
        except OSError as fault:
            raise self._broken(_unreadable(fault)) from None

    def _broken(self, fault: FileFault) -> FileFault:
        """From now on nothing is sent any more."""
        self._fault = fault
        return fault


def _unreadable(fault: OSError) -> FileFault:
    return FileFault(f"cannot be read: {fault.strerror}")
