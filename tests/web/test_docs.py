"""The pages about the API: from this server alone, with all that they need, for whoever has a token."""

from __future__ import annotations

import re

import httpx
import pytest

from pbserv import __version__
from pbserv.log import ServiceLog
from pbserv.registry.access import Access
from pbserv.registry.registry import Registry
from pbserv.registry.tokens import WorkTokens
from pbserv.web import token_routes
from pbserv.web.app import create_app
from pbserv.web.openapi30 import lowered


@pytest.fixture
async def client():
    registry, log = Registry.open("postgresql://nobody:x@127.0.0.1:1/none"), ServiceLog("pbserv")
    routes = token_routes.router(registry, Access({}, WorkTokens(b"s" * 32)), log)
    app = create_app([("", routes)], running=lambda name: True, log=log)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://pbserv") as asking:
        yield asking
    await registry.close()


async def test_the_page_needs_nobody_else(client: httpx.AsyncClient) -> None:
    page = await client.get("/api/docs")
    assert (page.status_code, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self';" in policy
    assert "http" not in policy
    parts = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert len(parts) == 4
    for part in parts:
        assert part.startswith("/api/docs/"), "nothing comes from elsewhere"
        found = await client.get(part)
        assert found.status_code == 200, part
        assert found.headers["x-content-type-options"] == "nosniff"
        assert len(found.content) > 100
    assert "<script>" not in page.text, "the policy lets no script in the page run"


@pytest.mark.parametrize("name", ["swagger-ui.js.map", "..%2fapp.py", "index.html", "x" * 300])
async def test_nothing_else_is_given_out(client: httpx.AsyncClient, name: str) -> None:
    answer = await client.get(f"/api/docs/{name}")
    assert answer.status_code == 404
    assert "error" in answer.json()


async def test_the_description_says_what_it_is_and_how_to_get_in(client: httpx.AsyncClient) -> None:
    found = (await client.get("/api/openapi.json")).json()
    assert found["openapi"].startswith("3.1")
    assert (found["info"]["title"], found["info"]["version"]) == ("pbserv", __version__)
    assert found["components"]["securitySchemes"]["HTTPBearer"]["scheme"] == "bearer"
    described = {tag["name"] for tag in found["tags"] if tag["description"]}
    used = {tag for path in found["paths"].values() for each in path.values() for tag in each.get("tags", ())}
    assert used == described
    assert not any(path.startswith("/api/docs") for path in found["paths"])


async def test_the_page_reads_the_same_in_older_words(client: httpx.AsyncClient) -> None:
    new = (await client.get("/api/openapi.json")).json()
    old = (await client.get("/api/docs/openapi.json")).json()
    assert old["openapi"] == "3.0.3"
    assert set(old["paths"]) == set(new["paths"])
    assert set(old["components"]["schemas"]) == set(new["components"]["schemas"])


@pytest.mark.parametrize(
    ("new", "old"),
    [
        ({"anyOf": [{"type": "string"}, {"type": "null"}], "title": "T"},
         {"type": "string", "title": "T", "nullable": True}),
        ({"anyOf": [{"$ref": "#/x"}, {"type": "null"}]}, {"allOf": [{"$ref": "#/x"}], "nullable": True}),
        (
            {"anyOf": [{"type": "string"}, {"type": "integer"}, {"type": "null"}]},
            {"anyOf": [{"type": "string"}, {"type": "integer"}], "nullable": True},
        ),
        ({"type": "string", "const": "a"}, {"type": "string", "enum": ["a"]}),
        ({"type": "integer", "exclusiveMinimum": 0}, {"type": "integer", "minimum": 0, "exclusiveMinimum": True}),
        ({"type": "string", "examples": ["a", "b"]}, {"type": "string", "example": "a"}),
        ({"type": "array", "prefixItems": [{"type": "string"}]}, {"type": "array", "items": {}}),
        ({"type": "string", "contentMediaType": "application/octet-stream"}, {"type": "string", "format": "binary"}),
    ],
)  # fmt: skip
def test_schemas_in_older_words(new: dict[str, object], old: dict[str, object]) -> None:
    properties = {"type": {"type": "string"}, "examples": {"type": "string"}, "const": {"type": "string"}, "x": new}
    document = {"openapi": "3.1.0", "components": {"schemas": {"A": {"type": "object", "properties": properties}}}}
    shown = lowered(document)["components"]["schemas"]["A"]["properties"]
    assert shown.pop("x") == old
    assert all(each == {"type": "string"} for each in shown.values()), "names of properties are no words of a schema"
    assert len(shown) == 3
