"""Uploads in parts over real HTTP: whole or not at all, in whatever order things go wrong."""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
import signal
import sys
from pathlib import Path

import httpx
import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pbserv.conf.places import StorePlace
from pbserv.imaging.manifest import DiskFacts, Manifest, ManifestItem, print_manifest
from tests.imaging.image_server import ADMIN, bearer_of, files_below, serving, sha256, until

PART = random.Random(5).randbytes(300_000)
LAST = random.Random(6).randbytes(70_001)


@pytest.fixture
async def server(tmp_path):
    async with serving(tmp_path / "images") as server:
        yield server


@pytest.fixture
async def client(server):
    async with httpx.AsyncClient(timeout=60, headers=ADMIN, base_url=server.api) as client:
        yield client


def digests(*parts: bytes) -> str:
    """What an item is called that came in these parts."""
    return hashlib.sha256("".join(map(sha256, parts)).encode()).hexdigest()


def manifest(*items: tuple[str, str, tuple[bytes, ...]]) -> str:
    return print_manifest(
        Manifest(
            DiskFacts(0, 512, "none", "bios"),
            tuple(ManifestItem(name, kind, 0, sum(map(len, parts)), digests(*parts), sum(map(len, parts)))
                  for name, kind, parts in items),
        )
    )  # fmt: skip


async def begin(client: httpx.AsyncClient, name: str = "x", **body) -> str:
    answer = await client.post(f"/images/{name}/uploads", json=body)
    assert answer.status_code == 201, answer.text
    return answer.json()["upload"]


async def put(client: httpx.AsyncClient, upload: str, number: int, part: bytes, **options) -> httpx.Response:
    item, kind = options.pop("item", "p1"), options.pop("kind", "file")
    headers = {"X-Checksum-SHA256": sha256(part), **options.pop("headers", {})}
    return await client.put(f"/uploads/{upload}/items/{item}/parts/{number}", content=part, params={"kind": kind},
                            headers={key: value for key, value in headers.items() if value is not None})  # fmt: skip


async def commit(client: httpx.AsyncClient, upload: str, text: str) -> httpx.Response:
    return await client.post(f"/uploads/{upload}/commit", content=text.encode(), headers={"Content-Type": "text/plain"})


async def test_parts_become_an_image_in_one_step(server, client):
    made = await client.post("/images/x/uploads", json={"bytes": 400_000})
    upload = made.json()
    assert (made.status_code, upload["image"], upload["items"], upload["part_bytes"]) == (201, "x", {}, 64 << 20)
    assert made.headers["Location"] == f"/api/v1/uploads/{upload['upload']}"
    number = upload["upload"]
    assert (await put(client, number, 1, PART)).json() == {"next_part": 2, "received_bytes": len(PART)}
    assert (await put(client, number, 2, LAST)).json() == {"next_part": 3, "received_bytes": len(PART + LAST)}
    told = (await client.get(f"/uploads/{number}")).raise_for_status().json()
    assert told["items"] == {
        "p1": {"kind": "file", "next_part": 3, "received_bytes": len(PART + LAST), "complete": False}
    }
    assert (await client.get("/uploads")).json() == {"uploads": [told]}
    assert (await client.get("/images/x")).status_code == 404, "nothing is visible"
    done = await client.post(f"/uploads/{number}/items/p1/complete", json={"parts": 2, "bytes": len(PART + LAST)})
    assert done.json() == {"name": "p1", "stored_bytes": len(PART + LAST), "sha256": digests(PART, LAST)}
    text = manifest(("p1", "file", (PART, LAST)))
    image = await commit(client, number, text)
    assert (image.status_code, image.json()["version"], image.json()["state"]) == (201, 1, "enabled")
    assert (await client.get("/images/x/items/p1")).content == PART + LAST
    assert image.json()["items"][0]["sha256"] == sha256(PART + LAST), "of what is stored, not of what was sent"
    again = await commit(client, number, text)
    assert (again.status_code, again.json()["version"]) == (201, 1), "the answer got lost, and was asked for again"
    assert (await client.get(f"/uploads/{number}")).status_code == 410
    assert (await client.get("/uploads")).json() == {"uploads": []}
    assert [(line.type, line.result) for line in server.requests][:1] == [("upload", "started")]
    await until(lambda: server.figures == (2, 1, 1))
    version = (await client.get("/images/x/versions/1")).json()
    assert version["creator"].startswith("token:")


async def test_the_same_part_again_changes_nothing_and_another_one_is_refused(server, client):
    upload = await begin(client)
    for _ in range(3):
        assert (await put(client, upload, 1, PART)).json() == {"next_part": 2, "received_bytes": len(PART)}
    other = await put(client, upload, 1, LAST)
    assert other.status_code == 409
    gap = await put(client, upload, 5, LAST)
    assert (gap.status_code, "part 2" in gap.json()["error"]) == (409, True)
    assert (await put(client, upload, 2, LAST)).status_code == 200
    assert (await put(client, upload, 1, PART)).status_code == 200, "an old one still"
    wrong = await client.post(f"/uploads/{upload}/items/p1/complete", json={"parts": 3})
    assert wrong.status_code in (400, 409, 422), wrong.text
    for _ in range(2):
        done = await client.post(f"/uploads/{upload}/items/p1/complete", json={"parts": 2})
        assert done.status_code == 200, done.text


async def test_what_is_wrong_with_a_part_is_named_and_leaves_the_upload_as_it_was(server, client):
    upload = await begin(client)
    for headers, status, says in (
        ({"X-Checksum-SHA256": None}, 400, "X-Checksum-SHA256 is needed"),
        ({"X-Checksum-SHA256": "abc"}, 400, "64 hexadecimal digits"),
        ({"X-Checksum-SHA256": "0" * 64}, 422, sha256(PART)),
    ):
        answer = await put(client, upload, 1, PART, headers=headers)
        assert (answer.status_code, says in answer.json()["error"]) == (status, True), answer.text
    for options, status in (({"item": ".hidden"}, 400), ({"item": "manifest"}, 400), ({"item": "a%2fb"}, 404),
                            ({"kind": "x" * 65}, 422)):  # fmt: skip
        assert (await put(client, upload, 1, PART, **options)).status_code == status, options
    for number in (0, -1, 2**40):
        assert (await put(client, upload, number, PART)).status_code == 422
    head = {"Content-Length": str(70 << 20), "X-Checksum-SHA256": "0" * 64}
    large = client.build_request("PUT", f"/uploads/{upload}/items/p1/parts/1", content=b"", headers=head)
    assert large.headers["Content-Length"] == str(70 << 20)
    told = (await client.get(f"/uploads/{upload}")).json()["items"]
    assert told.get("p1", {"received_bytes": 0})["received_bytes"] == 0
    assert (await put(client, upload, 1, PART)).status_code == 200


async def test_a_part_that_is_too_large_is_refused_before_and_while_it_comes(server, client):
    upload = await begin(client)

    async def endless():
        for _ in range(66):
            yield bytes(1 << 20)

    path, digest = f"/uploads/{upload}/items/p1/parts/1", {"X-Checksum-SHA256": "0" * 64}
    chunked = await client.put(path, content=endless(), headers=digest)
    assert (chunked.status_code, "at most" in chunked.json()["error"]) == (413, True)
    host, port = server.url.split("/")[2].split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(
        f"PUT /api/v1{path} HTTP/1.1\r\nHost: x\r\nAuthorization: {ADMIN['Authorization']}\r\n"
        f"Content-Length: {70 << 20}\r\nX-Checksum-SHA256: {'0' * 64}\r\n\r\n".encode()
    )
    assert (await reader.readline()).split()[1] == b"413"
    writer.close()
    await writer.wait_closed()
    assert (await put(client, upload, 1, PART)).status_code == 200


async def test_a_commit_that_does_not_fit_changes_nothing(server, client):
    upload = await begin(client)
    await put(client, upload, 1, PART)
    await put(client, upload, 1, LAST, item="p2")
    good = manifest(("p1", "file", (PART,)), ("p2", "file", (LAST,)))
    assert (await commit(client, upload, good)).status_code in (409, 422), "no item is complete"
    for item in ("p1", "p2"):
        assert (await client.post(f"/uploads/{upload}/items/{item}/complete", json={"parts": 1})).status_code == 200
    for text, says in (
        (manifest(("p1", "file", (LAST,)), ("p2", "file", (LAST,))), "p1"),
        (manifest(("p1", "file", (PART,))), "p2"),
        (manifest(("p1", "file", (PART,)), ("p2", "file", (LAST,)), ("p3", "file", (LAST,))), "p3"),
        ("nonsense", ""),
        ("", ""),
    ):
        answer = await commit(client, upload, text)
        assert answer.status_code in (400, 422), answer.text
        assert says in answer.json()["error"]
    assert (await client.get("/images/x")).status_code == 404
    assert (await commit(client, upload, "x" * 300_000)).status_code == 413
    assert (await commit(client, upload, good)).status_code == 201


async def test_an_upload_that_is_given_up_leaves_nothing_and_frees_the_name(server, client, tmp_path):
    upload = await begin(client)
    await put(client, upload, 1, PART)
    taken = await client.post("/images/x/uploads", json={})
    assert (taken.status_code, "uploaded" in taken.json()["error"]) == (409, True)
    assert (await client.delete(f"/uploads/{upload}")).status_code == 204
    for method, path in (("GET", ""), ("DELETE", ""), ("POST", "/commit"), ("POST", "/items/p1/complete")):
        body = {"json": {"parts": 1}} if path.endswith("complete") else {}
        assert (await client.request(method, f"/uploads/{upload}{path}", **body)).status_code == 410
    assert (await put(client, upload, 1, PART)).status_code == 410
    assert files_below(tmp_path) == []
    assert await begin(client) != upload


async def test_refusals_come_before_the_bytes(server, client, tmp_path):
    for name, body, status in (
        ("a.b", {}, 400), ("x", {"store": "none"}, 404), ("x", {"overwrite": True}, 403), ("x", {"bytes": -1}, 422),
        ("x", {"colour": 1}, 422), ("x", {"bytes": 2**62}, 507),
    ):  # fmt: skip
        answer = await client.post(f"/images/{name}/uploads", json=body)
        assert answer.status_code == status, (body, answer.text)
    assert [line.type for line in server.requests] == ["upload"] * 6
    assert {line.result for line in server.requests} == {"failed", "denied"}
    assert files_below(tmp_path) == []


async def test_administrators_alone_upload_and_devices_uploads_are_theirs(server, client):
    upload = await begin(client)
    for role in ("viewer", "operator"):
        async with httpx.AsyncClient(timeout=60, headers=bearer_of(role), base_url=server.api) as other:
            assert (await other.get("/uploads")).status_code == 200
            assert (await other.post("/images/y/uploads", json={})).status_code == 403
            assert (await put(other, upload, 1, PART)).status_code == 403
            assert (await commit(other, upload, "")).status_code == 403
            assert (await other.delete(f"/uploads/{upload}")).status_code == 403
    async with httpx.AsyncClient(timeout=60, base_url=server.api) as nobody:
        assert (await nobody.get("/uploads")).status_code == 401
        assert (await put(nobody, upload, 1, PART)).status_code == 401
    session = server.store.open_session("captured", owner="job:17")
    for answer in (await put(client, session.number, 1, PART), await client.delete(f"/uploads/{session.number}"),
                   await commit(client, session.number, "")):  # fmt: skip
        assert (answer.status_code, "job 17" in answer.json()["error"]) == (409, True)
    assert {each["owner"] for each in (await client.get("/uploads")).json()["uploads"]} >= {"job:17"}


async def test_a_connection_that_breaks_in_a_part_leaves_the_parts_before_it(server, client):
    upload = await begin(client)
    await put(client, upload, 1, PART)
    host, port = server.url.split("/")[2].split(":")
    _, writer = await asyncio.open_connection(host, int(port))
    writer.write(
        f"PUT /api/v1/uploads/{upload}/items/p1/parts/2?kind=file HTTP/1.1\r\nHost: x\r\n"
        f"Authorization: {ADMIN['Authorization']}\r\nContent-Length: {len(LAST)}\r\n"
        f"X-Checksum-SHA256: {sha256(LAST)}\r\n\r\n".encode()
        + LAST[:50_000]
    )
    await writer.drain()
    writer.close()
    await writer.wait_closed()
    told = (await client.get(f"/uploads/{upload}")).json()["items"]["p1"]
    assert (told["next_part"], told["received_bytes"]) == (2, len(PART))
    assert (await put(client, upload, 2, LAST)).status_code == 200
    await client.post(f"/uploads/{upload}/items/p1/complete", json={"parts": 2})
    assert (await commit(client, upload, manifest(("p1", "file", (PART, LAST))))).status_code == 201
    assert (await client.get("/images/x/items/p1")).content == PART + LAST


async def test_stores_have_limits_of_their_own(tmp_path):
    places = (
        StorePlace("main", tmp_path / "main"), StorePlace("small", tmp_path / "small", quota=8 << 20),
        StorePlace("closed", tmp_path / "closed"),
    )  # fmt: skip
    open_ones = (tmp_path / "main", tmp_path / "small")
    async with (
        serving(tmp_path, places=places, upload_directories=open_ones) as server,
        httpx.AsyncClient(timeout=60, headers=ADMIN, base_url=server.api) as client,
    ):
        announced = await client.post("/images/x/uploads", json={"store": "small", "bytes": 9 << 20})
        assert (announced.status_code, "quota" in announced.json()["error"]) == (507, True), announced.text
        closed = await client.post("/images/x/uploads", json={"store": "closed"})
        assert (closed.status_code, "UploadDirectories" in closed.json()["error"]) == (403, True), closed.text
        large = random.Random(8).randbytes(3 << 20)
        upload = await begin(client, store="small")
        assert (await put(client, upload, 1, large)).status_code == 200
        full = await put(client, upload, 2, large[::-1])
        assert (full.status_code, "quota" in full.text) == (507, True), full.text
        assert (await client.get(f"/uploads/{upload}")).json()["items"]["p1"]["next_part"] == 2
        assert (await put(client, upload, 2, LAST)).status_code == 200, "what fits still goes in"
        await client.post(f"/uploads/{upload}/items/p1/complete", json={"parts": 2})
        made = await commit(client, upload, manifest(("p1", "file", (large, LAST))))
        assert (made.status_code, made.json()["store"]) == (201, "small")
        assert [image["name"] for image in (await client.get("/images?store=small")).json()["images"]] == ["x"]
        assert (await client.get("/images?store=main")).json() == {"images": []}
        used = {store["name"]: store["used_bytes"] for store in (await client.get("/stores")).json()["stores"]}
        assert used["small"] >= len(large + LAST) > used["main"]


BODIES = st.one_of(
    st.binary(max_size=400),
    st.binary(max_size=400).map(lambda data: b"partclone-image" + data),
    st.binary(max_size=400).map(lambda data: zstandard.compress(b"partclone-image\x00" + b"0002" + data)),
    st.binary(max_size=400).map(lambda data: zstandard.compress(data)[:-3]),
)
KINDS = st.sampled_from(("partclone.ext4", "partclone.ntfs", "raw", "file", "swap", "sfdisk", "boot", "", "nonsense"))


async def test_any_bytes_are_a_part_or_a_clear_refusal(server, client):
    upload = await begin(client)
    loop, seen = asyncio.get_running_loop(), set()

    async def one(part: bytes, kind: str, number: int, name: str) -> None:
        answer = await put(client, upload, number, part, kind=kind, item=name)
        assert answer.status_code in (200, 400, 409, 422), answer.text
        seen.add(answer.status_code)
        if answer.status_code != 200:
            assert answer.json()["error"]
            return
        done = await client.post(f"/uploads/{upload}/items/{name}/complete", json={"parts": number})
        assert done.status_code in (200, 400, 409, 422), done.text

    @given(BODIES, KINDS, st.integers(1, 2), st.sampled_from([f"i{number}" for number in range(40)]))
    @settings(max_examples=80, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    def ask(part: bytes, kind: str, number: int, name: str) -> None:
        asyncio.run_coroutine_threadsafe(one(part, kind, number, name), loop).result(60)

    await asyncio.to_thread(ask)
    assert 200 in seen


async def test_a_server_that_is_killed_goes_on_with_the_upload_at_the_part(tmp_path):
    """kill -9 in the middle of a part, a new process, and not a byte of the earlier parts again."""
    root = tmp_path / "images"
    process, url = await start(root)
    async with httpx.AsyncClient(timeout=60, headers=ADMIN, base_url=url) as client:
        upload = await begin(client)
        assert (await put(client, upload, 1, PART, item="p1")).status_code == 200

        sent = asyncio.Event()

        async def slow():
            for _ in range(320):  # 20 MiB: no socket holds so much, so the server is at it
                yield b"x" * 65536
            sent.set()
            await asyncio.Event().wait()

        async def half() -> None:
            with pytest.raises(httpx.TransportError):
                await client.put(
                    f"/uploads/{upload}/items/p1/parts/2?kind=file", content=slow(),
                    headers={"X-Checksum-SHA256": "0" * 64}, timeout=60,
                )  # fmt: skip

        async with asyncio.TaskGroup() as group:
            broken = group.create_task(half())
            async with asyncio.timeout(60):
                await sent.wait()
            process.send_signal(signal.SIGKILL)
            await process.wait()
            broken.cancel()
    process, url = await start(root)
    try:
        async with httpx.AsyncClient(timeout=60, headers=ADMIN, base_url=url) as client:
            told = (await client.get(f"/uploads/{upload}")).raise_for_status().json()
            assert told["items"]["p1"]["next_part"] == 2
            assert (await client.get("/images")).json() == {"images": []}
            assert (await put(client, upload, 1, PART)).status_code == 200, "sent again, as its answer may be lost"
            assert (await put(client, upload, 2, LAST)).status_code == 200
            await client.post(f"/uploads/{upload}/items/p1/complete", json={"parts": 2})
            assert (await commit(client, upload, manifest(("p1", "file", (PART, LAST))))).status_code == 201
            assert (await client.get("/images/x/items/p1")).content == PART + LAST
            assert os.listdir(root / ".incoming") == []
    finally:
        process.send_signal(signal.SIGKILL)
        await process.wait()


async def start(root: Path) -> tuple[asyncio.subprocess.Process, str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.imaging.image_server", str(root),
        cwd=Path(__file__).parents[2], stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    return process, (await process.stdout.readline()).decode().strip().removesuffix("/images")
