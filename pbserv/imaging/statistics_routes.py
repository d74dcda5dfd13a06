"""The figures of imaging over HTTP, for programs.

One rule: the numbers are those of ``zmgmcast -status`` and ``pbserv statistics``, under the same names.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from fastapi import APIRouter, Depends
from pydantic import BaseModel, Field

from pbserv.httpapi import BEARER, faults, guarded
from pbserv.imaging.statistics import Counters
from pbserv.registry.access import Access
from pbserv.registry.records import Role


class StatisticsView(BaseModel):
    """Counted from nought since the server started."""

    since: datetime
    pxe_requests: int = Field(description="job starts and manual image operations, whatever became of them")
    images_sent: int = Field(description="images whose last byte was delivered to one device")
    images_received: int = Field(description="images that were stored")
    imaging_results: dict[str, int] = Field(
        description="how many requests were ok, started, denied, referred, failed, aborted or other; 0 is left out"
    )
    imaging_jobs: dict[str, dict[str, int]] = Field(
        description="kind of job -> how many of them ended as done, failed or cancelled"
    )


def router(counters: Callable[[], Counters], access: Access) -> APIRouter:
    """The route below /api/v1, for whoever may look."""
    routes = APIRouter(
        prefix="/api/v1", tags=["images"], route_class=guarded(access, Role.VIEWER), dependencies=[Depends(BEARER)],
        responses=faults(401, 403),
    )  # fmt: skip

    @routes.get("/statistics", summary="The figures of imaging since the server started")
    async def statistics() -> StatisticsView:
        now = counters()
        return StatisticsView(
            since=now.since, pxe_requests=now.pxe_requests, images_sent=now.images_sent,
            images_received=now.images_received, imaging_results=dict(now.results),
            imaging_jobs={kind: dict(ended) for kind, ended in now.jobs.items()},
        )  # fmt: skip

    return routes
