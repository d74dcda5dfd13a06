"""What all HTTP routes share: bearer tokens, errors with a status, the address the client reached us at."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Annotated, Any, Final  # Any: what FastAPI takes for the answers of a route

from fastapi import Request, Security
from fastapi.responses import Response
from fastapi.routing import APIRoute
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from pbserv.errors import PbservError
from pbserv.registry.access import Access, Caller
from pbserv.registry.records import Role

BEARER: Final = HTTPBearer(auto_error=False, description="An API token (see: pbserv token), or that of a device's work")
"""For the description of the API alone; :func:`requires` is what checks."""
_Declared = Annotated[HTTPAuthorizationCredentials | None, Security(BEARER)]
_FAULTS: Final = {
    307: "another server has it: Location, with a ticket for this image",
    400: "something in the request cannot be used",
    401: "no token came, or one that nobody gave out",
    403: "the token's role may not do this, or a rule of this server forbids it",
    404: "there is no such thing",
    408: "the sender kept the connection open and sent nothing",
    409: "it contradicts what is there",
    410: "it is over: given up, or done already",
    412: "the object is another one than If-Match or If-None-Match say",
    413: "the body is too large",
    415: "the content is of no type that can be read",
    422: "a value cannot be used; the sentence names it",
    500: "what is on the disk is not what was stored, or cannot be read",
    501: "the backend that LIBRARY_NAME names cannot do this",
    503: "a service that this needs is not running",
    507: "there is no room for it",
}


class ErrorBody(BaseModel):
    """What is wrong, where, and what to do."""

    error: str


class ApiError(PbservError):
    """An answer with an HTTP status and one sentence; web/app.py turns it into ``{"error": ...}`` or a text line."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def bearer(request: Request) -> str | None:
    """The token of ``Authorization: Bearer ...`` (RFC 6750 2.1), or None."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    return token.strip() or None if scheme.lower() == "bearer" else None


def requires(access: Access, role: Role) -> Callable[[Request], Caller]:
    """A dependency that lets only those pass who may do what ``role`` may."""

    def check(request: Request, _declared: _Declared = None) -> Caller:
        caller = access.authorize(bearer(request))
        if caller is None:
            came = "the token that came is not valid; " if "authorization" in request.headers else ""
            raise ApiError(401, f"{came}a token is needed: Authorization: Bearer TOKEN (see: pbserv token)")
        if not caller.may(role):
            raise ApiError(403, f"this needs a token of role {role}; the one that came is of role {caller.kind}")
        return caller

    return check


def faults(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """``responses`` of routes that may answer so, for the description of the API."""
    return {status: {"model": ErrorBody, "description": _FAULTS[status]} for status in statuses}


def guarded(access: Access, role: Role) -> type[APIRoute]:
    """A kind of route that looks at the token before the body: without one nobody learns what is wrong with it."""
    check = requires(access, role)

    class Guarded(APIRoute):
        def get_route_handler(self) -> Callable[[Request], Coroutine[object, object, Response]]:
            handle = super().get_route_handler()

            async def answer(request: Request) -> Response:
                check(request)
                try:
                    return await handle(request)
                except HTTPException as fault:
                    if fault.status_code != 400:
                        raise
                    raise ApiError(
                        422, "the body cannot be read: it is no JSON in UTF-8, or it ended too soon"
                    ) from None

            return answer

    return Guarded


def local_address(request: Request) -> str:
    """This host's address on the connection (not the Host header, which the client may make up)."""
    server: tuple[str, int] | None = request.scope.get("server")
    return server[0] if server else "127.0.0.1"


def peer_address(request: Request) -> str:
    return request.client.host if request.client else ""
