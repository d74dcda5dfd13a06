"""What all HTTP routes share: bearer tokens, errors with a status, the address the client reached us at."""

from __future__ import annotations

from collections.abc import Callable

from fastapi import Request

from pbserv.errors import PbservError
from pbserv.registry.access import Access, Caller
from pbserv.registry.records import Role


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

    def check(request: Request) -> Caller:
        caller = access.authorize(bearer(request))
        if caller is None:
            came = "the token that came is not valid; " if "authorization" in request.headers else ""
            raise ApiError(401, f"{came}a token is needed: Authorization: Bearer TOKEN (see: pbserv token)")
        if not caller.may(role):
            raise ApiError(403, f"this needs a token of role {role}; the one that came is of role {caller.kind}")
        return caller

    return check


def local_address(request: Request) -> str:
    """This host's address on the connection (not the Host header, which the client may make up)."""
    server: tuple[str, int] | None = request.scope.get("server")
    return server[0] if server else "127.0.0.1"


def peer_address(request: Request) -> str:
    return request.client.host if request.client else ""
