"""What the stores and the registry tell each other: who needs an image, which jobs run, what a start found.

One rule: the stores know nothing of jobs, work or bundles; what they ask is answered here, anew each time.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Final

from sqlalchemy.exc import SQLAlchemyError

from pbserv.errors import PbservError
from pbserv.imaging.adopt import remove_own_locks
from pbserv.imaging.captures import Captures
from pbserv.imaging.faults import StoreClosed
from pbserv.imaging.pins import Pins
from pbserv.imaging.ports import Policy
from pbserv.imaging.reconcile import Tell
from pbserv.imaging.stores import Stores
from pbserv.log import ServiceLog
from pbserv.registry.records import BundleKind
from pbserv.registry.registry import Registry, first_line

_SWEEP_EVERY_S: Final = 3600.0
_ORPHANS_EVERY_S: Final = 60.0
ORPHANED_AFTER: Final = timedelta(minutes=10)
"""A device whose work has ended, and that has not reported for so long, will not report any more."""


class Keeper:
    """One for the imaging service. ``retired_days`` 0: retired versions are purged by hand only."""

    def __init__(self, registry: Registry, policy: Policy, captures: Captures, pins: Pins, log: ServiceLog) -> None:
        self._registry = registry
        self._policy = policy
        self._captures = captures
        self._pins = pins
        self._log = log
        self._stores: Stores | None = None
        self._swept = self._looked = self._checked = float("-inf")
        self.retired_days = 0
        self.placed: Callable[[str], Sequence[str]] = lambda _store: ()
        """The devices that have a place to work with a store: their jobs may be just about to begin."""

        self.referred: Callable[[str, int | None], Sequence[str]] = lambda _image, _version: ()
        """The devices of other servers that work with a version; None: with any of the image."""

    def wire(self, stores: Stores) -> None:
        """Before ``stores`` are started: let them ask."""
        stores.users, stores.jobs, stores.at_work, stores.inform = self.users, self.jobs, self.at_work, self.inform
        self._stores, self._swept = stores, float("-inf")

    async def started(self) -> None:
        """The stores run: tell the registry what it missed, go on with captures, log what was removed."""
        if self._stores is None:
            return
        for store in self._stores.stores():
            for lock in await asyncio.to_thread(remove_own_locks, store.directory):
                self._log.warning("leftover removed", path=lock, reason="a crash left this lock")
        for told in self._stores.untold:
            await self.inform(told)
        running = [job for job in await self._registry.running_jobs() if job.kind is BundleKind.CAPTURE]
        works = [await self._registry.work(number) for number in {job.work_id for job in running}]
        self._captures.resume(running, {work.id: work for work in works if work.active})
        for gone in self._stores.leftovers:
            self._log.warning("leftover removed", path=gone.name, reason=gone.why)
        for session in self._stores.sessions():
            self._log.transaction("upload goes on", image=session.image, upload=session.number, owner=session.owner)

    async def inform(self, told: Tell) -> None:
        """The registry did not know which version a job made."""
        await self._registry.set_job_version(told.job, told.version)
        self._log.critical("job learned its image", job=told.job, image=told.image, version=told.version)

    async def turn(self) -> None:
        """Now and then: close jobs that nobody will report of, give up uploads that nobody goes on with, purge what
        has been retired for long enough."""
        if time.monotonic() - self._looked >= _ORPHANS_EVERY_S:
            self._looked = time.monotonic()
            await self.close_orphans(datetime.now(UTC))
        if self._stores is not None and time.monotonic() - self._checked >= _SWEEP_EVERY_S:
            self._checked = time.monotonic()
            for gone in self._stores.abandoned():
                self._log.warning("leftover removed", path=gone.name, reason=gone.why)
        if self._stores is None or not self.retired_days or time.monotonic() - self._swept < _SWEEP_EVERY_S:
            return
        self._swept = time.monotonic()
        with suppress(StoreClosed):  # the service stops
            for line in await self._stores.sweep(datetime.now(UTC) - timedelta(days=self.retired_days)):
                self._log.transaction("purged", what=line, reason=f"retired for {self.retired_days} days", result="ok")

    async def close_orphans(self, at: datetime) -> None:
        """Jobs of work that ended long before ``at`` hold no image any more; a database that is gone has time."""
        try:
            await self._registry.close_orphans(at - ORPHANED_AFTER)
        except (PbservError, SQLAlchemyError) as fault:
            self._log.warning("jobs without work are not closed yet", reason=first_line(fault))

    async def jobs(self) -> Mapping[int, int | None]:
        """The jobs that run, with the version that the registry knows of each."""
        return {job.id: job.version for job in await self._registry.running_jobs()}

    async def users(self, image: str, version: int | None) -> Sequence[str]:
        """Who needs this version, also as an add-on, or with None the image as such: jobs, work, bundles that devices
        can get."""
        users = [*await self._registry.image_users(image, version), *self.referred(image, version)]
        if version is None:
            return [*users, *self._policy.uses_image(image)]
        return list(dict.fromkeys([*users, *await self._with_addon(image, version)]))

    async def _with_addon(self, image: str, version: int) -> Sequence[str]:
        """The jobs that lay this version over what they restore; not those whose work has ended."""
        told = self._pins.jobs(image, version)
        running = [job for job in await self._registry.running_jobs() if job.id in told] if told else []
        return [f"job {job.id} of {job.mac}" for job in running if (await self._registry.work(job.work_id)).active]

    async def at_work(self, store: str, images: Collection[str]) -> Sequence[str]:
        """The jobs that run with a store: by its name, by their image, by an add-on of their work."""
        found = {}
        for job in await self._registry.running_jobs():
            addons = (await self._registry.work(job.work_id)).options.addons
            if job.store == store or any(name in images for name in (job.image, *addons)):
                found[f"job {job.id} of {job.mac}"] = job.mac
        named = frozenset(found.values())  # any other job of a device does not work with the store; its next one will
        return [*found, *(f"device {device}" for device in self.placed(store) if device not in named)]
