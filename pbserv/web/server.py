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
from uvicorn.protocols.http.h11_impl import H11Protocol

from pbserv.net.tcp import listen, sharing
from pbserv.service import Reload

Spawn = Callable[[str, Coroutine[Any, Any, None]], "asyncio.Task[None]"]
STOP_GRACE_S = 5
FIRST_REQUEST_S = 15
BUSY_LOOK_S = 2.0


@dataclass(frozen=True, slots=True)
class WebSettings:
    """``address`` "" means every address of this host."""

    address: str
    port: int


class _Protocol(H11Protocol):
    """Closes a connection that does not bring a request: idle ones would use up ``limit_concurrency`` for ever."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.loop.call_later(FIRST_REQUEST_S, self._expect_request)

    def _expect_request(self) -> None:
        if self.cycle is None and not self.transport.is_closing():
            self.transport.close()


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

    def __init__(self, app: FastAPI, spawn: Spawn, busy: Callable[[], bool]) -> None:
        """``busy``: whether devices are at work, to whom an address that is given up must still answer."""
        self._busy = busy
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
        """Let answers go on for a grace, then cut them off: all sockets, also those that a reload retired."""
        now, self._now = self._now, None
        listening = [*self._retired, *([now] if now else [])]
        for each in listening:
            each.server.should_exit = True
        tasks = [each.task for each in listening if each.task is not None]
        if tasks:
            await asyncio.wait(tasks, timeout=STOP_GRACE_S)
            for each in listening:
                for answer in list(each.server.server_state.tasks):
                    answer.cancel()
            await asyncio.wait(tasks, timeout=2)
        for each in listening:
            each.socket.close()
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
            self._app, lifespan="off", log_config=None, access_log=False, server_header=False,
            http=_Protocol, ws="none",
            timeout_graceful_shutdown=STOP_GRACE_S, timeout_keep_alive=30, limit_concurrency=2000, backlog=1024,
        )  # fmt: skip
        return _Listening(settings, raw, _Server(config))

    def _run(self, listening: _Listening) -> None:
        listening.task = self._spawn("web", listening.server.serve(sockets=[listening.socket]))

    def swap(self, listening: _Listening) -> None:
        """New requests may go to the new socket; the old one serves on while devices are at work that know no other."""
        old, self._now = self._now, listening
        self._run(listening)
        if old is not None:
            self._retired.append(old)
            self._spawn("web-retire", self._retire(old))

    async def _retire(self, old: _Listening) -> None:
        while self._busy():  # noqa: ASYNC110 - whether a device fell silent is a matter of time, not of an event
            await asyncio.sleep(BUSY_LOOK_S)
        old.server.config.timeout_graceful_shutdown = None
        old.server.should_exit = True
        if old.task is not None:
            await asyncio.wait([old.task])
        old.socket.close()
        if old in self._retired:
            self._retired.remove(old)


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
