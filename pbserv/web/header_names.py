"""Writes ``Content-Length`` with its capitals: GRUB knows no other spelling, and verifies nothing without a length.

RFC 9110 says that case does not matter; ASGI hands every name on in small letters.
"""

from __future__ import annotations

from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

_SPELLED: Final = {b"content-length": b"Content-Length"}


class HeaderNames:
    """ASGI middleware around all others."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def spell(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = message.get("headers", ())
                message = dict(message, headers=[(_SPELLED.get(name, name), value) for name, value in headers])
            await send(message)

        await self._app(scope, receive, spell if scope["type"] == "http" else send)
