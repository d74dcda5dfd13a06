"""Which of many sockets are readable: an epoll set of our own inside the event loop (epoll(7)).

One rule: a wake-up of the loop serves rounds, not sockets. While datagrams keep coming it asks again at once, for a
few milliseconds at most, and after a round it waits a moment for the next answer, as long as that has paid off lately.

Two reasons not to use ``loop.add_reader`` for each socket: it costs more than a datagram, and libuv gives up a
descriptor whose error queue has something in it.
"""

from __future__ import annotations

import asyncio
import select
import time
from collections.abc import Callable

LONGEST_TURN_S = 0.002
"""Everything else in the loop gets its turn after this."""
LINGER_S = 50e-6
"""A client on a fast network answers within this; waking up again would take longer than the answer."""
LONGEST_PAUSE = 1024

_clock = time.perf_counter


class ReadySet:
    """``add`` a descriptor and what to call when it is readable or has an error."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._calls: dict[int, Callable[[], None]] = {}
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._epoll.fileno(), self._turn)
        self._pause = 1  # turns without lingering after it did not pay off
        self._skip = 0
        self._after: list[Callable[[], None]] = []
        self._serving = False

    def add(self, fd: int, call: Callable[[], None]) -> None:
        self._calls[fd] = call
        self._epoll.register(fd, select.EPOLLIN)

    def remove(self, fd: int) -> None:
        del self._calls[fd]
        self._epoll.unregister(fd)

    def after(self, call: Callable[[], None]) -> None:
        """``call`` once, when the descriptors that are ready now have been served, or soon if none is being served."""
        self._after.append(call)
        if not self._serving:
            self._loop.call_soon(self._finish_round)

    def _finish_round(self) -> None:
        calls, self._after = self._after, []
        for call in calls:
            call()

    def _turn(self) -> None:
        self._serving = True
        try:
            self._rounds()
        finally:
            self._serving = False

    def _rounds(self) -> None:
        poll, calls = self._epoll.poll, self._calls
        end = _clock() + LONGEST_TURN_S
        ready = poll(0)
        while ready:
            for fd, _events in ready:
                call = calls.get(fd)  # an earlier call may have closed it
                if call is not None:
                    call()
            if self._after:
                self._finish_round()
            now = _clock()
            if now >= end:
                return
            ready = poll(0) or self._linger(now)

    def _linger(self, now: float) -> list[tuple[int, int]]:
        if self._skip:
            self._skip -= 1
            return []
        poll, until = self._epoll.poll, now + LINGER_S
        while _clock() < until:
            ready = poll(0)
            if ready:
                self._pause = 1
                return ready
        self._skip = self._pause
        self._pause = min(2 * self._pause, LONGEST_PAUSE)
        return []

    def close(self) -> None:
        self._loop.remove_reader(self._epoll.fileno())
        self._epoll.close()
