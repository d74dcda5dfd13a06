"""Who watches the journal live. One rule: a follower that is slow loses steps and is told how many; nobody waits."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Iterator
from typing import Final

from pbserv.errors import PbservError
from pbserv.journal.steps import DhcpStep, Step

MOST_FOLLOWERS: Final = 16
MOST_WAITING: Final = 1024


class TooManyFollowersError(PbservError):
    """No room for one more that watches."""

    status = 429


class Follower:
    """The steps of these addresses, or with ``macs`` None of all, from now on."""

    def __init__(self, macs: frozenset[bytes] | None) -> None:
        self._macs = macs
        self._waiting: deque[tuple[bytes, DhcpStep | Step]] = deque()
        self._lost = 0
        self._over = False
        self._wake = asyncio.Event()

    def tell(self, mac: bytes, step: DhcpStep | Step) -> None:
        if self._macs is not None and mac not in self._macs:
            return
        if len(self._waiting) >= MOST_WAITING:
            self._lost += 1
        else:
            self._waiting.append((mac, step))
        self._wake.set()

    def end(self) -> None:
        """The server stops."""
        self._over = True
        self._wake.set()

    async def next(self, timeout_s: float) -> tuple[list[tuple[bytes, DhcpStep | Step]], int] | None:
        """What has come, and how many steps were lost after it; empty after ``timeout_s``, None when it is over."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._wake.wait()
        if not self._over:
            self._wake.clear()
        steps, lost = list(self._waiting), self._lost
        self._waiting.clear()
        self._lost = 0
        return None if self._over and not steps else (steps, lost)


class Followers:
    """Everybody who watches. ``watching`` is empty nearly always: look at it before you call :meth:`tell`."""

    def __init__(self) -> None:
        self.watching: list[Follower] = []

    @contextlib.contextmanager
    def follow(self, macs: frozenset[bytes] | None) -> Iterator[Follower]:
        """Raises TooManyFollowersError."""
        self.refuse_when_full()
        follower = Follower(macs)
        self.watching.append(follower)
        try:
            yield follower
        finally:
            self.watching.remove(follower)

    def refuse_when_full(self) -> None:
        """Raises TooManyFollowersError when there is no room for one more."""
        if len(self.watching) >= MOST_FOLLOWERS:
            raise TooManyFollowersError(f"{MOST_FOLLOWERS} watch the journal already; end one of them")

    def tell(self, mac: bytes, step: DhcpStep | Step) -> None:
        for follower in self.watching:
            follower.tell(mac, step)

    def end(self) -> None:
        for follower in self.watching:
            follower.end()
