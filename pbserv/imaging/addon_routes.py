"""Add-on images for a device that restores: the trees of files that are laid over its system (docs/wire/client.md).

One rule: a job gets the add-ons that its work names, and no other image; of each the version that it was told of first.
"""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Path, Request
from fastapi.responses import PlainTextResponse, Response

from pbserv.httpapi import ApiError, bearer
from pbserv.imaging.coverage import Recipient
from pbserv.imaging.elsewhere import Elsewhere
from pbserv.imaging.jobs import Jobs
from pbserv.imaging.manifest import print_manifest
from pbserv.imaging.pins import Pins
from pbserv.imaging.transfer import Transfers
from pbserv.registry.access import Access, Caller
from pbserv.registry.records import RESTORES, Job

_Number = Annotated[int, Path(ge=1, lt=2**63)]
_Name = Annotated[str, Path(max_length=64)]


def router(jobs: Jobs, transfers: Transfers, access: Access, elsewhere: Elsewhere, pins: Pins) -> APIRouter:
    """The routes below ``/client/v1/jobs/JOB/addons``."""

    def device(request: Request) -> Caller:
        caller = access.authorize(bearer(request))
        if caller is None or caller.work is None:
            raise ApiError(401, "the token of this device's work is needed (pb.token on the kernel command line)")
        return caller

    async def addon(job_id: int, name: str, who: Caller) -> Job:
        """The job, when it has this add-on. Raises ConflictError, ApiError."""
        job = await jobs.running(job_id, who.work or 0)
        named = (await jobs.work(job.work_id)).options.addons
        if job.kind not in RESTORES or name not in named:
            raise ApiError(409, f"job {job_id} has no add-on {name!r}; its work names: {', '.join(named) or 'none'}")
        return job

    routes = APIRouter(prefix="/client/v1/jobs/{job_id}/addons/{name}", tags=["imaging client"],
                       default_response_class=PlainTextResponse)  # fmt: skip

    @routes.get("/manifest", summary="What an add-on of a restore consists of")
    async def manifest(job_id: _Number, name: _Name, who: Caller = Depends(device)) -> str:
        """Of the version that is served now; the job keeps it."""
        job = await addon(job_id, name, who)
        image = await elsewhere.find(name, pins.of(job.id, name))
        pins.put(job.id, name, image.version)
        return print_manifest(image.manifest)

    @routes.get("/items/{item}", response_class=Response, summary="Bytes of an add-on; ranges and resume")
    @routes.head("/items/{item}", response_class=Response, include_in_schema=False)
    async def content(
        request: Request, job_id: _Number, name: _Name, item: str, who: Caller = Depends(device)
    ) -> Response:
        job = await addon(job_id, name, who)
        version = pins.of(job.id, name)
        away = elsewhere.item(name, version, item)
        if away is not None:
            return away
        image = transfers.store.info(name, version)

        def ended(_result: str, sent_bytes: int) -> None:
            jobs.running_now.sent(job.id, sent_bytes)

        return await transfers.item_response(request, image, item, Recipient.job(job.id), ended=ended)

    return routes
