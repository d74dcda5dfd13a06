"""The image store over HTTP for people: list, look, download, upload one file, delete.

One rule: what counts as an operation the desk decides (image_desk.py); images hold whole disks, so nothing here works
without a token: viewers look, operators download, administrators store and delete.
"""

from __future__ import annotations

from fastapi import APIRouter, Depends, Request
from fastapi.responses import Response

from pbserv.httpapi import BEARER, faults
from pbserv.imaging.backend import ImagingBackend
from pbserv.imaging.coverage import Coverage
from pbserv.imaging.faults import InvalidRequest
from pbserv.imaging.guard import LOOK, Guard
from pbserv.imaging.image_desk import Desk, FaultRoute
from pbserv.imaging.image_views import ImageModel, ImagesModel, image_model
from pbserv.imaging.layout import StoredImage
from pbserv.imaging.statistics import Statistics
from pbserv.imaging.transfer import EventLog, Transfers


def router(store: ImagingBackend, statistics: Statistics, coverage: Coverage, guard: Guard, log: EventLog) -> APIRouter:
    """The routes below ``/api/v1/images``."""
    desk = Desk(Transfers(store, statistics, coverage, log), guard)
    routes = APIRouter(
        prefix="/api/v1/images",
        tags=["images"],
        route_class=FaultRoute,
        dependencies=[Depends(BEARER)],
        responses=faults(400, 401, 403, 404, 409),
    )
    _reading(routes, desk)
    _writing(routes, desk)
    return routes


def _reading(routes: APIRouter, desk: Desk) -> None:
    @routes.get("", summary="All images, newest versions")
    async def list_images(request: Request) -> ImagesModel:
        desk.allow(request, LOOK)
        return ImagesModel(images=[_shown(desk, image) for image in desk.transfers.store.list()])

    @routes.get("/{name}", summary="One image")
    async def image(request: Request, name: str) -> ImageModel:
        desk.allow(request, LOOK)
        return _shown(desk, desk.transfers.store.info(name))

    @routes.get("/{name}/items/{item}", response_class=Response, summary="An item's stored bytes; ranges and resume")
    @routes.head("/{name}/items/{item}", response_class=Response, include_in_schema=False)
    async def item(request: Request, name: str, item: str) -> Response:
        return await desk.download(request, name, item)


def _writing(routes: APIRouter, desk: Desk) -> None:
    @routes.put("/{name}", status_code=201, summary="Upload one file as an image; X-Checksum-SHA256 is verified")
    async def upload(request: Request, name: str, overwrite: str = "0") -> ImageModel:
        """``overwrite=1`` makes a new version of an existing image where AllowImageOverwrite = YES."""
        with desk.counted(request, "upload", name):
            if overwrite not in ("0", "1"):
                raise InvalidRequest(f"overwrite={overwrite[:20]!r}: write 0 or 1")
            image = await desk.upload(request, name, overwrite == "1")
        return _shown(desk, image)

    @routes.delete("/{name}", status_code=204, summary="Delete an image with all its versions")
    async def delete(request: Request, name: str) -> None:
        with desk.counted(request, "delete", name):
            await desk.transfers.store.delete(name)
            desk.transfers.coverage.forget(name)


def _shown(desk: Desk, image: StoredImage) -> ImageModel:
    return image_model(image, desk.transfers.store.versions(image.name))
