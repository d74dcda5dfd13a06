"""How devices are told what went wrong: one text line with a status.

One rule: a device that should ask again gets 503; whatever else is refused, the line says why.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from http import HTTPStatus
from typing import Any  # FastAPI's own signature of a route handler

from fastapi import Request
from fastapi.responses import PlainTextResponse, Response
from fastapi.routing import APIRoute

from pbserv.imaging.faults import ImagingFault, WrongPart


class Busy(ImagingFault):
    """All places are taken; the device is to ask again after ``retry_s`` seconds."""

    status = HTTPStatus.SERVICE_UNAVAILABLE

    def __init__(self, message: str, retry_s: int) -> None:
        super().__init__(message)
        self.retry_s = retry_s


class FaultRoute(APIRoute):
    """Answers faults of the store as one text line with their status."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def answer(request: Request) -> Response:
            try:
                return await handle(request)
            except Busy as fault:
                return PlainTextResponse(f"error: {fault}\n", fault.status, {"Retry-After": str(fault.retry_s)})
            except WrongPart as fault:
                return PlainTextResponse(f"error: {fault}; next={fault.next_part}\n", fault.status)
            except ImagingFault as fault:
                return PlainTextResponse(f"error: {fault}\n", fault.status)

        return answer
