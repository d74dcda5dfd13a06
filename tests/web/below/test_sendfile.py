"""Files sent below uvicorn: the real web server on both event loops, a real store, curl and bare sockets."""

from __future__ import annotations

import asyncio
import os
import random
import socket
import ssl
import struct
import threading
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from fastapi import APIRouter, Request
from fastapi.responses import Response

from pbserv.imaging import transfer
from pbserv.imaging.coverage import Coverage, Recipient
from pbserv.imaging.manifest import print_manifest, single_file
from pbserv.imaging.statistics import Statistics
from pbserv.imaging.store import Store
from pbserv.imaging.transfer import Transfers
from pbserv.log import ServiceLog
from pbserv.supervisor import Supervisor
from pbserv.web import server as web_server
from pbserv.web.app import create_app
from pbserv.web.pumps import PUMPS
from pbserv.web.server import WebServer, WebSettings
from pbserv.web.tls import TlsSettings
from tests.imaging.image_server import EventLines, sha256, until

MIB = 1 << 20
BODY = random.Random(3).randbytes(5 * MIB + 321)


class Site:
    """A store behind the web server: ``/x/ITEM`` of an image for the address that asks."""

    def __init__(self, place: Path, more: APIRouter | None = None, patience_s: float = 3600) -> None:
        self.place = place
        self.store = Store(place / "images", free_floor_bytes=0)
        self.events = EventLines()
        self.statistics = Statistics()
        self.ended: list[tuple[str, int]] = []
        self._transfers = Transfers(self.store, self.statistics, Coverage(), self.events)
        routes = APIRouter()
        routes.add_api_route("/{name}/{item}", self._get, methods=["GET", "HEAD"], response_class=Response)
        log = ServiceLog("pbserv")
        app = create_app([("", more or APIRouter()), ("", routes)], running=lambda _name: True, log=log)
        self.supervisor = Supervisor((), log)
        self.web = WebServer(app, self.supervisor.spawn, lambda: False, patience_s=patience_s)

    async def _get(self, request: Request, name: str, item: str) -> Response:
        assert request.client is not None
        await self.before()
        to = Recipient.address(request.client.host)
        ended: Callable[[str, int], None] = lambda result, count: self.ended.append((result, count))  # noqa: E731
        return await self._transfers.item_response(request, self.store.info(name), item, to, ended=ended)

    async def before(self) -> None:
        """A test may have something to do before an answer begins."""

    async def put(self, body: bytes, name: str = "x") -> Path:
        """The image's file."""
        draft = self.store.begin(name, size_bytes=len(body))

        async def chunks() -> AsyncIterator[bytes]:
            for start in range(0, len(body), MIB):
                yield body[start : start + MIB]

        item = await draft.receive("file", chunks(), size_bytes=len(body))
        await draft.commit(print_manifest(single_file("file", item.size_bytes, item.sha256)))
        return next(path for path in self.store.root.rglob("file") if path.is_file())

    @property
    def port(self) -> int:
        return int(self.web.listeners[0].rpartition(":")[2])

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/x/file"

    @property
    def sent(self) -> int:
        return self.statistics.counters.images_sent

    @property
    def threads(self) -> int:
        return sum(thread.name == "pbserv-sendfile" for thread in threading.enumerate())

    def call(self, *, room: int | None = None) -> socket.socket:
        """A connection, with a receive buffer of ``room`` bytes."""
        raw = socket.socket()
        if room is not None:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, room)
        raw.settimeout(30)
        raw.connect(("127.0.0.1", self.port))
        return raw


@pytest.fixture
async def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Site]:
    monkeypatch.setattr(web_server, "STOP_GRACE_S", 1)
    made = Site(tmp_path)
    await made.store.start()
    await made.web.start(WebSettings("127.0.0.1", 0))
    yield made
    await made.web.stop()
    await made.store.close()
    assert made.threads == 0


async def curl(*arguments: str) -> int:
    process = await asyncio.create_subprocess_exec(
        "curl", "-sS", "--max-time", "60", *arguments, stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    return await process.wait()


def request(more: str = "", path: str = "/x/file") -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: x\r\n{more}\r\n".encode()


def read_answer(raw: socket.socket, pending: bytes = b"") -> tuple[bytes, bytes, bytes]:
    """Head, body and what came behind it."""
    while b"\r\n\r\n" not in pending:
        pending += raw.recv(65536)
    head, _, rest = pending.partition(b"\r\n\r\n")
    size = next(int(line.split()[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length"))
    body = bytearray(rest)
    while len(body) < size:
        data = raw.recv(1 << 20)
        assert data, "the connection ended too early"
        body += data
    return head, bytes(body[:size]), bytes(body[size:])


async def test_ranges_conditions_and_head_are_as_ever(site: Site) -> None:
    await site.put(BODY)
    async with httpx.AsyncClient() as client:
        whole = await client.get(site.url)
        assert (whole.status_code, whole.content == BODY) == (200, True)
        assert site.threads == 1
        await until(lambda: (site.sent, site.ended) == (1, [("ok", len(BODY))]))
        head = await client.head(site.url)
        assert (head.status_code, head.content, head.headers["content-length"]) == (200, b"", str(len(BODY)))
        tag = f'"{sha256(BODY)}"'
        for wanted, start, end in (("0-0", 0, 1), ("1000000-", 1000000, len(BODY)), ("-7", len(BODY) - 7, len(BODY)),
                                   ("5-2000000", 5, 2000001)):  # fmt: skip
            part = await client.get(site.url, headers={"Range": f"bytes={wanted}", "If-Range": tag})
            assert (part.status_code, part.content == BODY[start:end]) == (206, True)
            assert part.headers["content-range"] == f"bytes {start}-{end - 1}/{len(BODY)}"
        stale = await client.get(site.url, headers={"Range": "bytes=5-", "If-Range": '"other"'})
        assert (stale.status_code, stale.content == BODY) == (200, True)
        beyond = await client.get(site.url, headers={"Range": f"bytes={len(BODY)}-"})
        assert (beyond.status_code, beyond.content) == (416, b"")
        assert (await client.get(site.url, headers={"If-None-Match": tag})).status_code == 304
    await until(lambda: len(site.ended) == 9)
    assert {result for result, _ in site.ended} == {"ok"}


async def test_curl_resumes_and_the_image_is_sent_once(site: Site, tmp_path: Path) -> None:
    await site.put(BODY)
    target = tmp_path / "target"
    assert await curl("-f", "-r", "0-1234567", "-o", str(target), site.url) == 0
    assert site.sent == 0
    assert await curl("-f", "-C", "-", "-o", str(target), site.url) == 0
    assert target.read_bytes() == BODY
    await until(lambda: site.sent == 1)


async def test_a_resume_counts_from_where_the_client_broke_off(site: Site) -> None:
    body = random.Random(5).randbytes(40 * MIB)
    await site.put(body)

    def break_off() -> bytes:
        with site.call() as raw:
            raw.sendall(request())
            got = b""
            while len(got) < 11_000_000:
                got += raw.recv(1 << 20)
        return got.partition(b"\r\n\r\n")[2]

    got = await asyncio.to_thread(break_off)
    await until(lambda: len(site.ended) == 1)
    assert (site.ended[0][0], site.sent) == ("aborted", 0)
    assert len(got) <= site.ended[0][1] < len(body)
    async with httpx.AsyncClient() as client:
        rest = await client.get(site.url, headers={"Range": f"bytes={len(got)}-"})
    assert got + rest.content == body
    await until(lambda: site.sent == 1)


async def test_requests_on_one_connection_also_when_they_come_at_once(site: Site) -> None:
    await site.put(BODY)

    def converse() -> list[bytes]:
        with site.call() as raw:
            raw.sendall(request() + request("Range: bytes=10-99999\r\n") + request("Connection: close\r\n"))
            answers, rest = [], b""
            for _ in range(3):
                _head, body, rest = read_answer(raw, rest)
                answers.append(body)
            assert (rest, raw.recv(1)) == (b"", b"")
        return answers

    assert await asyncio.to_thread(converse) == [BODY, BODY[10:100000], BODY]
    await until(lambda: len(site.ended) == 3)
    assert [result for result, _ in site.ended] == ["ok"] * 3
    assert site.sent == 2


async def test_old_http_and_who_wants_the_connection_closed(site: Site, tmp_path: Path) -> None:
    await site.put(BODY)
    for options in (["--http1.0"], ["-H", "Connection: close"], ["--http1.0", "-r", "7-"]):
        target = tmp_path / "target"
        assert await curl("-f", *options, "-o", str(target), site.url) == 0
        assert target.read_bytes() == BODY[7 if "-r" in options else 0 :]
    assert site.threads == 1
    await until(lambda: [result for result, _ in site.ended] == ["ok"] * 3)


@pytest.mark.parametrize("reset", [False, True])
async def test_a_client_that_may_go_goes_at_once(site: Site, reset: bool) -> None:
    """It has everything, and closes before the server has looked for the last acknowledgement; OVMF by a reset."""
    await site.put(BODY)

    def fetch() -> None:
        with site.call() as raw:
            raw.sendall(request())
            read_answer(raw)
            if reset:
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    for _ in range(20):
        await asyncio.to_thread(fetch)
    await until(lambda: len(site.ended) == 20)
    assert set(site.ended) == {("ok", len(BODY))}
    assert site.sent == 20


@pytest.mark.parametrize("size", [400_000, 40 * MIB])
@pytest.mark.parametrize("reset", [False, True])
async def test_a_client_that_vanishes_was_not_served(site: Site, size: int, reset: bool) -> None:
    """Also where the kernel has taken everything long ago."""
    await site.put(bytes(size))
    raw = site.call(room=4096)
    raw.sendall(request())
    await asyncio.to_thread(raw.recv, 1)
    if reset:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    await until(lambda: site.threads == 1)
    assert site.ended == []
    raw.close()
    await until(lambda: len(site.ended) == 1)
    assert (site.ended[0][0], site.sent) == ("aborted", 0)
    assert site.ended[0][1] < size


async def test_slow_readers_hold_nobody_up_and_cost_no_memory(site: Site) -> None:
    body = bytes(48 * MIB)
    await site.put(body)
    before = memory_kb()
    async with httpx.AsyncClient() as client:
        await client.head(site.url)
        slow = [site.call(room=4096) for _ in range(24)]
        for raw in slow:
            raw.sendall(request())
        for raw in slow:
            await asyncio.to_thread(raw.recv, 1)
        assert site.threads <= PUMPS
        async with client.stream("GET", site.url) as answer:
            got = 0
            async for chunk in answer.aiter_raw(MIB):
                got += len(chunk)
        assert got == len(body)
        assert memory_kb() - before < 100 * 1024
    for raw in slow:
        raw.close()
    await until(lambda: len(site.ended) == 26)
    assert sorted(result for result, _ in site.ended) == ["aborted"] * 24 + ["ok"] * 2


def memory_kb() -> int:
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS"))


async def test_64_downloads_at_once_with_few_threads(site: Site) -> None:
    await site.put(BODY)

    def fetch() -> bool:
        with site.call() as raw:
            raw.sendall(request())
            return read_answer(raw)[1] == BODY

    limit = asyncio.Semaphore(64)

    async def one() -> None:
        async with limit:
            assert await loop.run_in_executor(pool, fetch)

    loop = asyncio.get_running_loop()
    with ThreadPoolExecutor(64) as pool:
        async with asyncio.TaskGroup() as group:
            for _ in range(64):
                group.create_task(one())
    assert 1 <= site.threads <= PUMPS
    await until(lambda: len(site.ended) == 64)
    assert set(site.ended) == {("ok", len(BODY))}


async def test_a_file_that_shrinks_ends_the_connection_and_is_told(site: Site) -> None:
    body = bytes(40 * MIB)
    path = await site.put(body)
    raw = site.call(room=4096)
    raw.sendall(request())
    await asyncio.to_thread(raw.recv, 1)
    os.truncate(path, 1024)

    def rest() -> int:
        got = 0
        while data := raw.recv(1 << 20):
            got += len(data)
        return got

    assert await asyncio.to_thread(rest) < len(body)
    raw.close()
    await until(lambda: len(site.ended) == 1)
    assert site.ended[0][0] == "failed"
    assert [event for event, _ in site.events.lines] == ["image unreadable"]


async def test_a_store_that_stops_ends_its_downloads(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "ZERO_COPY_BYTES", 8 * MIB)
    await site.put(bytes(64 * MIB))

    def read(stop: Callable[[], None]) -> int:
        with site.call() as raw:
            raw.sendall(request())
            got = len(raw.recv(65536))
            stop()
            while data := raw.recv(1 << 20):
                got += len(data)
        return got

    loop = asyncio.get_running_loop()
    stop = lambda: asyncio.run_coroutine_threadsafe(site.store.close(), loop).result(30)  # noqa: E731
    assert await asyncio.to_thread(read, stop) < 64 * MIB
    await until(lambda: len(site.ended) == 1)
    assert (site.ended[0][0], site.sent) == ("failed", 0)
    await site.store.start()


async def test_a_server_that_stops_leaves_no_thread(site: Site) -> None:
    await site.put(bytes(40 * MIB))
    with site.call(room=4096) as raw:
        raw.sendall(request())
        await asyncio.to_thread(raw.recv, 1)
        await until(lambda: site.threads == 1)
        await site.web.stop()
    assert site.threads == 0
    await until(lambda: len(site.ended) == 1)
    assert site.ended[0][0] == "aborted"
    await site.web.start(WebSettings("127.0.0.1", 0))
    assert await curl("-f", site.url) == 0


async def test_over_tls_the_bytes_go_through_the_program(site: Site, tmp_path: Path) -> None:
    await site.put(BODY)
    await site.web.stop()
    (tmp_path / "tls").mkdir()
    await site.web.start(WebSettings("127.0.0.1", 0, TlsSettings(0, None, None, tmp_path / "tls")))
    assert site.web.tls_fault == ""
    port = int(site.web.listeners[1].rpartition(":")[2])
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    async with httpx.AsyncClient(verify=context) as client:
        got = await client.get(f"https://127.0.0.1:{port}/x/file")
    assert (got.status_code, got.content == BODY) == (200, True)
    assert site.threads == 0
    await until(lambda: site.sent == 1)


async def test_another_backend_streams(site: Site) -> None:
    """An item that is no file: whoever keeps images elsewhere."""
    await site.put(BODY)

    class Elsewhere:
        size_bytes = len(BODY)
        sha256 = sha256(BODY)

        async def read(self, offset: int, size_bytes: int) -> bytes:
            return BODY[offset : offset + size_bytes]

        def close(self) -> None:
            return

    async def open_item(*_: object) -> Elsewhere:
        return Elsewhere()

    site.store.open = open_item  # type: ignore[method-assign, assignment]
    async with httpx.AsyncClient() as client:
        assert (await client.get(site.url)).content == BODY
    await until(lambda: site.sent == 1)
    assert site.threads == 0
