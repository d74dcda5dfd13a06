"""How far the jobs of all devices are: in memory, and now and then for the registry. Pure.

One rule: a report costs no write; what is written is the newest picture of each job, all of them together.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import exp, isfinite
from typing import Final

from pbserv.registry.orders import Progress
from pbserv.types import Instant

FLUSH_S: Final = 15.0
"""So old may be what the registry says of a job, while its stage stays the same."""
RATE_OVER_S: Final = 10.0
"""What happened longer ago than this has little weight in the rate."""
SILENT_S: Final = 120.0
"""A job that was not heard of for so long is forgotten here."""
_SHORTEST_S: Final = 0.1
"""Reports that lie closer together say nothing about the rate."""


@dataclass(frozen=True, slots=True)
class Sight:
    """One look at a job. ``rate``: bytes per second over the last seconds; ``eta_s``: seconds until the last byte, None
    when nobody can say; ``waited_ms``: how long the device has waited for the server."""

    progress: Progress
    rate: int
    eta_s: int | None
    waited_ms: int


@dataclass(slots=True)
class _Entry:
    """``base``: the report that the rate was last counted at, as its time and its bytes."""

    progress: Progress
    heard: Instant
    base: tuple[Instant, int]
    rate: float = 0.0
    waited_ms: int = 0
    dirty: bool = True
    staged: bool = True
    """Its stage or item is another one since it was written."""


@dataclass(slots=True)
class Board:
    """The newest report of each job."""

    _entries: dict[int, _Entry] = field(default_factory=dict)
    _flushed: Instant | None = None

    def report(self, job: int, progress: Progress, now: Instant, *, waited_ms: int = 0) -> None:
        """What a device says; times come in order."""
        entry = self._entries.get(job)
        if entry is None:
            base = (now, progress.bytes_done)
            self._entries[job] = _Entry(progress, now, base, float(progress.rate), max(0, waited_ms))
            return
        since, done = entry.base
        passed, more = now - since, progress.bytes_done - done
        if more < 0 or progress.stage != entry.progress.stage:  # it begins to count anew
            entry.rate, entry.base = float(progress.rate), (now, progress.bytes_done)
        elif passed >= _SHORTEST_S:
            entry.rate += (1.0 - exp(-passed / RATE_OVER_S)) * (more / passed - entry.rate)
            entry.base = (now, progress.bytes_done)
        entry.staged |= (progress.stage, progress.item) != (entry.progress.stage, entry.progress.item)
        entry.progress, entry.heard, entry.dirty = progress, now, True
        entry.waited_ms = max(entry.waited_ms, waited_ms)

    def seen(self, job: int) -> Sight | None:
        """None for a job that nobody reported of lately."""
        entry = self._entries.get(job)
        if entry is None:
            return None
        left = entry.progress.bytes_total - entry.progress.bytes_done
        eta = left / entry.rate if entry.progress.bytes_total and left >= 0 and entry.rate >= 1.0 else None
        return Sight(
            entry.progress, int(entry.rate), round(eta) if eta is not None and isfinite(eta) else None, entry.waited_ms
        )

    def due(self, now: Instant, *, everything: bool = False) -> Mapping[int, Progress]:
        """What the registry is to be told now: jobs whose stage changed, and every ``FLUSH_S`` (or now, with
        ``everything``) all that moved.

        Whoever asks writes them; what could not be written is given back with :meth:`unwritten`.
        """
        everything = everything or self._flushed is None or now - self._flushed >= FLUSH_S
        if everything:
            self._flushed = now
            self._entries = {job: each for job, each in self._entries.items() if now - each.heard < SILENT_S}
        found: dict[int, Progress] = {}
        for job, entry in self._entries.items():
            if entry.staged or (everything and entry.dirty):
                entry.staged = entry.dirty = False
                found[job] = entry.progress
        return found

    def unwritten(self, jobs: Mapping[int, Progress]) -> None:
        """These could not be written: they are due again with the next full turn."""
        for job in jobs:
            entry = self._entries.get(job)
            if entry is not None:
                entry.dirty = True

    def end(self, job: int) -> None:
        """The job is over."""
        self._entries.pop(job, None)

    def __len__(self) -> int:
        return len(self._entries)
