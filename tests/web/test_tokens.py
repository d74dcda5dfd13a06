"""Tokens over HTTP on a real registry: who may make them, what is kept, and what those without one learn."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from fastapi import APIRouter, FastAPI

from pbserv.httpapi import ApiError, faults, guarded
from pbserv.log import ServiceLog
from pbserv.registry.access import Access
from pbserv.registry.migrate import migrate
from pbserv.registry.records import Role
from pbserv.registry.registry import Registry
from pbserv.registry.tokens import WorkTokens, digest, new_token
from pbserv.web import token_routes
from pbserv.web.app import create_app

TOKENS = WorkTokens(b"s" * 32)


def things(access: Access) -> APIRouter:
    """Routes of each role over one thing that exists."""
    routes = APIRouter(prefix="/api/v1/things")
    for role in Role:
        part = APIRouter(prefix=f"/{role}", route_class=guarded(access, role), responses=faults(401, 403, 404))

        @part.get("/{name}")
        @part.put("/{name}")
        @part.delete("/{name}")
        async def thing(name: str) -> dict[str, str]:
            if name != "there":
                raise ApiError(404, f"no thing {name}")
            return {"name": name}

        routes.include_router(part)
    return routes


class Server:
    def __init__(self, place: Path) -> None:
        self.place = place
        self.registry = Registry.open(place)
        self.access = Access({}, TOKENS)
        self.admin = ""

    async def begin(self) -> None:
        self.admin = new_token()
        await self.registry.add_token("first", Role.ADMIN, digest(self.admin))
        self.access.put(digest(self.admin), Role.ADMIN)

    def app(self) -> FastAPI:
        log = ServiceLog("pbserv")
        routers = [("", token_routes.router(self.registry, self.access, log)), ("", things(self.access))]
        return create_app(routers, running=lambda name: True, log=log)

    def client(self, token: str | None) -> httpx.AsyncClient:
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        transport = httpx.ASGITransport(self.app(), raise_app_exceptions=False)
        return httpx.AsyncClient(timeout=60, transport=transport, base_url="http://pbserv", headers=headers)

    async def make(self, name: str, role: Role) -> str:
        async with self.client(self.admin) as admin:
            made = await admin.post("/api/v1/tokens", json={"name": name, "role": role})
            assert made.status_code == 201, made.text
            return str(made.json()["token"])


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    place = tmp_path / "registry.db"
    migrate(place)
    made = Server(place)
    await made.begin()
    yield made
    await made.registry.close()


async def test_a_token_is_told_once_and_only_its_digest_is_kept(server: Server) -> None:
    async with server.client(server.admin) as admin:
        made = (await admin.post("/api/v1/tokens", json={"name": "  helpdesk ", "role": "operator"})).json()
        assert set(made) == {"id", "name", "role", "created", "token"}
        assert (made["name"], made["role"]) == ("helpdesk", "operator")
        listed = (await admin.get("/api/v1/tokens")).json()
    assert [(each["name"], each["role"]) for each in listed] == [("first", "admin"), ("helpdesk", "operator")]
    assert all(set(each) == {"id", "name", "role", "created"} for each in listed)
    kept = "\n".join(sqlite3.connect(server.place).iterdump())
    assert digest(made["token"]) in kept
    assert made["token"] not in kept


async def test_roles_open_what_is_theirs(server: Server) -> None:
    opens = {
        Role.VIEWER: {Role.VIEWER},
        Role.OPERATOR: {Role.VIEWER, Role.OPERATOR},
        Role.ADMIN: set(Role),
        Role.SITE: {Role.SITE},
        Role.IMAGES: {Role.IMAGES},
    }
    for role, open_to_it in opens.items():
        async with server.client(await server.make(f"a {role}", role)) as client:
            for wanted in Role:
                for method in ("GET", "PUT", "DELETE"):
                    answer = await client.request(method, f"/api/v1/things/{wanted}/there")
                    assert answer.status_code == (200 if wanted in open_to_it else 403), (role, wanted, method)
            mine = await client.get("/api/v1/tokens")
            assert mine.status_code == (200 if role is Role.ADMIN else 403)
            more = await client.post("/api/v1/tokens", json={"name": f"more {role}", "role": "admin"})
            assert more.status_code == (201 if role is Role.ADMIN else 403)


async def test_a_revoked_token_fails_at_once(server: Server) -> None:
    token = await server.make("helpdesk", Role.VIEWER)
    async with server.client(server.admin) as admin, server.client(token) as helpdesk:
        assert (await helpdesk.get("/api/v1/things/viewer/there")).status_code == 200
        number = (await admin.get("/api/v1/tokens")).json()[-1]["id"]
        assert (await admin.delete(f"/api/v1/tokens/{number}")).status_code == 204
        refused = await helpdesk.get("/api/v1/things/viewer/there")
        assert (refused.status_code, refused.headers["www-authenticate"]) == (401, "Bearer")
        assert "not valid" in refused.json()["error"]
        assert (await admin.delete(f"/api/v1/tokens/{number}")).status_code == 404
        assert (await admin.delete("/api/v1/tokens/0")).status_code == 422


async def test_the_last_administrator_stays(server: Server) -> None:
    await server.make("helpdesk", Role.OPERATOR)
    async with server.client(server.admin) as admin:
        first = (await admin.get("/api/v1/tokens")).json()[0]["id"]
        refused = await admin.delete(f"/api/v1/tokens/{first}")
        assert refused.status_code == 409
        assert "last one of role admin" in refused.json()["error"]
        assert (await admin.get("/api/v1/tokens")).status_code == 200, "it still opens everything"
        second = await server.make("second", Role.ADMIN)
        assert (await admin.delete(f"/api/v1/tokens/{first}")).status_code == 204, "now it may revoke itself"
        assert (await admin.get("/api/v1/tokens")).status_code == 401
    async with server.client(second) as other:
        assert [each["name"] for each in (await other.get("/api/v1/tokens")).json()] == ["helpdesk", "second"]


@pytest.mark.parametrize(
    ("body", "status", "word"),
    [
        ({"name": "first", "role": "viewer"}, 409, "named 'first'"),
        ({"name": " ", "role": "viewer"}, 422, "name"),
        ({"name": "x" * 65, "role": "viewer"}, 422, "name"),
        ({"name": "a\nb", "role": "viewer"}, 422, "printable"),
        ({"name": "x", "role": "root"}, 422, "role"),
        ({"name": "x"}, 422, "role"),
        ({"name": "x", "role": "viewer", "token": "mine"}, 422, "token"),
        ([], 422, ""),
    ],
)
async def test_what_cannot_be_made_is_named(server: Server, body: object, status: int, word: str) -> None:
    async with server.client(server.admin) as admin:
        answer = await admin.post("/api/v1/tokens", json=body)
        assert answer.status_code == status
        assert word in answer.json()["error"]
        assert len((await admin.get("/api/v1/tokens")).json()) == 1


@pytest.mark.parametrize("token", [None, "wrong", "", "1." + "0" * 64, "é", "x" * 5000])
async def test_a_wrong_token_learns_nothing(server: Server, token: str | None) -> None:
    """The same 401 for what exists and what does not, whatever was sent along."""
    raw = [] if token is None else [(b"authorization", b"Bearer " + token.encode())]
    async with server.client(None) as nobody:
        for there, missing in (
            ("/api/v1/things/viewer/there", "/api/v1/things/viewer/missing"),
            ("/api/v1/things/admin/there", "/api/v1/things/admin/missing"),
            ("/api/v1/tokens/1", "/api/v1/tokens/999"),
        ):
            for method in ("GET", "PUT", "DELETE"):
                answers = []
                for path, content in ((there, b"{}"), (missing, b"{}"), (there, b"{"), (missing, b"")):
                    answer = await nobody.request(method, path, content=content, headers=raw)
                    answers.append((answer.status_code, answer.content, answer.headers.raw))
                assert all(each == answers[0] for each in answers), (method, there)
                routed = method == "DELETE" or "things" in there
                assert answers[0][0] == (401 if routed else 405)
        for body in (b'{"name": "first", "role": "viewer"}', b'{"name": "new", "role": "admin"}', b"{"):
            assert (await nobody.post("/api/v1/tokens", content=body, headers=raw)).status_code == 401


async def test_the_works_token_of_a_device_opens_nothing_here(server: Server) -> None:
    async with server.client(TOKENS.issue(1)) as device:
        for name in ("there", "missing"):
            assert (await device.get(f"/api/v1/things/viewer/{name}")).status_code == 403
        assert (await device.get("/api/v1/tokens")).status_code == 403


def test_the_faults_are_declared(tmp_path: Path) -> None:
    described = Server(tmp_path / "x.db").app().openapi()["paths"]
    assert set(described["/api/v1/tokens"]["post"]["responses"]) == {"201", "401", "403", "409", "413", "422"}
    assert set(described["/api/v1/tokens/{token_id}"]["delete"]["responses"]) == {
        "204",
        "401",
        "403",
        "404",
        "409",
        "422",
    }
    for path in ("/api/v1/tokens", "/api/v1/tokens/{token_id}"):
        for operation in described[path].values():
            assert operation["security"] == [{"HTTPBearer": []}]
            model = operation["responses"]["401"]["content"]["application/json"]["schema"]["$ref"]
            assert model.endswith("/ErrorBody")
