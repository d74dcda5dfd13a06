"""The body of one part of an upload, of devices and of people alike.

One rule: a body is bounded while it arrives, whatever length it announced.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Final

from fastapi import Request
from starlette.requests import ClientDisconnect

from pbserv.httpapi import ApiError
from pbserv.imaging.faults import UploadBroken

PART_BYTES: Final = 64 * 1024 * 1024
"""Uncompressed bytes of a part, all but the last."""
MAX_PART_BODY: Final = PART_BYTES + PART_BYTES // 64
"""What does not compress grows a little."""


def check_length(length: int | None) -> None:
    """Raises ApiError 413 for a body that is longer than a part can be; None: not announced."""
    if length is not None and length > MAX_PART_BODY:
        raise ApiError(413, f"a part of {length} bytes: at most {MAX_PART_BODY} travel in one; send smaller ones")


async def bounded(request: Request, image: str) -> AsyncGenerator[bytes, None]:
    """The body as it arrives. Raises ApiError 413, and UploadBroken when the connection ends within it."""
    received = 0
    try:
        async for chunk in request.stream():
            received += len(chunk)
            check_length(received)
            yield chunk
    except ClientDisconnect:
        raise UploadBroken(f"image {image}: the connection ended in the middle of a part; send it again") from None
