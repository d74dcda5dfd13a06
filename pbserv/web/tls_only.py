"""Keeps tokens off the wire where RequireTLS says so: the API and the console answer plain HTTP from this host alone.

One rule: boot loaders and the imaging client speak plain HTTP and are not affected; their tokens are good for one boot
or one piece of work. Who asks as pixiecore does is a loader, unless a token of the API comes along.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from typing import Final

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

_TOKENS: Final = "/api"
"""Below here, and at ``/`` itself, somebody may send a token."""
_PIXIECORE: Final = "/v1/"
"""Devices ask here for themselves without one, and pixiecore for others with one."""


class TlsOnly:
    """ASGI middleware. ``required``: None when plain HTTP will do, else the port of HTTPS (0: there is none)."""

    def __init__(self, app: ASGIApp, required: Callable[[], int | None]) -> None:
        self._app = app
        self._required = required

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["scheme"] != "https" and _is_for_tokens(scope):
            port = self._required()
            if port is not None and not _is_local(scope):
                refusal = JSONResponse({"error": _where_to_go(scope, port)}, 403)
                return await refusal(scope, receive, send)
        return await self._app(scope, receive, send)


def _is_for_tokens(scope: Scope) -> bool:
    path: str = scope["path"]
    if path.startswith(_PIXIECORE):
        return any(name == b"authorization" for name, _value in scope["headers"])
    return path == "/" or path == _TOKENS or path.startswith(f"{_TOKENS}/")


def _is_local(scope: Scope) -> bool:
    """From loopback, or from the very address that was asked: both never leave this host."""
    client, server = scope.get("client"), scope.get("server")
    if not client:
        return False
    try:
        return ipaddress.ip_address(client[0]).is_loopback or bool(server and server[0] == client[0])
    except ValueError:
        return False


def _where_to_go(scope: Scope, port: int) -> str:
    why = "this server takes no tokens over plain HTTP (RequireTLS = YES in pbserv.conf)"
    if not port:
        return f"{why}, and it has no HTTPS: set HTTPSPort there, or use it on the host itself"
    server = scope.get("server")
    return f"{why}: use https://{server[0] if server else 'HOST'}:{port}{scope['path']}"
