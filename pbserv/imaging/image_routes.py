"""The image store over HTTP for people: list, register, look, change, download, upload one file, purge.

One rule: what counts as an operation the desk decides (image_desk.py); images hold whole disks, so nothing here works
without a token: viewers look, operators download, administrators store, change and purge.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import Annotated, Final, Protocol

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from pbserv import httpetags as etags
from pbserv.httpapi import faults
from pbserv.httpetags import NOT_MODIFIED, IfMatch, Seen
from pbserv.httppages import PAGED, Limit, cut
from pbserv.imaging import store_routes, task_routes, upload_routes, version_routes
from pbserv.imaging.backend import VersionedBackend
from pbserv.imaging.coverage import Coverage
from pbserv.imaging.faults import InvalidRequest, UnknownStore
from pbserv.imaging.guard import CHANGE, Guard
from pbserv.imaging.image_bodies import ChangeBody, OneVersion, RegisterBody
from pbserv.imaging.image_desk import Desk, FaultRoute, api, told, who
from pbserv.imaging.image_views import ImageDetails, ImageModel, ImagesModel, image_details, image_model
from pbserv.imaging.referring import Referring, no_referring
from pbserv.imaging.states import REGISTERED, ImageKind, VersionState
from pbserv.imaging.statistics import Statistics
from pbserv.imaging.tasks import Tasks
from pbserv.imaging.transfer import EventLog, Transfers
from pbserv.imaging.upload_bodies import Title

TAG: Final = "images"
ImageState = StrEnum("ImageState", {state.upper(): state for state in (REGISTERED, *VersionState)})  # type: ignore[misc]
After = Annotated[str, Query(max_length=128, description="the name after which the page begins")]
InStore = Annotated[str, Query(max_length=64, description="only those of this store")]


class Log(EventLog, Protocol):
    """What the routes log; ``critical``: damage that nobody must overlook."""

    def critical(self, event: str, /, **fields: object) -> None: ...


def router(
    store: VersionedBackend,
    statistics: Statistics,
    coverage: Coverage,
    guard: Guard,
    log: Log,
    tasks: Tasks | None = None,
    scrub_rate: Callable[[], int] = task_routes.default_rate,
    referring: Referring | None = None,
    transfers: Transfers | None = None,
) -> APIRouter:
    """The routes below ``/api/v1`` about images and stores. ``scrub_rate``: MB/s of a scrub that names none."""
    desk = Desk(transfers or Transfers(store, statistics, coverage, log), store, guard, referring or no_referring())
    routes = APIRouter()
    for part in (
        _questions(desk),
        _operations(desk),
        _items(desk),
        *version_routes.routers(desk),
        *upload_routes.routers(desk),
        *store_routes.routers(desk),
        *(task_routes.routers(desk, tasks, log.critical, scrub_rate) if tasks is not None else ()),
    ):
        routes.include_router(part)
    return routes


def _questions(desk: Desk) -> APIRouter:
    routes = api(TAG, desk.looking(), 400, 404, 422)

    @routes.get("/images", summary="The images, by name", responses=PAGED)
    async def list_images(
        request: Request,
        response: Response,
        store: InStore = "",
        state: ImageState | None = None,
        kind: ImageKind | None = None,
        after: After = "",
        limit: Limit = 1000,
    ) -> ImagesModel:
        """``state`` enabled: what is served; registered: what has no version yet; others are the newest version's."""
        if store:
            store_routes.find(desk, store)
        found = [
            image
            for image in desk.images()
            if image.name > after
            and store in ("", image.store)
            and state in (None, image.state)
            and kind in (None, image.kind)
        ]
        page = cut(found, limit, lambda image: image.name, request, response)
        return ImagesModel(images=[image_model(image) for image in page])

    @routes.get("/images/{name}", summary="One image with all its versions", responses=NOT_MODIFIED)
    async def image(name: str, response: Response, seen: Seen = None) -> ImageDetails:
        details = image_details(desk.image(name))
        return etags.known(seen, response, etags.of_view(details)) or details  # type: ignore[return-value]

    return routes


def _operations(desk: Desk) -> APIRouter:
    routes = api(TAG, desk.operations(), 400, 404, 409, 422)
    store = desk.store

    @routes.post("/images", status_code=201, summary="Register an image that has no bytes yet")
    async def register(request: Request, body: RegisterBody, response: Response) -> ImageDetails:
        """409 when the name is taken in any store: bundles and work name images by it alone."""
        request.state.detail = f"image {body.name}"
        _check_owner(desk, body.owner)
        about = body.about(who(desk.allow(request, CHANGE)))
        return told(await store.register(body.name, about, body.store), response)

    @routes.patch("/images/{name}", summary="Change what is said of an image", responses=faults(412, 413))
    async def change(name: str, body: ChangeBody, response: Response, if_match: IfMatch = None) -> ImageDetails:
        _check_owner(desk, body.owner)
        before = store.object(name)
        etags.demand(if_match, None, etags.of_view(image_details(before)))
        return told(await store.change(name, body.change(), before.etag if if_match else ""), response)

    @routes.put("/images/{name}", status_code=201, summary="Upload one file as an image; X-Checksum-SHA256 is verified",
                responses=faults(307, 408, 410, 507))  # fmt: skip
    async def upload(request: Request, name: str, overwrite: str = "0", title: Title = "") -> ImageModel:
        """``overwrite=1`` makes a new version of an existing image where AllowImageOverwrite = YES."""
        if overwrite not in ("0", "1"):
            raise InvalidRequest(f"overwrite={overwrite[:20]!r}: write 0 or 1")
        desk.refer_upload(request, name, "")
        made = await desk.upload(request, name, overwrite == "1")
        await desk.entitle(made.name, title)
        return image_model(desk.image(made.name))

    @routes.delete("/images/{name}", status_code=204, summary="Purge an image, or one of its versions, for ever")
    async def purge(name: str, version: OneVersion = None) -> None:
        """Only what is retired and not in use: else 409, which says by whom, or what to retire first."""
        await desk.purge(name, version)

    return routes


def _check_owner(desk: Desk, owner: str | None) -> None:
    known = desk.referring.remotes.urls
    if owner and owner not in known:
        raise UnknownStore(f"there is no store {owner!r} in RemoteStores, but {', '.join(known) or 'none'}")


def _items(desk: Desk) -> APIRouter:
    routes = api(TAG, FaultRoute, 400, 404, 422)

    @routes.get(
        "/images/{name}/items/{item}", response_class=Response, responses=faults(307),
        summary="An item's stored bytes; ranges and resume",
    )  # fmt: skip
    @routes.head("/images/{name}/items/{item}", response_class=Response, include_in_schema=False)
    async def item(request: Request, name: str, item: str, version: OneVersion = None) -> Response:
        return await desk.download(request, name, item, version)

    return routes
