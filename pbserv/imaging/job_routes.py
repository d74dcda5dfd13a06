"""Jobs over HTTP for people: one job live, its cancel, the queue, which images a device has seen, and waking it.

One rule: what is shown of a running job is what its device said last, not what the registry was told.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated, Final, Literal

from fastapi import APIRouter, Depends, Path, Query
from pydantic import BaseModel, Field

from pbserv.httpapi import BEARER, faults, guarded
from pbserv.httpjobs import JobView, job_view
from pbserv.imaging.captures import Captures
from pbserv.imaging.identity_api import MacPath
from pbserv.imaging.jobs import Jobs
from pbserv.imaging.queue import Ask, Waiting
from pbserv.imaging.waker import Waker
from pbserv.registry.access import Access
from pbserv.registry.records import RESTORES, Job, Role, WorkState
from pbserv.registry.registry import Registry

Number = Annotated[int, Path(ge=1, le=2**31 - 1)]
_TAGS: Final = ["jobs"]


class QueuedView(BaseModel):
    """A device at work (``position`` 0), or one that waits: ``position`` of ``of`` for the same store and direction."""

    mac: str
    work_id: int
    direction: Literal["restore", "capture"]
    image: str
    store: str
    site: str = Field(description="the folder whose limit of jobs it counts for; empty: none has one")
    priority: int
    position: int = 0
    of: int = 0
    reason: str = Field("", description="the limit that is reached")
    retry_s: int = Field(0, description="after so many seconds it asks again")
    since: datetime | None = Field(None, description="when it asked first")


class QueueView(BaseModel):
    """``running``: those that have a place; ``waiting``: the others, in the order of their turns."""

    running: list[QueuedView]
    waiting: list[QueuedView]
    limits: dict[str, dict[str, int]] = Field(description="of each store: restores and captures at a time; 0: no limit")


class DeviceImage(BaseModel):
    """One time that an image was written to a device, taken of it, or put into its cache."""

    job: int
    direction: Literal["restore", "capture", "cache"]
    image: str
    version: int | None
    store: str
    state: WorkState
    reason: str
    started: datetime
    finished: datetime | None
    seconds: float
    verified: str


class DeviceImages(BaseModel):
    """``current``: the image that was restored last as a whole, as far as this server knows; ``history``: the newest
    first."""

    mac: str
    current: DeviceImage | None
    history: list[DeviceImage]


class WakeView(BaseModel):
    """``sent``: the broadcast addresses that magic packets went to; ``faults``: where they could not go."""

    mac: str
    sent: list[str]
    faults: list[str]


def router(jobs: Jobs, captures: Captures, waker: Waker, registry: Registry, access: Access) -> APIRouter:
    """All routes about jobs that are not lists of them."""
    routes = APIRouter(prefix="/api/v1", dependencies=[Depends(BEARER)])
    viewer = APIRouter(route_class=guarded(access, Role.VIEWER), responses=faults(401, 403, 422))
    operator = APIRouter(route_class=guarded(access, Role.OPERATOR), responses=faults(401, 403, 422))
    _looking(viewer, jobs, registry)
    _changing(operator, jobs, captures, waker, registry)
    routes.include_router(viewer)
    routes.include_router(operator)
    return routes


def _looking(routes: APIRouter, jobs: Jobs, registry: Registry) -> None:
    @routes.get("/jobs/{job_id}", tags=[*_TAGS], summary="One run of work on a device", responses=faults(404))
    async def job(job_id: Number) -> JobView:
        return job_view(await registry.job(job_id), jobs.running_now.look(job_id))

    @routes.get("/queue", tags=[*_TAGS], summary="Who restores or captures now, and who waits for a place")
    async def queue() -> QueueView:
        line, now = jobs.running_now.queue, jobs.running_now.now
        clock = datetime.now(UTC)
        return QueueView(
            running=[_asked(each) for each in line.busy(now)],
            waiting=[_waiting(each, clock - timedelta(seconds=now - each.since)) for each in line.waiting(now)],
            limits={
                name: {"restores": limit.restores, "captures": limit.captures}
                for name, limit in line.limits.stores.items()
            },
        )

    @routes.get("/devices/{mac}/images", tags=["devices"], responses=faults(404),
                summary="Which images a device was given and which were taken of it")  # fmt: skip
    async def images(mac: MacPath, limit: Annotated[int, Query(ge=1, le=1000)] = 20) -> DeviceImages:
        device = await registry.device(mac)
        found = [_of_job(each) for each in await registry.device_images(device.mac, limit)]
        current = await registry.current_image(device.mac)
        return DeviceImages(mac=device.mac, current=None if current is None else _of_job(current), history=found)


def _changing(routes: APIRouter, jobs: Jobs, captures: Captures, waker: Waker, registry: Registry) -> None:
    @routes.post("/jobs/{job_id}/cancel", tags=[*_TAGS], responses=faults(404, 409),
                 summary="Stop a job: with its work, or alone when it was ordered on the device")  # fmt: skip
    async def cancel(job_id: Number) -> JobView:
        """The device learns it at its next report, within seconds."""
        job = await jobs.cancel(job_id)
        if job.state is not WorkState.RUNNING:  # it was cancelled alone: what it uploaded holds the image's name
            captures.end(job.id)
        return job_view(job)

    @routes.post("/devices/{mac}/wake", tags=["devices"], responses=faults(404),
                 summary="Wake a device over the network (wake-on-LAN)")  # fmt: skip
    async def wake(mac: MacPath) -> WakeView:
        """Magic packets for each of its addresses. Nobody can know whether it wakes before it asks for something."""
        device = await registry.device(mac)
        sent = await waker.wake(device)
        return WakeView(mac=device.mac, sent=list(sent.to), faults=list(sent.faults))


def _asked(ask: Ask) -> QueuedView:
    return QueuedView(
        mac=ask.device, work_id=ask.work, direction=ask.direction, image=ask.image, store=ask.store, site=ask.site,
        priority=ask.priority,
    )  # fmt: skip


def _waiting(each: Waiting, since: datetime) -> QueuedView:
    told = {"position": each.position, "of": each.of, "reason": each.reason, "retry_s": each.retry_s, "since": since}
    return _asked(each.ask).model_copy(update=told)


def _of_job(job: Job) -> DeviceImage:
    view = job_view(job)
    return DeviceImage(
        job=job.id, direction="restore" if job.kind in RESTORES else job.kind.value, image=job.image,
        version=job.version, store=job.store, state=job.state, reason=job.reason, started=job.started,
        finished=job.finished, seconds=view.seconds, verified=job.verified,
    )  # fmt: skip
