"""Runs uvicorn inside our loop on sockets that we bind: an address may be one that this host does not have yet."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass
from typing import Any

import uvicorn
from fastapi import FastAPI

from pbserv.errors import StartError
from pbserv.log import ServiceLog
from pbserv.net.tcp import listen, sharing
from pbserv.service import Reload

Spawn = Callable[[str, Coroutine[Any, Any, None]], "asyncio.Task[None]"]
STOP_GRACE_S = 5


@dataclass(frozen=True, slots=True)
class WebSettings:
    """``address`` "" means every address of this host."""

    address: str
    port: int


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield  # signals belong to app.py


@dataclass(slots=True)
class _Listening:
    settings: WebSettings
    socket: socket.socket
    server: _Server
    task: asyncio.Task[None] | None = None


class WebServer:
    """``Service[WebSettings]``, except that no user starts or stops it alone."""

    name = "web"
    title = "pbserv HTTP server"

    def __init__(self, log: ServiceLog, app: FastAPI, spawn: Spawn) -> None:
        self._log = log
        self._app = app
        self._spawn = spawn
        self._now: _Listening | None = None
        self.fault = ""
        self._retired: list[_Listening] = []

    @property
    def running(self) -> bool:
        return self._now is not None

    @property
    def listeners(self) -> tuple[str, ...]:
        if self._now is None:
            return ()
        address, port = self._now.socket.getsockname()[:2]
        return (f"tcp {address}:{port}",)

    async def start(self, settings: WebSettings) -> None:
        self._now = self._listen(settings)
        self._run(self._now)

    async def stop(self) -> None:
        now, self._now = self._now, None
        for listening in [*self._retired, *([now] if now else [])]:
            listening.server.should_exit = True
            if listening.task is not None:
                await asyncio.wait([listening.task], timeout=STOP_GRACE_S + 2)
            listening.socket.close()
        self._retired.clear()

    async def prepare(self, settings: WebSettings) -> Reload:
        if self._now is not None and self._now.settings == settings:
            return _Keep()
        if self._now is None:
            return _WebReload(self, self._listen(settings))
        with sharing(self._now.socket):
            return _WebReload(self, self._listen(settings))

    def _listen(self, settings: WebSettings) -> _Listening:
        raw = listen(settings.address or "0.0.0.0", settings.port, share=self._now is not None)
        config = uvicorn.Config(
            self._app, lifespan="off", log_config=None, access_log=False, server_header=False, http="h11", ws="none",
            timeout_graceful_shutdown=STOP_GRACE_S, timeout_keep_alive=30, limit_concurrency=2000, backlog=1024,
        )  # fmt: skip
        return _Listening(settings, raw, _Server(config))

    def _run(self, listening: _Listening) -> None:
        listening.task = self._spawn("web", listening.server.serve(sockets=[listening.socket]))

    def swap(self, listening: _Listening) -> None:
        """New requests go to the new socket; answers that are under way on the old one are finished."""
        old, self._now = self._now, listening
        self._run(listening)
        if old is not None:
            old.server.should_exit = True
            old.server.config.timeout_graceful_shutdown = None
            self._retired.append(old)


class _Keep:
    def commit(self) -> None:
        pass

    def abort(self) -> None:
        pass


class _WebReload:
    def __init__(self, web: WebServer, listening: _Listening) -> None:
        self._web, self._listening = web, listening

    def commit(self) -> None:
        self._web.swap(self._listening)

    def abort(self) -> None:
        self._listening.socket.close()


__all__ = ["StartError", "WebServer", "WebSettings"]
