"""GET /metrics for Prometheus: what the services count, the process, the build.

One rule: no token is needed, so nothing but numbers and names out of closed sets may stand here.
"""

from __future__ import annotations

import platform
from collections.abc import Awaitable, Callable, Iterator, Sequence

from fastapi import APIRouter, Request, Response
from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from pbserv import __version__


def router(
    collectors: Sequence[Collector],
    services: Sequence[str],
    running: Callable[[str], bool],
    refresh: Callable[[], Awaitable[None]],
) -> APIRouter:
    """``collectors`` are asked at each scrape, in the event loop that counts, after ``refresh``."""
    registry = CollectorRegistry()
    for collector in (*collectors, _Server(services, running)):
        registry.register(collector)
    ProcessCollector(registry=registry)  # memory, descriptors, processor time
    routes = APIRouter(tags=["health"])

    @routes.get("/metrics", response_class=Response, summary="Counters for Prometheus")
    async def metrics(request: Request) -> Response:
        await refresh()
        encode, content_type = choose_encoder(request.headers.get("accept", ""))
        return Response(encode(registry), media_type=content_type)

    return routes


class _Server:
    def __init__(self, services: Sequence[str], running: Callable[[str], bool]) -> None:
        self._services = services
        self._running = running

    def collect(self) -> Iterator[Metric]:
        build = GaugeMetricFamily("pbserv_build_info", "Versions; always 1.", labels=("version", "python"))
        build.add_metric((__version__, platform.python_version()), 1)
        yield build
        up = GaugeMetricFamily("pbserv_service_up", "1 while the service runs, else 0.", labels=("service",))
        for name in self._services:
            up.add_metric((name,), int(self._running(name)))
        yield up
