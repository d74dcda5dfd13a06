"""How devices are told what went wrong: one text line with a status.

One rule: a device that should ask again gets 503; whatever else is refused, the line says why.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from typing import Any  # FastAPI's own signature of a route handler

from fastapi import Request
from fastapi.responses import PlainTextResponse, Response
from fastapi.routing import APIRoute

from pbserv.errors import PbservError
from pbserv.httpapi import ApiError
from pbserv.imaging.faults import ImagingFault, WrongPart
from pbserv.imaging.statistics import Statistics
from pbserv.registry.faults import ConflictError

_DENIED = (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN, HTTPStatus.CONFLICT)
_MAX_IMAGE = 64
_MAX_DETAIL = 500


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


@contextmanager
def refusals(statistics: Statistics, source: str, kind: str, image: str = "") -> Iterator[None]:
    """Count a request that the block refuses; what it lets begin is counted by the job.

    A device that is to ask again (Busy) is counted when it gets its answer.
    """
    try:
        yield
    except Busy:
        raise
    except PbservError as fault:
        count_refusal(statistics, source, kind, image, fault)
        raise


def count_refusal(statistics: Statistics, source: str, kind: str, image: str, fault: PbservError) -> None:
    """One request, denied by a rule or failed, with the reason that the device is told."""
    result = "denied" if _denied(fault) else "failed"
    statistics.request(source, kind, result, image=image[:_MAX_IMAGE], detail=str(fault)[:_MAX_DETAIL])


def _denied(fault: PbservError) -> bool:
    if isinstance(fault, ImagingFault):
        return fault.denied
    return isinstance(fault, ConflictError) or (isinstance(fault, ApiError) and fault.status in _DENIED)
