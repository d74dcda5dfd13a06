"""The running transfers: who may start one, and the one timer that serves every deadline.

One rule: no timer per packet. A sweep every 10 ms looks at one number of each transfer.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from dataclasses import dataclass
from typing import Protocol

from pbserv.tftp.metrics import TftpMetrics
from pbserv.tftp.session import Key, Session
from pbserv.tftp.switchboard import is_loopback
from pbserv.tftp.transfer import Outcome

SWEEP_S = 0.01
CHANGES, CHANGES_PER_S = 16.0, 2.0
CHANGERS_KEPT = 4096


@dataclass(frozen=True, slots=True)
class Caps:
    """How many transfers may run: in all, per address, and per address without a word after the request.

    A forged source address gets ``unanswered`` first packets, four times each, in the time a transfer waits for it.
    """

    transfers: int = 1000
    per_address: int = 256
    unanswered: int = 64


class Guests(Protocol):
    """Transfers that are kept elsewhere and count all the same: members of multicast groups."""

    def __len__(self) -> int: ...

    def of(self, address: str) -> int:
        """How many of them ``address`` has."""


class TransferTable:
    """Sessions by client; ``caps`` bounds them."""

    def __init__(self, caps: Caps, metrics: TftpMetrics) -> None:
        self.caps = caps
        self.guests: Guests | None = None
        self.trusts = is_loopback
        """Whether an address cannot be forged."""
        self._stopping = False
        self._metrics = metrics
        self._changes: dict[str, tuple[float, float]] = {}  # address: requests it may replace, and when that was
        self._unanswered: deque[Session] = deque()  # oldest first; may hold some that have ended or been answered
        self._sessions: dict[Key, Session] = {}
        self._by_address: dict[str, set[Session]] = {}
        self._latest: dict[tuple[str, bytes], Session] = {}  # address and file name
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._empty = asyncio.Event()
        self._empty.set()

    def __len__(self) -> int:
        return len(self._sessions)

    def find(self, key: Key) -> Session | None:
        return self._sessions.get(key)

    def full_for(self, address: str) -> str:
        """Why this client may not start another transfer now; empty when it may."""
        caps, guests = self.caps, self.guests
        own = self._by_address.get(address, ())
        count = len(own) + (guests.of(address) if guests is not None else 0)
        if count >= min(caps.unanswered, caps.per_address) and not self.trusts(address):
            if count >= caps.per_address:
                return "too many transfers of this client"
            if sum(not session.answered for session in own) >= caps.unanswered:
                return "too many unanswered transfers of this client"
        return "too many transfers" if self._full and self._longest_silent() is None else ""

    @property
    def _full(self) -> bool:
        return len(self._sessions) + (len(self.guests) if self.guests is not None else 0) >= self.caps.transfers

    def _longest_silent(self) -> Session | None:
        """The transfer that has waited longest for a client's first word: it makes room, so that forged requests
        cannot keep real clients out for longer than it takes those to send one packet."""
        while self._unanswered:
            oldest = self._unanswered[0]
            if not oldest.ended and not oldest.answered:
                return oldest
            self._unanswered.popleft()
        return None

    def may_change_mind(self, session: Session, datagram: bytes, now: float) -> bool:
        """Whether a client that has not answered yet may replace its request: each one is another first packet to an
        address that may be forged. A few a second are plenty for U-Boot, which reuses its ports."""
        address = session.key[0]
        if session.repeats(datagram) or self.trusts(address):
            return True
        left, since = self._changes.get(address, (CHANGES, now))
        left = min(CHANGES, left + (now - since) * CHANGES_PER_S)
        if left < 1:
            return False
        if len(self._changes) >= CHANGERS_KEPT:
            self._changes.clear()
        self._changes[address] = (left - 1, now)
        return True

    def latest(self, address: str, name: bytes) -> Session | None:
        """The transfer of this file that one address asked for last, if it still runs."""
        return self._latest.get((address, name))

    def add(self, session: Session) -> None:
        waiting = self._unanswered
        if self._full and (oldest := self._longest_silent()) is not None:
            oldest.give_up("made room for another client")
        while waiting and (waiting[0].answered or waiting[0].ended):
            waiting.popleft()
        self._sessions[session.key] = session
        waiting.append(session)
        if len(waiting) > 2 * len(self._sessions) + 64:  # one that never answers is before them
            self._unanswered = deque(one for one in waiting if not one.ended and not one.answered)
        self._latest[session.key[0], session.name] = session
        self._by_address.setdefault(session.key[0], set()).add(session)
        self._metrics.transfers = len(self._sessions)
        self._empty.clear()
        if self._timer is None:
            self._timer = self._loop.call_later(SWEEP_S, self._sweep)

    def remove(self, session: Session) -> None:
        """Called by the session when it ends."""
        self._sessions.pop(session.key, None)
        own = self._by_address[session.key[0]]
        own.discard(session)
        if not own:
            del self._by_address[session.key[0]]
        asked = session.key[0], session.name
        if self._latest.get(asked) is session:
            del self._latest[asked]
        self._metrics.transfers = len(self._sessions)
        if not self._sessions:
            self._empty.set()

    def _sweep(self) -> None:
        now = time.monotonic()
        due = [session for session in self._sessions.values() if session.deadline <= now]
        for session in due:
            session.on_deadline(now)
        if self._stopping:
            self._end_dalliers()
        self._timer = self._loop.call_later(SWEEP_S, self._sweep) if self._sessions else None

    def _end_dalliers(self) -> None:
        for session in [session for session in self._sessions.values() if session.dallies]:
            session.fail(Outcome.STOPPED, "the server is stopping")

    async def finish(self, grace_s: float) -> None:
        """Wait for running transfers, then end what is left. Clients that have everything are not waited for."""
        self._stopping = True
        self._end_dalliers()
        try:
            async with asyncio.timeout(grace_s):
                await self._empty.wait()
        except TimeoutError:
            for session in list(self._sessions.values()):
                session.fail(Outcome.STOPPED, "the server is stopping")
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
