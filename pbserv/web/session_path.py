"""Takes the token of a boot out of a path: ``/s/TOKEN/files/x`` asks for ``/files/x``, on behalf of a known device.

One rule: a token that is not ours, or that another device shows, opens nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

PREFIX: Final = "/s/"
PathOf = Callable[[str, str], str]
"""(path without its leading slash, address of the client) -> the path without the token; raises PermissionError."""


class SessionPath:
    """ASGI middleware. ``path_of`` is the policy's, which learns by it whose address is asking."""

    def __init__(self, app: ASGIApp, path_of: PathOf) -> None:
        self._app = app
        self._path_of = path_of

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not scope["path"].startswith(PREFIX):
            return await self._app(scope, receive, send)
        client = scope.get("client")
        try:
            path = self._path_of(scope["path"][1:], client[0] if client else "")
        except PermissionError as fault:
            return await PlainTextResponse(f"error: {fault}\n", 403)(scope, receive, send)
        raw = scope.get("raw_path")
        inner = dict(scope, path=f"/{path}")
        if raw:
            inner["raw_path"] = b"/" + raw[1:].split(b"/", 2)[-1]
        return await self._app(inner, receive, send)
