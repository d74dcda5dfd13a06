"""How connections end: resets in every phase, requests that do not come, a stopped server. Nothing is left behind."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import struct
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from pbserv.web import server as web_server
from pbserv.web.server import WebServer, WebSettings
from tests.imaging.image_server import until
from tests.web.below.test_front import LARGE, SMALL, call, converse, get, port
from tests.web.below.test_front import Site as BootSite
from tests.web.below.test_front import site as boot_site  # noqa: F401 - a fixture
from tests.web.below.test_patience import SIZE, Slow, connections, serving
from tests.web.below.test_sendfile import Site, read_answer, request


@pytest.fixture
def slow() -> Slow:
    return Slow()


@pytest.fixture
async def site(slow: Slow, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Site]:
    monkeypatch.setattr(web_server, "STOP_GRACE_S", 1)
    async with serving(tmp_path, slow, 3600) as made:
        yield made


def reset(raw: socket.socket) -> None:
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    raw.close()


def sockets() -> int:
    """Of this process, and files that were images."""
    found = 0
    for fd in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{fd}")
        except OSError:
            continue
        found += target.startswith("socket:") or target.endswith("/file")
    return found


def keep_alive(web: WebServer, seconds: int) -> None:
    assert web._now is not None
    web._now.server.config.timeout_keep_alive = seconds


async def test_a_client_that_goes_before_the_answer_begins(
    site: Site, slow: Slow, caplog: pytest.LogCaptureFixture
) -> None:
    """It is an aborted download and no defect of ours."""

    async def wait() -> None:
        slow.asked.set()
        await slow.go_on.wait()

    site.before = wait  # type: ignore[method-assign]
    raw = site.call()
    raw.sendall(request())
    await slow.asked.wait()
    reset(raw)
    await until(lambda: not connections(site.web))
    slow.go_on.set()
    await until(lambda: len(site.ended) == 1)
    assert (site.ended, site.sent) == ([("aborted", 0)], 0)
    assert [line.message for line in caplog.records if line.levelno >= logging.ERROR] == []


@pytest.mark.parametrize("beginning", [b"G", request()[:-2]])
async def test_who_does_not_finish_another_request_is_shown_out(site: Site, beginning: bytes) -> None:
    keep_alive(site.web, 1)
    with site.call() as raw:
        raw.sendall(b"GET /whole/none HTTP/1.1\r\nHost: x\r\n\r\n")
        assert await asyncio.to_thread(read_answer, raw)
        raw.sendall(beginning)
        assert await asyncio.to_thread(raw.recv, 65536) == b""


async def test_who_sends_on_after_it_was_refused_is_shown_out(site: Site) -> None:
    keep_alive(site.web, 1)
    with site.call() as raw:
        raw.sendall(b"PUT /whole/answer HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n")
        assert (await asyncio.to_thread(read_answer, raw))[0].startswith(b"HTTP/1.1 413 ")
        raw.sendall(b"x")
        assert await asyncio.to_thread(raw.recv, 65536) == b""


@pytest.mark.parametrize("path", ["/x/file", "/whole/none"])
async def test_nonsense_after_an_answer_began_ends_the_connection_and_nothing_else(
    site: Site, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The request is broken when nobody can be told with 400 any more."""
    with site.call(room=4096) as raw:
        raw.sendall(request("Transfer-Encoding: chunked\r\n", path=path))
        assert await asyncio.to_thread(raw.recv, 1)
        raw.sendall(b"nonsense\r\n\r\n")
        await until(lambda: not connections(site.web))
        await until(lambda: len(site.ended) == (path == "/x/file"))
    assert [line.message for line in caplog.records if line.levelno >= logging.ERROR] == []


async def test_requests_that_come_within_the_time_are_answered(site: Site) -> None:
    keep_alive(site.web, 60)
    with site.call() as raw:
        for _ in range(3):
            for byte in request("Range: bytes=0-9\r\n"):
                raw.sendall(bytes([byte]))
            assert (await asyncio.to_thread(read_answer, raw))[1] == bytes(10)


@pytest.mark.parametrize("path", ["/x/file", "/whole/answer"])
async def test_a_server_that_stops_keeps_no_connection_of_who_does_not_read(site: Site, path: str) -> None:
    before = sockets()
    with site.call(room=4096) as raw:
        raw.sendall(request(path=path))
        assert await asyncio.to_thread(raw.recv, 1)
        held = connections(site.web)
        await site.web.stop()
        await until(lambda: not held)
        await until(lambda: sockets() < before)  # those that it listens on are gone as well
        await site.web.start(WebSettings("127.0.0.1", 0))


async def test_what_a_service_made_may_be_large(boot_site: BootSite) -> None:  # noqa: F811
    made = bytes(3_000_000)
    boot_site.find = lambda name, peer, local: made if name == "boot.ipxe" else None  # type: ignore[method-assign]
    with socket.socket() as raw:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        raw.settimeout(30)
        raw.connect(("127.0.0.1", port(boot_site.quick)))
        raw.sendall(get("/files/boot.ipxe"))
        assert await asyncio.to_thread(raw.recv, 1, socket.MSG_PEEK)
        raw.sendall(get("/files/large") + get("/files/small"))
        await asyncio.sleep(0.1)  # the server may look at it before anything is read

        def read() -> list[bytes]:
            answers, rest = [], b""
            for _ in range(3):
                _head, body, rest = read_answer(raw, rest)
                answers.append(body)
            return answers

        assert await asyncio.to_thread(read) == [made, LARGE, SMALL]


PHASES = (b"", b"G", b"GET /files/sm", get(), get() + get(), get("/files/large"), get("/files/large") * 3,
          get("/files/huge"), get("/files/huge", "Range: bytes=5-\r\n") + get(), get("/files/none"),
          get("/files/huge", method="HEAD"), get("/files/huge", "Content-Length: 9\r\n") + b"x")  # fmt: skip


@pytest.mark.parametrize("after", [0, 1, 300_000])
@pytest.mark.parametrize("rudely", [False, True])
async def test_clients_that_go_in_every_phase_leave_nothing_behind(
    boot_site: BootSite,  # noqa: F811
    after: int,
    rudely: bool,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """``after`` so many bytes of the answer, if there are any."""
    boot_site.put("huge", bytes(SIZE))
    before = sockets()

    def go(phase: bytes) -> None:
        with call(boot_site.quick) as raw:
            raw.settimeout(0.2)
            raw.sendall(phase)
            got = 0
            try:
                while got < after and (data := raw.recv(after - got)):
                    got += len(data)
            except TimeoutError:
                pass
            if rudely:
                reset(raw)

    for phase in PHASES:
        await asyncio.to_thread(go, phase)
    await until(lambda: not connections(boot_site.quick) and sockets() == before)
    assert boot_site.quick._now is not None
    await until(lambda: not boot_site.quick._now.server.server_state.tasks)  # type: ignore[union-attr]
    assert all(not pump.load for pump in boot_site.quick._pumps._pumps)
    assert [line.message for line in caplog.records if line.levelno >= logging.ERROR] == []
    with call(boot_site.quick) as raw:
        raw.sendall(get("/files/huge"))
        assert len((await asyncio.to_thread(read_answer, raw))[1]) == SIZE


async def test_requests_that_never_come_to_their_turn_end_with_the_connection(site: Site) -> None:
    with site.call(room=4096) as raw:
        raw.sendall(request() * 20)
        await asyncio.to_thread(raw.recv, 1)
        reset(raw)
    await until(lambda: len(site.ended) == 1 and not connections(site.web))


async def test_a_date_that_is_none_costs_no_descriptor(boot_site: BootSite) -> None:  # noqa: F811
    before = files_open(boot_site)
    dates = ("Fri, 31 Dec 99999999999999999999 23:59:59 GMT", "Fri, 31 Dec 1999 23:59:59 +99999999999999999999", "x")
    for date in dates:
        for name in ("small", "large"):
            wanted = get(f"/files/{name}", f"If-Unmodified-Since: {date}\r\nConnection: close\r\n")
            answer = await asyncio.to_thread(converse, boot_site.quick, wanted)
            assert answer.startswith(b"HTTP/1.1 200 ")  # RFC 9110 13.1.4: what is no date is ignored
    await until(lambda: files_open(boot_site) == before)


def files_open(site: BootSite) -> int:
    """Of those that are given out."""
    found = 0
    for fd in os.listdir("/proc/self/fd"):
        try:
            found += os.readlink(f"/proc/self/fd/{fd}").startswith(f"{site.folder}/")
        except OSError:
            continue
    return found


@pytest.mark.parametrize("wanted", ["/files/small", "/files/large", "/s/a1/files/small"])
async def test_who_is_gone_before_it_was_let_in_is_nobody(
    boot_site: BootSite,  # noqa: F811
    wanted: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The kernel does not know its address any more: there is nobody to decide about, or to answer."""
    for web in (boot_site.quick, boot_site.plain):
        before = sockets()
        for _ in range(5):  # the server is not let in between
            raw = call(web)
            raw.sendall(get(wanted))
            reset(raw)
        with call(web) as raw:
            raw.sendall(get())
            assert (await asyncio.to_thread(read_answer, raw))[1] == SMALL
        await until(lambda web=web, before=before: not connections(web) and sockets() == before)
        await until(lambda: bool(boot_site.told))
        assert [each[0] for each in boot_site.told] == ["127.0.0.1"]
        assert boot_site.shown == set()
        boot_site.told.clear()
    assert [line.message for line in caplog.records if line.levelno >= logging.WARNING] == []
