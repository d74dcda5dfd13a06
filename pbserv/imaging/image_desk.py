"""What the routes of images, uploads and stores have in common: who may, what counts, faults as answers.

One rule: an operation (download, upload, a change) is one counted and logged request whatever its outcome; listings,
HEAD and ranges count nothing.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager

from fastapi import Request
from fastapi.responses import JSONResponse, Response
from fastapi.routing import APIRoute

from pbserv.httpapi import bearer, peer_address
from pbserv.imaging.coverage import Recipient
from pbserv.imaging.faults import Forbidden, ImagingFault, Unauthorized, UploadBroken
from pbserv.imaging.guard import CHANGE, FETCH, LOOK, Guard
from pbserv.imaging.layout import StoredImage
from pbserv.imaging.manifest import print_manifest, single_file
from pbserv.imaging.statistics import OpenRequest
from pbserv.imaging.transfer import Transfers, announced_checksum, content_length, receive_item
from pbserv.registry.records import Role

FILE_ITEM = "file"
"""The item of an image that was uploaded by hand."""
_MAX_OPERATIONS = 4096


class FaultRoute(APIRoute):
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


class Desk:
    """Who may, what counts, and the moving of whole images."""

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


def _result(fault: ImagingFault) -> str:
    if isinstance(fault, UploadBroken):
        return "aborted"
    return "denied" if fault.denied else "failed"
