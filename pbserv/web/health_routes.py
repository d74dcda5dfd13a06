"""GET /readyz: whether this server does what it is there for. (/healthz says only that the process answers.)

One rule: no token is needed, so nothing but names of services stand here; reasons are for ``pbserv status``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Final

from fastapi import APIRouter
from fastapi.responses import PlainTextResponse
from sqlalchemy.exc import SQLAlchemyError

from pbserv.service import ServiceStatus

PATIENCE_S: Final = 2.0


def router(registry: Callable[[], Awaitable[object]], wanted: Callable[[], Iterable[ServiceStatus]]) -> APIRouter:
    """``registry`` asks it something; ``wanted`` are the services that are to run now."""
    routes = APIRouter(tags=["health"])

    @routes.get(
        "/readyz",
        response_class=PlainTextResponse,
        summary="Whether the registry answers and every service that is to run does",
        responses={503: {"description": "one line for each thing that is not ready"}},
    )
    async def ready() -> PlainTextResponse:
        lines = [f"{each.name}: is not running; see: pbserv status" for each in wanted() if not each.running]
        if not await _answers(registry):
            lines.insert(0, "registry: its database does not answer; see the log")
        return PlainTextResponse("".join(f"{line}\n" for line in lines or ["ready"]), 503 if lines else 200)

    return routes


async def _answers(registry: Callable[[], Awaitable[object]]) -> bool:
    try:
        async with asyncio.timeout(PATIENCE_S):
            await registry()
    except (SQLAlchemyError, TimeoutError):
        return False
    return True
