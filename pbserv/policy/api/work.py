"""One-shot work and the jobs that it becomes on the devices."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from enum import Enum
from typing import Annotated, Final, Literal

from fastapi import Query, Request, Response

from pbserv.errors import PbservError
from pbserv.httpapi import ApiError, faults
from pbserv.httpjobs import JobView, job_view
from pbserv.httppages import PAGED, Limit, cut
from pbserv.policy.api.bodies import WorkBody
from pbserv.policy.api.desk import Desk, Routers
from pbserv.policy.api.fields import MAX_NUMBER, MacText, Number, moment_of
from pbserv.policy.api.views import WorkCreated, WorkView, work_view
from pbserv.policy.documents import decode
from pbserv.policy.model import Bundle
from pbserv.policy.orders import options_of, order_of
from pbserv.registry.orders import WorkOrder
from pbserv.registry.records import CLIENT_KINDS, FETCHES, BundleKind, WorkState

_TAGS: Final[list[str | Enum]] = ["work"]
_NEVER_WORK: Final = (BundleKind.LOCAL, BundleKind.NOTHING)
_OPTIONS: Final = (
    "version", "partitions", "target_partition", "resize", "verify", "addons", "efi_entry", "cache", "store", "dry_run",
)  # fmt: skip
_BARE: Final = ("kind", "image", "target_disk", "finish", "overwrite", *_OPTIONS)
"""What work has of its own when it is not a bundle's."""
JobState = Literal["running", "done", "failed", "cancelled"]
Before = Annotated[int, Query(ge=0, le=MAX_NUMBER, description="older than this number; 0: from the newest on")]


def add(routers: Routers, desk: Desk) -> None:
    _reading(routers, desk)
    _ordering(routers, desk)


def _reading(routers: Routers, desk: Desk) -> None:
    @routers.viewer.get("/work", tags=_TAGS, summary="Work that waits or runs, the newest first", responses=PAGED)
    async def works(
        request: Request, response: Response, everything: bool = False, after: Before = 0, limit: Limit = 100
    ) -> list[WorkView]:
        """What waits, runs or is held; with ``everything`` also what has ended."""
        found = await desk.registry.works(everything=everything, limit=limit + 1, after=after)
        return [work_view(each) for each in cut(found, limit, lambda work: work.id, request, response)]

    @routers.viewer.get("/work/{work_id}", tags=_TAGS, summary="One piece of work", responses=faults(404))
    async def work(work_id: Number) -> WorkView:
        return work_view(await desk.registry.work(work_id))

    @routers.viewer.get("/jobs", tags=["jobs"], summary="Runs of work on devices, the newest first", responses=PAGED)
    async def jobs(
        request: Request,
        response: Response,
        mac: Annotated[MacText | None, Query()] = None,
        state: JobState | None = None,
        after: Before = 0,
        limit: Limit = 100,
    ) -> list[JobView]:
        device = await desk.find(mac) if mac else None
        found = await desk.registry.jobs(
            mac=device.mac if device else mac, state=state and WorkState(state), limit=limit + 1, after=after
        )
        page = cut(found, limit, lambda job: job.id, request, response)
        return [job_view(each, desk.images.live(each.id)) for each in page]


def _ordering(routers: Routers, desk: Desk) -> None:
    @routers.operator.post("/work", status_code=201, tags=_TAGS, responses=faults(400, 404, 409, 503),
                           summary="Work for a device, or for all devices that are in a group now")  # fmt: skip
    async def order(body: WorkBody) -> WorkCreated:
        wanted = await _order(desk, body)
        warnings = [] if wanted.kind not in CLIENT_KINDS or desk.images.client_ready else [_NO_CLIENT]
        if body.mac is not None:
            device = await desk.find(body.mac)
            made = await desk.registry.add_work(replace(wanted, mac=device.mac if device else body.mac))
            return WorkCreated(work=work_view(made), warnings=warnings)
        works, refusals = await desk.registry.add_works([replace(wanted, mac=mac) for mac in await members(body.group)])
        if not works:
            raise ApiError(409, "; ".join(reason for _, reason in refusals[:20]))
        return WorkCreated(work=[work_view(each) for each in works], refusals=dict(refusals), warnings=warnings)

    async def members(group: str | None) -> list[str]:
        if group is None:
            raise ApiError(422, "say for whom: mac or group")
        await desk.registry.document("group", group)
        await desk.policy.flush()
        found: list[str] = []
        while page := await desk.registry.page_devices(after=found[-1] if found else "", limit=1000, group=group):
            found += [device.mac for device in page]
        if not found:
            raise ApiError(409, f"no device is in group {group!r}; put some in: pbserv group add NAME MAC")
        return found

    @routers.operator.post("/work/{work_id}/cancel", tags=_TAGS, summary="Cancel work that waits or runs",
                           responses=faults(404, 409))  # fmt: skip
    async def cancel(work_id: Number) -> WorkView:
        return work_view(await desk.registry.cancel_work(work_id))

    @routers.operator.post("/work/{work_id}/retry", tags=_TAGS, summary="Queue work again that is held or has ended",
                           responses=faults(404, 409))  # fmt: skip
    async def retry(work_id: Number) -> WorkView:
        return work_view(await desk.registry.retry_work(work_id))


_NO_CLIENT: Final = "the imaging client is not built yet; on the server run: pbserv client build"


async def _order(desk: Desk, body: WorkBody) -> WorkOrder:
    """What is asked for, checked, for a device that is yet to be filled in."""
    if (body.mac is None) == (body.group is None):
        raise ApiError(422, "say for whom, one of the two: mac or group")
    bundle = _bare(body) if body.bundle is None else await _bundle(desk, body)
    if bundle.kind in _NEVER_WORK:
        raise ApiError(
            422, f"bundle {bundle.name!r} of kind {bundle.kind} is nothing that could be done once: assign it"
        )
    if bundle.kind is BundleKind.CAPTURE and body.group is not None:
        raise ApiError(422, "an image is taken of one device: say which (mac)")
    if bundle.kind in FETCHES or bundle.kind is BundleKind.CAPTURE:
        desk.images.check_work(bundle.kind, bundle.image, overwrite=bundle.overwrite, options=options_of(bundle))
    made = order_of("", bundle)
    if body.bundle is None:
        made = replace(made, bundle="", document="")
    return replace(
        made, retries=made.retries if body.retries is None else body.retries,
        priority=made.priority if body.priority is None else body.priority,
        wake=made.wake if body.wake is None else body.wake, expires=_expires(body.expires),
    )  # fmt: skip


def _bare(body: WorkBody) -> Bundle:
    """Work without a bundle has to be what a bundle could say."""
    if body.kind is None:
        raise ApiError(422, "say what: bundle, or kind and image (other kinds than these need a bundle)")
    try:
        return Bundle(
            name="work", kind=BundleKind(body.kind), image=body.image, target_disk=body.target_disk,
            finish=body.finish, overwrite=body.overwrite,
            **{name: getattr(body, name) for name in _OPTIONS},
        )  # fmt: skip
    except ValueError as fault:
        raise ApiError(422, str(fault)) from None


async def _bundle(desk: Desk, body: WorkBody) -> Bundle:
    surplus = [name for name in _BARE if name in body.model_fields_set]
    if surplus:
        raise ApiError(422, f"the bundle says {', '.join(surplus)}: leave it out, or change the bundle")
    found = decode(await desk.registry.document("bundle", body.bundle or ""))
    if not isinstance(found, Bundle):
        raise PbservError(f"{body.bundle} is no bundle")
    return found


def _expires(text: str | None) -> datetime | None:
    try:
        return None if text is None else moment_of(text, datetime.now(UTC))
    except ValueError as fault:
        raise ApiError(422, f"expires: {fault}") from None
