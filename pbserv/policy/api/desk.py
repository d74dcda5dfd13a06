"""What the routes have in common: the registry, who may do what, and the objects as they stand now.

One rule: whoever checks something and then changes it holds :attr:`Desk.changing`: it still is as it was checked then.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from fastapi import APIRouter, Depends

from pbserv.httpapi import BEARER, ApiError, faults, guarded
from pbserv.httpjobs import Live
from pbserv.policy import integrity
from pbserv.policy.documents import PolicyError, decode
from pbserv.policy.model import DEFAULT_MENU, PolicyObject, check_folder, check_name
from pbserv.policy.service import PolicyService
from pbserv.policy.snapshot import Objects, Snapshot
from pbserv.policy.texts import text_problems
from pbserv.registry.access import Access
from pbserv.registry.options import NO_OPTIONS, WorkOptions
from pbserv.registry.records import BundleKind, Device, Document, Role
from pbserv.registry.registry import NotFoundError, Registry

Key = tuple[str, str]
"""Kind and name of an object."""


class Images(Protocol):
    """What the policy wants to know of the imaging service before it promises work."""

    def check_work(self, kind: BundleKind, image: str, *, overwrite: bool, options: WorkOptions = NO_OPTIONS) -> None:
        """Raises a PbservError that says why a job of that kind could not succeed."""

    @property
    def client_ready(self) -> bool: ...

    def live(self, job_id: int) -> Live | None:
        """How far a job is now; None for one that nobody hears of."""


@dataclass(frozen=True, slots=True)
class Routers:
    """One router for each role that a route can ask for."""

    viewer: APIRouter
    operator: APIRouter
    admin: APIRouter

    @classmethod
    def under(cls, access: Access) -> Routers:
        def routes(role: Role, *statuses: int) -> APIRouter:
            return APIRouter(
                route_class=guarded(access, role), dependencies=[Depends(BEARER)], responses=faults(*statuses)
            )

        return cls(
            routes(Role.VIEWER, 401, 403, 422),
            routes(Role.OPERATOR, 401, 403, 413, 422),
            routes(Role.ADMIN, 401, 403, 413, 422),
        )


@dataclass(frozen=True, slots=True)
class Stock:
    """The objects at one moment. One that a newer pbserv wrote is a document without an object."""

    documents: Mapping[Key, Document]
    decoded: Mapping[Key, PolicyObject]

    @property
    def objects(self) -> Objects:
        return Objects.of(self.decoded.values())

    def with_changes(self, puts: Mapping[Key, PolicyObject], deletes: Collection[Key]) -> Objects:
        kept = {key: each for key, each in self.decoded.items() if key not in deletes}
        return Objects.of({**kept, **puts}.values())


@dataclass
class Desk:
    registry: Registry
    policy: PolicyService
    images: Images
    changing: asyncio.Lock = field(default_factory=asyncio.Lock)
    _decoded: dict[Key, tuple[int, PolicyObject]] = field(default_factory=dict)

    async def device(self, mac: str) -> Device:
        """By any of its addresses, with what was seen just now. Raises NotFoundError."""
        await self.policy.flush()
        known = self.policy.snapshot.device(mac)
        return await self.registry.device(mac if known is None else known.mac)

    async def find(self, mac: str) -> Device | None:
        try:
            return await self.device(mac)
        except NotFoundError:
            return None

    async def many(self, macs: Collection[str]) -> dict[str, Device | None]:
        """Each of ``macs`` -> the device that has this address."""
        await self.policy.flush()
        snapshot = self.policy.snapshot
        if not self.policy.running:
            snapshot = Snapshot.of(await self.registry.devices())
        return await asyncio.to_thread(lambda: {mac: snapshot.device(mac) for mac in macs})

    async def devices(self) -> Iterable[Device]:
        """All of them: of the snapshot, which is in memory, unless the policy service is stopped. There may be 100,000:
        walk over them in a thread. They stay as they are meanwhile."""
        if self.policy.running:
            return self.policy.snapshot.devices.values()
        return await self.registry.devices()

    async def stock(self) -> Stock:
        documents = {(each.kind, each.name): each for each in await self.registry.documents()}
        decoded = {}
        for key, document in documents.items():
            before = self._decoded.get(key)
            try:
                decoded[key] = before if before and before[0] == document.revision else _read(document)
            except PolicyError:
                continue
        self._decoded = decoded
        return Stock(documents, {key: each for key, (_, each) in decoded.items()})

    async def check_references(self, groups: Iterable[str], menu: str) -> None:
        """Raises ApiError 422 for a group or menu that does not exist."""
        for group in groups:
            if not await self.has("group", group):
                raise ApiError(422, f"there is no group {group!r}; make it first: pbserv group set")
        if menu and menu != DEFAULT_MENU.name and not await self.has("menu", menu):
            raise ApiError(422, f"there is no menu {menu!r}; make it first: pbserv menu set")

    async def has(self, kind: str, name: str) -> bool:
        try:
            await self.registry.document(kind, name)
        except NotFoundError:
            return False
        return True

    async def check_objects(
        self, before: Objects, after: Objects, devices: Callable[[Iterable[Device]], Iterable[Device]] | None = None
    ) -> None:
        """Raises ApiError 422 with every reference that would lead nowhere, and every text that would not render, and
        did before.

        ``devices`` makes of the devices what they will be; None: no device can be affected. The work is done beside
        the event loop: there may be 100,000 devices.
        """
        there = await self.devices() if devices is not None else ()

        def new() -> list[str]:
            will_be = () if devices is None else devices(there)
            old = {*integrity.problems(before, there), *text_problems(before.bundles.values())}
            found = [*integrity.problems(after, will_be), *text_problems(after.bundles.values())]
            return [each for each in found if each not in old]

        found = await asyncio.to_thread(new)
        if found:
            raise ApiError(422, "; ".join(found[:20]) + (f"; and {len(found) - 20} more" if len(found) > 20 else ""))

    async def uses(self, objects: Objects, kind: str, name: str) -> list[str]:
        there = await self.devices()
        return await asyncio.to_thread(lambda: list(integrity.uses(objects, kind, name, there)))

    async def warnings(self, objects: Objects) -> list[str]:
        there = await self.devices()
        return await asyncio.to_thread(lambda: list(integrity.warnings(objects, there)))

    def note(self, mac: str, what: str, detail: str) -> None:
        self.policy.note(mac, what, detail)


def checked_name(kind: str, name: str) -> str:
    """``name``, if an object of the kind can have it; raises ApiError 422."""
    try:
        check_folder(name) if kind == "folder" else check_name(name, kind)
    except ValueError as fault:
        raise ApiError(422, str(fault)) from None
    return name


def _read(document: Document) -> tuple[int, PolicyObject]:
    return document.revision, decode(document)
