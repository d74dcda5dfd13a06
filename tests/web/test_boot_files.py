"""/files and /client: what a client that boots over HTTP gets, and how that is told."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from email.utils import formatdate
from pathlib import Path

import httpx
import pytest
import uvicorn

from pbserv.imaging.ranges import plan
from pbserv.log import ServiceLog
from pbserv.tftp.config import TftpConf
from pbserv.tftp.service import TftpService
from pbserv.web.app import create_app
from pbserv.web.boot_files_routes import client_router, files_router
from pbserv.web.sending import outdated

PEER = "10.0.0.7"
NOISE = random.Random(4).randbytes(700_001)


class Site:
    """The real TFTP service and HTTP application, and what their neighbours would see."""

    def __init__(self, place: Path) -> None:
        self.folder, self.client = place / "tftp", place / "client"
        self.folder.mkdir()
        self.client.mkdir()
        self.log_file = place / "pbserv.log"
        self.told: list[tuple[str, str, str, int]] = []
        self.denied: dict[str, str] = {}
        self.log = ServiceLog("pbserv")
        self.log.configure(3, self.log_file, 15, quiet=True)
        self.tftp = TftpService(self.log, self, self, {"nvlnbpx64.efi": "snponly.efi"}, gate=self)
        self.app = create_app(
            [
                ("tftp", files_router(self.tftp, self, plan, self.log)),
                ("", client_router(self.client, ("vmlinuz",), self, plan, self.log)),
            ],
            running=lambda name: not name or self.tftp.running,
            log=self.log,
        )

    def settings(self, **changes: object) -> TftpConf:
        return TftpConf(**{"interfaces": ("127.0.0.1",), "port": 0, "directory": self.folder, **changes})  # type: ignore[arg-type]

    def http(self, peer: str = PEER) -> httpx.AsyncClient:
        transport = httpx.ASGITransport(self.app, client=(peer, 50000))
        return httpx.AsyncClient(timeout=60, transport=transport, base_url="http://10.0.0.2", trust_env=False)

    def refuses(self, peer: str) -> str:
        return self.denied.get(peer, "")

    def path_of(self, name: str, peer: str) -> str:
        return name

    def find(self, name: str, peer: str, local: str) -> bytes | None:
        if name == "boot/denied.ipxe":
            raise PermissionError("device is denied")
        return b"#!ipxe\n" if name == "boot.ipxe" else None

    def fetched(self, peer: str, name: str, outcome: str, size: int) -> None:
        self.told.append((peer, name, outcome, size))

    def transferred(self, peer: str, name: str, outcome: str, size: int) -> None:
        raise AssertionError("nothing went over TFTP")


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    made = Site(tmp_path)
    await made.tftp.start(made.settings())
    yield made
    await made.tftp.stop()


def put(folder: Path, name: str, data: bytes = NOISE) -> bytes:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return data


async def test_head_and_get_as_uefi_http_boot_asks(site: Site) -> None:
    put(site.folder, "snponly.efi")
    async with site.http() as http:
        head = await http.head("/files/snponly.efi")
        assert (head.status_code, head.content) == (200, b"")
        assert head.headers["content-length"] == str(len(NOISE))
        assert head.headers["content-type"] == "application/efi"
        assert head.headers["accept-ranges"] == "bytes"
        assert site.told == []
        got = await http.get("/files/snponly.efi")
        assert (got.status_code, got.content == NOISE) == (200, True)
        assert got.headers["content-length"] == head.headers["content-length"]
        assert got.headers["etag"] == head.headers["etag"]
    assert site.told == [(PEER, "snponly.efi", "completed", len(NOISE))]
    line = next(text for text in site.log_file.read_text().splitlines() if "method=GET" in text)
    assert f"boot file client={PEER} method=GET file=snponly.efi status=200 bytes={len(NOISE)} result=completed" in line


@pytest.mark.parametrize(
    ("wanted", "status", "start", "end"),
    [
        ("bytes=0-99", 206, 0, 100),
        ("bytes=650000-", 206, 650_000, 700_001),
        ("bytes=-1", 206, 700_000, 700_001),
        ("bytes=700000-9999999", 206, 700_000, 700_001),
        ("bytes=0-1,5-6", 200, 0, 700_001),
        ("lines=1-2", 200, 0, 700_001),
    ],
)
async def test_one_range(site: Site, wanted: str, status: int, start: int, end: int) -> None:
    put(site.folder, "f")
    async with site.http() as http:
        got = await http.get("/files/f", headers={"Range": wanted})
    assert (got.status_code, got.content == NOISE[start:end]) == (status, True)
    assert got.headers["content-length"] == str(end - start)
    if status == 206:
        assert got.headers["content-range"] == f"bytes {start}-{end - 1}/{len(NOISE)}"
    # A range that leaves the end out is not the end of a transfer.
    assert site.told == ([(PEER, "f", "completed", end - start)] if end == len(NOISE) else [])


async def test_a_range_behind_the_end(site: Site) -> None:
    put(site.folder, "f", b"12345")
    async with site.http() as http:
        got = await http.get("/files/f", headers={"Range": "bytes=5-"})
    assert (got.status_code, got.headers["content-range"], got.content) == (416, "bytes */5", b"")


async def test_a_transfer_goes_on_only_with_the_same_file(site: Site) -> None:
    put(site.folder, "f", b"12345")
    async with site.http() as http:
        first = await http.get("/files/f")
        same = {"If-Match": first.headers["etag"], "Range": "bytes=2-"}
        assert (await http.get("/files/f", headers=same)).content == b"345"
        assert (await http.get("/files/f", headers={"If-None-Match": first.headers["etag"]})).status_code == 304
        put(site.folder, "g", b"54321")
        os.replace(site.folder / "g", site.folder / "f")
        stale = await http.get("/files/f", headers=same)
        assert (stale.status_code, stale.text.count("\n")) == (412, 1)
        whole = await http.get("/files/f", headers={"If-Range": first.headers["etag"], "Range": "bytes=2-"})
        assert (whole.status_code, whole.content) == (200, b"54321")


@pytest.mark.parametrize(
    ("headers", "gone"),
    [
        ({}, False),
        ({"if-match": '"a"'}, False),
        ({"if-match": '"b", "a"'}, False),
        ({"if-match": "*"}, False),
        ({"if-match": '"b"'}, True),
        ({"if-match": 'W/"a"'}, True),  # a strong comparison
        ({"if-unmodified-since": formatdate(1000, usegmt=True)}, False),
        ({"if-unmodified-since": formatdate(999, usegmt=True)}, True),
        ({"if-unmodified-since": "yesterday"}, False),
        ({"if-match": '"a"', "if-unmodified-since": formatdate(1, usegmt=True)}, False),  # the tag counts alone
    ],
)
def test_preconditions(headers: dict[str, str], gone: bool) -> None:
    assert outdated(headers, '"a"', 1000.4) is gone
    assert outdated({"if-unmodified-since": formatdate(1, usegmt=True)}, '"a"', None) is False


async def test_the_names_of_tftp(site: Site) -> None:
    data = put(site.folder, "Boot/BCD", b"bcd")
    put(site.folder, "snponly.efi", b"loader")
    put(site.folder, "a b\xe9%", b"odd")
    async with site.http() as http:
        for name in ("Boot/BCD", "boot/bcd", "/Boot//BCD", "Boot%5CBCD", "Boot%2fBCD", "Boot/BCD?x=1"):
            assert (await http.get(f"/files/{name}")).content == data, name
        assert (await http.get("/files/a%20b%C3%A9%25")).content == b"odd"
        assert (await http.get("/files/nvlnbpx64.efi")).content == b"loader"
        script = await http.get("/files/boot.ipxe")
        assert (script.text, script.headers["content-type"]) == ("#!ipxe\n", "text/plain; charset=utf-8")
        assert "last-modified" not in script.headers


@pytest.mark.parametrize(
    ("name", "status"),
    [
        ("none", 404),
        ("", 404),
        ("folder", 404),
        ("folder/f/x", 404),
        ("%2e%2e/secret", 403),
        ("..%5csecret", 403),
        ("link", 404),
        ("x" * 300, 400),
        ("f%00", 400),
        ("y/" * 600, 400),
        ("boot/denied.ipxe", 403),
    ],
)
async def test_what_cannot_be_had_is_one_line(site: Site, tmp_path: Path, name: str, status: int) -> None:
    (tmp_path / "secret").write_text("secret")
    put(site.folder, "folder/f")
    (site.folder / "link").symlink_to(tmp_path / "secret")
    async with site.http() as http:
        for method in ("GET", "HEAD"):
            got = await http.request(method, f"/files/{name}")
            assert got.status_code == status
            if method == "GET":
                assert got.text.startswith("error: ")
                assert got.text.count("\n") == 1
        assert (await http.put("/files/f", content=b"x")).status_code == 405


async def test_the_gate_and_the_networks_of_tftp(site: Site) -> None:
    put(site.folder, "f", b"1")
    put(site.client, "vmlinuz", b"2")
    site.denied[PEER] = "device is denied"
    async with site.http() as http:
        for path in ("/files/f", "/files/boot.ipxe", "/files/none", "/client/vmlinuz"):
            got = await http.get(path)
            assert (got.status_code, got.text.count("\n")) == (403, 1)
            assert "device is denied" in got.text
    assert [(outcome, size) for _, _, outcome, size in site.told] == [("refused", 0)] * 4
    (await site.tftp.prepare(site.settings(allowed_networks=("10.1.0.0/16",)))).commit()
    async with site.http("10.0.0.8") as http:
        assert (await http.get("/files/f")).status_code == 403
        assert (await http.get("/client/vmlinuz")).content == b"2"
    async with site.http("10.1.0.8") as http:
        assert (await http.get("/files/f")).content == b"1"


async def test_the_files_stop_with_the_tftp_service(site: Site) -> None:
    put(site.folder, "f", b"1")
    await site.tftp.stop()
    async with site.http() as http:
        got = await http.get("/files/f")
        assert (got.status_code, "pbserv start tftp" in got.text) == (503, True)
    with pytest.raises(OSError, match="not running"):
        site.tftp.open(b"f", PEER, "10.0.0.2")


async def test_the_imaging_client(site: Site) -> None:
    kernel = put(site.client, "vmlinuz")
    put(site.client, "secret", b"x")
    async with site.http() as http:
        assert (await http.head("/client/vmlinuz")).headers["content-length"] == str(len(kernel))
        assert (await http.get("/client/vmlinuz")).content == kernel
        for name in ("secret", "initrd.img", "..%2fsecret"):
            assert (await http.get(f"/client/{name}")).status_code == 404
        (site.client / "vmlinuz").unlink()
        (site.client / "vmlinuz").mkdir()
        got = await http.get("/client/vmlinuz")
        assert (got.status_code, "pbserv client build" in got.text) == (404, True)
    assert site.told == [(PEER, "vmlinuz", "completed", len(kernel))]


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


async def test_no_descriptor_is_left_behind(site: Site) -> None:
    put(site.folder, "f", b"12345")
    async with site.http() as http:
        await http.get("/files/f")
        before = descriptors()
        for headers in ({}, {"Range": "bytes=9-"}, {"If-None-Match": "*"}, {"If-Match": '"x"'}):
            await http.get("/files/f", headers=headers)
            await http.head("/files/f", headers=headers)
        await http.get("/files/none")
        assert descriptors() == before


# -- over a real connection --------------------------------------------------------------------------------------------


@pytest.fixture
async def port(site: Site) -> AsyncIterator[int]:
    server = uvicorn.Server(uvicorn.Config(site.app, port=0, lifespan="off", log_config=None, ws="none"))
    async with asyncio.TaskGroup() as group:
        group.create_task(server.serve())
        await until(lambda: server.started)
        yield server.servers[0].sockets[0].getsockname()[1]
        server.should_exit = True


async def until(condition: Callable[[], object], timeout_s: float = 60.0) -> None:
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0.005)


async def ask(port: int, name: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 16)
    writer.write(f"GET /files/{name} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    await reader.readuntil(b"\r\n\r\n")
    return reader, writer


async def test_a_client_that_goes_away_is_told_of(site: Site, port: int) -> None:
    with (site.folder / "large").open("wb") as file:
        file.truncate(64 << 20)
    _, writer = await ask(port, "large")
    writer.transport.abort()
    await until(lambda: site.told)
    ((peer, name, outcome, size),) = site.told
    assert (peer, name, outcome) == ("127.0.0.1", "large", "aborted")
    assert size < 64 << 20
    assert "result=aborted" in site.log_file.read_text()


async def test_a_client_that_goes_as_soon_as_it_has_everything_has_got_it(site: Site, port: int) -> None:
    for size in (1, 1000, 128 * 1024, 300_000):
        data = put(site.folder, "f", NOISE[:size])
        for _ in range(10):
            reader, writer = await ask(port, "f")
            assert await reader.readexactly(size) == data
            writer.transport.abort()
    await until(lambda: len(site.told) == 40)
    assert {outcome for _, _, outcome, _ in site.told} == {"completed"}


async def test_a_file_that_becomes_another_is_sent_as_it_was_opened(site: Site, port: int) -> None:
    put(site.folder, "f", NOISE * 20)
    reader, writer = await ask(port, "f")
    put(site.folder, "new", b"other")
    os.replace(site.folder / "new", site.folder / "f")
    assert await reader.readexactly(len(NOISE) * 20) == NOISE * 20
    await until(lambda: site.told)
    assert site.told[0][2:] == ("completed", len(NOISE) * 20)
    writer.close()


async def test_a_file_that_is_cut_short_breaks_the_connection(site: Site, port: int) -> None:
    with (site.folder / "f").open("wb") as file:
        file.truncate(64 << 20)
    reader, writer = await ask(port, "f")
    os.truncate(site.folder / "f", 1 << 20)
    got = 0
    with suppress(ConnectionError):
        while block := await reader.read(1 << 16):
            got += len(block)
    assert got < 64 << 20
    assert site.told[0][2] == "failed"
    writer.close()
