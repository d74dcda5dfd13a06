"""Who may do what, asked of the running server for every route that it describes itself."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.support.process import Installed

MAC = "52:54:00:00:00:01"
_VALUES = {"mac": MAC, "name": "none", "work_id": "1", "token_id": "77", "item": "p1", "number": "1"}
_OPERATOR = {
    ("POST", "/devices"), ("PATCH", "/devices/{mac}"), ("POST", "/devices/{mac}/accept"),
    ("POST", "/devices/{mac}/deny"), ("POST", "/devices/{mac}/retire"), ("POST", "/devices/{mac}/join"),
    ("POST", "/devices/{mac}/split"), ("POST", "/groups/{name}/members"), ("POST", "/work"),
    ("POST", "/work/{work_id}/cancel"), ("POST", "/work/{work_id}/retry"),
    ("PUT", "/devices/{mac}/identity"), ("PATCH", "/devices/{mac}/identity"), ("DELETE", "/devices/{mac}/identity"),
    ("POST", "/jobs/{job_id}/cancel"), ("POST", "/devices/{mac}/wake"),
    ("POST", "/devices/{mac}/identity/just-imaged"), ("POST", "/devices/{mac}/identity/fill"),
}  # fmt: skip
"""All that is no mere question and that an operator may do."""
_GUARDED_READS = {
    "/images/{name}/items/{item}": {"operator", "admin"}, "/images/{name}/items/{item}/index": {"operator", "admin"},
    "/tokens": {"admin"},
}  # fmt: skip
"""What is on disks, and who may call: not for everybody to read."""
_SITE = ("POST", "/policy/resolve")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installed]:
    installed = Installed(tmp_path_factory.mktemp("server"))
    installed.ok("start")
    yield installed
    installed.finish()


@pytest.fixture(scope="module")
def tokens(server: Installed) -> dict[str, str]:
    found = {"admin": server.token}
    for role in ("viewer", "operator", "site", "images"):
        answer = httpx.post(
            f"{server.url}/api/v1/tokens", json={"name": role, "role": role}, headers=_bearer(server.token),
            trust_env=False,
        )  # fmt: skip
        found[role] = answer.json()["token"]
    return found


@pytest.fixture(scope="module")
def described(server: Installed) -> list[tuple[str, str]]:
    """Method and path, below /api/v1, of every route."""
    paths: dict[str, Any] = httpx.get(f"{server.url}/api/openapi.json", trust_env=False).json()["paths"]
    return [
        (method.upper(), path.removeprefix("/api/v1"))
        for path, operations in paths.items()
        if path.startswith("/api/v1/")
        for method in operations
    ]


@pytest.fixture
def http(server: Installed) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=f"{server.url}/api/v1", trust_env=False) as client:
        yield client


def _bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def _filled(path: str) -> str:
    return re.sub(r"\{(\w+)\}", lambda found: _VALUES.get(found[1], "1"), path)


def test_the_description_has_all_that_is_meant_here(described: list[tuple[str, str]]) -> None:
    assert set(described) >= _OPERATOR
    assert len([each for each in described if each[0] != "GET"]) >= 25
    assert {method for method, _ in described} == {"GET", "POST", "PUT", "PATCH", "DELETE"}


def test_without_a_token_nobody_learns_anything(http: httpx.Client, described: list[tuple[str, str]]) -> None:
    """The same words for what there is and what there is not, for bodies that are right and wrong."""
    wrong = (
        {}, _bearer("wrong"), {"Authorization": "Basic eDp5"}, _bearer("1." + "0" * 64), _bearer("x" * 1000),
        {"Authorization": "Bearer"}, {"Authorization": b"Bearer \xff\xfe"},
    )  # fmt: skip
    for headers in wrong:
        told = set()
        for method, path in described:
            for content in (b"", b"{", b'{"mac": "52:54:00:00:00:01"}'):
                if method == "GET" and content:
                    continue
                answer = http.request(
                    method, _filled(path), content=content, headers={**headers, "Content-Type": "application/json"}
                )
                assert answer.status_code == 401, (method, path, answer.text)
                assert answer.headers["WWW-Authenticate"] == "Bearer"
                told.add(re.sub("images need .*", "images", answer.json()["error"]))
        assert len(told) <= 2, told


def test_what_each_role_may(http: httpx.Client, tokens: dict[str, str], described: list[tuple[str, str]]) -> None:
    """Refused is 403; what is let through is answered otherwise, here mostly by what is wrong with an empty body."""
    for method, path in described:
        if path == "/journal/stream":
            continue  # answers until somebody leaves
        roles = {"admin"}
        if method == "GET":
            roles = _GUARDED_READS.get(path, {"viewer", "operator", "admin"})
        elif (method, path) in _OPERATOR:
            roles = {"operator", "admin"}
        elif (method, path) == _SITE:
            roles = {"site", "admin"}
        for role, token in tokens.items():
            if role == "admin" and method == "DELETE":
                continue
            headers = {**_bearer(token), "Content-Type": "application/json"}
            answer = http.request(method, _filled(path), content=b"" if method == "GET" else b"[]", headers=headers)
            assert (answer.status_code != 403) is (role in roles), (role, method, path, answer.text)
            assert answer.status_code < 500, (role, method, path, answer.text)


def test_a_viewer_changes_nothing(http: httpx.Client, tokens: dict[str, str], described: list[tuple[str, str]]) -> None:
    admin = _bearer(tokens["admin"])
    http.post("/devices", json={"mac": MAC, "name": "before"}, headers=admin)
    http.put("/groups/none", json={"title": "before"}, headers=admin)
    before = [http.get(path, headers=admin).json() for path in ("/devices", "/export", "/work", "/tokens", "/images")]
    for method, path in described:
        if method == "GET":
            continue
        for body in ({}, {"mac": MAC, "name": "after", "title": "after", "add": [MAC], "kind": "local"}):
            answer = http.request(method, _filled(path), json=body, headers=_bearer(tokens["viewer"]))
            assert answer.status_code == 403, (method, path, answer.text)
            assert "viewer" in answer.json()["error"] or "/images" in path
    after = [http.get(path, headers=admin).json() for path in ("/devices", "/export", "/work", "/tokens", "/images")]
    assert after == before


def test_a_token_that_is_revoked_opens_nothing(http: httpx.Client, tokens: dict[str, str]) -> None:
    admin = _bearer(tokens["admin"])
    made = http.post("/tokens", json={"name": "short", "role": "admin"}, headers=admin).json()
    assert http.get("/devices", headers=_bearer(made["token"])).status_code == 200
    assert http.delete(f"/tokens/{made['id']}", headers=admin).status_code == 204
    assert http.get("/devices", headers=_bearer(made["token"])).status_code == 401
