"""What the routes of images, uploads and stores have in common: who may, what counts, faults as answers.

One rule: an operation (download, upload, a change) is one counted and logged request whatever its outcome; listings,
HEAD and ranges count nothing. Who has no token learns nothing, not even what is wrong with the request.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from http import HTTPStatus

from fastapi import APIRouter, Depends, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException

from pbserv import httpetags as etags
from pbserv.errors import PbservError
from pbserv.httpapi import BEARER, ApiError, bearer, faults, peer_address
from pbserv.imaging.about import About, AboutChange, VersionAbout
from pbserv.imaging.backend import VersionedBackend
from pbserv.imaging.coverage import Recipient
from pbserv.imaging.faults import Forbidden, ImagingFault, NotSupported, Unauthorized, UnknownImage, UploadBroken
from pbserv.imaging.guard import CHANGE, FETCH, LOOK, Caller, Guard
from pbserv.imaging.image_views import ImageDetails, image_details
from pbserv.imaging.layout import StoredImage
from pbserv.imaging.manifest import print_manifest, single_file
from pbserv.imaging.objects import ImageObject, ImageVersion
from pbserv.imaging.referring import Referred, Referring
from pbserv.imaging.states import VersionState
from pbserv.imaging.statistics import OpenRequest
from pbserv.imaging.transfer import Transfers, announced_checksum, content_length, receive_item
from pbserv.registry.records import Role

FILE_ITEM = "file"
"""The item of an image that was uploaded by hand."""
_MAX_OPERATIONS = 4096
_MAX_DETAIL = 500


Handler = Callable[[Request], Coroutine[object, object, Response]]


class FaultRoute(APIRoute):
    """Answers faults of the store as ``{"error": ...}`` with their status."""

    def get_route_handler(self) -> Handler:
        return _answering(super().get_route_handler())


def api(tag: str, kind: type[APIRoute], *statuses: int) -> APIRouter:
    """An empty router below /api/v1; ``statuses``: of faults that any of its routes may answer, besides 401 and 403."""
    return APIRouter(
        prefix="/api/v1", tags=[tag], route_class=kind, dependencies=[Depends(BEARER)],
        responses=faults(401, 403, *statuses),
    )  # fmt: skip


def _answering(handle: Handler) -> Handler:
    async def answer(request: Request) -> Response:
        try:
            return await handle(request)
        except (ImagingFault, ApiError) as fault:
            headers = {"WWW-Authenticate": "Bearer"} if isinstance(fault, Unauthorized) else None
            if isinstance(fault, Referred):
                headers = {"Location": fault.location}
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
    except (PbservError, RequestValidationError) as fault:
        opened.close("failed", str(fault)[:_MAX_DETAIL])
        raise
    except BaseException:
        opened.close("aborted")
        raise


class Desk:
    """Who may, what counts, and the moving of whole images."""

    def __init__(self, transfers: Transfers, store: VersionedBackend, guard: Guard, referring: Referring) -> None:
        self.referring = referring
        self.transfers = transfers
        self.store = store
        self._guard = guard
        self._operations = _Operations()

    def allow(self, request: Request, role: Role) -> Caller:
        """Who calls; raises Unauthorized or Forbidden."""
        caller: Caller | None = self._guard.authorize(bearer(request)) or self.referring.ticket(request)
        if caller is None:
            raise Unauthorized(
                "images need a token: send the header Authorization: Bearer TOKEN (see: pbserv token)"
                + ("; the one that came is not valid" if "authorization" in request.headers else "")
            )
        if not caller.may(role):
            raise Forbidden(f"this needs a token of role {role}; the one that came is of role {caller.kind}")
        return caller

    def looking(self) -> type[APIRoute]:
        """Routes of questions: whoever may look may ask, and nothing is counted."""
        desk = self

        class Looking(APIRoute):
            def get_route_handler(self) -> Handler:
                handle = super().get_route_handler()

                async def answer(request: Request) -> Response:
                    desk.allow(request, LOOK)
                    return await handle(request)

                return _answering(answer)

        return Looking

    def changing(self) -> type[APIRoute]:
        """Routes of steps within an operation: they need an administrator, and are not counted."""
        desk = self

        class Changing(APIRoute):
            def get_route_handler(self) -> Handler:
                handle = _readable(super().get_route_handler())

                async def answer(request: Request) -> Response:
                    desk.allow(request, CHANGE)
                    return await handle(request)

                return _answering(answer)

        return Changing

    def operations(self) -> type[APIRoute]:
        """Routes of operations: each is named as its function, needs an administrator, is counted and logged.

        The function may set ``request.state.result`` and ``.detail``, which are logged in place of ``ok`` and nothing.
        """
        desk = self

        class Operation(APIRoute):
            def get_route_handler(self) -> Handler:
                handle, kind = _readable(super().get_route_handler()), self.name

                async def answer(request: Request) -> Response:
                    with desk.counted(request, kind, str(request.path_params.get("name", ""))):
                        return await handle(request)

                return _answering(answer)

        return Operation

    @contextmanager
    def counted(self, request: Request, kind: str, image: str) -> Iterator[None]:
        """Count an operation that changes images, and log it with its outcome."""
        opened = self.transfers.statistics.open(peer_address(request), kind, image=image[:64])
        with _closing(opened):
            self.allow(request, CHANGE)
            yield
            opened.close(getattr(request.state, "result", "ok"), getattr(request.state, "detail", ""))

    async def download(self, request: Request, name: str, item: str, version: int | None = None) -> Response:
        """Bytes of an item; ``version`` None: of the one that is served."""
        recipient = Recipient.address(peer_address(request))
        serve = self.transfers.item_response
        if request.method == "HEAD" or "range" in request.headers:
            self.allow(request, LOOK if request.method == "HEAD" else FETCH)
            self.refer_download(request, name, version)
            return await serve(request, self.store.info(name, version), item, recipient)
        image = self._allowed_image(request, name, version)
        if image is not None and item in image.sizes and not self._operations.begins(recipient.key, image, item):
            return await serve(request, image, item, recipient)
        opened = self.transfers.statistics.open(recipient.key, "download", image=name[:64])

        def ended(result: str, sent_bytes: int) -> None:
            opened.close(result, f"item {item}, {sent_bytes} bytes")

        with _closing(opened):
            self.allow(request, FETCH)
            self.refer_download(request, name, version)
            return await serve(request, self.store.info(name, version), item, recipient, ended=ended)

    def refer_download(self, request: Request, name: str, version: int | None) -> None:
        """Raise Referred for an image of another server that has no version here."""
        if self.referring.remotes.urls and not self.store.versions(name):
            self.referring.refer(request, "get", name, self._owner(name), version)

    def refer_upload(self, request: Request, name: str, store: str) -> None:
        """Raise Referred where ``store``, or that of the image, is another server's."""
        if self.referring.remotes.urls:
            found = self.image_or_none(name)
            title = "" if found is None or request.method != "PUT" else found.about.title
            self.referring.refer(request, "put", name, store or self._owner(name), title=title)

    async def entitle(self, name: str, title: str) -> None:
        """Call an image so that has no title; it is there already, whether that can be written down or not."""
        with suppress(ImagingFault):
            if title and not self.store.object(name).about.title:
                await self.store.change(name, AboutChange(title=title))

    def _owner(self, name: str) -> str:
        """The store of another server that the image belongs to; empty: none."""
        try:
            return self.store.object(name).about.owner
        except (UnknownImage, NotSupported):
            return ""

    def images(self) -> tuple[ImageObject, ...]:
        """All images by name; of a backend that keeps no states, all versions are enabled."""
        try:
            return self.store.all()
        except NotSupported:
            return tuple(self._plain(image.name) for image in self.store.list())

    def image(self, name: str) -> ImageObject:
        """Raises InvalidName or UnknownImage."""
        try:
            return self.store.object(name)
        except NotSupported:
            return self._plain(name)

    def image_or_none(self, name: str) -> ImageObject | None:
        """The same, None where there is none."""
        try:
            return self.image(name)
        except UnknownImage:
            return None

    async def purge(self, name: str, version: int | None) -> None:
        """For ever; a backend that keeps no states cannot demand that it is retired."""
        try:
            await self.store.purge(name, version)
        except NotSupported:
            if version is not None:
                raise
            await self.store.delete(name)
        if not self.store.versions(name):
            self.transfers.coverage.forget(name)

    def _plain(self, name: str) -> ImageObject:
        numbers = self.store.versions(self.store.info(name).name)
        enabled = VersionAbout(VersionState.ENABLED)
        return ImageObject(
            name, "", About(), tuple(ImageVersion(self.store.info(name, number), enabled) for number in numbers)
        )

    def _allowed_image(self, request: Request, name: str, version: int | None) -> StoredImage | None:
        try:
            self.allow(request, FETCH)
            return self.store.info(name, version)
        except ImagingFault:
            return None

    async def upload(self, request: Request, name: str, overwrite: bool) -> ImageObject:
        """Store the body as an image of one opaque file."""
        began = time.monotonic()
        announced_checksum(request)
        length = content_length(request)
        draft = self.store.begin(name, overwrite=overwrite, size_bytes=length or 0)
        try:
            item = await receive_item(request, draft, FILE_ITEM)
            await self.transfers.check_commit(name, peer_address(request))
            image = await draft.commit(print_manifest(single_file(FILE_ITEM, item.size_bytes, item.sha256)))
        finally:
            await draft.discard()
        self.transfers.received(image, peer_address(request), began)
        return self.image(image.name)


def _readable(handle: Handler) -> Handler:
    """A body that is no JSON is a value that cannot be used."""

    async def answer(request: Request) -> Response:
        try:
            return await handle(request)
        except HTTPException as fault:
            if fault.status_code != HTTPStatus.BAD_REQUEST:
                raise
            raise ApiError(422, "the body cannot be read: it is no JSON in UTF-8, or it ended too soon") from None

    return answer


def told(image: ImageObject, response: Response) -> ImageDetails:
    """The answer to a change, with the ETag for the next one."""
    details = image_details(image)
    response.headers["ETag"] = etags.of_view(details)
    return details


def who(caller: Caller) -> str:
    """Whose change it is, for those who look later."""
    return f"token:{caller.name or caller.kind}"


def _result(fault: ImagingFault) -> str:
    if isinstance(fault, Referred):
        return "referred"
    if isinstance(fault, UploadBroken):
        return "aborted"
    return "denied" if fault.denied else "failed"
