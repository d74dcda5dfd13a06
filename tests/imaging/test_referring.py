"""Two real servers: what belongs to the other one is fetched and stored there, with a ticket for this image alone."""

from __future__ import annotations

import time

import httpx
import pytest

from pbserv.errors import StartError
from pbserv.imaging.referral import Scope, sign
from pbserv.imaging.referring import Remotes, remotes_of
from pbserv.registry.tokens import digest
from tests.imaging.image_server import ADMIN, bearer_of, serving, sha256, until
from tests.imaging.test_scrub import native

BODY = b"0123456789" * 30_000


@pytest.fixture
async def branch(tmp_path):
    async with serving(tmp_path / "branch") as server:
        yield server


@pytest.fixture
async def server(tmp_path, branch):
    place = branch.api.removesuffix("/api/v1")
    async with serving(tmp_path / "images", remotes=Remotes({"main": place}, digest("the-site-token"))) as server:
        yield server


@pytest.fixture
async def client(server):
    async with httpx.AsyncClient(timeout=60, headers=ADMIN, base_url=server.api, follow_redirects=True) as client:
        yield client


async def test_bytes_are_fetched_from_the_server_that_has_them(server, branch, client):
    async with httpx.AsyncClient(timeout=60, headers=ADMIN, base_url=branch.api) as there:
        assert (await there.put("/images/room", content=BODY)).status_code == 201
    made = await client.post("/images", json={"name": "room", "owner": "main"})
    assert (made.status_code, made.json()["owner"]) == (201, "main")
    got = await client.get("/images/room/items/file")
    assert (got.status_code, got.content) == (200, BODY)
    assert "authorization" not in got.request.headers, "the ticket alone opens it there"
    assert got.url.host == "127.0.0.1"
    assert str(got.url).startswith(branch.api)
    rest = await client.get("/images/room/items/file", params={"version": 1}, headers={"Range": "bytes=10-"})
    assert (rest.status_code, rest.content) == (206, BODY[10:])
    version = (await client.get("/images/room/versions/0")).json()
    assert (version["number"], version["contents"][0]["sha256"]) == (1, sha256(BODY))
    assert [(line.type, line.result) for line in server.requests] == [("register", "ok"), ("download", "referred")]
    assert server.figures == (2, 0, 0), "referred requests count, their bytes do not"
    await until(lambda: branch.figures == (2, 1, 1))


async def test_so_is_the_index_of_an_item(server, branch, client):
    await native(branch.store, "win")
    await client.post("/images", json={"name": "win", "owner": "main"})
    async with httpx.AsyncClient(timeout=60, headers=ADMIN, base_url=branch.api) as there:
        index = await there.get("/images/win/items/p1/index")
    assert index.status_code == 200
    got = await client.get("/images/win/items/p1/index")
    assert (got.status_code, got.content) == (200, index.content)
    assert "authorization" not in got.request.headers
    got = await client.get("/images/win/items/p1/index", params={"version": 1}, headers={"Range": "bytes=160-"})
    assert (got.status_code, got.content) == (206, index.content[160:])
    async with httpx.AsyncClient(timeout=60, base_url=branch.api) as nobody:
        ticket = sign(Scope("get", "room"), digest("the-site-token"), int(time.time()) + 60)
        assert (await nobody.get("/images/win/items/p1/index", params={"ticket": ticket})).status_code == 401


async def test_uploads_go_to_the_server_that_owns_the_image(server, branch, client):
    await client.post("/images", json={"name": "room", "owner": "main", "title": "Class room"})
    whole = await client.put("/images/room", content=BODY)
    assert (whole.status_code, str(whole.url).startswith(branch.api)) == (201, True)
    assert whole.json()["title"] == "Class room", "it has none there"
    begun = await client.post("/images/lab/uploads", json={"store": "main"})
    assert begun.status_code == 201
    ticket, upload = begun.url.params["ticket"], begun.json()["upload"]
    async with httpx.AsyncClient(timeout=60, base_url=branch.api, params={"ticket": ticket}) as there:
        put = await there.put(
            f"/uploads/{upload}/items/p1/parts/1", content=BODY, headers={"X-Checksum-SHA256": sha256(BODY)}
        )
        assert put.status_code == 200, put.text
        assert (await there.get(f"/uploads/{upload}")).json()["items"]["p1"]["next_part"] == 2
        assert (await there.delete(f"/uploads/{upload}")).status_code == 204
    assert [(line.type, line.result) for line in server.requests[1:]] == [("upload", "referred")] * 2
    assert [image.name for image in branch.store.list()] == ["room"]
    assert server.store.list() == ()


async def test_who_may_not_have_it_here_gets_no_ticket(server, client):
    await client.post("/images", json={"name": "room", "owner": "main"})
    for role, method, path in (("viewer", "GET", "/images/room/items/file"), ("operator", "PUT", "/images/room")):
        async with httpx.AsyncClient(timeout=60, headers=bearer_of(role), base_url=server.api) as other:
            assert (await other.request(method, path)).status_code == 403
    async with httpx.AsyncClient(timeout=60, base_url=server.api) as nobody:
        assert (await nobody.get("/images/room/items/file")).status_code == 401


async def test_a_ticket_opens_one_image_and_nothing_else(branch):
    async with httpx.AsyncClient(timeout=60, headers=ADMIN, base_url=branch.api) as there:
        for name in ("room", "other"):
            await there.put(f"/images/{name}", content=BODY)
        upload = (await there.post("/images/third/uploads", json={})).json()["upload"]

    def ticket(what: str, version: int | None = None, token: str = "the-site-token", seconds: int = 60) -> str:
        return sign(Scope(what, "room", version), digest(token), int(time.time()) + seconds)

    async with httpx.AsyncClient(timeout=60, base_url=branch.api) as nobody:
        for method, path, what, good in (
            ("GET", "/images/room/items/file", "get", 200), ("HEAD", "/images/room/items/file", "get", 200),
            ("GET", "/images/room/versions/1", "get", 200), ("GET", "/images/other/items/file", "get", 401),
            ("GET", "/images/room", "get", 401), ("GET", "/images", "get", 401), ("DELETE", "/images/room", "put", 401),
            ("PATCH", "/images/room", "put", 401), ("POST", "/images/room/versions/1/retire", "put", 401),
            ("PUT", "/images/room", "get", 401), ("PUT", "/images/other", "put", 401),
            ("PUT", "/images/room", "put", 409),
            ("GET", f"/uploads/{upload}", "put", 401), ("DELETE", f"/uploads/{upload}", "put", 401),
            ("GET", "/uploads", "put", 401), ("GET", "/stores", "get", 401),
            ("GET", "/images/room/items/file", "put", 401),
        ):  # fmt: skip
            answer = await nobody.request(method, path, params={"ticket": ticket(what)})
            assert answer.status_code == good, (method, path, what, answer.text)
        place = "/images/room/items/file"
        for wrong in (ticket("get", token="another"), ticket("get", seconds=-1), ticket("get", version=2), "x", ""):
            assert (await nobody.get(place, params={"ticket": wrong})).status_code == 401
        exact = {"ticket": ticket("get", version=1), "version": "1"}
        assert (await nobody.get(place, params=exact)).status_code == 200


async def test_without_a_site_token_callers_bring_their_own(tmp_path, branch):
    place = branch.api.removesuffix("/api/v1")
    async with (
        serving(tmp_path / "images", remotes=Remotes({"main": place})) as server,
        httpx.AsyncClient(timeout=60, headers=ADMIN, base_url=server.api) as client,
    ):
        await client.post("/images", json={"name": "room", "owner": "main"})
        answer = await client.get("/images/room/items/file")
        assert (answer.status_code, answer.headers["location"]) == (
            307, f"{branch.api}/images/room/items/file",
        )  # fmt: skip
        assert place in answer.json()["error"]
        refused = await client.post("/images", json={"name": "x", "owner": "nowhere"})
        assert (refused.status_code, "RemoteStores" in refused.json()["error"]) == (404, True)
        assert (await client.patch("/images/room", json={"owner": ""})).json()["owner"] == ""
        assert (await client.get("/images/room/items/file")).status_code == 404


def test_the_file_of_the_site_token(tmp_path):
    path = tmp_path / "token"
    with pytest.raises(StartError, match="site"):
        remotes_of((), path)
    path.write_text("the-site-token\n")
    path.chmod(0o644)
    with pytest.raises(StartError, match="chmod o-r"):
        remotes_of((), path)
    path.chmod(0o640)
    assert remotes_of((), path).token_digest == digest("the-site-token")
    path.write_text("two words")
    with pytest.raises(StartError, match="one token"):
        remotes_of((), path)
