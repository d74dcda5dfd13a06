"""The index of an item's frames over HTTP: who has the item before can see which frames it lacks, and fetch those.

One rule: the bytes are those of ITEM.pbx (docs/adr/0015), read and checked as a whole before the first one is sent.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from http import HTTPStatus
from typing import Final

from fastapi import APIRouter, Request
from fastapi.responses import Response, StreamingResponse

from pbserv.httpapi import faults
from pbserv.imaging import ranges
from pbserv.imaging.faults import UnknownImage
from pbserv.imaging.frames.index import HEADER_BYTES
from pbserv.imaging.frames.reader import OpenIndex
from pbserv.imaging.guard import FETCH
from pbserv.imaging.image_bodies import OneVersion
from pbserv.imaging.image_desk import Desk, FaultRoute, api

TAG: Final = "images"
_BLOCK_BYTES: Final = 256 * 1024


def router(desk: Desk) -> APIRouter:
    routes = api(TAG, FaultRoute, 400, 404, 422)

    @routes.get(
        "/images/{name}/items/{item}/index", response_class=Response, responses=faults(307),
        summary="The index of an item's frames: address, place and digests of each; ranges and resume",
    )  # fmt: skip
    @routes.head("/images/{name}/items/{item}/index", response_class=Response, include_in_schema=False)
    async def index(request: Request, name: str, item: str, version: OneVersion = None) -> Response:
        """A header of 160 bytes and 88 bytes for each frame, little-endian. 404 for an item of one piece: it has
        none."""
        desk.allow(request, FETCH)
        desk.refer_download(request, name, version)
        image = desk.store.info(name, version)
        if image.manifest.item(item) is None:
            raise UnknownImage(f"image {name} version {image.version} has no item {item[:80]!r}")
        opened = await desk.store.index(image, item)
        if opened is None:
            raise UnknownImage(f"image {name} version {image.version} item {item} has no index: it is of one piece")
        return _answer(request, opened)

    return routes


def _answer(request: Request, opened: OpenIndex) -> Response:
    """Closes ``opened`` at the end."""
    etag = f'"{hashlib.sha256(opened.read(0, HEADER_BYTES)).hexdigest()}"'  # the digest over the records is in it
    plan = ranges.plan(request.headers, size_bytes=opened.size_bytes, etag=etag, method=request.method)
    headers = {"ETag": etag, "Accept-Ranges": "bytes", "Cache-Control": "private, no-cache"}
    if plan.content_range is not None:
        headers["Content-Range"] = plan.content_range
    if plan.status is not HTTPStatus.NOT_MODIFIED:
        headers["Content-Length"] = str(plan.end - plan.start)
    kind = "application/octet-stream"
    if request.method == "HEAD" or plan.start == plan.end:
        opened.close()
        return Response(status_code=plan.status, headers=headers, media_type=kind)
    return StreamingResponse(_blocks(opened, plan.start, plan.end), plan.status, headers, kind)


def _blocks(opened: OpenIndex, start: int, end: int) -> Iterator[bytes]:
    """In a worker thread: what is not in memory comes from the disk."""
    try:
        for at in range(start, end, _BLOCK_BYTES):
            yield opened.read(at, min(end, at + _BLOCK_BYTES))
    finally:
        opened.close()
