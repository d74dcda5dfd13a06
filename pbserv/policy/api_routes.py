"""Devices, work and jobs for administrators: ``/api/v1`` (every call needs the administrator's token)."""

from __future__ import annotations

import re
from dataclasses import asdict
from datetime import datetime
from typing import Annotated, Protocol

from fastapi import APIRouter, Depends, Path, Query
from pydantic import BaseModel, Field, field_validator

from pbserv.httpapi import ApiError, requires
from pbserv.policy.service import PolicyService
from pbserv.registry.access import Access
from pbserv.registry.records import BundleKind, Device, DeviceState, Event, Finish, Job, Role, Work, WorkState
from pbserv.registry.registry import DeviceChange, Registry, WorkOrder
from pbserv.types import ClientArch, MacAddress

_DISK = re.compile(r"/dev/[\w./:-]+|(by-id|serial|model|size):[\w .:+/-]+")
Number = Annotated[int, Path(ge=1, lt=2**63)]


class Images(Protocol):
    """What the policy wants to know of the imaging service before it promises work."""

    def check_work(self, kind: BundleKind, image: str, *, overwrite: bool) -> None:
        """Raises a PbservError that says why a job of that kind could not succeed."""

    @property
    def client_ready(self) -> bool: ...


class WorkView(BaseModel):
    id: int
    mac: str
    kind: BundleKind
    image: str
    target_disk: str
    finish: Finish
    overwrite: bool
    state: WorkState
    reason: str
    created: datetime


class WorkCreated(BaseModel):
    work: WorkView
    warnings: list[str]


class DeviceView(BaseModel):
    mac: str
    name: str
    uuid: str | None
    arch: int | None
    arch_name: str
    state: DeviceState
    address: str
    first_seen: datetime
    last_seen: datetime
    work: WorkView | None


class JobView(BaseModel):
    id: int
    work_id: int
    mac: str
    kind: BundleKind
    image: str
    version: int | None
    address: str
    state: WorkState
    reason: str
    stage: str
    item: str
    bytes_done: int
    bytes_total: int
    rate: int
    started: datetime
    finished: datetime | None
    log: str


class EventView(BaseModel):
    time: datetime
    mac: str
    what: str
    detail: str


class WorkBody(BaseModel):
    """``target_disk``: empty, ``/dev/X``, ``by-id:NAME``, ``serial:S``, ``model:M`` or ``size:BYTES``."""

    mac: str
    kind: BundleKind
    image: str
    target_disk: str = Field("", max_length=200)
    finish: Finish = Finish.REBOOT
    overwrite: bool = False

    @field_validator("target_disk")
    @classmethod
    def _disk(cls, text: str) -> str:
        if text and not _DISK.fullmatch(text):
            raise ValueError("write /dev/X, by-id:NAME, serial:S, model:M or size:BYTES")
        return text


class NameBody(BaseModel):
    name: str | None = Field(None, max_length=64)

    @field_validator("name")
    @classmethod
    def _printable(cls, text: str | None) -> str | None:
        if text is not None and not text.isprintable():
            raise ValueError("a name has printable characters only")
        return text


def mac_text(mac: str) -> str:
    """The canonical spelling, or a 422 answer."""
    try:
        address = MacAddress.parse(mac)
    except ValueError as fault:
        raise ApiError(422, str(fault)) from None
    if address.octets[0] & 1 or not any(address.octets):
        raise ApiError(422, f"{address} is no device's address: it is a group's, or empty")
    return str(address)


def router(registry: Registry, policy: PolicyService, access: Access, images: Images) -> APIRouter:
    routes = APIRouter(prefix="/api/v1", dependencies=[Depends(requires(access, Role.ADMIN))])
    _device_routes(routes, registry, policy)
    _work_routes(routes, registry, images)
    return routes


def _device_routes(routes: APIRouter, registry: Registry, policy: PolicyService) -> None:
    @routes.get("/devices", tags=["devices"])
    async def devices(state: DeviceState | None = None) -> list[DeviceView]:
        await policy.flush()
        return [_device(d) for d in await registry.devices() if state is None or d.state is state]

    @routes.get("/devices/{mac}", tags=["devices"])
    async def device(mac: str) -> DeviceView:
        await policy.flush()
        return _device(await registry.device(mac_text(mac)))

    @routes.get("/devices/{mac}/history", tags=["devices"])
    async def history(mac: str, limit: Annotated[int, Query(ge=1, le=500)] = 200) -> list[EventView]:
        await registry.device(mac_text(mac))
        await policy.flush_history()
        return [_event(e) for e in await registry.history(mac_text(mac), limit)]

    @routes.post("/devices/{mac}/accept", tags=["devices"])
    async def accept(mac: str, body: NameBody | None = None) -> DeviceView:
        return await decide(mac, DeviceState.KNOWN, body.name if body else None)

    @routes.post("/devices/{mac}/deny", tags=["devices"])
    async def deny(mac: str) -> DeviceView:
        return await decide(mac, DeviceState.DENIED, None)

    @routes.delete("/devices/{mac}", status_code=204, tags=["devices"])
    async def forget(mac: str) -> None:
        await policy.flush()
        await registry.forget(mac_text(mac))
        policy.forget(mac_text(mac))

    async def decide(mac: str, state: DeviceState, name: str | None) -> DeviceView:
        await policy.flush()
        device = await registry.change_device(mac_text(mac), DeviceChange(state=state, name=name))
        policy.note(device.mac, "state", f"{state.value} by an administrator")
        return _device(device)


def _work_routes(routes: APIRouter, registry: Registry, images: Images) -> None:
    @routes.get("/work", tags=["work"])
    async def works(everything: bool = False) -> list[WorkView]:
        return [_work(w) for w in await registry.works(everything=everything)]

    @routes.post("/work", status_code=201, tags=["work"])
    async def add(body: WorkBody) -> WorkCreated:
        images.check_work(body.kind, body.image, overwrite=body.overwrite)
        order = WorkOrder(mac_text(body.mac), body.kind, body.image, body.target_disk, body.finish, body.overwrite)
        work = await registry.add_work(order)
        ready = images.client_ready
        return WorkCreated(
            work=_work(work),
            warnings=[] if ready else ["the imaging client is not built yet; on the server run: pbserv client build"],
        )

    @routes.post("/work/{work_id}/cancel", tags=["work"])
    async def cancel(work_id: Number) -> WorkView:
        return _work(await registry.cancel_work(work_id))

    @routes.get("/jobs", tags=["jobs"])
    async def jobs(mac: str | None = None, limit: Annotated[int, Query(ge=1, le=1000)] = 100) -> list[JobView]:
        return [_job(j) for j in await registry.jobs(mac=mac_text(mac) if mac else None, limit=limit)]


def _device(device: Device) -> DeviceView:
    arch_name = "" if device.arch is None else str(ClientArch(device.arch))
    fields = asdict(device)
    fields["work"] = None if device.work is None else _work(device.work)
    return DeviceView(**fields, arch_name=arch_name)


def _work(work: Work) -> WorkView:
    return WorkView(**asdict(work))


def _job(job: Job) -> JobView:
    return JobView(**asdict(job))


def _event(event: Event) -> EventView:
    return EventView(**asdict(event))
