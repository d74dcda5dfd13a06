"""Uploads in parts over HTTP: one that breaks off goes on where it stood, also after the server was restarted.

One rule: a part is taken whole or not at all, and sending it again changes nothing; the image appears with the commit.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from contextlib import aclosing
from typing import Final

from fastapi import APIRouter, Request
from fastapi.responses import Response

from pbserv.httpapi import faults, peer_address
from pbserv.imaging.backend import Session
from pbserv.imaging.faults import InUse, InvalidRequest
from pbserv.imaging.guard import CHANGE
from pbserv.imaging.image_desk import Desk, api, who
from pbserv.imaging.image_views import ImageModel, image_model
from pbserv.imaging.manifest import MAX_BYTES
from pbserv.imaging.part_bodies import PART_BYTES, bounded, check_length
from pbserv.imaging.transfer import announced_checksum, content_length
from pbserv.imaging.upload_bodies import (
    Checksum,
    CompleteBody,
    CompleteModel,
    JobKey,
    Kind,
    PartModel,
    PartNumber,
    ReferredModel,
    Title,
    UploadBody,
    UploadModel,
    UploadNumber,
    UploadsModel,
    upload_model,
)

TAG: Final = "uploads"
_MAX_COMMITTED: Final = 1024
_MANIFEST: Final = {
    "requestBody": {"required": True, "content": {"text/plain": {"schema": {"type": "string", "maxLength": MAX_BYTES}}}}
}
_PART: Final = {
    "requestBody": {
        "required": True,
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    }
}


def routers(desk: Desk) -> tuple[APIRouter, ...]:
    """Questions, operations, and the steps within one."""
    return _questions(desk), _beginning(desk), _parts(desk), _ends(desk)


def _questions(desk: Desk) -> APIRouter:
    routes = api(TAG, desk.looking(), 422)

    @routes.get("/uploads", summary="Uploads that have begun and are not committed")
    async def uploads() -> UploadsModel:
        return UploadsModel(uploads=[upload_model(each, PART_BYTES) for each in desk.store.sessions()])

    @routes.get("/images/{name}/uploads/{key}", summary="What became of the upload of another server's job",
                responses=faults(400))  # fmt: skip
    async def of_job(name: str, key: JobKey) -> ReferredModel:
        owner, image = referred(key), desk.image_or_none(name)
        made = [] if image is None else [each.number for each in image.versions if each.image.facts.creator == owner]
        going = _going(desk, name, owner)
        return ReferredModel(
            upload=None if going is None else upload_model(going, PART_BYTES), version=max(made, default=None)
        )

    @routes.get("/uploads/{upload}", summary="How far an upload is: go on with next_part", responses=faults(410))
    async def upload(upload: UploadNumber) -> UploadModel:
        return upload_model(desk.store.session(upload), PART_BYTES)

    return routes


def _beginning(desk: Desk) -> APIRouter:
    routes = api(TAG, desk.operations(), 400, 404, 409, 413, 422)

    @routes.post("/images/{name}/uploads", status_code=201, summary="Begin an upload in parts",
                 name="upload", responses=faults(307, 507))  # fmt: skip
    async def begin(request: Request, name: str, body: UploadBody, response: Response) -> UploadModel:
        """Then PUT the parts of each item, complete each item, and commit with the manifest."""
        desk.refer_upload(request, name, body.store)
        owner = referred(body.referred) if body.referred else who(desk.allow(request, CHANGE))
        session = _going(desk, name, owner) if body.referred else None
        session = session or desk.store.open_session(
            name, store=body.store, overwrite=body.overwrite, size_bytes=body.bytes, owner=owner, asis=body.asis
        )
        request.state.result, request.state.detail = "started", f"upload {session.number}"
        response.headers["Location"] = f"/api/v1/uploads/{session.number}"
        return upload_model(session, PART_BYTES)

    return routes


def _parts(desk: Desk) -> APIRouter:
    routes = api(TAG, desk.changing(), 400, 409, 410, 413, 422)

    @routes.put("/uploads/{upload}/items/{item}/parts/{number}", summary="One part of an item; needs X-Checksum-SHA256",
                responses=faults(408, 507), openapi_extra=_PART)  # fmt: skip
    async def part(request: Request, upload: UploadNumber, item: str, number: PartNumber, kind: Kind = "file",
                   checksum: Checksum = None) -> PartModel:  # fmt: skip
        """Zstandard frames, or bytes as they are. The same part again is fine; another one under its number is 409."""
        session = _own(desk, upload)
        digest = announced_checksum(request)
        if digest is None:
            raise InvalidRequest(f"upload {upload} item {item[:80]!r} part {number}: X-Checksum-SHA256 is needed")
        check_length(content_length(request))
        async with aclosing(bounded(request, session.image)) as chunks:
            done = await session.part(item, kind, number, chunks, digest)
        return PartModel(next_part=done.next_part, received_bytes=done.received_bytes)

    @routes.post("/uploads/{upload}/items/{item}/complete", summary="All parts of an item are there")
    async def complete(upload: UploadNumber, item: str, body: CompleteBody) -> CompleteModel:
        stored = await _own(desk, upload).complete(item, body.parts, body.bytes)
        return CompleteModel(name=stored.name, stored_bytes=stored.size_bytes, sha256=stored.sha256)

    return routes


def _ends(desk: Desk) -> APIRouter:
    routes, committed = api(TAG, desk.changing(), 400, 409, 410, 422), _Committed()

    @routes.post("/uploads/{upload}/commit", status_code=201, summary="Make the image visible by its manifest",
                 responses=faults(413, 507), openapi_extra=_MANIFEST)  # fmt: skip
    async def commit(request: Request, upload: UploadNumber, title: Title = "") -> ImageModel:
        """A manifest that does not fit changes nothing and may be sent again; so may one that was committed already."""
        known = committed.get(upload)
        if known is not None:
            return image_model(desk.image(known))
        began = time.monotonic()
        text = (await request.body()).decode("utf-8", "replace")
        session = _own(desk, upload)
        await desk.transfers.check_commit(session.image, peer_address(request))
        image = await session.commit(text)
        committed.add(upload, image.name)
        await desk.entitle(image.name, title)
        desk.transfers.received(image, peer_address(request), began)
        return image_model(desk.image(image.name))

    @routes.delete("/uploads/{upload}", status_code=204, summary="Give an upload up; what came is removed")
    async def discard(upload: UploadNumber) -> None:
        await _own(desk, upload).discard()

    return routes


class _Committed:
    """What uploads of this run of the process became: an answer may be lost, and the question come again."""

    def __init__(self) -> None:
        self._images: OrderedDict[str, str] = OrderedDict()

    def get(self, upload: str) -> str | None:
        return self._images.get(upload)

    def add(self, upload: str, image: str) -> None:
        self._images[upload] = image
        if len(self._images) > _MAX_COMMITTED:
            self._images.popitem(last=False)


def referred(key: str) -> str:
    """The owner of an upload of another server's job."""
    return f"referred:{key}"


def _going(desk: Desk, image: str, owner: str) -> Session | None:
    """The upload of this image and owner, None where there is none."""
    return next((each for each in desk.store.sessions() if (each.image, each.owner) == (image, owner)), None)


def _own(desk: Desk, upload: str) -> Session:
    """An upload that was begun here: those of jobs are their devices' alone. Raises DraftGone or InUse."""
    session = desk.store.session(upload)
    if session.owner.startswith("job:"):
        raise InUse(
            f"upload {upload} of image {session.image} belongs to job {session.owner[4:]}; to end it, cancel its work: "
            "pbserv work cancel NUMBER"
        )
    return session
