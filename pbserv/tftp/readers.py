"""The threads that read files: few of them at a time, the rest waits in line.

One rule: a disk that hangs holds up those who read from disks, never the event loop.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TypeVar

from pbserv.tftp.content import FileFault

MOST_READS = 4
Result = TypeVar("Result")
Start = Callable[..., None]
"""``start(work, done)``: call the first in a thread, and the second in the event loop with what it returned, or with
the FileFault that it raised."""


class Readers:
    """At most ``most`` reads at the same time, first come, first served."""

    def __init__(self, start: Start, most: int = MOST_READS) -> None:
        self._start = start
        self._free = most
        self._line: deque[Callable[[], None]] = deque()

    def run(self, work: Callable[[], Result], done: Callable[[Result | FileFault], None]) -> None:
        """As ``Start``. A call of ``done`` may well bring the next ``run``."""

        def finished(result: Result | FileFault) -> None:
            self._free += 1
            if self._line:
                self._free -= 1
                self._line.popleft()()
            done(result)

        def begin() -> None:
            self._start(work, finished)

        if self._free:
            self._free -= 1
            begin()
        else:
            self._line.append(begin)
