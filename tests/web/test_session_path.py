"""The token of a boot in a path: stripped for those who may use it, 403 for all others."""

from __future__ import annotations

import httpx
import pytest
from fastapi import FastAPI, Request

from pbserv.web.session_path import SessionPath


def path_of(path: str, peer: str) -> str:
    token, _, rest = path.removeprefix("s/").partition("/")
    if token != "good" or peer != "10.0.0.5":
        raise PermissionError("not one of ours")
    return rest


@pytest.fixture
def client() -> httpx.AsyncClient:
    app = FastAPI()
    app.add_middleware(SessionPath, path_of=path_of)

    @app.get("/files/{path:path}")
    async def files(path: str, request: Request) -> dict[str, str]:
        return {"path": path, "raw": request.scope["raw_path"].decode()}

    transport = httpx.ASGITransport(app=app, client=("10.0.0.5", 1234))
    return httpx.AsyncClient(timeout=60, transport=transport, base_url="http://10.0.0.1")


async def test_a_good_token_opens_what_lies_behind_it(client: httpx.AsyncClient) -> None:
    answer = await client.get("/s/good/files/a/b%20c")
    assert answer.json() == {"path": "a/b c", "raw": "/files/a/b%20c"}


@pytest.mark.parametrize("path", ["/s/bad/files/x", "/s//files/x", "/s/", "/s/good2/files/x"])
async def test_any_other_token_opens_nothing(client: httpx.AsyncClient, path: str) -> None:
    answer = await client.get(path)
    assert answer.status_code == 403
    assert answer.text == "error: not one of ours\n"


async def test_other_paths_are_not_looked_at(client: httpx.AsyncClient) -> None:
    assert (await client.get("/files/s/good/x")).json()["path"] == "s/good/x"
