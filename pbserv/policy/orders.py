"""Turns what a policy promises into work: a bundle that is done once needs a piece of work with a token of its own.

One rule: work is made when the device asks, not when the assignment is; a device that never boots leaves none behind.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import Final, Protocol

from sqlalchemy.exc import SQLAlchemyError

from pbserv.errors import PbservError
from pbserv.log import ServiceLog
from pbserv.policy.decide import Ruling
from pbserv.policy.documents import PolicyError, encode, read_object
from pbserv.policy.model import Bundle
from pbserv.registry.options import WorkOptions
from pbserv.registry.records import BundleKind, Work
from pbserv.registry.registry import ConflictError, WorkOrder, first_line
from pbserv.types import Verdict

MAINTENANCE: Final = Bundle(name="maintenance", kind=BundleKind.MAINTENANCE, title="Imaging maintenance")
"""What the menu's item of that name does."""


class Store(Protocol):
    async def add_work(self, order: WorkOrder) -> Work: ...


class Orders:
    """Makes work of bundles; two questions of one device at a time make one piece of work."""

    def __init__(self, store: Store, log: ServiceLog) -> None:
        self._store = store
        self._log = log
        self._making: dict[str, asyncio.Future[bool]] = {}

    async def make(self, mac: str, bundle: Bundle, assignment: str) -> bool:
        """Queue ``bundle`` for the device; False when it could not be: it has work already, or the registry is away.

        Whoever asks for the same device meanwhile waits for the work that is being made.
        """
        under_way = self._making.get(mac)
        if under_way is not None:
            return await asyncio.shield(under_way)
        waiting: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._making[mac] = waiting
        made = False
        try:
            made = await self._made(mac, bundle, assignment)
        finally:
            del self._making[mac]
            waiting.set_result(made)
        return made

    async def _made(self, mac: str, bundle: Bundle, assignment: str) -> bool:
        try:
            await self._store.add_work(order_of(mac, bundle, assignment))
        except ConflictError as fault:
            self._log.request("no work made", device=mac, bundle=bundle.name, reason=str(fault))
            return False
        except (PbservError, SQLAlchemyError) as fault:
            self._log.critical("work cannot be made", device=mac, bundle=bundle.name, reason=first_line(fault))
            return False
        self._log.transaction("work made", device=mac, bundle=bundle.name, assignment=assignment or None)
        return True


def settled(ruling: Ruling) -> Ruling:
    """Without what should have had its work and has none: nothing that is done once begins where no report can end it,
    or it would begin again at each boot."""
    if not ruling.order or ruling.menu is not None or ruling.work is not None:
        return ruling
    decision = ruling.decision
    why = f"its work could not be made, so its own disk: {decision.reason}"
    return Ruling(replace(decision, verdict=Verdict.LOCAL, reason=why, bundle=""), ruling.refused)


def order_of(mac: str, bundle: Bundle, assignment: str = "") -> WorkOrder:
    """The bundle as it is now, for this device."""
    return WorkOrder(
        mac, bundle.kind, bundle.image, bundle.target_disk, bundle.finish, bundle.overwrite, bundle=bundle.name,
        document=encode(bundle), assignment=assignment, retries=bundle.retries, options=options_of(bundle),
        priority=bundle.priority, wake=bundle.wake,
    )  # fmt: skip


def options_of(bundle: Bundle) -> WorkOptions:
    """What the bundle asks for beyond kind, image and disk."""
    return WorkOptions(
        partitions=bundle.partitions, target_partition=bundle.target_partition, verify=bundle.verify,
        resize=bundle.resize, dry_run=bundle.dry_run, store=bundle.store, addons=bundle.addons,
        efi_entry=bundle.efi_entry, version=bundle.version, cache=bundle.cache,
    )  # fmt: skip


def bundle_of(work: Work) -> Bundle:
    """What a piece of work tells the device to do. Raises PolicyError for a document of a newer pbserv."""
    if not work.document:
        try:
            return Bundle(
                name=f"work {work.id}", kind=work.kind, image=work.image, target_disk=work.target_disk,
                finish=work.finish, overwrite=work.overwrite,
            )  # fmt: skip
        except ValueError as fault:
            raise PolicyError(f"work {work.id}: {fault}") from None
    found = read_object("bundle", work.bundle, json.loads(work.document))
    if not isinstance(found, Bundle):
        raise PolicyError(f"work {work.id}: {work.bundle} is no bundle")
    return found
