"""Who may restore or capture now, and who waits: slots for each store and each site. Pure.

One rule: a device has at most one slot for a store in a direction, and only jobs that run at the same time give it
several; a slot is kept until the last job in it is over or silent, and nobody who fits and asked with a higher
priority, or earlier, is passed by.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Final, Literal

from pbserv.types import Instant

Direction = Literal["restore", "capture"]
SILENT_S: Final = 120.0
"""A device that was not heard of for so long has no slot any more."""
FORGOTTEN_AFTER: Final = 3
FORGOTTEN_S: Final = 45.0
"""Who has not asked for so many of its waits, and for so long, has gone. An older client knows no waits: it asks every
30 seconds."""
SHORTEST_WAIT_S: Final = 2
LONGEST_WAIT_S: Final = 30


@dataclass(frozen=True, slots=True)
class StoreLimit:
    """So many devices at a time; 0: no limit."""

    restores: int = 0
    captures: int = 0

    def of(self, direction: Direction) -> int:
        return self.restores if direction == "restore" else self.captures


@dataclass(frozen=True, slots=True)
class Limits:
    """By the name of the store; those that are not named have none."""

    stores: Mapping[str, StoreLimit] = field(default_factory=dict)

    def of(self, store: str, direction: Direction) -> int:
        return self.stores.get(store, _NONE).of(direction)


_NONE: Final = StoreLimit()


@dataclass(frozen=True, slots=True)
class Ask:
    """A device that wants to begin. ``site_limit``: so many jobs of its ``site`` at a time; 0: no limit."""

    device: str
    work: int
    direction: Direction
    image: str
    store: str
    site: str = ""
    site_limit: int = 0
    priority: int = 0


@dataclass(frozen=True, slots=True)
class Admitted:
    """``waited_s``: since its first question."""

    waited_s: int = 0


@dataclass(frozen=True, slots=True)
class Waiting:
    """``position`` of ``of`` that wait for the same store in the same direction, the first is 1. ``reason``: which
    limit is reached. ``retry_s``: when it is to ask again. ``since``: its first question; ``first``: this is it."""

    ask: Ask
    position: int
    of: int
    retry_s: int
    reason: str
    since: Instant
    first: bool = False


@dataclass(slots=True)
class _Slot:
    """``jobs``: those that run in it; ``begins``: so many more are about to begin."""

    ask: Ask
    heard: Instant
    jobs: set[int] = field(default_factory=set)
    begins: int = 0

    @property
    def empty(self) -> bool:
        return not self.jobs and self.begins <= 0


@dataclass(slots=True)
class _Waiter:
    ask: Ask
    since: Instant
    order: int
    asked: Instant
    retry_s: int = SHORTEST_WAIT_S


class Queue:
    """Slots and who waits for one. Times come in order."""

    def __init__(self, limits: Limits = Limits()) -> None:
        self.limits = limits
        self._slots: dict[str, list[_Slot]] = {}
        self._waiters: dict[str, _Waiter] = {}
        self._sites: dict[str, int] = {}
        self._number = 0

    def adopt(self, limits: Limits) -> None:
        """After a reload; who is at work goes on."""
        self.limits = limits

    def ask(self, ask: Ask, now: Instant) -> Admitted | Waiting:
        """A device asks, for the first time or again. One that has a slot for the same work keeps it. Who is admitted
        says :meth:`began` or :meth:`given_up`."""
        self._sites[ask.site] = ask.site_limit
        self._forget(now)
        slot = self._slot(ask)
        if slot is not None:
            slot.heard = now
            slot.begins += 1
            return Admitted()
        self._keep(ask.device, lambda each: each.ask.work == ask.work and bool(each.jobs))
        waiter = self._waiters.get(ask.device)
        first = waiter is None or waiter.ask.work != ask.work
        if waiter is None or first:
            self._number += 1
            waiter = self._waiters[ask.device] = _Waiter(ask, now, self._number, now)
        waiter.ask, waiter.asked = ask, now
        reason = self._reason(ask.device)
        if not reason:
            del self._waiters[ask.device]
            self._slots.setdefault(ask.device, []).append(_Slot(ask, now, begins=1))
            return Admitted(int(now - waiter.since))
        found = self._place(waiter, reason)
        waiter.retry_s = found.retry_s
        return replace(found, first=first)

    def heard(self, ask: Ask, now: Instant, job: int) -> None:
        """A device is at work, also one that began before this process did: it has a slot, whatever the limits say."""
        self._sites.setdefault(ask.site, ask.site_limit)
        waiter = self._waiters.get(ask.device)
        if waiter is not None and (waiter.ask.work != ask.work or _line(waiter) == (ask.store, ask.direction)):
            del self._waiters[ask.device]
        self._keep(ask.device, lambda each: each.ask.work == ask.work)
        slot = self._slot(ask)
        if slot is None:
            slot = _Slot(ask, now)
            self._slots.setdefault(ask.device, []).append(slot)
        slot.heard = now
        slot.jobs.add(job)

    def began(self, ask: Ask, now: Instant, job: int) -> None:
        """What was admitted has begun, as this job."""
        slot = self._slot(ask)
        if slot is not None:
            slot.begins = max(0, slot.begins - 1)
        self.heard(ask, now, job)

    def given_up(self, ask: Ask, *, keep: bool = False) -> None:
        """What was admitted does not begin; ``keep``: it asks again soon, and has its place until then."""
        slot = self._slot(ask)
        if slot is None:
            return
        slot.begins = max(0, slot.begins - 1)
        if not keep:
            self._keep(ask.device, lambda each: not each.empty)

    def keep(self, device: str, now: Instant, job: int) -> None:
        """A job with a slot was heard of."""
        for slot in self._slots.get(device, ()):
            if job in slot.jobs:
                slot.heard = now

    def over(self, device: str, job: int | None = None) -> None:
        """A job of it has ended, or with None all of them: a slot is free that no other job has."""
        if job is None:
            self._slots.pop(device, None)
            return
        for slot in self._slots.get(device, ()):
            slot.jobs.discard(job)
        self._keep(device, lambda each: not each.empty)

    def gone(self, device: str) -> None:
        """It has no work any more to wait for."""
        self._waiters.pop(device, None)

    def busy(self, now: Instant) -> tuple[Ask, ...]:
        """Who has a slot."""
        self._forget(now)
        return tuple(slot.ask for slot in self._all())

    def room(self, now: Instant) -> int | None:
        """How many restores could begin now, whoever asks; below 0: so many more wait. None: a store has no limit."""
        limits = {name: limit.restores for name, limit in self.limits.stores.items()}
        if not limits or not all(limits.values()):
            return None
        used = Counter(each.store for each in self.busy(now) if each.direction == "restore")
        return sum(max(0, limit - used[name]) for name, limit in limits.items()) - len(self._waiters)

    def waiting(self, now: Instant) -> tuple[Waiting, ...]:
        """Who waits, in the order of the turns. One that fits by now is told so when it asks again."""
        self._forget(now)
        total = Counter(_line(each) for each in self._waiters.values())
        before: Counter[tuple[str, Direction]] = Counter()
        found = []
        for waiter, reason in self._turns():
            line = _line(waiter)
            before[line] += 1
            retry_s, why = _retry_s(before[line]), reason or "its turn"
            found.append(Waiting(waiter.ask, before[line], total[line], retry_s, why, waiter.since))
        return tuple(found)

    def _forget(self, now: Instant) -> None:
        for device in {slot.ask.device for slot in self._all() if now - slot.heard >= SILENT_S}:
            self._keep(device, lambda each: now - each.heard < SILENT_S)
        for device in [each for each, w in self._waiters.items() if now - w.asked > _patience_s(w)]:
            del self._waiters[device]

    def _slot(self, ask: Ask) -> _Slot | None:
        """That of the device for the same work, store and direction."""
        same = _same(ask)
        return next((each for each in self._slots.get(ask.device, ()) if _same(each.ask) == same), None)

    def _all(self) -> Iterator[_Slot]:
        return chain.from_iterable(self._slots.values())

    def _keep(self, device: str, wanted: Callable[[_Slot], bool]) -> None:
        """The others of the device's slots are free."""
        kept = [each for each in self._slots.pop(device, ()) if wanted(each)]
        if kept:
            self._slots[device] = kept

    def _turns(self) -> Iterator[tuple[_Waiter, str]]:
        """Each who waits, by turns, with the limit that stops it; empty: it may begin. Who may and has not asked yet
        has its place kept."""
        stores = Counter((slot.ask.store, slot.ask.direction) for slot in self._all())
        sites = Counter(slot.ask.site for slot in self._all())
        for waiter in sorted(self._waiters.values(), key=_turn):
            ask = waiter.ask
            reason = self._full(ask, stores, sites)
            if not reason:
                stores[ask.store, ask.direction] += 1
                sites[ask.site] += 1
            yield waiter, reason

    def _reason(self, device: str) -> str:
        """What stops one who waits."""
        return next(reason for waiter, reason in self._turns() if waiter.ask.device == device)

    def _full(self, ask: Ask, stores: Mapping[tuple[str, Direction], int], sites: Mapping[str, int]) -> str:
        limit, used = self.limits.of(ask.store, ask.direction), stores[ask.store, ask.direction]
        if limit and used >= limit:
            return f"store {ask.store}: {used} of {limit} {ask.direction}s"
        limit, used = self._sites.get(ask.site, 0), sites[ask.site]
        if limit and used >= limit:
            return f"site {ask.site}: {used} of {limit} jobs"
        return ""

    def _place(self, waiter: _Waiter, reason: str) -> Waiting:
        """Of one who waits, among those for the same store in the same direction."""
        line, turn = _line(waiter), _turn(waiter)
        turns = [_turn(each) for each in self._waiters.values() if _line(each) == line]
        position = sum(each <= turn for each in turns)
        return Waiting(waiter.ask, position, len(turns), _retry_s(position), reason or "its turn", waiter.since)


def _same(ask: Ask) -> tuple[int, Direction, str]:
    return ask.work, ask.direction, ask.store


def _turn(waiter: _Waiter) -> tuple[int, int]:
    return -waiter.ask.priority, waiter.order


def _patience_s(waiter: _Waiter) -> float:
    return max(FORGOTTEN_S, FORGOTTEN_AFTER * waiter.retry_s)


def _line(waiter: _Waiter) -> tuple[str, Direction]:
    return waiter.ask.store, waiter.ask.direction


def _retry_s(position: int) -> int:
    """Who is far behind asks less often."""
    return max(SHORTEST_WAIT_S, min(LONGEST_WAIT_S, SHORTEST_WAIT_S * position))
