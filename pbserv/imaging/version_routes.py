"""Versions of images over HTTP: what one is, which are served, and the way back.

One rule: what may become what stands in states.py; here it is asked for, counted and answered.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

from fastapi import APIRouter, Request
from fastapi.responses import Response

from pbserv.httpapi import faults
from pbserv.imaging import index_routes
from pbserv.imaging.about import AboutChange
from pbserv.imaging.faults import WrongState
from pbserv.imaging.guard import CHANGE
from pbserv.imaging.image_bodies import RollbackBody, ShownVersion, VersionBody, VersionNumber
from pbserv.imaging.image_desk import Desk, api, told, who
from pbserv.imaging.image_views import FramesModel, ImageDetails, VersionDetails, version_details
from pbserv.imaging.layout import StoredImage
from pbserv.imaging.states import VersionState

TAG: Final = "images"
_MOVES: Final = {
    "enable": (VersionState.ENABLED, "Serve this version where it is the newest enabled one"),
    "disable": (VersionState.DISABLED, "Do not serve this version; it is kept"),
    "retire": (VersionState.RETIRED, "Nobody needs this version any more; the step before it is purged"),
    "restore": (VersionState.DISABLED, "A retired version is kept after all; it is disabled then"),
}
"""What a version can be told -> the state it comes to, and a line for the description."""


def routers(desk: Desk) -> tuple[APIRouter, ...]:
    """Questions, and operations."""
    return _questions(desk), index_routes.router(desk), _operations(desk)


def _questions(desk: Desk) -> APIRouter:
    routes = api(TAG, desk.looking(), 400, 404, 422)

    @routes.get("/images/{name}/versions/{number}", summary="One version: its items, where it came from, when verified",
                responses=faults(307))  # fmt: skip
    async def version(request: Request, name: str, number: ShownVersion) -> VersionDetails:
        desk.refer_download(request, name, number or None)
        image = desk.store.object(name)
        found = image.version(number or desk.store.info(name).version)
        return version_details(image, found, await _frames(desk, found.image))

    return routes


def _operations(desk: Desk) -> APIRouter:
    routes = api(TAG, desk.operations(), 400, 404, 409, 422)
    for verb, (_, summary) in _MOVES.items():
        routes.add_api_route(
            f"/images/{{name}}/versions/{{number}}/{verb}", _mover(desk, verb), methods=["POST"], name=verb,
            summary=summary, response_model=ImageDetails, operation_id=f"{verb}_version",
        )  # fmt: skip

    @routes.patch("/images/{name}/versions/{number}", summary="Change what is said of a version")
    async def remark(name: str, number: VersionNumber, body: VersionBody, response: Response) -> ImageDetails:
        desk.store.object(name).version(number)
        return told(await desk.store.change(name, AboutChange(remarks={number: body.comment})), response)

    @routes.post("/images/{name}/rollback", summary="Serve an older version again; newer ones are disabled")
    async def rollback(request: Request, name: str, body: RollbackBody, response: Response) -> ImageDetails:
        caller = desk.allow(request, CHANGE)
        image = await desk.store.rollback(name, body.to, who(caller))
        request.state.detail = f"version {image.served.version} is served" if image.served else "none is served"
        return told(image, response)

    return routes


def _mover(desk: Desk, verb: str) -> Callable[[Request, str, int, Response], Awaitable[ImageDetails]]:
    async def move(request: Request, name: str, number: VersionNumber, response: Response) -> ImageDetails:
        caller = desk.allow(request, CHANGE)
        request.state.detail = f"version {number}"
        if verb == "restore":
            _check_retired(desk, name, number)
        return told(await desk.store.move(name, number, _MOVES[verb][0], who(caller)), response)

    return move


def _check_retired(desk: Desk, name: str, number: int) -> None:
    state = desk.store.object(name).version(number).state
    if state is not VersionState.RETIRED:
        raise WrongState(f"image {name} version {number} is {state.value}: only a retired one can be restored")


async def _frames(desk: Desk, image: StoredImage) -> dict[str, FramesModel]:
    """Of the items that have an index."""
    found = {}
    for item in image.manifest.items:
        header = await desk.store.index_header(image, item.name)
        if header is not None:
            found[item.name] = FramesModel(
                frames=header.frames, extent_bytes=header.effective_bytes, device_bytes=header.device_bytes,
                used_bytes=header.used_bytes,
            )  # fmt: skip
    return found
