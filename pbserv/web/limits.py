"""Bounds what a request may bring before anybody has looked at its token."""

from __future__ import annotations

from typing import Final

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

MAX_BODY_BYTES: Final = 256 * 1024
"""Of every request that is not named below: manifests have 64 KiB, results a log of 64 KiB (escaped)."""
MAX_FILE_BYTES: Final = 16 * 1024 * 1024
_FILES: Final = ("/api/v1/devices/import", "/api/v1/apply")
"""What takes a file of many devices or a whole policy. These look at the token before they read the body."""
_UPLOADS: Final = ("/api/v1/images/", "/api/v1/uploads/", "/client/v1/")
"""PUT there is for image bytes: they are streamed to the store, which has limits of its own, after the token."""


class BodyLimit:
    """ASGI middleware: refuses larger bodies with 413, also when they come in chunks without a length."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or (scope["method"] == "PUT" and scope["path"].startswith(_UPLOADS)):
            await self._app(scope, receive, send)
            return
        most = MAX_FILE_BYTES if scope["path"] in _FILES else MAX_BODY_BYTES
        length = dict(scope["headers"]).get(b"content-length", b"0")
        if not length.isdigit() or int(length) > most:
            refusal = JSONResponse({"error": f"the body is larger than {most} bytes"}, 413)
            await refusal(scope, receive, send)
            return
        received = 0

        async def bounded() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > most:
                return {"type": "http.disconnect"}
            return message

        await self._app(scope, bounded, send)
