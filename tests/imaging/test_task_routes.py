"""Scrub and convert as tasks over real HTTP: begun, watched, cancelled; what is damaged is named and not served."""

from __future__ import annotations

import asyncio

import httpx
import pytest

from tests.imaging.image_server import ADMIN, bearer_of, serving, sha256

BODY = b"0123456789" * 50_000


@pytest.fixture
async def server(tmp_path):
    async with serving(tmp_path / "images", allow_overwrite=True) as server:
        yield server


@pytest.fixture
async def client(server):
    async with httpx.AsyncClient(headers=ADMIN, base_url=server.api, timeout=60) as client:
        yield client


async def stored(client: httpx.AsyncClient, name: str, *bodies: bytes) -> None:
    for body in bodies:
        answer = await client.put(f"/images/{name}", content=body, params={"overwrite": "1"})
        assert answer.status_code == 201, answer.text


async def ended(client: httpx.AsyncClient, begun: httpx.Response) -> dict:
    assert begun.status_code == 202, begun.text
    place = begun.headers["Location"].removeprefix("/api/v1")
    async with asyncio.timeout(60):
        while True:
            task = (await client.get(place)).raise_for_status().json()
            if task["state"] != "running":
                return task
            await asyncio.sleep(0.02)


async def test_a_clean_store_is_verified_and_says_when(server, client):
    await stored(client, "x", b"one", BODY)
    task = await ended(client, await client.post("/stores/main/scrub", json={"rate_mb": 0, "deep": True}))
    assert (task["state"], task["result"]) == ("done", "2 versions verified, none damaged")
    assert task["done"] == task["total"] == len(BODY) + 3
    assert (task["kind"], task["what"], task["finished"] > task["started"]) == ("scrub", "store main", True)
    assert (await client.get("/tasks")).json() == {"tasks": [task]}
    history = (await client.get("/images/x")).json()["history"]
    assert all(version["verified"] for version in history)
    assert server.figures == (2, 0, 2), "no request of imaging"


async def test_a_damaged_byte_is_named_and_an_older_version_is_served(server, client, tmp_path):
    await stored(client, "x", b"one", BODY)
    path = tmp_path / "images/x/2/file"
    path.write_bytes(BODY[:-1] + b"?")
    task = await ended(client, await client.post("/images/x/scrub", json={"rate_mb": 0, "version": 2}))
    assert task["result"] == "1 version verified, 1 damaged and not served"
    image = (await client.get("/images/x")).json()
    assert (image["served"], image["history"][1]["damage"] != "") == (1, True)
    assert image["history"][1]["verified"] is None
    assert (await client.get("/images/x/items/file")).content == b"one"
    ((event, line),) = [each for each in server.events.lines if each[0] == "image damaged"]
    assert event
    assert "image x version 2 item file" in line["damage"]
    path.write_bytes(BODY)
    assert (await ended(client, await client.post("/images/x/scrub", json={"rate_mb": 0})))["state"] == "done"
    assert sha256((await client.get("/images/x/items/file")).content) == sha256(BODY)


async def test_a_task_is_cancelled_and_leaves_what_it_did(server, client):
    await stored(client, "x", BODY * 8)
    begun = await client.post("/stores/main/scrub", json={"rate_mb": 1})
    number = begun.json()["task"]
    assert (await client.post(f"/tasks/{number}/cancel")).status_code == 200
    task = await ended(client, begun)
    assert (task["state"], task["result"]) == ("cancelled", "cancelled")
    assert (await client.post(f"/tasks/{number}/cancel")).json() == task, "it has ended already"


async def test_what_cannot_be_done_is_refused_at_once_or_ends_the_task_with_its_reason(server, client):
    await stored(client, "x", BODY)
    for path, body, status in (
        ("/stores/none/scrub", {}, 404), ("/images/none/scrub", {}, 404), ("/images/x/scrub", {"version": 9}, 404),
        ("/stores/main/scrub", {"rate_mb": -1}, 422), ("/stores/main/scrub", {"speed": 1}, 422),
        ("/images/none/convert", {}, 404), ("/tasks/77/cancel", None, 404),
    ):  # fmt: skip
        answer = await client.post(path, json=body)
        assert (answer.status_code, bool(answer.json()["error"])) == (status, True), answer.text
    task = await ended(client, await client.post("/images/x/convert", json={}))
    assert (task["kind"], task["state"]) == ("convert", "failed")
    assert "image x version 1" in task["result"]
    assert (await client.get("/images/x")).json()["versions"] == [1]


async def test_viewers_look_at_tasks_and_administrators_order_them(server, client):
    await stored(client, "x", b"one")
    async with httpx.AsyncClient(timeout=60, headers=bearer_of("operator"), base_url=server.api) as operator:
        assert (await operator.get("/tasks")).status_code == 200
        for path in ("/stores/main/scrub", "/images/x/scrub", "/images/x/convert", "/tasks/1/cancel"):
            assert (await operator.post(path, json={})).status_code == 403
    async with httpx.AsyncClient(timeout=60, base_url=server.api) as nobody:
        assert (await nobody.get("/tasks")).status_code == 401
        assert (await nobody.post("/stores/main/scrub", content=b"{")).status_code == 401
