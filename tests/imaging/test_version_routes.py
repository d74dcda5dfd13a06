"""What is said of images, which versions are served, and the two steps of their removal, over real HTTP."""

from __future__ import annotations

from json import dumps

import httpx
import pytest

from pbserv.imaging.slot import BackendSlot
from pbserv.imaging.store import Store
from tests.imaging.image_server import ADMIN, Running, bearer_of, serving, sha256
from tests.imaging.test_scrub import native


@pytest.fixture
async def server(tmp_path):
    async with serving(tmp_path / "images", allow_overwrite=True) as server:
        yield server


@pytest.fixture
async def client(server: Running):
    async with httpx.AsyncClient(timeout=60, headers=ADMIN, base_url=server.api) as client:
        yield client


async def stored(client: httpx.AsyncClient, name: str, *bodies: bytes) -> None:
    for body in bodies:
        answer = await client.put(f"/images/{name}", content=body, params={"overwrite": "1"})
        assert answer.status_code == 201, answer.text


async def told(client: httpx.AsyncClient, name: str) -> dict:
    return (await client.get(f"/images/{name}")).raise_for_status().json()


async def test_an_image_is_registered_before_it_has_bytes(server, client):
    made = await client.post(
        "/images", json={"name": "room1", "title": "Room 1", "kind": "disk", "comment": "two\nlines"}
    )
    assert made.status_code == 201
    image = made.json()
    assert (image["state"], image["kind"], image["title"], image["store"]) == ("registered", "disk", "Room 1", "main")
    assert (image["version"], image["served"], image["versions"], image["items"], image["disk"]) == (
        None, None, [], [], None,
    )  # fmt: skip
    assert image["creator"].startswith("token:")
    again = await client.post("/images", json={"name": "room1"})
    assert (again.status_code, "exists" in again.json()["error"]) == (409, True)
    assert (await client.get("/images/room1/items/file")).status_code == 404
    assert server.figures == (3, 0, 0)
    assert [(line.type, line.result) for line in server.requests] == [
        ("register", "ok"), ("register", "denied"), ("download", "failed"),
    ]  # fmt: skip
    assert server.requests[0].detail == "image room1"
    assert (await client.put("/images/room1", content=b"x")).status_code == 201, "its first version is no overwriting"
    assert (await told(client, "room1"))["title"] == "Room 1"


@pytest.mark.parametrize(
    ("body", "status", "says"),
    [
        ({"name": "a.b"}, 400, "a-b"),
        ({"name": "../x"}, 400, "cannot be the name"),
        ({"name": ""}, 422, "name"),
        ({}, 422, "name"),
        ({"name": "x", "kind": "tape"}, 422, "kind"),
        ({"name": "x", "keep": -1}, 422, "keep"),
        ({"name": "x", "title": "a\nb"}, 400, "title"),
        ({"name": "x", "title": "\ud800"}, None, ""),
        ({"name": "x", "store": "none"}, 404, "no image store"),
        ({"name": "x", "colour": "red"}, 422, "colour"),
    ],
)
async def test_refused_registrations_are_counted_too(server, client, body, status, says):
    json = {"Content-Type": "application/json"}
    answer = await client.post("/images", content=dumps(body), headers=json)  # half a surrogate pair stays an escape
    assert answer.status_code in (status,) if status else (400, 422)
    assert says in answer.text
    assert [line.result for line in server.requests] == ["failed"]
    assert (await client.get("/images")).json() == {"images": []}


async def test_who_has_no_token_does_not_learn_what_is_wrong_with_the_request(server):
    async with httpx.AsyncClient(timeout=60, base_url=server.api) as nobody:
        for method, path, content in (
            ("POST", "/images", b"{"),
            ("PATCH", "/images/x", b"[]"),
            ("POST", "/images/x/rollback", b"\xff"),
            ("POST", "/images/x/versions/nonsense/enable", b""),
        ):
            answer = await nobody.request(method, path, content=content, headers={"Content-Type": "application/json"})
            assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
    assert [(line.type, line.result) for line in server.requests] == [
        ("register", "denied"), ("change", "denied"), ("rollback", "denied"), ("enable", "denied"),
    ]  # fmt: skip


async def test_lists_are_filtered_and_come_in_pages(server, client):
    for name in ("e", "b", "d"):
        await stored(client, name, b"x")
    for name, kind in (("a", "disk"), ("c", "boot")):
        assert (await client.post("/images", json={"name": name, "kind": kind})).status_code == 201
    assert (await client.post("/images/d/versions/1/disable")).status_code == 200

    async def names(**query: str | int) -> list[str]:
        return [
            image["name"] for image in (await client.get("/images", params=query)).raise_for_status().json()["images"]
        ]

    assert await names() == ["a", "b", "c", "d", "e"]
    assert await names(state="registered") == ["a", "c"]
    assert await names(state="enabled") == ["b", "e"]
    assert await names(state="disabled") == ["d"]
    assert await names(kind="disk") == ["a"]
    assert await names(store="main", kind="file", after="b") == ["d", "e"]
    assert (await client.get("/images", params={"store": "other"})).status_code == 404
    assert (await client.get("/images", params={"state": "broken"})).status_code == 422
    page = await client.get("/images", params={"limit": 2})
    assert page.headers["X-Next-Cursor"] == "b"
    rest = await client.get(httpx.URL(server.api).join(page.links["next"]["url"]))
    assert [image["name"] for image in rest.json()["images"]] == ["c", "d"]
    last = await client.get(httpx.URL(server.api).join(rest.links["next"]["url"]))
    assert [image["name"] for image in last.json()["images"]] == ["e"]
    assert "next" not in last.links


async def test_a_change_never_falls_on_another_state_than_it_was_made_for(server, client):
    await stored(client, "x", b"one")
    first = await client.get("/images/x")
    assert (await client.get("/images/x", headers={"If-None-Match": first.headers["etag"]})).status_code == 304
    same = {"If-Match": first.headers["etag"]}
    changed = await client.patch("/images/x", json={"title": "X", "profile": "Debian 12", "keep": 2}, headers=same)
    assert (changed.status_code, changed.json()["title"], changed.json()["keep"]) == (200, "X", 2)
    assert changed.headers["etag"] == (await client.get("/images/x")).headers["etag"] != first.headers["etag"]
    stale = await client.patch("/images/x", json={"title": "Y"}, headers=same)
    assert (stale.status_code, "fetch it" in stale.json()["error"]) == (412, True)
    image = await told(client, "x")
    assert (image["title"], image["profile"], image["keep"]) == ("X", "Debian 12", 2)
    assert (await client.patch("/images/x", json={"keep": -1, "comment": "c"})).json()["keep"] is None
    assert (await client.patch("/images/none", json={})).status_code == 404
    assert (await client.patch("/images/x", json={"name": "y"})).status_code == 422
    assert [line.result for line in server.requests] == ["ok", "ok", "failed", "ok", "failed", "failed"]


async def test_states_say_which_version_is_served(server, client):
    await stored(client, "x", b"one", b"two", b"three")
    get = lambda **query: client.get("/images/x/items/file", params=query)  # noqa: E731
    assert (await get()).content == b"three"
    disabled = await client.post("/images/x/versions/3/disable")
    assert (disabled.status_code, disabled.json()["served"], disabled.json()["states"]["3"]) == (200, 2, "disabled")
    assert (await get()).content == b"two"
    assert (await get(version=3)).content == b"three", "an operator may have any version that is there"
    assert (await get(version=9)).status_code == 404
    assert (await get(version=0)).status_code == 422
    assert (await client.post("/images/x/versions/3/enable")).json()["served"] == 3
    assert (await client.post("/images/x/versions/3/retire")).json()["served"] == 2
    refused = await client.post("/images/x/versions/3/enable")
    assert (refused.status_code, "retired" in refused.json()["error"]) == (409, True)
    assert (await client.post("/images/x/versions/3/restore")).json()["states"]["3"] == "disabled"
    wrong = await client.post("/images/x/versions/2/restore")
    assert (wrong.status_code, "only a retired one" in wrong.json()["error"]) == (409, True)
    assert (await client.post("/images/x/versions/7/enable")).status_code == 404
    history = (await told(client, "x"))["history"]
    assert [(each["number"], each["state"], each["stored_bytes"]) for each in history] == [
        (1, "enabled", 3), (2, "enabled", 3), (3, "disabled", 5),
    ]  # fmt: skip
    assert history[2]["by"].startswith("token:")


async def test_roll_back_is_one_request(server, client):
    await stored(client, "x", b"one", b"two", b"three")
    back = await client.post("/images/x/rollback", json={})
    assert (back.status_code, back.json()["served"]) == (200, 2)
    assert (await client.post("/images/x/rollback", json={"to": 1})).json()["states"] == {
        "1": "enabled", "2": "disabled", "3": "disabled",
    }  # fmt: skip
    nowhere = await client.post("/images/x/rollback", json={})
    assert (nowhere.status_code, "name the version to serve" in nowhere.json()["error"]) == (409, True)
    assert (await client.post("/images/x/rollback", json={"to": 3})).json()["served"] == 3
    assert (await client.post("/images/x/rollback", json={"to": 12})).status_code in (404, 409)
    assert [(line.type, line.result) for line in server.requests if line.type == "rollback"] == [
        ("rollback", "ok"), ("rollback", "ok"), ("rollback", "denied"), ("rollback", "ok"),
        ("rollback", server.requests[-1].result),
    ]  # fmt: skip
    assert server.requests[3].detail == "version 2 is served"


async def test_one_version_with_its_items(server, client):
    await stored(client, "x", b"one", b"three")
    version = (await client.get("/images/x/versions/2")).raise_for_status().json()
    assert (version["image"], version["number"], version["state"], version["disk"]["table"]) == (
        "x", 2, "enabled", "none",
    )  # fmt: skip
    assert len(version["manifest_sha256"]) == 64
    (item,) = version["contents"]
    assert (item["name"], item["sha256"], item["stored_bytes"], item["frames"]) == ("file", sha256(b"three"), 5, None)
    assert (await client.get("/images/x/versions/3")).status_code == 404
    assert (await client.get("/images/none/versions/1")).status_code == 404
    assert (await client.get("/images/x/versions/1000000000000")).status_code == 422


async def test_figures_of_frames_need_the_head_of_the_index_alone(server, client, tmp_path):
    await native(server.store, "x")
    [item] = (await client.get("/images/x/versions/1")).json()["contents"]
    assert item["frames"]["frames"] > 1
    index = tmp_path / "images/x/1/p1.pbx"
    data = index.read_bytes()
    index.write_bytes(data[:160] + bytes(len(data) - 160))  # none of its records is right
    assert (await client.get("/images/x/versions/1")).json()["contents"] == [item]
    index.write_bytes(b"")
    assert "the index ends here" in (await client.get("/images/x/versions/1")).json()["error"]


async def test_removal_takes_two_steps_and_names_who_needs_the_image(server, client, tmp_path):
    await stored(client, "x", b"one", b"two")
    first = await client.delete("/images/x")
    assert (first.status_code, "retire" in first.json()["error"]) == (409, True)
    assert (await client.delete("/images/x", params={"version": 1})).status_code == 409
    await client.post("/images/x/versions/1/retire")
    users: list[str] = ["job 17 of 52:54:00:00:00:01"]

    async def who(_image: str, _version: int | None) -> list[str]:
        return users

    server.store.users = who
    held = await client.delete("/images/x", params={"version": 1})
    assert (held.status_code, "job 17 of 52:54:00:00:00:01" in held.json()["error"]) == (409, True)
    last = await client.post("/images/x/versions/2/retire")
    assert (last.status_code, "in use" in last.json()["error"]) == (409, True), "it is the one that is served"
    users.clear()
    assert (await client.delete("/images/x", params={"version": 1})).status_code == 204
    assert (await told(client, "x"))["versions"] == [2]
    assert (await client.post("/images/x/versions/2/retire")).status_code == 200
    assert (await client.delete("/images/x")).status_code == 204
    assert (await client.delete("/images/x")).status_code == 404
    assert not (tmp_path / "images/x").exists()
    assert [line.result for line in server.requests if line.type == "purge"] == [
        "denied", "denied", "denied", "ok", "ok", "failed",
    ]  # fmt: skip


async def test_a_version_has_a_comment(server, client):
    await stored(client, "x", b"one")
    said = {"comment": "before the update"}
    answer = await client.patch("/images/x/versions/1", json=said)
    assert (answer.status_code, answer.json()["history"][0]["comment"]) == (200, "before the update")
    assert (await client.get("/images/x/versions/1")).json()["comment"] == "before the update"
    assert (await told(client, "x"))["comment"] == ""
    assert (await told(client, "x"))["states"] == {"1": "enabled"}
    for path, body, status in (
        ("/images/x/versions/2", said, 404),
        ("/images/y/versions/1", said, 404),
        ("/images/x/versions/1", {"comment": "two\nlines"}, 400),
        ("/images/x/versions/1", {"comment": "x" * 300}, 422),
        ("/images/x/versions/1", {}, 422),
        ("/images/x/versions/1", {"state": "retired", **said}, 422),
    ):
        assert (await client.patch(path, json=body)).status_code == status, body
    assert (await client.patch("/images/x/versions/1", json={"comment": ""})).json()["history"][0]["comment"] == ""
    assert [line.type for line in server.requests if line.result == "ok"].count("remark") == 2


async def test_operators_look_and_fetch_but_change_nothing(server, client):
    await stored(client, "x", b"one")
    async with httpx.AsyncClient(timeout=60, headers=bearer_of("operator"), base_url=server.api) as operator:
        assert (await operator.get("/images/x/versions/1")).status_code == 200
        for method, path in (
            ("POST", "/images"),
            ("PATCH", "/images/x"),
            ("PATCH", "/images/x/versions/1"),
            ("POST", "/images/x/versions/1/retire"),
            ("POST", "/images/x/rollback"),
        ):
            assert (await operator.request(method, path, json={"name": "y"})).status_code == 403
    assert (await told(client, "x"))["state"] == "enabled"


async def test_the_stores(server, client):
    await stored(client, "x", b"12345")
    (store,) = (await client.get("/stores")).raise_for_status().json()["stores"]
    assert (store["name"], store["images"], store["versions"], store["damaged"]) == ("main", 1, 1, 0)
    assert store["used_bytes"] >= 5
    one = (await client.get("/stores/main")).raise_for_status().json()
    assert one["damages"] == []
    assert (await client.get("/stores/other")).status_code == 404


class Plain:
    """A backend of somebody's own, with nothing but what every backend has."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def __getattr__(self, name: str) -> object:
        if name not in ("start", "close", "list", "versions", "info", "open", "begin", "delete", "allow_overwrite"):
            raise AttributeError(name)
        return getattr(self._store, name)


async def test_a_backend_without_states_is_served_as_it_is(tmp_path):
    slot = BackendSlot()
    await slot.put(Plain(Store(tmp_path / "images", free_floor_bytes=0)))
    async with (
        serving(tmp_path / "unused", backend=slot) as server,
        httpx.AsyncClient(timeout=60, headers=ADMIN, base_url=server.api) as client,
    ):
        assert (await client.put("/images/x", content=b"abc")).status_code == 201
        (image,) = (await client.get("/images")).json()["images"]
        assert (image["name"], image["state"], image["served"], image["store"]) == ("x", "enabled", 1, "")
        assert (await told(client, "x"))["history"][0]["state"] == "enabled"
        refused = await client.post("/images/x/versions/1/retire")
        assert (refused.status_code, "LIBRARY_NAME" in refused.json()["error"]) == (501, True)
        assert (await client.delete("/images/x", params={"version": 1})).status_code == 501
        assert (await client.delete("/images/x")).status_code == 204
        assert (await client.get("/images/x")).status_code == 404
    await slot.close()
