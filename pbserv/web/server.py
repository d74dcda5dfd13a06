"""Runs uvicorn inside our loop on sockets that we bind: an address may be one that this host does not have yet.

One rule: HTTP is what devices boot by. Whatever is wrong with HTTPS at a start, HTTP comes up.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass
from typing import Any

import h11
import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.h11_impl import H11Protocol

from pbserv.errors import StartError
from pbserv.net.tcp import listen, sharing
from pbserv.service import Reload
from pbserv.web.front import FIRST_REQUEST_S, Front
from pbserv.web.patience import PATIENCE_S, Patience
from pbserv.web.pumps import Pumps
from pbserv.web.sendfile import ZeroCopy
from pbserv.web.shortcut import Shortcut
from pbserv.web.tls import Pair, TlsSettings, new_context, pair_of

Spawn = Callable[[str, Coroutine[Any, Any, None]], "asyncio.Task[None]"]
STOP_GRACE_S = 5
BUSY_LOOK_S = 2.0
ACCEPTORS = 32
"""uvloop takes one new connection from a socket in each round of its loop: those that wait while a thousand others are
served would wait for seconds. So it gets this many descriptors of the same socket."""


@dataclass(frozen=True, slots=True)
class WebSettings:
    """``address`` "" means every address of this host. ``tls``: where HTTPS is, if anywhere."""

    address: str
    port: int
    tls: TlsSettings | None = None
    require_tls: bool = False


class _Protocol(H11Protocol):
    """Sends files from below. Closes a connection that does not bring a request: idle ones would use up
    ``limit_concurrency`` for ever."""

    pumps: Pumps

    @property
    def owes(self) -> bool:
        """Whether the client has to send the rest of a body."""
        conn = self.conn
        return conn.their_state is h11.SEND_BODY and not (
            self.flow.read_paused or conn.they_are_waiting_for_100_continue
        )

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        self.app = self._files = ZeroCopy(self.app, self, self.pumps)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._first = self.loop.call_later(FIRST_REQUEST_S, self._expect_request)
        if self.client is None:  # reset already: whatever it has sent, nobody knows whose that is
            transport.abort()

    def data_received(self, data: bytes) -> None:
        """What is not a whole request does not put off the end of a connection whose last answer is complete."""
        idle, self.timeout_keep_alive_task = self.timeout_keep_alive_task, None
        cycle = self.cycle
        super().data_received(data)
        if idle is None:
            return
        if self.cycle is cycle and not self.transport.is_closing():
            self.timeout_keep_alive_task = idle
        else:
            idle.cancel()

    def send_400_response(self, msg: str) -> None:
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            super().send_400_response(msg)
        else:  # an answer is under way, or was given: there cannot be another one
            self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._first.cancel()
        self._files.disconnected()

    def _expect_request(self) -> None:
        if self.cycle is None and not self.transport.is_closing():
            self.transport.close()


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield  # signals belong to app.py


@dataclass(slots=True)
class _Listening:
    """``context``: that of HTTPS."""

    address: str
    port: int
    socket: socket.socket
    server: _Server
    context: ssl.SSLContext | None = None
    task: asyncio.Task[None] | None = None

    def is_at(self, address: str, port: int) -> bool:
        return (self.address, self.port) == (address, port)

    @property
    def name(self) -> str:
        address, port = self.socket.getsockname()[:2]
        return f"tcp {address}:{port}"


class WebServer:
    """``Service[WebSettings]``, except that no user starts or stops it alone."""

    name = "web"
    title = "pbserv HTTP server"

    def __init__(
        self,
        app: FastAPI,
        spawn: Spawn,
        busy: Callable[[], bool],
        shortcut: Shortcut | None = None,
        patience_s: float = PATIENCE_S,
    ) -> None:
        """``busy``: whether devices are at work, to whom an address that is given up must still answer.

        ``patience_s``: how long a client may hold a connection without taking or sending a byte of what is under way.
        """
        self._busy = busy
        self._patience_s = patience_s
        self._app = app
        self._spawn = spawn
        self._settings = WebSettings("", 0)
        self._now: _Listening | None = None
        self._secure: _Listening | None = None
        self.fault = ""
        self.tls_fault = ""
        self.fingerprint = ""
        self._retired: list[_Listening] = []
        self._pumps = Pumps()
        self._protocol: type[asyncio.Protocol] = type("_Protocol", (_Protocol,), {"pumps": self._pumps})
        if shortcut is not None:
            self._protocol = type("_Front", (Front,), {"behind": self._protocol, "shortcut": shortcut})

    @property
    def running(self) -> bool:
        return self._now is not None

    @property
    def listeners(self) -> tuple[str, ...]:
        return tuple(each.name for each in (self._now, self._secure) if each is not None)

    @property
    def tls_required(self) -> int | None:
        """The port of HTTPS where the API asks for it (0: there is none); None: plain HTTP will do."""
        if not self._settings.require_tls:
            return None
        return 0 if self._secure is None else self._secure.port

    async def start(self, settings: WebSettings) -> None:
        """Raises StartError when HTTP cannot be had; what keeps HTTPS from it is in :attr:`tls_fault`."""
        self._settings = settings
        self._now = self._listen(settings.address, settings.port)
        self._run(self._now)
        self.tls_fault = ""
        try:
            if settings.tls is not None:
                pair = pair_of(settings.tls)
                self._secure = self._listen(settings.address, settings.tls.port, new_context(pair))
                self._run(self._secure)
                self.fingerprint = pair.fingerprint
        except StartError as fault:
            self.tls_fault = f"HTTPS: {fault}"

    async def stop(self) -> None:
        """Let answers go on for a grace, then cut them off: all sockets, also those that a reload retired."""
        listening = [*self._retired, *(each for each in (self._now, self._secure) if each is not None)]
        self._now = self._secure = None
        for each in listening:
            each.server.should_exit = True
        tasks = [each.task for each in listening if each.task is not None]
        if tasks:
            await asyncio.wait(tasks, timeout=STOP_GRACE_S)
            for each in listening:
                for answer in list(each.server.server_state.tasks):
                    answer.cancel()
                for connection in list(each.server.server_state.connections):
                    connection.transport.abort()  # closing would wait for a client that does not read
            await asyncio.wait(tasks, timeout=2)
        for each in listening:
            each.socket.close()
        self._retired.clear()
        self._pumps.close()

    async def prepare(self, settings: WebSettings) -> Reload:
        """Everything that can fail is done here: certificates are read anew, also when no setting has changed."""
        pair = None if settings.tls is None else pair_of(settings.tls)
        http = self._moved(self._now, settings.address, settings.port, None)
        try:
            context = None if pair is None else new_context(pair)
            port = 0 if settings.tls is None else settings.tls.port
            https = None if context is None else self._moved(self._secure, settings.address, port, context)
        except StartError:
            if http is not None:
                http.socket.close()
            raise
        return _WebReload(self, settings, http, https, pair)

    def _moved(
        self, now: _Listening | None, address: str, port: int, context: ssl.SSLContext | None
    ) -> _Listening | None:
        """A new listener; None when ``now`` is where it should be."""
        if now is not None and now.is_at(address, port):
            return None
        if now is None:
            return self._listen(address, port, context)
        with sharing(now.socket):
            return self._listen(address, port, context, share=True)

    def _listen(
        self, address: str, port: int, context: ssl.SSLContext | None = None, *, share: bool = False
    ) -> _Listening:
        raw = listen(address or "0.0.0.0", port, share=share)
        config = uvicorn.Config(
            self._app, lifespan="off", log_config=None, access_log=False, server_header=False,
            http=self._protocol, ws="none",
            proxy_headers=False,  # whose request it is follows from the address: nobody may say another one
            timeout_graceful_shutdown=STOP_GRACE_S, timeout_keep_alive=30, limit_concurrency=2000, backlog=1024,
            ssl_context_factory=None if context is None else lambda _config, _default: context,
        )  # fmt: skip
        return _Listening(address, port, raw, _Server(config), context)

    def _run(self, listening: _Listening) -> None:
        more = [listening.socket.dup() for _ in range(ACCEPTORS - 1)]
        listening.task = self._spawn("web", self._serve(listening.server, [listening.socket, *more]))

    async def _serve(self, server: _Server, sockets: list[socket.socket]) -> None:
        patience = Patience(server.server_state.connections, self._patience_s)  # type: ignore[arg-type]  # ours
        async with asyncio.TaskGroup() as group:
            watch = group.create_task(patience.watch())
            try:
                await server.serve(sockets=sockets)
            finally:
                watch.cancel()

    def swap(self, settings: WebSettings, http: _Listening | None, https: _Listening | None, pair: Pair | None) -> None:
        """New requests may go to the new sockets; the old ones serve on while devices are at work that know no other.

        None: what is there stays where it is. Connections are kept when the certificate alone is another one.
        """
        self._settings = settings
        self._now = self._follow(self._now, http)
        if pair is None:
            self._secure = self._follow(self._secure, None, keep=False)
        elif https is not None:
            self._secure = self._follow(self._secure, https)
        elif self._secure is not None and self._secure.context is not None:
            pair.load_into(self._secure.context)  # its files were read and checked a moment ago
        self.fingerprint = "" if pair is None else pair.fingerprint
        self.tls_fault = ""

    def _follow(self, old: _Listening | None, new: _Listening | None, *, keep: bool = True) -> _Listening | None:
        if new is None and keep:
            return old
        if new is not None:
            self._run(new)
        if old is not None:
            self._retired.append(old)
            self._spawn("web-retire", self._retire(old))
        return new

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


class _WebReload:
    def __init__(
        self,
        web: WebServer,
        settings: WebSettings,
        http: _Listening | None,
        https: _Listening | None,
        pair: Pair | None,
    ) -> None:
        self._web, self._settings = web, settings
        self._http, self._https, self._pair = http, https, pair

    def commit(self) -> None:
        self._web.swap(self._settings, self._http, self._https, self._pair)

    def abort(self) -> None:
        for each in (self._http, self._https):
            if each is not None:
                each.socket.close()
