"""The index of an item over real HTTP: the bytes of the file, ranges, conditions, who may have it."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from pbserv.imaging.frames.delta import missing
from pbserv.imaging.frames.index import decode
from tests.imaging.image_server import ADMIN, Running, bearer_of, serving
from tests.imaging.test_scrub import native
from tests.imaging.test_sessions import CHANGED


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Running]:
    async with serving(tmp_path / "images", allow_overwrite=True) as server:
        yield server


@pytest.fixture
async def client(server: Running) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(headers=ADMIN, base_url=server.api, timeout=60) as client:
        yield client


async def test_the_index_is_that_of_the_disk(server: Running, client: httpx.AsyncClient, tmp_path: Path) -> None:
    await native(server.store, "win")
    path = "/images/win/items/p1/index"
    stored = (tmp_path / "images/win/1/p1.pbx").read_bytes()
    whole = await client.get(path)
    assert (whole.status_code, whole.content) == (200, stored)
    assert whole.headers["Content-Type"] == "application/octet-stream"
    etag = whole.headers["ETag"]
    head = await client.head(path)
    assert (head.status_code, head.headers["Content-Length"], head.content) == (200, str(len(stored)), b"")
    part = await client.get(path, headers={"Range": "bytes=160-247", "If-Range": etag})
    assert (part.status_code, part.content) == (206, stored[160:248])
    assert part.headers["Content-Range"] == f"bytes 160-247/{len(stored)}"
    assert (await client.get(path, headers={"If-None-Match": etag})).status_code == 304
    assert (await client.get(path, headers={"Range": f"bytes={len(stored)}-"})).status_code == 416
    await native(server.store, "win", CHANGED)
    newer = await client.get(path)
    assert newer.headers["ETag"] != etag
    assert (await client.get(path, params={"version": 1})).content == stored


async def test_who_has_a_version_fetches_only_what_the_next_one_has_new(
    server: Running, client: httpx.AsyncClient
) -> None:
    await native(server.store, "win")
    await native(server.store, "win", CHANGED)
    item = "/images/win/items/p1"
    have, wanted = [(await client.get(f"{item}/index", params={"version": number})).content for number in (1, 2)]
    base = (await client.get(item, params={"version": 1})).content
    recipe = missing(decode(wanted), decode(have))
    made = bytearray()
    at = 0
    for run in recipe.runs:
        if run.copied:
            made += base[run.offset : run.offset + run.size_bytes]
        else:
            assert run.offset == at
            wants = {"Range": f"bytes={run.offset}-{run.offset + run.size_bytes - 1}"}
            made += (await client.get(item, params={"version": 2}, headers=wants)).content
        at += run.size_bytes
    assert hashlib.sha256(made).digest() == recipe.target_sha256
    assert 0 < recipe.sent_bytes < recipe.target_bytes


async def test_what_there_is_not(server: Running, client: httpx.AsyncClient) -> None:
    await native(server.store, "win")
    await client.put("/images/small", content=b"x")
    for path in ("/images/none/items/p1/index", "/images/win/items/p2/index", "/images/small/items/file/index"):
        assert (await client.get(path)).status_code == 404, path
    for role, status in (("viewer", 403), ("operator", 200)):
        answer = await client.get("/images/win/items/p1/index", headers=bearer_of(role))
        assert answer.status_code == status, role
    async with httpx.AsyncClient(timeout=60, base_url=server.api) as nobody:
        assert (await nobody.get("/images/win/items/p1/index")).status_code == 401
