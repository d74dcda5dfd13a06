"""The jobs that run, in memory: how far each is, whether it is still wanted, who has a slot.

One rule: a report of a device costs no database. What an administrator changes comes by the registry's subscription;
what devices report goes to the registry for all of them together.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from sqlalchemy.exc import SQLAlchemyError

from pbserv.errors import PbservError
from pbserv.imaging.board import Board, Sight
from pbserv.imaging.ports import Policy
from pbserv.imaging.queue import SHORTEST_WAIT_S, Admitted, Ask, Direction, Queue, Waiting
from pbserv.log import ServiceLog
from pbserv.registry.records import FETCHES, BundleKind, Device, Job, Work, WorkState
from pbserv.registry.registry import ConflictError, Progress, Registry, first_line
from pbserv.types import Instant

SILENT_AFTER_S: Final = 120.0
DIRECTIONS: Final[dict[BundleKind, Direction]] = {
    **dict.fromkeys(FETCHES, "restore"), BundleKind.CAPTURE: "capture",
}  # fmt: skip
"""Kinds of jobs that move images; others need no slot."""


@dataclass(slots=True)
class _Entry:
    job: Job
    heard: float
    wanted: bool = True
    sent: int = 0


@dataclass(frozen=True, slots=True)
class Figures:
    """What is known of a job: its ``last`` report, ``sent`` bytes of images, ``waited_ms`` of the device."""

    last: Progress | None = None
    sent: int = 0
    waited_ms: int = 0


class Running:
    """Used from the event loop only."""

    def __init__(
        self, registry: Registry, policy: Policy, log: ServiceLog, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._registry = registry
        self._policy = policy
        self._log = log
        self._clock = clock
        self._entries: dict[int, _Entry] = {}
        self._of_device: dict[str, set[int]] = {}
        self._board = Board()
        self.queue = Queue()
        self.closed: Callable[[str], str] = lambda _store: ""
        """Why nothing begins with a store just now; '': it may."""

    @property
    def now(self) -> Instant:
        return Instant(self._clock())

    @property
    def busy(self) -> bool:
        """Whether a device is at work: it began or reported within the last two minutes."""
        now = self.now
        return any(each.wanted and now - each.heard < SILENT_AFTER_S for each in self._entries.values())

    def room(self) -> int | None:
        """How many devices could begin now; below 0: so many more wait. None: there is no limit."""
        return self.queue.room(self.now)

    def admit(self, work: Work, kind: BundleKind, image: str, store: str) -> Admitted | Waiting:
        """Whether a job of this ``kind`` may begin on the work's device, or waits."""
        ask = self._ask(work.mac, work.id, kind, image, store, work.priority)
        if ask is None:
            return Admitted()
        closed = self.closed(store)
        if closed and work.mac not in self.placed(store):
            return Waiting(ask, 1, 1, SHORTEST_WAIT_S, closed, self.now)
        return self.queue.ask(ask, self.now)

    def later(self, work: Work, kind: BundleKind, image: str, store: str, reason: str, of: int = 1) -> Waiting:
        """Nothing begins just now, for another reason than the limits; ``of`` that wait this is the last."""
        ask = Ask(work.mac, work.id, DIRECTIONS.get(kind, "restore"), image, store)
        return Waiting(ask, of, of, SHORTEST_WAIT_S, reason, self.now)

    def placed(self, store: str) -> tuple[str, ...]:
        """The devices that have a place to work with a store, also those whose job is about to begin."""
        return tuple(ask.device for ask in self.queue.busy(self.now) if ask.store == store)

    def began(self, job: Job, *, within: bool = False) -> None:
        """A job of the device begins, ``within`` imaging maintenance or in the place of all that it had before."""
        for number in () if within else self._of_device.get(job.mac, ()):
            self._entries[number].wanted = False
        self._put(_Entry(job, self.now))
        ask = self._ask(job.mac, job.work_id, job.kind, job.image, job.store)
        if ask is not None:
            self.queue.began(ask, self.now, job.id)

    def given_up(self, work: Work, kind: BundleKind, image: str, store: str, *, keep: bool = False) -> None:
        """What was admitted does not begin; ``keep``: its place is kept for a while, for it asks again at once."""
        ask = self._ask(work.mac, work.id, kind, image, store)
        if ask is not None:
            self.queue.given_up(ask, keep=keep)

    async def report(self, job_id: int, work_id: int, progress: Progress, waited_ms: int) -> bool:
        """What the device says of its job; False tells it to stop. Raises ConflictError for a job of other work."""
        entry = self._entries.get(job_id) or await self._find(job_id, work_id)
        if entry.job.work_id != work_id:
            raise ConflictError(f"job {job_id} belongs to other work")
        if not entry.wanted:
            return False
        now = self.now
        entry.heard = now
        self._board.report(job_id, progress, now, waited_ms=waited_ms)
        self.queue.keep(entry.job.mac, now, job_id)
        return True

    def sent(self, job_id: int, count: int) -> None:
        """So many bytes of the image left for the device."""
        entry = self._entries.get(job_id)
        if entry is not None:
            entry.sent += count

    def look(self, job_id: int) -> Sight | None:
        """How far a job is now; None for one that nobody hears of."""
        return self._board.seen(job_id)

    def stop(self, job_id: int) -> None:
        """A job that was ordered on the device is not wanted any more."""
        entry = self._entries.get(job_id)
        if entry is not None:
            entry.wanted = False
            self.queue.over(entry.job.mac, job_id)

    def figures(self, job_id: int) -> Figures:
        """What is known of the job up to now."""
        seen, entry = self._board.seen(job_id), self._entries.get(job_id)
        sent = 0 if entry is None else entry.sent
        return Figures(sent=sent) if seen is None else Figures(seen.progress, sent, seen.waited_ms)

    def end(self, job: Job) -> None:
        """The job is over, and nothing of it is known here any more."""
        self._board.end(job.id)
        self._drop(job.id)
        self.over(job)

    def over(self, job: Job) -> None:
        """The job is over, whatever ended it: its device stops. Its slot is free, unless another job has it, too."""
        entry = self._entries.get(job.id)
        if entry is not None:
            entry.wanted = False
        self.queue.over(job.mac, job.id)

    def device_changed(self, device: Device) -> None:
        """Told by the registry after each change: work that was cancelled or ended stops its jobs at their next report,
        and waits for no slot."""
        active = device.work.id if device.work is not None and device.work.active else None
        if active is None:
            self.queue.gone(device.mac)
            self.queue.over(device.mac)
        for number in self._of_device.get(device.mac, ()):
            if self._entries[number].job.work_id != active:
                self._entries[number].wanted = False

    async def flush(self, *, everything: bool = False) -> None:
        """Write down what is due; what cannot be written now is due again."""
        self._prune()
        due = self._board.due(self.now, everything=everything)
        try:
            await self._registry.progresses(due)
        except (PbservError, SQLAlchemyError) as fault:
            self._board.unwritten(due)
            self._log.warning("progress of jobs is not written down yet", jobs=len(due), reason=first_line(fault))

    async def _find(self, job_id: int, work_id: int) -> _Entry:
        """A job that began before this process did. It is known here before its work is asked for: a change that comes
        meanwhile is not missed. Raises ConflictError for a job of other work, which stays unknown."""
        job = await self._registry.job(job_id)
        if job.work_id != work_id:
            raise ConflictError(f"job {job_id} belongs to other work")
        entry = self._entries.get(job_id)
        if entry is not None:
            return entry
        entry = _Entry(job, self.now, wanted=job.state is WorkState.RUNNING)
        self._put(entry)
        if not entry.wanted:
            return entry
        try:
            work = await self._registry.work(work_id)
        except BaseException:
            self._drop(job_id)  # its next report asks again
            raise
        if not work.active or self._entries.get(job_id) is not entry:
            entry.wanted = False
        ask = self._ask(job.mac, job.work_id, job.kind, job.image, job.store, work.priority)
        if entry.wanted and ask is not None:
            self.queue.heard(ask, self.now, job_id)
        return entry

    def _ask(self, mac: str, work: int, kind: BundleKind, image: str, store: str, priority: int = 0) -> Ask | None:
        direction = DIRECTIONS.get(kind)
        if direction is None:
            return None
        site = self._policy.site_of(mac)
        return Ask(mac, work, direction, image, store, site.name, site.max_jobs, priority)

    def _put(self, entry: _Entry) -> None:
        self._entries[entry.job.id] = entry
        self._of_device.setdefault(entry.job.mac, set()).add(entry.job.id)

    def _prune(self) -> None:
        now = self.now
        silent = [number for number, each in self._entries.items() if now - each.heard >= SILENT_AFTER_S]
        for number in silent:
            self._drop(number)

    def _drop(self, job_id: int) -> None:
        entry = self._entries.pop(job_id, None)
        if entry is None:
            return
        others = self._of_device[entry.job.mac]
        others.discard(job_id)
        if not others:
            del self._of_device[entry.job.mac]
