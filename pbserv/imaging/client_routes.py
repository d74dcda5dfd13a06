"""What the imaging client asks and reports (docs/wire/client.md): texts that a POSIX shell can read.

One rule: the token of a piece of work opens the jobs of that work and nothing else.
"""

from __future__ import annotations

import shlex
from collections.abc import Awaitable, Callable
from typing import Annotated, Any, Final, Literal  # Any: FastAPI's own signature of a route handler

from fastapi import APIRouter, Depends, Form, Path, Request
from fastapi.responses import PlainTextResponse, Response

from pbserv.httpapi import ApiError, bearer, peer_address
from pbserv.imaging import client_uploads
from pbserv.imaging.captures import Captures
from pbserv.imaging.checks import check_disk, check_order, store_of
from pbserv.imaging.client_answers import PROTOCOL, REMEDY, beyond, order_answer, protocol_of, work_answer
from pbserv.imaging.client_faults import Busy, FaultRoute, count_refusal, refusals
from pbserv.imaging.client_uploads import work_of
from pbserv.imaging.coverage import Recipient
from pbserv.imaging.elsewhere import Elsewhere
from pbserv.imaging.faults import ImagingFault
from pbserv.imaging.inventory import read_machine
from pbserv.imaging.jobs import Jobs, Report, scripts_of
from pbserv.imaging.layout import StoredImage
from pbserv.imaging.manifest import print_manifest
from pbserv.imaging.part_bodies import PART_BYTES
from pbserv.imaging.peer import NoAnswer
from pbserv.imaging.ports import Policy
from pbserv.imaging.queue import Waiting
from pbserv.imaging.reports import image_list, image_report
from pbserv.imaging.states import kind_of
from pbserv.imaging.transfer import Transfers
from pbserv.registry.access import Access, Caller
from pbserv.registry.options import NO_OPTIONS
from pbserv.registry.records import FETCHES, RESTORES, BundleKind, Job, Work
from pbserv.registry.registry import Progress, WorkOrder
from pbserv.types import MacAddress

MAX_LOG_CHARACTERS = 64 * 1024
MAX_TOLD: Final = 32 * 1024
"""Characters of one thing that a client tells of its machine; the list of its disks is the longest."""
_AROUND: Final = ("before", "after")
_ORDERS: Final = ("restore", "capture", "auto")
_ASK_AGAIN_S: Final = 10
Text = Annotated[str, Form()]
Count = Annotated[int, Form(ge=0, le=2**63 - 1)]
Number = Annotated[int, Path(ge=1, lt=2**63)]
Prepare = Callable[[str], Awaitable[tuple[bool, str]]]
"""Fills the image-safe data of a device: whether there is any, and why it cannot be filled, or an empty text."""


def router(
    jobs: Jobs, captures: Captures, transfers: Transfers, access: Access, policy: Policy,
    token_of: Callable[[int], str], prepare: Prepare, elsewhere: Elsewhere,
) -> APIRouter:  # fmt: skip
    """The routes below ``/client/v1``; ``token_of``: the token that opens a piece of work."""

    def device(request: Request) -> Caller:
        caller = access.authorize(bearer(request))
        if caller is None or caller.work is None:
            raise ApiError(401, "the token of this device's work is needed (pb.token on the kernel command line)")
        return caller

    def asking(request: Request) -> Caller:
        try:
            return device(request)
        except ApiError as fault:
            count_refusal(transfers.statistics, peer_address(request), request.scope["route"].name, "", fault)
            raise

    routes = APIRouter(prefix="/client/v1", tags=["imaging client"], route_class=FaultRoute,
                       default_response_class=PlainTextResponse)  # fmt: skip
    caller, asker = Depends(device), Depends(asking)
    _work_routes(routes, jobs, captures, transfers, policy, prepare, elsewhere, caller, asker)
    _report_routes(routes, jobs, captures, caller)
    _maintenance_routes(routes, jobs, captures, transfers, token_of, elsewhere, caller, asker)
    _image_routes(routes, jobs, transfers, elsewhere, caller)
    client_uploads.add(routes, jobs, captures, transfers, elsewhere, caller)
    return routes


def _work_routes(
    routes: APIRouter, jobs: Jobs, captures: Captures, transfers: Transfers, policy: Policy,
    prepare: Prepare, elsewhere: Elsewhere, caller: Any, asker: Any,
) -> None:  # fmt: skip
    @routes.post("/work")
    async def work(request: Request, who: Caller = asker, mac: Text = "", client: Text = "", follow: Text = "") -> str:
        """What to do. Shell lines; ACTION is restore, capture, script, maintenance or local.

        What the client tells of its machine besides ``mac`` becomes labels of the device. ``client``: the protocol that
        it speaks; nothing: the first one. ``follow`` 1: it sends items where it is referred to.
        """
        address, figures = peer_address(request), transfers.statistics
        with refusals(figures, address, "work"):
            order = await jobs.work(work_of(who))
        protocol = protocol_of(client)
        with refusals(figures, order.mac, order.kind.value, order.image):
            far = elsewhere.far(order.kind, order.image, order.options.store)
            image, refusal = await _find_image(order, elsewhere, protocol, follows=follow == "1")
            identity, refusal = await _identity(order, protocol, refusal, prepare)
            version = None if image is None else image.version
            store = ""
            if order.image and not refusal:
                store = far or store_of(transfers.store, order.image, order.options.store)
            given = await jobs.begin(order, _mac(mac), address, version, refusal, store, referred=bool(far))
        if given.waiting is not None:
            return _waits(given.waiting, protocol)
        if given.job is None:
            return _shell(ACTION="local", REASON=given.reason)
        machine = read_machine(await _told(request))
        policy.learn(order.mac, machine.labels, serial=machine.serial, asset=machine.asset, uuid=machine.uuid)
        if order.kind is BundleKind.CAPTURE:
            store = "" if elsewhere.owner(order.image) else order.options.store
            captures.begin(given.job, overwrite=order.overwrite, store=store, far=far)
        kind = None if image is None else kind_of(image.manifest)
        return _shell(
            **work_answer(
                protocol, order, given.job, kind=kind, part_bytes=PART_BYTES if far else captures.part_bytes,
                identity=identity, scripts=_around(order), follow=bool(far),
            )
        )  # fmt: skip

    @routes.get("/jobs/{job_id}/script")
    async def script(job_id: Number, who: Caller = caller) -> str:
        """The shell script of a job whose ACTION is script."""
        return await jobs.script(job_id, work_of(who))

    @routes.get("/jobs/{job_id}/scripts/{which}")
    async def around(job_id: Number, which: Literal["before", "after"], who: Caller = caller) -> str:
        """The shell script to run before or after a restore or capture, where BEFORE or AFTER is 1."""
        return await jobs.script_around(job_id, work_of(who), which)


async def _identity(order: Work, protocol: int, refusal: str, prepare: Prepare) -> tuple[bool, str]:
    """Whether the device gets image-safe data, and why the work cannot be done: before anything is written to it."""
    wanted = order.active and order.kind in RESTORES and protocol >= PROTOCOL and not order.options.dry_run
    return (False, refusal) if refusal or not wanted else await prepare(order.mac)


def _around(order: Work) -> list[str]:
    """The scripts around the work that there are: before, after."""
    return [name for name in scripts_of(order) if name in _AROUND]


async def _told(request: Request) -> dict[str, str]:
    """The fields of the form that are texts."""
    form = await request.form()
    return {name: value[:MAX_TOLD] for name, value in form.items() if isinstance(value, str)}


async def _find_image(
    order: Work, elsewhere: Elsewhere, protocol: int, *, follows: bool
) -> tuple[StoredImage | None, str]:
    """The image to restore, or why the work cannot be done: by this server now, or by a client this old.

    Raises Busy when the server that has the image does not answer."""
    if order.options.unreadable:
        return None, order.options.unreadable
    if not order.active:
        return None, ""
    far = any(elsewhere.owner(name) for name in (order.image, *order.options.addons))
    if protocol < PROTOCOL:
        refusal = beyond(order.kind, order.options, _around(order))
        if refusal or (far and order.kind in FETCHES):
            return None, refusal or f"image {order.image} belongs to another server: {REMEDY}"
    captures = order.kind is BundleKind.CAPTURE
    if captures and not follows and elsewhere.far(order.kind, order.image, order.options.store):
        return None, f"image {order.image} belongs to another server: {REMEDY}"
    try:
        elsewhere.check(order.kind, order.image, order.options)
        if captures:
            await elsewhere.to_capture(order.image, order.options, overwrite=order.overwrite)
        return (await elsewhere.to_restore(order.image, order.options) if order.kind in FETCHES else None), ""
    except NoAnswer as fault:
        raise Busy(f"{fault}; the client asks again", _ASK_AGAIN_S) from None
    except ImagingFault as fault:
        return None, str(fault)


def _report_routes(routes: APIRouter, jobs: Jobs, captures: Captures, caller: Any) -> None:
    @routes.post("/jobs/{job_id}/progress")
    async def progress(
        job_id: Number,
        who: Caller = caller,
        stage: Text = "",
        item: Text = "",
        done: Annotated[int, Form(alias="bytes", ge=0, le=2**63 - 1)] = 0,
        total: Count = 0,
        rate: Count = 0,
        waited: Count = 0,
    ) -> str:
        """Every two seconds; ``waited``: milliseconds in which the device waited for the server. CANCEL: stop."""
        told = Progress(stage[:64], item[:64], done, total, rate)
        keep_on = await jobs.progress(job_id, work_of(who), told, waited)
        return "CONTINUE\n" if keep_on else "CANCEL\n"

    @routes.post("/jobs/{job_id}/result")
    async def result(
        job_id: Number, who: Caller = caller, ok: Text = "0", reason: Text = "", log: Text = "", verified: Text = "",
        plan: Text = "", waited: Count = 0,
    ) -> str:  # fmt: skip
        """How the job ended. ``verified``: stream or read; ``plan``: what a dry run would have done."""
        report = Report(
            ok == "1", reason[:1000], log[-MAX_LOG_CHARACTERS:], verified if verified in ("stream", "read") else "",
            waited, plan[:MAX_LOG_CHARACTERS],
        )  # fmt: skip
        await jobs.finish(job_id, work_of(who), report)
        captures.end(job_id)
        return "OK\n"


def _maintenance_routes(
    routes: APIRouter, jobs: Jobs, captures: Captures, transfers: Transfers, token_of: Callable[[int], str],
    elsewhere: Elsewhere, caller: Any, asker: Any,
) -> None:  # fmt: skip
    @routes.post("/jobs/{job_id}/order")
    async def order(
        request: Request, job_id: Number, who: Caller = asker, action: Text = "", image: Text = "", disk: Text = "",
        overwrite: Text = "0", client: Text = "", follow: Text = "", number: Text = "",
    ) -> str:  # fmt: skip
        """What somebody in imaging maintenance wants done: restore or capture, answered like ``/work`` with a job of
        its own; or auto, which ends the maintenance and answers the TOKEN of the work that is assigned. ``number``: the
        client's own for this order, the same whenever it repeats it."""
        address, figures = peer_address(request), transfers.statistics
        with refusals(figures, address, _wanted(action), image):
            within = await jobs.maintenance(job_id, work_of(who))
        with refusals(figures, within.mac, _wanted(action), image):
            if action == "auto":
                assigned = jobs.assigned(within)
                if isinstance(assigned, str):
                    figures.request(within.mac, action, "failed", detail=assigned)
                    return _shell(ACTION="local", REASON=assigned)
                _check_assigned(transfers, elsewhere, assigned)
                made = await jobs.hand_over(within, assigned)
                return _shell(ACTION="auto", TOKEN=token_of(made.id), BUNDLE=made.bundle)
            if action not in ("restore", "capture"):
                raise ApiError(422, "action is restore, capture or auto")
            within = await jobs.with_images(job_id, work_of(who))
            kind = BundleKind(action)
            check_disk(disk)
            elsewhere.check(kind, image, NO_OPTIONS)
            far = elsewhere.owner(image)
            again = overwrite == "1"
            if far:
                version = await _version_elsewhere(elsewhere, kind, image, overwrite=again, follows=follow == "1")
            else:
                version = check_order(transfers.store, kind, image, overwrite=again)
            store = far or store_of(transfers.store, image, "")
            given = await jobs.order(within, kind, image, version, address, store, referred=bool(far), number=number)
        if given.waiting is not None:
            return _waits(given.waiting, protocol_of(client))
        job = given.job
        if job is None:
            raise ApiError(409, given.reason)
        if kind is BundleKind.CAPTURE:
            captures.begin(job, overwrite=again, far=far)
        restores = kind is BundleKind.RESTORE
        of_image = kind_of((await elsewhere.find(image, version)).manifest) if restores else None
        part_bytes = PART_BYTES if far else captures.part_bytes
        answer = order_answer(
            protocol_of(client), job, disk, kind=of_image, part_bytes=part_bytes, follow=bool(far)
        )  # fmt: skip
        return _shell(**answer)

    @routes.get("/jobs/{job_id}/images")
    async def images(job_id: Number, who: Caller = caller) -> str:
        """For imaging maintenance: the images that there are, one a line."""
        await jobs.with_images(job_id, work_of(who))
        return image_list(transfers.store.list(), elsewhere.owners())

    @routes.get("/jobs/{job_id}/images/{name}")
    async def image(job_id: Number, name: str, who: Caller = caller) -> str:
        """For imaging maintenance: what is known of an image, in lines for people."""
        await jobs.with_images(job_id, work_of(who))
        return image_report(await elsewhere.find(name))


def _wanted(action: str) -> str:
    """What the log calls a request of imaging maintenance."""
    return action if action in _ORDERS else "order"


async def _version_elsewhere(
    elsewhere: Elsewhere, kind: BundleKind, image: str, *, overwrite: bool, follows: bool
) -> int | None:
    """The version of an image of another server that is to be restored, None for a capture; raises an ImagingFault or
    ApiError with the reason why not."""
    if kind is not BundleKind.CAPTURE:
        return (await elsewhere.to_restore(image, NO_OPTIONS)).version
    if not follows:
        raise ApiError(409, f"image {image} belongs to another server: {REMEDY}")
    await elsewhere.to_capture(image, NO_OPTIONS, overwrite=overwrite)
    return None


def _check_assigned(transfers: Transfers, elsewhere: Elsewhere, order: WorkOrder) -> None:
    """Raises an ImagingFault for an image that is not there, or that is there already."""
    if order.kind in FETCHES or order.kind is BundleKind.CAPTURE:
        elsewhere.check_order(order.kind, order.image, overwrite=order.overwrite, options=order.options)


def _image_routes(routes: APIRouter, jobs: Jobs, transfers: Transfers, elsewhere: Elsewhere, caller: Any) -> None:
    async def restoring(job_id: Number, who: Caller) -> Job:
        job = await jobs.running(job_id, work_of(who))
        if job.kind not in FETCHES:
            raise ApiError(409, f"job {job_id} is a {job.kind}, not a restore")
        return job

    @routes.get("/jobs/{job_id}/manifest")
    async def manifest(job_id: Number, who: Caller = caller) -> str:
        job = await restoring(job_id, who)
        return print_manifest((await elsewhere.find(job.image, job.version)).manifest)

    @routes.get("/jobs/{job_id}/items/{name}", response_class=Response)
    @routes.head("/jobs/{job_id}/items/{name}", response_class=Response)
    async def item(request: Request, job_id: Number, name: str, who: Caller = caller) -> Response:
        job = await restoring(job_id, who)
        away = elsewhere.item(job.image, job.version, name)
        if away is not None:
            return away
        image = transfers.store.info(job.image, job.version)

        def ended(_result: str, sent_bytes: int) -> None:
            jobs.running_now.sent(job.id, sent_bytes)

        return await transfers.item_response(request, image, name, Recipient.job(job.id), ended=ended)


def _mac(text: str) -> str:
    if not text:
        return ""
    try:
        return str(MacAddress.parse(text))
    except ValueError as fault:
        raise ApiError(422, str(fault)) from None


def _waits(waiting: Waiting, protocol: int) -> str:
    """What a device is told that has to wait. An older client knows no such answer, but asks again after a 503."""
    said = f"position {waiting.position} of {waiting.of} in the queue: {waiting.reason}"
    if protocol < PROTOCOL:
        raise Busy(f"busy: {said}; the client asks again", waiting.retry_s)
    return _shell(ACTION="wait", RETRY_S=str(waiting.retry_s), POSITION=str(waiting.position), REASON=said)


def _shell(**values: str) -> str:
    """``KEY='value'`` lines that a POSIX shell may evaluate."""
    return "".join(f"{key}={shlex.quote(value) if value else chr(39) * 2}\n" for key, value in values.items())
