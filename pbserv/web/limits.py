"""Bounds what a request may bring before anybody has looked at its token."""

from __future__ import annotations

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

MAX_BODY_BYTES = 256 * 1024
"""Of every request that is not an image upload: manifests have 64 KiB, results a log of 64 KiB (escaped)."""


class BodyLimit:
    """ASGI middleware: refuses larger bodies with 413, also when they come in chunks without a length.

    PUT is for image bytes: those are streamed to the store, which has limits of its own, after the token was checked.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] == "PUT":
            await self._app(scope, receive, send)
            return
        length = dict(scope["headers"]).get(b"content-length", b"0")
        if not length.isdigit() or int(length) > MAX_BODY_BYTES:
            refusal = JSONResponse({"error": f"the body is larger than {MAX_BODY_BYTES} bytes"}, 413)
            await refusal(scope, receive, send)
            return
        received = 0

        async def bounded() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > MAX_BODY_BYTES:
                return {"type": "http.disconnect"}
            return message

        await self._app(scope, bounded, send)
