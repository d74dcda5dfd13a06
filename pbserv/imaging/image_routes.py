"""The image store over HTTP for people: list, look, download, upload one file, delete.

One rule: an operation (download, upload, delete) is one counted and logged request whatever its outcome; listings,
HEAD and ranges count nothing. Images hold whole disks, so nothing here works without a token: viewers look, operators
download, administrators store and delete.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from datetime import datetime

from fastapi import APIRouter, Depends, Request
from fastapi.responses import JSONResponse, Response
from fastapi.routing import APIRoute
from pydantic import BaseModel, Field

from pbserv.httpapi import BEARER, bearer, peer_address
from pbserv.imaging.backend import ImagingBackend
from pbserv.imaging.coverage import Coverage, Recipient
from pbserv.imaging.faults import Forbidden, ImagingFault, InvalidRequest, Unauthorized, UploadBroken
from pbserv.imaging.guard import CHANGE, FETCH, LOOK, Guard
from pbserv.imaging.layout import StoredImage
from pbserv.imaging.manifest import print_manifest, single_file
from pbserv.imaging.statistics import OpenRequest, Statistics
from pbserv.imaging.transfer import EventLog, Transfers, announced_checksum, content_length, receive_item
from pbserv.registry.records import Role

FILE_ITEM = "file"
"""The item of an image that was uploaded by hand."""
_MAX_OPERATIONS = 4096


class ItemModel(BaseModel):
    name: str
    kind: str = Field(description="sfdisk, boot, partclone.<file system>, raw, swap or file")
    partition: int = Field(description="number of the partition, 0 for the whole disk")
    stored_bytes: int
    sha256: str = Field(description="of the stored bytes")
    uncompressed_bytes: int


class DiskModel(BaseModel):
    size_bytes: int
    sector_bytes: int
    table: str = Field(description="gpt, dos or none")
    firmware: str = Field(description="bios or uefi")


class ImageModel(BaseModel):
    name: str
    version: int = Field(description="the newest version, which is served")
    versions: list[int]
    created: datetime
    stored_bytes: int
    uncompressed_bytes: int
    disk: DiskModel
    items: list[ItemModel]


class ImagesModel(BaseModel):
    images: list[ImageModel]


class ErrorModel(BaseModel):
    error: str


class _FaultRoute(APIRoute):
    """Answers faults of the store as ``{"error": ...}`` with their status."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[object, object, Response]]:
        handle = super().get_route_handler()

        async def answer(request: Request) -> Response:
            try:
                return await handle(request)
            except ImagingFault as fault:
                headers = {"WWW-Authenticate": "Bearer"} if isinstance(fault, Unauthorized) else None
                return JSONResponse({"error": str(fault)}, fault.status, headers)

        return answer


class _Operations:
    """Joins the requests for the several items of an image into one download per address; a repeat is a new one."""

    def __init__(self) -> None:
        self._items: OrderedDict[tuple[str, str, int], set[str]] = OrderedDict()

    def begins(self, source: str, image: StoredImage, item: str) -> bool:
        """True when asking for this item starts a download, False when it goes on with one."""
        key = (source, image.name, image.version)
        items = self._items.get(key)
        begins = items is None or item in items
        self._items[key] = {item} if begins or items is None else items | {item}
        self._items.move_to_end(key)
        if len(self._items) > _MAX_OPERATIONS:
            self._items.popitem(last=False)
        return begins


@contextmanager
def _closing(opened: OpenRequest) -> Iterator[None]:
    """Whatever ends the block by an exception is the outcome of the request."""
    try:
        yield
    except ImagingFault as fault:
        opened.close(_result(fault), str(fault))
        raise
    except BaseException:
        opened.close("aborted")
        raise


class _Images:
    """The handlers' common ground: who may, what counts, and the work itself."""

    def __init__(self, transfers: Transfers, guard: Guard) -> None:
        self.transfers = transfers
        self._guard = guard
        self._operations = _Operations()

    def allow(self, request: Request, role: Role) -> None:
        caller = self._guard.authorize(bearer(request))
        if caller is None:
            raise Unauthorized(
                "images need a token: send the header Authorization: Bearer TOKEN (see: pbserv token)"
                + ("; the one that came is not valid" if "authorization" in request.headers else "")
            )
        if not caller.may(role):
            raise Forbidden(f"this needs a token of role {role}; the one that came is of role {caller.kind}")

    @contextmanager
    def counted(self, request: Request, kind: str, image: str) -> Iterator[None]:
        """Count an operation that changes images, and log it with its outcome."""
        opened = self.transfers.statistics.open(peer_address(request), kind, image=image[:64])
        with _closing(opened):
            self.allow(request, CHANGE)
            yield
            opened.close("ok")

    async def download(self, request: Request, name: str, item: str) -> Response:
        recipient = Recipient.address(peer_address(request))
        serve = self.transfers.item_response
        if request.method == "HEAD" or "range" in request.headers:
            self.allow(request, LOOK if request.method == "HEAD" else FETCH)
            return await serve(request, self.transfers.store.info(name), item, recipient)
        image = self._allowed_image(request, name)
        if image is not None and item in image.sizes and not self._operations.begins(recipient.key, image, item):
            return await serve(request, image, item, recipient)
        opened = self.transfers.statistics.open(recipient.key, "download", image=name[:64])

        def ended(result: str, sent_bytes: int) -> None:
            opened.close(result, f"item {item}, {sent_bytes} bytes")

        with _closing(opened):
            self.allow(request, FETCH)
            return await serve(request, self.transfers.store.info(name), item, recipient, ended=ended)

    def _allowed_image(self, request: Request, name: str) -> StoredImage | None:
        try:
            self.allow(request, FETCH)
            return self.transfers.store.info(name)
        except ImagingFault:
            return None

    async def upload(self, request: Request, name: str, overwrite: bool) -> StoredImage:
        """Store the body as an image of one opaque file."""
        began = time.monotonic()
        announced_checksum(request)
        length = content_length(request)
        draft = self.transfers.store.begin(name, overwrite=overwrite, size_bytes=length or 0)
        try:
            item = await receive_item(request, draft, FILE_ITEM)
            image = await draft.commit(print_manifest(single_file(FILE_ITEM, item.size_bytes, item.sha256)))
        finally:
            await draft.discard()
        self.transfers.received(image, peer_address(request), began)
        return image

    def model(self, image: StoredImage) -> ImageModel:
        manifest = image.manifest
        disk = manifest.disk
        return ImageModel(
            name=image.name,
            version=image.version,
            versions=list(self.transfers.store.versions(image.name)),
            created=image.created,
            stored_bytes=manifest.stored_bytes,
            uncompressed_bytes=manifest.uncompressed_bytes,
            disk=DiskModel(
                size_bytes=disk.size_bytes, sector_bytes=disk.sector_bytes, table=disk.table, firmware=disk.firmware
            ),
            items=[
                ItemModel(
                    name=item.name,
                    kind=item.kind,
                    partition=item.partition,
                    stored_bytes=item.stored_bytes,
                    sha256=item.sha256,
                    uncompressed_bytes=item.uncompressed_bytes,
                )
                for item in manifest.items
            ],
        )


def router(store: ImagingBackend, statistics: Statistics, coverage: Coverage, guard: Guard, log: EventLog) -> APIRouter:
    """The routes below ``/api/v1/images``."""
    images = _Images(Transfers(store, statistics, coverage, log), guard)
    routes = APIRouter(
        prefix="/api/v1/images",
        tags=["images"],
        route_class=_FaultRoute,
        dependencies=[Depends(BEARER)],
        responses={status: {"model": ErrorModel} for status in (400, 401, 403, 404, 409)},
    )
    _reading(routes, images)
    _writing(routes, images)
    return routes


def _reading(routes: APIRouter, images: _Images) -> None:
    @routes.get("", summary="All images, newest versions")
    async def list_images(request: Request) -> ImagesModel:
        images.allow(request, LOOK)
        return ImagesModel(images=[images.model(image) for image in images.transfers.store.list()])

    @routes.get("/{name}", summary="One image")
    async def image(request: Request, name: str) -> ImageModel:
        images.allow(request, LOOK)
        return images.model(images.transfers.store.info(name))

    @routes.get("/{name}/items/{item}", response_class=Response, summary="An item's stored bytes; ranges and resume")
    @routes.head("/{name}/items/{item}", response_class=Response, include_in_schema=False)
    async def item(request: Request, name: str, item: str) -> Response:
        return await images.download(request, name, item)


def _writing(routes: APIRouter, images: _Images) -> None:
    @routes.put("/{name}", status_code=201, summary="Upload one file as an image; X-Checksum-SHA256 is verified")
    async def upload(request: Request, name: str, overwrite: str = "0") -> ImageModel:
        """``overwrite=1`` makes a new version of an existing image where AllowImageOverwrite = YES."""
        with images.counted(request, "upload", name):
            if overwrite not in ("0", "1"):
                raise InvalidRequest(f"overwrite={overwrite[:20]!r}: write 0 or 1")
            image = await images.upload(request, name, overwrite == "1")
        return images.model(image)

    @routes.delete("/{name}", status_code=204, summary="Delete an image with all its versions")
    async def delete(request: Request, name: str) -> None:
        with images.counted(request, "delete", name):
            await images.transfers.store.delete(name)
            images.transfers.coverage.forget(name)


def _result(fault: ImagingFault) -> str:
    if isinstance(fault, UploadBroken):
        return "aborted"
    return "denied" if fault.denied else "failed"
