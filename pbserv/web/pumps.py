"""Threads that move files into sockets with ``os.sendfile``: the bytes never come into Python.

One rule: a thread belongs to nobody. A page that has to come from the disk stops one of them for a moment, never the
event loop, and a client that reads slowly stops none: its thread looks after the others meanwhile. So their number is
bounded, whatever the number of clients. What goes wrong with one job is that job's end and no other's.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import heapq
import itertools
import os
import select
import struct
import termios
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Final

PUMPS: Final = 4
TURN_BYTES: Final = 2 * 1024 * 1024
"""What one client gets before the next one's turn, where its socket takes that much."""
FIRST_LOOK_S: Final = 0.0005
LONGEST_LOOK_S: Final = 0.05
"""How often is looked whether the last bytes were acknowledged: the kernel tells nobody by itself."""
_AWAY: Final = frozenset((errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ENETDOWN, errno.ENOTCONN))
_OUTQ: Final = termios.TIOCOUTQ

Ended = Callable[[int, OSError | EOFError | None], None]


class Job:
    """``count`` bytes of a file from ``offset`` on. Owns duplicates of both descriptors; used by one thread."""

    def __init__(self, out: int, file: int, offset: int, count: int, *, last: bool, ended: Ended) -> None:
        """``last``: the job ends when the peer has acknowledged all bytes, not when the kernel has taken them.

        ``ended(bytes, fault)`` is called once, in a pump's thread: the bytes that the kernel took, or with a fault
        those that the peer has acknowledged. The fault is a ConnectionError when the client is gone, EOFError when the
        file was shorter, and another OSError when it cannot be read.
        """
        self.out = os.dup(out)
        try:
            self.file = os.dup(file)
        except OSError:
            os.close(self.out)
            raise
        self.offset = offset
        self.left = count
        self.taken = 0
        self.last = last
        self.cancelled = False
        self.look_s = FIRST_LOOK_S
        self._ended: Ended | None = ended

    def unacknowledged(self) -> int:
        """Bytes in the kernel that the peer has not acknowledged."""
        answer = fcntl.ioctl(self.out, _OUTQ, b"\0\0\0\0")
        return int(struct.unpack("i", answer)[0])

    def end(self, fault: OSError | EOFError | None) -> None:
        ended, self._ended = self._ended, None
        if ended is None:
            return
        taken = self.taken
        if fault is not None:
            with suppress(OSError):
                taken = max(0, taken - self.unacknowledged())
        for fd in (self.out, self.file):
            with suppress(OSError):
                os.close(fd)
        ended(taken, fault)

    def arrived(self) -> bool:
        """Whether the peer has acknowledged everything. Linux knows it after a reset too, which is how OVMF's HTTP Boot
        ends a download that it has read to the end (seen in tests/e2e/proxydhcp)."""
        return not self.left and not self.unacknowledged()


class Pumps:
    """At most ``most`` threads, started when they are needed, and kept until :meth:`close`."""

    def __init__(self, most: int = PUMPS) -> None:
        self._most = most
        self._pumps: list[_Pump] = []

    @property
    def threads(self) -> int:
        """How many there are now."""
        return len(self._pumps)

    def add(self, job: Job) -> Callable[[], None]:
        """Give the job to the thread that has least to do; calling the result gives it up soon. From one thread.

        Where there is no thread and none can be had, the job ends at once.
        """
        try:
            pump = self._least()
            while not pump.add(job):
                pump = self._least()
        except OSError as fault:
            job.end(fault)
            return lambda: None
        return lambda: pump.cancel(job)

    def _least(self) -> _Pump:
        """The thread that has least to do, or a new one; raises OSError."""
        self._pumps = [each for each in self._pumps if not each.ended]
        pump = min(self._pumps, key=lambda each: each.load, default=None)
        if pump is None or (pump.load and len(self._pumps) < self._most):
            try:
                self._pumps.append(_Pump())
            except OSError:
                if pump is None:
                    raise
            else:
                pump = self._pumps[-1]
        return pump

    def close(self) -> None:
        """Give up what is under way and wait for the threads."""
        pumps, self._pumps = self._pumps, []
        for pump in pumps:
            pump.stop()
        for pump in pumps:
            pump.join()


class _Pump(threading.Thread):
    """Raises OSError when it cannot be started. ``ended``: it takes no jobs any more."""

    def __init__(self) -> None:
        super().__init__(name="pbserv-sendfile", daemon=True)
        self.load = 0
        self.ended = False
        self._lock = threading.Lock()
        self._new: deque[Job] = deque()
        self._jobs: dict[int, Job] = {}
        self._looks: list[tuple[float, int, Job]] = []  # a heap: when, and in which order
        self._order = itertools.count()
        self._cancelled = False
        self._stopping = False
        self._epoll = select.epoll()
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        try:
            self._epoll.register(self._wake, select.EPOLLIN)
            self.start()
        except (OSError, RuntimeError) as fault:
            self._epoll.close()
            os.close(self._wake)
            raise OSError(errno.EAGAIN, f"no thread to send files from: {fault}") from None

    def add(self, job: Job) -> bool:
        """False when it has ended: nothing has happened."""
        with self._lock:
            if self._stopping or self.ended:
                return False
            self.load += 1
            self._new.append(job)
            os.eventfd_write(self._wake, 1)
        return True

    def cancel(self, job: Job) -> None:
        """It ends soon, well if the peer has got everything already."""
        with self._lock:
            job.cancelled = self._cancelled = True
            if not self.ended:
                os.eventfd_write(self._wake, 1)

    def stop(self) -> None:
        with self._lock:
            self._stopping = True
            if not self.ended:
                os.eventfd_write(self._wake, 1)

    def run(self) -> None:
        try:
            while not self._round():
                pass
        finally:
            self._leave()

    def _leave(self) -> None:
        """Also when a defect has ended it: whoever waits for a job is told."""
        with self._lock:
            self.ended = True
            left = [*self._jobs.values(), *self._new]
            self._epoll.close()
            os.close(self._wake)
        for job in left:
            job.end(OSError(errno.EIO, "the thread that sent the file has ended"))

    def _round(self) -> bool:
        """True when it was the last one."""
        wait_s = max(0.0, self._looks[0][0] - time.monotonic()) if self._looks else None
        for fd, event in self._epoll.poll(wait_s):
            if fd == self._wake:
                os.eventfd_read(self._wake)
            else:
                self._turn(self._jobs[fd], event)
        now = time.monotonic()
        while self._looks and self._looks[0][0] <= now:
            job = heapq.heappop(self._looks)[2]
            if self._jobs.get(job.out) is job:
                self._look(job, now)
        return (bool(self._new) or self._cancelled or self._stopping) and self._told()

    def _told(self) -> bool:
        """Take in what other threads said; True when this was the last time."""
        with self._lock:
            new, self._cancelled = list(self._new), False
            self._new.clear()
            stopping = self._stopping
        for job in new:
            self._jobs[job.out] = job
            with self._kept_to(job):
                self._epoll.register(job.out, select.EPOLLOUT)
        for job in tuple(self._jobs.values()):
            if stopping or job.cancelled:
                with self._kept_to(job):
                    self._finish(job, None if job.last and job.arrived() else ConnectionAbortedError("given up"))
        return stopping

    @contextmanager
    def _kept_to(self, job: Job) -> Iterator[None]:
        """What the kernel refuses inside is the job's end, and the thread goes on."""
        try:
            yield
        except OSError as fault:
            self._finish(job, _named(fault))

    def _turn(self, job: Job, event: int) -> None:
        with self._kept_to(job):
            self._advance(job, event)

    def _advance(self, job: Job, event: int) -> None:
        if job.left:
            try:
                sent = os.sendfile(job.out, job.file, job.offset, min(job.left, TURN_BYTES))
            except BlockingIOError:
                return
            if not sent:
                self._finish(job, EOFError("the file is shorter than it was"))
                return
            job.offset += sent
            job.taken += sent
            job.left -= sent
            if job.left:
                return
            if not job.last:
                self._finish(job, None)
                return
            self._epoll.modify(job.out, 0)
            self._look_at(0.0, job)
        elif event & (select.EPOLLERR | select.EPOLLHUP):
            self._finish(job, None if job.arrived() else ConnectionResetError("the client went away"))

    def _look_at(self, when: float, job: Job) -> None:
        heapq.heappush(self._looks, (when, next(self._order), job))

    def _look(self, job: Job, now: float) -> None:
        """Whether the last byte has arrived; less and less often."""
        with self._kept_to(job):
            if not job.unacknowledged():
                self._finish(job, None if job.arrived() else ConnectionResetError("the client went away"))
                return
            self._look_at(now + job.look_s, job)
            job.look_s = min(job.look_s * 2, LONGEST_LOOK_S)

    def _finish(self, job: Job, fault: OSError | EOFError | None) -> None:
        if self._jobs.pop(job.out, None) is None:
            return
        with suppress(OSError):  # it was never registered
            self._epoll.unregister(job.out)
        with self._lock:
            self.load -= 1
        job.end(fault)


def _named(fault: OSError) -> OSError:
    """A ConnectionError where the client is to blame and not the disk."""
    if isinstance(fault, ConnectionError) or fault.errno not in _AWAY:
        return fault
    return ConnectionResetError(fault.errno, fault.strerror)


async def pump(
    pumps: Pumps,
    out: int,
    file: int,
    offset: int,
    count: int,
    *,
    last: bool,
    started: Callable[[Callable[[], None]], None],
) -> tuple[int, OSError | EOFError | None]:
    """Send and wait for the end: see :class:`Job`. ``started`` gets what gives the job up."""
    loop = asyncio.get_running_loop()
    result: asyncio.Future[tuple[int, OSError | EOFError | None]] = loop.create_future()

    def settle(found: tuple[int, OSError | EOFError | None]) -> None:
        if not result.done():
            result.set_result(found)

    def ended(taken: int, fault: OSError | EOFError | None) -> None:
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(settle, (taken, fault))

    give_up = pumps.add(Job(out, file, offset, count, last=last, ended=ended))
    started(give_up)
    try:
        return await result
    except asyncio.CancelledError:
        give_up()
        raise
