"""What devices of other servers send here: the items of an upload that their own server began here for them.

One rule: a ticket opens the items of one upload; beginning, completing and committing it is their server's business,
which knows whether the job is still wanted.
"""

from __future__ import annotations

from contextlib import aclosing

from fastapi import APIRouter, Depends, Request
from fastapi.responses import PlainTextResponse

from pbserv.httpapi import ApiError
from pbserv.imaging.backend import VersionedBackend
from pbserv.imaging.client_faults import FaultRoute
from pbserv.imaging.client_uploads import ItemKind, part_digest
from pbserv.imaging.part_bodies import bounded, check_length
from pbserv.imaging.referring import Referring
from pbserv.imaging.transfer import content_length, receive_item
from pbserv.imaging.upload_bodies import PartNumber, UploadNumber
from pbserv.imaging.upload_routes import referred


def router(store: VersionedBackend, referring: Referring) -> APIRouter:
    """The routes below ``/client/v1/uploads``, answered as those of a job are."""

    def for_another(upload: str) -> bool:
        """Uploads of this server's jobs and callers are theirs, whatever a ticket says."""
        return store.session(upload).owner.startswith(referred(""))

    def sender(request: Request) -> None:
        ticket = referring.ticket(request)
        if ticket is None or ticket.scope.what != "send" or not for_another(ticket.scope.upload):
            raise ApiError(401, "the upload is over, or its ticket is not valid; ask the device's own server")

    routes = APIRouter(prefix="/client/v1/uploads/{upload}", tags=["imaging client"], route_class=FaultRoute,
                       default_response_class=PlainTextResponse, dependencies=[Depends(sender)])  # fmt: skip

    @routes.put("/items/{name}", summary="A whole item of a device of another server")
    async def whole(request: Request, upload: UploadNumber, name: str) -> str:
        """The answer is its size and SHA-256."""
        stored = await receive_item(request, store.session(upload), name)
        return f"{stored.size_bytes} {stored.sha256}\n"

    @routes.put("/items/{name}/parts/{number}", summary="A part of an item of a device of another server")
    async def part(request: Request, upload: UploadNumber, name: str, number: PartNumber, kind: ItemKind) -> str:
        """As a part for a job of this server."""
        digest = part_digest(request, name, number)
        check_length(content_length(request))
        session = store.session(upload)
        async with aclosing(bounded(request, session.image)) as chunks:
            done = await session.part(name, kind, number, chunks, digest)
        return f"{done.next_part} {done.received_bytes} {done.sha256}\n"

    return routes
