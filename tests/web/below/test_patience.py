"""Clients that hold a connection and do nothing, on the real web server and over both event loops."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from fastapi import APIRouter, Request
from fastapi.responses import Response

from pbserv.net.tcp import tcp_info
from pbserv.web import server as web_server
from pbserv.web.front import Front
from pbserv.web.patience import Held, Patience
from pbserv.web.server import WebServer, WebSettings
from pbserv.web.tls import TlsSettings
from tests.imaging.image_server import until
from tests.web.below.test_front import Site as BootSite
from tests.web.below.test_front import get, port
from tests.web.below.test_front import site as boot_site  # noqa: F401 - a fixture
from tests.web.below.test_sendfile import MIB, Site, read_answer, request

SIZE = 40 * MIB


def connections(web: WebServer) -> set[Held]:
    assert web._now is not None
    found: set[Held] = web._now.server.server_state.connections  # type: ignore[assignment]
    return found


class Slow:
    """Routes of other kinds."""

    def __init__(self) -> None:
        self.asked, self.go_on = asyncio.Event(), asyncio.Event()
        self.routes = APIRouter()
        self.routes.add_api_route("/whole/answer", self._answer, methods=["GET"], response_class=Response)
        self.routes.add_api_route("/whole/body", self._body, methods=["POST"], response_class=Response)
        self.routes.add_api_route("/whole/waiting", self._waiting, methods=["GET"], response_class=Response)

    async def _answer(self) -> Response:
        return Response(bytes(SIZE))

    async def _body(self, request: Request) -> Response:
        return Response(await request.body())

    async def _waiting(self) -> Response:
        self.asked.set()
        await self.go_on.wait()
        return Response(b"done")


@asynccontextmanager
async def serving(place: Path, slow: Slow, patience_s: float) -> AsyncIterator[Site]:
    made = Site(place, slow.routes, patience_s)
    await made.store.start()
    await made.put(bytes(SIZE))
    await made.web.start(WebSettings("127.0.0.1", 0))
    yield made
    await made.web.stop()
    await made.store.close()
    assert made.threads == 0


@pytest.fixture
async def hasty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Site]:
    """A server whose patience ends soon."""
    monkeypatch.setattr(web_server, "STOP_GRACE_S", 1)
    async with serving(tmp_path, Slow(), 1) as made:
        yield made


@pytest.fixture
def slow() -> Slow:
    return Slow()


@pytest.fixture
async def site(slow: Slow, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Site]:
    monkeypatch.setattr(web_server, "STOP_GRACE_S", 1)
    async with serving(tmp_path, slow, 3600) as made:
        yield made


async def test_who_stops_reading_an_image_is_shown_out(hasty: Site) -> None:
    with hasty.call(room=4096) as raw:
        raw.sendall(request())
        assert await asyncio.to_thread(raw.recv, 1)
        await until(lambda: not connections(hasty.web))
        await until(lambda: len(hasty.ended) == 1)
    assert (hasty.ended[0][0], hasty.sent) == ("aborted", 0)
    assert 0 < hasty.ended[0][1] < SIZE


async def test_also_when_the_kernel_has_taken_the_whole_image(hasty: Site) -> None:
    await hasty.put(bytes(400_000), "y")
    with hasty.call(room=4096) as raw:
        raw.sendall(request(path="/y/file"))
        assert await asyncio.to_thread(raw.recv, 1)
        await until(lambda: not connections(hasty.web))
        await until(lambda: len(hasty.ended) == 1)
    assert (hasty.ended[0][0], hasty.sent) == ("aborted", 0)


async def test_also_where_the_bytes_go_through_the_program(hasty: Site, tmp_path: Path) -> None:
    await hasty.web.stop()
    (tmp_path / "tls").mkdir()
    await hasty.web.start(WebSettings("127.0.0.1", 0, TlsSettings(0, None, None, tmp_path / "tls")))
    port = int(hasty.web.listeners[1].rpartition(":")[2])
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE

    def begin() -> ssl.SSLSocket:
        raw = socket.socket()
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        raw.settimeout(30)
        raw.connect(("127.0.0.1", port))
        wrapped = context.wrap_socket(raw)
        wrapped.sendall(request())
        assert wrapped.recv(1)
        return wrapped

    with await asyncio.to_thread(begin):
        await until(lambda: len(hasty.ended) == 1)
        assert hasty.web._secure is not None
        await until(lambda: not hasty.web._secure.server.server_state.connections)  # type: ignore[union-attr]
    assert hasty.ended[0][0] == "aborted"


@pytest.mark.parametrize("last", ["", "Connection: close\r\n"])
async def test_also_when_the_answer_is_complete(hasty: Site, last: str) -> None:
    """It was given to the transport, and the connection ends when the client has taken it."""
    with hasty.call(room=4096) as raw:
        raw.sendall(request(last, path="/whole/answer"))
        assert await asyncio.to_thread(raw.recv, 1)
        await until(lambda: not connections(hasty.web))


async def test_who_does_not_send_the_rest_of_its_request_is_shown_out(hasty: Site) -> None:
    with hasty.call() as raw:
        raw.sendall(b"POST /whole/body HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n12345")
        await until(lambda: len(connections(hasty.web)) == 1)
        await until(lambda: not connections(hasty.web))
        assert await asyncio.to_thread(raw.recv, 1) == b""


async def test_who_moves_stays_however_slowly(site: Site) -> None:
    patience = Patience(connections(site.web), 900)
    with site.call(room=65536) as raw:
        raw.sendall(request())
        await asyncio.to_thread(raw.recv, 1)
        fd = next(iter(connections(site.web))).transport.get_extra_info("socket").fileno()
        for now in range(0, 8000, 800):
            before = acknowledged(fd)
            while acknowledged(fd) == before:
                await asyncio.to_thread(raw.recv, 1 << 20)
            patience.look(now)
        assert len(connections(site.web)) == 1
        now = 7200
        while connections(site.web):
            now += 100
            patience.look(now)
            await asyncio.sleep(0.01)
        assert now >= 8100
        await until(lambda: len(site.ended) == 1)
    assert site.ended[0][0] == "aborted"


def acknowledged(fd: int) -> int:
    return int.from_bytes(tcp_info(fd, 128)[120:], "little")


async def test_who_sends_stays_however_slowly(site: Site) -> None:
    patience = Patience(connections(site.web), 900)
    with site.call() as raw:
        raw.sendall(b"POST /whole/body HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n")
        await until(lambda: any(each.owes for each in connections(site.web)))
        fd = next(iter(connections(site.web))).transport.get_extra_info("socket").fileno()
        for count in range(10):
            patience.look(count * 800)
            before = tcp_info(fd, 136)[128:]
            raw.sendall(b"x")
            await until(lambda before=before: tcp_info(fd, 136)[128:] != before)
        assert (await asyncio.to_thread(read_answer, raw))[1] == b"x" * 10


async def test_who_waits_for_us_stays(site: Site, slow: Slow) -> None:
    """A request that takes long, and a connection on which nothing is under way."""
    patience = Patience(connections(site.web), 900)
    with site.call() as idle, site.call() as raw:
        idle.sendall(b"GET /whole/none HTTP/1.1\r\nHost: x\r\n\r\n")
        assert await asyncio.to_thread(idle.recv, 65536)
        raw.sendall(request(path="/whole/waiting"))
        await slow.asked.wait()
        for now in range(0, 5000, 500):
            patience.look(now)
        assert len(connections(site.web)) == 2
        slow.go_on.set()
        assert (await asyncio.to_thread(read_answer, raw))[1] == b"done"


async def test_small_files_that_nobody_reads(boot_site: BootSite) -> None:  # noqa: F811
    """They wait in the connection's buffer, in front of uvicorn."""
    patience = Patience(connections(boot_site.quick), 900)
    with socket.socket() as raw:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        raw.connect(("127.0.0.1", port(boot_site.quick)))
        await until(lambda: len(connections(boot_site.quick)) == 1)
        (held,) = connections(boot_site.quick)
        assert isinstance(held, Front)
        while not held.transport.get_write_buffer_size():
            before = len(boot_site.told)
            raw.sendall(get("/files/limit"))
            await until(lambda before=before: len(boot_site.told) > before)
        held.transport.close()  # as it is done to who asks for nothing more
        patience.look(0)
        patience.look(899)
        await asyncio.sleep(0)
        assert connections(boot_site.quick) == {held}
        patience.look(900)
        await until(lambda: not connections(boot_site.quick))
