"""The short way of small boot files: what a client gets, and what is told of it, is what the route would do."""

from __future__ import annotations

import asyncio
import gc
import os
import re
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pbserv.imaging.ranges import plan
from pbserv.log import ServiceLog
from pbserv.policy.boots import split_path
from pbserv.supervisor import Supervisor
from pbserv.tftp.config import TftpConf
from pbserv.tftp.service import TftpService
from pbserv.web import front
from pbserv.web import server as web_server
from pbserv.web.app import create_app
from pbserv.web.boot_files_routes import files_router
from pbserv.web.front import Front
from pbserv.web.requests_counted import Requests
from pbserv.web.server import WebServer, WebSettings
from pbserv.web.shortcut import SMALL_BYTES, Shortcut, _asked
from tests.imaging.image_server import until
from tests.web.below.test_sendfile import read_answer

SMALL = bytes(range(256)) * 16
LARGE = bytes(range(251)) * 1000


class Site:
    """The real TFTP service behind two web servers, with and without the short way, and what their neighbours see."""

    def __init__(self, place: Path) -> None:
        self.folder = place / "tftp"
        self.folder.mkdir()
        self.log_file = place / "pbserv.log"
        self.told: list[tuple[str, str, str, int]] = []
        self.denied = ""
        self.shown: set[tuple[str, str]] = set()
        self.log = ServiceLog("pbserv")
        self.log.configure(3, self.log_file, 15, quiet=True)
        self.tftp = TftpService(self.log, self, self, {"old.0": "small"}, gate=self)
        self.requests = Requests()
        routers = [("tftp", files_router(self.tftp, self, plan, self.log))]
        app = create_app(
            routers, running=lambda _name: self.tftp.running, log=self.log, requests=self.requests, path_of=self.path_of
        )
        self.supervisor = Supervisor((), self.log)
        self.shortcut = Shortcut(
            self.tftp, self, plan, self.log, lambda: self.tftp.running, self.requests, self.path_of
        )
        self.quick = WebServer(app, self.supervisor.spawn, lambda: False, self.shortcut)
        self.plain = WebServer(app, self.supervisor.spawn, lambda: False)

    def refuses(self, peer: str) -> str:
        return self.denied

    def path_of(self, name: str, peer: str) -> str:
        token, path = split_path(name)
        if token == "theirs":
            raise PermissionError("the token is another device's")
        if token:
            self.shown.add((token, peer))
        return path

    def find(self, name: str, peer: str, local: str) -> bytes | None:
        return f"#!ipxe for {peer} at {local}\n".encode() if name == "boot.ipxe" else None

    def fetched(self, peer: str, name: str, outcome: str, size: int) -> None:
        self.told.append((peer, name, outcome, size))

    def transferred(self, peer: str, name: str, outcome: str, size: int) -> None:
        raise AssertionError("nothing went over TFTP")

    def put(self, name: str, body: bytes) -> None:
        (self.folder / f".{name}").write_bytes(body)
        os.replace(self.folder / f".{name}", self.folder / name)

    def counted(self) -> dict[tuple[str, ...], float]:
        (family,) = self.requests.collect()
        return {tuple(sample.labels.values()): sample.value for sample in family.samples}

    def lines(self) -> list[str]:
        """Log lines without what differs from answer to answer."""
        text = self.log_file.read_text()
        return [re.sub(r"^\S+ | seconds=\S+", "", line) for line in text.splitlines() if "boot file" in line]


def port(web: WebServer) -> int:
    return int(web.listeners[0].rpartition(":")[2])


@pytest.fixture
async def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Site]:
    monkeypatch.setattr(web_server, "STOP_GRACE_S", 1)
    made = Site(tmp_path)
    made.put("small", SMALL)
    made.put("large", LARGE)
    made.put("limit", bytes(SMALL_BYTES))
    made.put("beyond", bytes(SMALL_BYTES + 1))
    made.put("empty", b"")
    made.put("boot.efi", SMALL)
    (made.folder / "sub").mkdir()
    await made.tftp.start(TftpConf(interfaces=("127.0.0.1",), port=0, directory=made.folder))
    for web in (made.quick, made.plain):
        await web.start(WebSettings("127.0.0.1", 0))
    yield made
    for web in (made.quick, made.plain):
        await web.stop()
    await made.tftp.stop()


def idle(web: WebServer) -> bool:
    """No answer is under way any more."""
    assert web._now is not None
    state = web._now.server.server_state
    return not state.tasks and not state.connections


def call(web: WebServer) -> socket.socket:
    raw = socket.create_connection(("127.0.0.1", port(web)), timeout=30)
    raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return raw


def converse(web: WebServer, *pieces: bytes) -> bytes:
    """Everything that is answered, until the server hangs up."""
    with call(web) as raw:
        for piece in pieces:
            raw.sendall(piece)
        found = b""
        while data := raw.recv(1 << 20):
            found += data
    return re.sub(rb"\r\ndate: [^\r]*", b"", found)


def get(path: str = "/files/small", more: str = "", method: str = "GET", version: str = "1.1") -> bytes:
    return f"{method} {path} HTTP/{version}\r\nHost: x\r\nUser-Agent: iPXE/1.21\r\n{more}\r\n".encode()


CLOSE = "Connection: close\r\n"
LAST = get(more=CLOSE)


@pytest.mark.parametrize(
    "pieces",
    [
        (LAST,),
        (get(more="Connection: Close\r\n"),),
        (get(more="Connection: keep-alive\r\n"), LAST),
        (get("/files/limit"), get("/files/beyond"), get("/files/large"), LAST),
        (get("/files/empty"), LAST),
        (get("/files/boot.efi"), get("/files/old.0"), get("/files/boot.ipxe"), LAST),
        (get("/files/none"), get("/files/sub"), get("/files/"), get("/files/../small"), LAST),
        (get("/files/sm%61ll"), get("/files/small?x=1"), get("/files/small/"), get("/files//small"), LAST),
        (get(more="Range: bytes=5-9\r\n"), get(more="If-None-Match: *\r\n"), get(more="If-Match: x\r\n"), LAST),
        (get(method="HEAD"), get(method="PUT"), LAST),
        (get(more="Content-Length: 3\r\n") + b"abc", LAST),
        (get(more="Transfer-Encoding: chunked\r\n") + b"0\r\n\r\n", LAST),
        (get(more="Expect: 100-continue\r\nContent-Length: 0\r\n"), LAST),
        (get(version="1.0"),),
        (get("/s/abc123/files/small"), get("/s/def456/files/small"), get("/s/abc123/files/none"), LAST),
        (get("/s/theirs/files/small"), LAST),
        (get("/s/abc123/files/boot.ipxe"), get("/s/abc123/client/x"), LAST),
        (get() + LAST,),
        (get() + get("/files/large") + get() + LAST,),
        (b"GET /files/sm", b"all HTTP/1.1\r\nHos", b"t: x\r\n\r\n", LAST),
        (b"GET /files/small HTTP/1.1\r\n\r\n",),
        (b"GET /files/small\r\n\r\n",),
        (b"GET /files/small HTTP/1.1\r\nHost: x\r\nHost: y\r\n" + CLOSE.encode() + b"\r\n",),
        (b"GET /files/small HTTP/1.1\r\nHost : x\r\n\r\n",),
        (get(more="X-Anything: 1\r\n"), LAST),
        (get(more="Upgrade: websocket\r\nConnection: upgrade\r\n"), LAST),
        (get(more="Cookie: " + "x" * 3000 + "\r\n"), LAST),
    ],
)
async def test_every_answer_is_the_one_of_the_route(site: Site, pieces: tuple[bytes, ...]) -> None:
    found = []
    for web in (site.plain, site.quick):
        answers = await asyncio.to_thread(converse_slowly, web, pieces)
        await until(lambda web=web: idle(web))
        seen = site.told.copy(), site.lines(), site.counted(), site.shown.copy()
        found.append((answers, *seen))
        site.told.clear()
        site.shown.clear()
        site.log_file.write_text("")
        site.requests._counts.clear()
    assert found[0] == found[1]
    assert b"HTTP/1.1 " in found[0][0]


def converse_slowly(web: WebServer, pieces: tuple[bytes, ...]) -> bytes:
    """Each piece comes when the one before was answered, as far as that can be seen."""
    with call(web) as raw:
        found = b""
        for piece in pieces:
            raw.sendall(piece)
            raw.settimeout(0.15)
            try:
                while data := raw.recv(1 << 20):
                    found += data
            except TimeoutError:
                continue
        raw.settimeout(30)
        try:
            while data := raw.recv(1 << 20):
                found += data
        except ConnectionResetError:
            pass
    return re.sub(rb"\r\ndate: [^\r]*", b"", found)


async def test_small_files_do_not_reach_the_route(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    def hand_on(_self: Front) -> None:
        raise AssertionError("handed on")

    monkeypatch.setattr(Front, "_hand_on", hand_on)
    answers = await asyncio.to_thread(
        converse_slowly, site.quick, (get(), get("/s/a1/files/small"), get("/files/boot.ipxe"), LAST)
    )
    assert answers.count(b"HTTP/1.1 200 OK") == 4
    assert b"#!ipxe for 127.0.0.1 at 127.0.0.1\n" in answers


async def test_a_file_that_changed_and_a_client_that_is_denied_count_at_once(site: Site) -> None:
    def ask(raw: socket.socket) -> bytes:
        raw.sendall(get())
        head, body, _rest = read_answer(raw)
        return head + b"\r\n\r\n" + body

    with call(site.quick) as raw:
        first = await asyncio.to_thread(ask, raw)
        site.put("small", b"another")
        second = await asyncio.to_thread(ask, raw)
        assert first.endswith(SMALL)
        assert second.endswith(b"\r\n\r\nanother")
        tags = [re.search(rb"etag: (\S+)", answer)[1] for answer in (first, second)]  # type: ignore[index]
        assert tags[0] != tags[1]
        site.denied = "device is denied"
        third = await asyncio.to_thread(ask, raw)
        assert third.startswith(b"HTTP/1.1 403 ")
        site.denied = ""
        fourth = await asyncio.to_thread(ask, raw)
        assert fourth.endswith(b"another")
    expected = ["completed", "completed", "refused", "completed"]
    await until(lambda: [outcome for _peer, _name, outcome, _size in site.told] == expected)


async def test_large_files_are_sent_from_below_and_told_as_they_ended(site: Site) -> None:
    body = os.urandom(24 << 20)
    site.put("initrd", body)
    answers = await asyncio.to_thread(converse, site.quick, get("/files/initrd", CLOSE))
    assert answers.endswith(body)
    assert [thread.name for thread in threading.enumerate()].count("pbserv-sendfile") == 1
    part = await asyncio.to_thread(converse, site.quick, get("/files/initrd", CLOSE + "Range: bytes=1000000-\r\n"))
    assert part.endswith(b"\r\n\r\n" + body[1000000:])
    await until(lambda: len(site.told) == 2)
    with socket.socket() as raw:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        raw.connect(("127.0.0.1", port(site.quick)))
        raw.sendall(get("/files/initrd"))
        await asyncio.to_thread(raw.recv, 1)
        os.truncate(site.folder / "initrd", 1000)
        while await asyncio.to_thread(raw.recv, 1 << 20):
            pass
    await until(lambda: len(site.told) == 3)
    assert [each[2:] for each in site.told[:2]] == [("completed", len(body)), ("completed", len(body) - 1000000)]
    assert site.told[2][2] == "failed"


async def test_a_stopped_service_gives_nothing_out(site: Site) -> None:
    assert (await asyncio.to_thread(converse, site.quick, LAST)).endswith(SMALL)
    await site.tftp.stop()
    assert (await asyncio.to_thread(converse, site.quick, LAST)).startswith(b"HTTP/1.1 503 ")


async def test_who_brings_no_request_is_shown_out_and_who_did_may_stay_a_while(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(front, "FIRST_REQUEST_S", 0.3)
    assert site.quick._now is not None
    site.quick._now.server.config.timeout_keep_alive = 2

    def silent() -> bytes:
        with call(site.quick) as raw:
            return raw.recv(1)

    def talking() -> tuple[int, bytes]:
        with call(site.quick) as raw:
            count = 0
            for _ in range(2):
                raw.sendall(get())
                count += len(raw.recv(1 << 20)) > len(SMALL)
                time.sleep(0.7)
            return count, raw.recv(1)

    assert await asyncio.to_thread(silent) == b""
    assert await asyncio.to_thread(talking) == (2, b"")


async def test_more_connections_than_are_allowed(site: Site) -> None:
    assert site.quick._now is not None
    site.quick._now.server.config.limit_concurrency = 3
    with call(site.quick), call(site.quick):
        await until(lambda: len(site.quick._now.server.server_state.connections) == 2)  # type: ignore[union-attr]
        assert (await asyncio.to_thread(converse, site.quick, LAST)).startswith(b"HTTP/1.1 503 ")
    await until(lambda: not site.quick._now.server.server_state.connections)  # type: ignore[union-attr]
    assert (await asyncio.to_thread(converse, site.quick, LAST)).endswith(SMALL)


async def test_a_crowd_is_let_in_while_others_are_served(site: Site) -> None:
    """Three hundred connections, each asking again as soon as it was answered."""

    def crowd() -> int:
        raws = [call(site.quick) for _ in range(300)]
        served = set()
        for _ in range(3):
            for raw in raws:
                raw.sendall(get())
            for raw in raws:
                if raw.recv(1 << 20).startswith(b"HTTP/1.1 200 "):
                    served.add(raw.fileno())
        for raw in raws:
            raw.close()
        return len(served)

    assert await asyncio.to_thread(crowd) == 300
    await until(lambda: len(site.told) == 900)


async def test_nothing_is_kept_of_connections_that_have_ended(site: Site) -> None:
    def many() -> None:
        for _ in range(40):
            assert converse(site.quick, LAST).endswith(SMALL)
            assert converse(site.quick, get("/files/large", CLOSE)).endswith(LARGE)

    await asyncio.to_thread(many)
    connections: Callable[[], int] = lambda: sum(  # noqa: E731
        isinstance(each, (Front, web_server._Protocol)) for each in gc.get_objects()
    )

    def gone() -> bool:
        gc.collect()
        return connections() < 8

    await until(gone)


async def test_the_server_stops_at_once_when_connections_only_wait(site: Site) -> None:
    with call(site.quick) as raw:
        raw.sendall(get())
        assert (await asyncio.to_thread(raw.recv, 1 << 20)).startswith(b"HTTP/1.1 200 ")
        await site.quick.stop()
        rest = b""
        while data := await asyncio.to_thread(raw.recv, 1 << 20):
            rest += data
    assert b"HTTP" not in rest


@given(st.binary(max_size=200).map(lambda more: b"GET /files/" + more) | st.binary(max_size=100))
@example(get())
@example(get("/s/abc/files/x"))
@example(b"GET /files/a HTTP/1.1\r\nHost: x\r\nConnection: close, close\r\n\r\n")
def test_any_bytes_are_a_plain_request_or_the_routes(request: bytes) -> None:
    asked = _asked(request)
    if asked is not None:
        before = asked.path.removesuffix(f"/files/{asked.shown}")
        assert (before == "") is not asked.boot
        assert request.startswith(b"GET %b/files/%b HTTP/1.1\r\n" % (before.encode(), asked.name))
        assert request.endswith(b"\r\n\r\n") or request.endswith(b"\n\n")
