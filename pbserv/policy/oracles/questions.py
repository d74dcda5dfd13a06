"""Questions to another server: one at a time per device, few at a time in all, and what came of them, for a while.

One rule: everything is bounded: the questions under way, their time, what waits and what is kept.
"""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Final

from pbserv.policy.oracles.ports import Answer
from pbserv.types import Sighting

AT_A_TIME: Final = 32
MOST_ASKING: Final = 4_096
"""Under way and waiting for their turn; whoever waits past the time of a question has its failed answer."""
MOST_KEPT: Final = 10_000
KEPT_S: Final = 300.0
"""How long an answer stands: a boot, from the first packet to the last script."""
FAILED_S: Final = 5.0
SAME_BOOT_S: Final = 60.0
"""Firmware asks for a minute at most. Older answers are of the boot before, and work may be done since."""
MOST_DETAILS: Final = 64
_IPXE: Final = "ipxe"

Spawn = Callable[[str, Coroutine[Any, Any, None]], "asyncio.Task[None]"]


class NoAnswer(Exception):
    """The other server did not answer, or not as it should; the text says what came instead."""


@dataclass(frozen=True, slots=True)
class _Entry:
    """``asked``: all that was told of the device when it was asked about."""

    answer: Answer
    at: float
    until: float
    asked: Sighting


class Questions:
    """``put`` asks the other server; raises NoAnswer. ``instead`` says what counts then; the text is the reason.

    ``timeout_s`` is for a question with the time that it waits for its turn; ``clock`` is monotonic. ``labels``: the
    other server is told of them, so that a new one is worth another question.
    """

    def __init__(
        self,
        put: Callable[[Sighting], Awaitable[Answer]],
        instead: Callable[[Sighting, str], Answer],
        spawn: Spawn,
        clock: Callable[[], float],
        timeout_s: float,
        *,
        labels: bool,
    ) -> None:
        self._put = put
        self._instead = instead
        self._spawn = spawn
        self._clock = clock
        self._timeout_s = timeout_s
        self._labels = labels
        self._turns = asyncio.Semaphore(AT_A_TIME)
        self._asking: dict[bytes, asyncio.Task[None]] = {}
        self._void: set[bytes] = set()  # forgotten while they were asked about
        self._entries: OrderedDict[bytes, _Entry] = OrderedDict()
        self._closed = False
        self.counters: Counter[str] = Counter()
        """By ``ports.RESULTS``."""

    def known(self, sighting: Sighting, now: float) -> Answer | None:
        entry = self._entries.get(sighting.mac.octets)
        if entry is None or now >= entry.until:
            return None
        if sighting is not entry.asked and not entry.answer.failed and _news(sighting, entry, now, labels=self._labels):
            return None
        return entry.answer

    def ask(self, sighting: Sighting) -> None:
        octets = sighting.mac.octets
        if self._closed or octets in self._asking or self.known(sighting, self._clock()) is not None:
            return
        if len(self._asking) >= MOST_ASKING:
            self.counters["too_many"] += 1
            return
        entry = self._entries.get(octets)
        whole = sighting if entry is None else _joined(entry.asked, sighting)
        self.counters["asked"] += 1
        task = self._asking[octets] = self._spawn(f"ask about {sighting.mac}", self._ask(whole))
        task.add_done_callback(lambda _task: self._asking.pop(octets, None))

    async def wait(self, sighting: Sighting, timeout_s: float) -> Answer:
        known = self.known(sighting, self._clock())
        if known is not None:
            return known
        self.ask(sighting)
        task = self._asking.get(sighting.mac.octets)
        if task is not None:
            await asyncio.wait({task}, timeout=timeout_s)
        known = self.known(sighting, self._clock())
        if known is None and task is not None and task.done() and not self._closed:
            entry = self._entries.get(sighting.mac.octets)  # it was asked with less than this sighting tells
            known = None if entry is None else entry.answer
        if known is None:
            late = f"has not answered within {timeout_s:g} s" if task is not None else "is asked too much already"
            known = self._instead(sighting, late)
        return known

    def forget(self, octets: bytes) -> None:
        self._entries.pop(octets, None)
        if octets in self._asking:
            self._void.add(octets)

    async def close(self) -> None:
        self._closed = True
        tasks = list(self._asking.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def _ask(self, sighting: Sighting) -> None:
        octets = sighting.mac.octets
        fault: Exception | None = None
        try:
            async with asyncio.timeout(self._timeout_s), self._turns:
                answer = await self._put(sighting)
        except TimeoutError:
            answer = self._instead(sighting, f"did not answer within {self._timeout_s:g} s")
        except NoAnswer as reason:
            answer = self._instead(sighting, str(reason))
        except Exception as bug:
            fault, answer = bug, self._instead(sighting, f"could not be asked: internal error {bug!r}")
        self.counters["failed" if answer.failed else "left" if answer.ruling is None else "answered"] += 1
        if octets in self._void:
            self._void.discard(octets)
        else:
            self._keep(sighting, answer)
        if fault is not None:
            raise fault  # whoever owns the task logs it

    def _keep(self, sighting: Sighting, answer: Answer) -> None:
        now, octets = self._clock(), sighting.mac.octets
        self._entries.pop(octets, None)
        self._entries[octets] = _Entry(answer, now, now + (FAILED_S if answer.failed else KEPT_S), sighting)
        while len(self._entries) > MOST_KEPT:
            self._entries.popitem(last=False)


def _news(sighting: Sighting, entry: _Entry, now: float, *, labels: bool) -> bool:
    """Whether the other server may say something else now: the device tells more of itself, or boots again."""
    before = entry.asked
    if sighting.via == "dhcp" and now - entry.at > SAME_BOOT_S and not _is_ipxe(sighting):
        return True
    if (sighting.uuid and not before.uuid) or (sighting.arch is not None and before.arch is None):
        return True
    if not labels:
        return False
    names = {name for name, _value in before.details}
    return len(names) < MOST_DETAILS and any(name not in names for name, _value in sighting.details)


def _is_ipxe(sighting: Sighting) -> bool:
    return any(value == _IPXE for name, value in sighting.details if name == "client_kind")


def _joined(before: Sighting, sighting: Sighting) -> Sighting:
    """All that was told until now."""
    details = {**dict(before.details), **dict(sighting.details)}
    return sighting._replace(
        uuid=sighting.uuid or before.uuid,
        arch=before.arch if sighting.arch is None else sighting.arch,
        address=sighting.address or before.address,
        details=tuple(list(details.items())[:MOST_DETAILS]),
    )
