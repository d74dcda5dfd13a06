"""Counts the requests that the HTTP server answered, by what was asked for, for Prometheus.

One rule: labels are of closed sets: no path, name or address that a caller makes up becomes one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Final

from prometheus_client.core import CounterMetricFamily, Metric
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_AREAS: Final = (
    ("/api/v1", "api"), ("/api", "docs"), ("/client/v1", "imaging"), ("/client", "client"), ("/files", "files"),
    ("/boot", "boot"), ("/boot.ipxe", "boot"), ("/v1/boot", "boot"), ("/metrics", "health"),
    ("/healthz", "health"), ("/readyz", "health"),
)  # fmt: skip
"""Beginning of a path -> who asks: ``imaging`` is the imaging client at work, ``client`` the loading of it."""
AREAS: Final = ("api", "boot", "client", "console", "docs", "files", "health", "imaging", "other")
_METHODS: Final = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"))


class Requests:
    """A collector; :meth:`count` is called for each request, in the event loop."""

    def __init__(self) -> None:
        self._counts: Counter[tuple[str, str, int]] = Counter()

    def count(self, path: str, method: str, status: int) -> None:
        self._counts[area_of(path), method if method in _METHODS else "other", status] += 1

    def collect(self) -> Iterator[Metric]:
        text = "Requests that the HTTP server answered; api is that of administrators and their programs."
        family = CounterMetricFamily("pbserv_http_requests", text, labels=("area", "method", "code"))
        for (area, method, status), count in sorted(self._counts.items()):
            family.add_metric((area, method, str(status)), count)
        yield family


def area_of(path: str) -> str:
    """One of :data:`AREAS`. The token of a boot may stand before the path."""
    if path == "/":
        return "console"
    if path.startswith("/s/"):
        path = "/" + path[3:].partition("/")[2]
    for start, area in _AREAS:
        if path.startswith(start) and path[len(start) : len(start) + 1] in ("", "/"):
            return area
    return "other"


class Counted:
    """ASGI middleware around all others."""

    def __init__(self, app: ASGIApp, requests: Requests) -> None:
        self._app = app
        self._requests = requests

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        status, path = 0, scope["path"]  # others may change the path

        async def seen(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, seen)
        except Exception:
            status = status or 500  # who is further out answers it
            raise
        finally:
            if status:  # else the caller left before there was an answer
                self._requests.count(path, scope["method"], status)
