"""What happens to devices: events and boot sessions, collected without making anybody wait, written in batches.

One rule: bounded. When the database cannot keep up, the oldest that is not written is dropped and counted; the writer
works in short turns and rests between them, so that a storm of packets has the loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import UTC, datetime
from typing import Final, Protocol

from sqlalchemy.exc import SQLAlchemyError

from pbserv.journal.follow import Follower, Followers
from pbserv.journal.record import pack
from pbserv.journal.result import result_of
from pbserv.journal.sessions import GAP_S, Session, SessionTable
from pbserv.journal.steps import Describe, DhcpLine, DhcpStep, Line, Step, Told, glance, source_of, step_of
from pbserv.net.interfaces import name_of
from pbserv.registry.records import BootSession, Event

WAITING_EVENTS: Final = 4096
WAITING_STRATEGIES: Final = 16_384
REMEMBERED_ADDRESSES: Final = 16_384
BATCH: Final = 200
TURN: Final = 50
"""Sessions of one transaction."""
SLICE_S: Final = 0.001
"""How long sessions are encoded before others get the loop."""
REST: Final = 19.0
"""How many times as long as it worked the writer rests: it takes a twentieth of a core at most."""
EVERY_S: Final = 2.0
RETRY_S = 2.0
TIDY_AFTER: Final = 250
TIDY_S: Final = 3600.0


class Store(Protocol):
    async def record(self, events: Sequence[Event]) -> None: ...

    async def keep_sessions(self, sessions: Sequence[BootSession]) -> None: ...

    async def drop_old_sessions(self, days: int) -> None: ...

    async def sessions(self, *, mac: str | None = None, limit: int = 100) -> list[BootSession]: ...

    async def addresses(self, mac: str) -> tuple[str, ...]: ...

    async def remember_strategies(self, learned: Mapping[str, str]) -> None: ...


class Journal:
    """What takes steps is cheap and callable from packet handlers; :meth:`run` is the writer's task.

    ``describe`` reads a packet (see :data:`pbserv.journal.steps.Describe`); ``days`` and ``packets`` are JournalDays
    and JournalPackets; ``clock`` gives seconds since the epoch.
    """

    def __init__(
        self,
        store: Store,
        describe: Describe = glance,
        *,
        days: int = 30,
        packets: int = 32,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._describe = describe
        self._clock = clock
        self._wake = asyncio.Event()
        self._writing = asyncio.Lock()
        self._events: deque[Event] = deque(maxlen=WAITING_EVENTS)
        self._table = SessionTable(self._wake.set)
        self._strategies: dict[str, str] = {}
        self._followers = Followers()
        self._watching = self._followers.watching
        self._macs: dict[str, str] = {}
        self._lost_events = 0
        self._untidy = TIDY_AFTER  # tidy up with the first write
        self._tidied = 0.0
        self.configure(days, packets)

    def configure(self, days: int, packets: int) -> None:
        """Take over new settings; they hold for what is written from now on."""
        self._days, self._packets = days, packets

    @property
    def dropped(self) -> int:
        """Events and sessions that were lost because the registry did not keep up."""
        return self._lost_events + self._table.dropped

    # what happens

    def dhcp(self, mac: bytes, step: DhcpStep) -> None:
        """A DHCP packet of a boot client, with the answer that it got."""
        self._table.dhcp(mac, step)
        if self._watching:
            self._followers.tell(mac, step)

    def packet(self, mac: bytes, at: float, told: Told, data: bytes) -> None:
        """The same for a packet that is answered as others of this device are; about half a microsecond."""
        self._table.packet(mac, at, told, data)
        if self._watching:
            self._followers.tell(mac, step_of(at, told, data))

    def add(self, mac: str, what: str, detail: str = "") -> None:
        """Anything else: a line of the device's history, and a step of its session. ``mac`` in its canonical form."""
        now = self._clock()
        if len(self._events) == WAITING_EVENTS:
            self._lost_events += 1
        self._events.append(Event(datetime.fromtimestamp(now, UTC), mac, what, detail))
        octets = _octets(mac)
        step = Step(now, source_of(what), what, detail)
        self._table.add(octets, step)
        if self._watching:
            self._followers.tell(octets, step)
        self._wake.set()

    def learn(self, address: str, mac: str, *, sure: bool = True) -> None:
        """Remember which device spoke from ``address``; TFTP knows addresses only.

        Not ``sure``: it only says that the address is its own, so another device that spoke from there keeps it.
        """
        known = self._macs.get(address)
        if known == mac or not address or address == "0.0.0.0" or (known is not None and not sure):
            return
        self._macs.pop(address, None)
        if len(self._macs) >= REMEMBERED_ADDRESSES:
            del self._macs[next(iter(self._macs))]
        self._macs[address] = mac

    def mac_of(self, address: str) -> str | None:
        return self._macs.get(address)

    def strategy_learned(self, mac: str, name: str) -> None:
        """The strategy ``name`` led this device to its loader; an empty name forgets what was learned."""
        if len(self._strategies) >= WAITING_STRATEGIES and mac not in self._strategies:
            del self._strategies[next(iter(self._strategies))]
        self._strategies[mac] = name
        self._wake.set()

    def forget(self, mac: str) -> None:
        """The device was removed from the registry: what waits to be written about it goes too."""
        kept = [event for event in self._events if event.mac != mac]
        self._events.clear()
        self._events.extend(kept)
        self._strategies.pop(mac, None)
        self._table.forget(_octets(mac))

    # who looks at it

    async def addresses(self, mac: str) -> tuple[str, ...]:
        """All addresses of the device that has ``mac``; of one that is not registered ``mac`` alone."""
        return await self._store.addresses(mac)

    def follow(self, macs: Collection[str] | None) -> contextlib.AbstractContextManager[Follower]:
        """The steps of these addresses, or of all, from now on; raises TooManyFollowersError."""
        return self._followers.follow(None if macs is None else frozenset(map(_octets, macs)))

    def refuse_when_full(self) -> None:
        """Raises TooManyFollowersError when :meth:`follow` would."""
        self._followers.refuse_when_full()

    async def end_following(self) -> None:
        """The server stops: whoever follows is let go."""
        self._followers.end()

    def read(self, step: DhcpStep | Step) -> Line:
        """A step as it stands in a session."""
        if isinstance(step, Step):
            return step
        return DhcpLine(step, self._describe(step.data), name_of(step.ifindex))

    async def sessions(self, mac: str | None = None, limit: int = 100) -> list[BootSession]:
        """The newest first, those in memory with everything that has happened until now.

        ``mac``: those of its device, whichever of its addresses booted.
        """
        macs = None if mac is None else frozenset(map(_octets, await self.addresses(mac)))
        waiting = sorted(self._table.unwritten(macs), key=lambda session: session.last, reverse=True)
        found = await self._seal(waiting[:limit])
        names = {(session.mac, session.started) for session in found}
        stored = await self._store.sessions(mac=mac, limit=limit)
        found += [session for session in stored if (session.mac, session.started) not in names]
        return sorted(found, key=lambda session: session.ended, reverse=True)[:limit]

    def still_open(self, session: BootSession) -> bool:
        """Whether a step that comes now would belong to it."""
        return self._clock() - session.ended.timestamp() <= GAP_S

    # the writer

    async def run(self) -> None:
        """Write until cancelled; a registry that cannot be written is tried again."""
        while True:
            await self._wake.wait()
            await asyncio.sleep(EVERY_S)  # what belongs together comes together
            self._wake.clear()
            if not await self._write(rest=REST):
                await asyncio.sleep(RETRY_S)
                self._wake.set()

    async def flush(self) -> bool:
        """Write everything that waits now; False when the registry could not be written (what fits is kept)."""
        return await self._write(rest=0.0)

    async def _write(self, rest: float) -> bool:
        return (
            await self.flush_events()
            and await self._write_strategies()
            and await self._write_sessions(rest)
            and await self._tidy()
        )

    async def flush_events(self) -> bool:
        """Write the events that wait now; False when the registry could not be written (what fits is kept)."""
        async with self._writing:
            for _ in range(0, len(self._events), BATCH):
                batch = [self._events.popleft() for _ in range(min(BATCH, len(self._events)))]
                try:
                    await self._store.record(batch)
                except SQLAlchemyError:
                    room = WAITING_EVENTS - len(self._events)
                    self._lost_events += max(0, len(batch) - room)
                    self._events.extendleft(reversed(batch[-room:] if room else []))
                    return False
        return True

    async def _write_strategies(self) -> bool:
        async with self._writing:
            learned, self._strategies = self._strategies, {}
            if not learned:
                return True
            try:
                await self._store.remember_strategies(learned)
            except SQLAlchemyError:
                self._strategies = learned | self._strategies
                return False
        return True

    async def _write_sessions(self, rest: float) -> bool:
        """In turns; what becomes dirty meanwhile waits for the next time."""
        for _ in range(0, max(self._table.waiting, 1), TURN):
            began = time.perf_counter()
            async with self._writing:
                if not await self._turn():
                    return False
            await asyncio.sleep(rest * (time.perf_counter() - began))
        return True

    async def _turn(self) -> bool:
        taken = self._table.take(TURN)
        try:
            await self._store.keep_sessions(await self._seal(taken))
        except SQLAlchemyError:
            self._table.put_back(taken)
            return False
        self._untidy += len(taken)
        return True

    async def _tidy(self) -> bool:
        """Remove what is too old or too much, now and then."""
        if self._untidy < TIDY_AFTER and self._clock() - self._tidied < TIDY_S:
            return True
        try:
            await self._store.drop_old_sessions(self._days)
        except SQLAlchemyError:
            return False
        self._untidy, self._tidied = 0, self._clock()
        return True

    async def _seal(self, sessions: Sequence[Session]) -> list[BootSession]:
        """Sessions as the registry keeps them; others get the loop every few milliseconds."""
        sealed = []
        began = time.perf_counter()
        for session in sessions:
            self._table.settle(session, self._describe, name_of, self._packets)
            sealed.append(_sealed(session))
            if time.perf_counter() - began > SLICE_S:
                await asyncio.sleep(0)
                began = time.perf_counter()
        return sealed


def _sealed(session: Session) -> BootSession:
    mac = session.mac.hex(":")
    lines = session.lines
    result = result_of(lines)
    return BootSession(
        mac=mac,
        started=datetime.fromtimestamp(session.started, UTC),
        ended=datetime.fromtimestamp(session.last, UTC),
        result=result.word,
        why=result.why,
        todo=result.todo.replace("MAC", mac),
        steps=pack(lines, session.lost),
        packets=sum(isinstance(line, DhcpLine) and bool(line.step.data) for line in lines),
    )


def _octets(mac: str) -> bytes:
    return bytes.fromhex(mac.replace(":", ""))
