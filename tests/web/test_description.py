"""The description says of every route whether it takes a token; the running server does as it says."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from pbserv.web.description import FOR_LOADERS

BEARER = [{"HTTPBearer": []}]


@pytest.fixture
def operations(nobody: httpx.Client) -> list[tuple[str, str, dict[str, Any]]]:
    paths = nobody.get("/api/openapi.json").json()["paths"]
    return [(path, method, each) for path, methods in paths.items() for method, each in methods.items()]


Operations = list[tuple[str, str, dict[str, Any]]]


def asked(nobody: httpx.Client, operations: Operations, token: str = "") -> Iterator[tuple[str, dict[str, Any], int]]:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    for path, method, operation in operations:
        made_up = re.sub(r"{[^}]*}", "1", path)
        answer = nobody.request(method, made_up, headers=headers)
        yield f"{method} {path}", operation, answer.status_code


def test_what_takes_a_token_says_so(nobody: httpx.Client, operations: Operations) -> None:
    for name, operation, status in asked(nobody, operations):
        assert (status == 401) == (operation.get("security") == BEARER), name
        if status == 401:
            assert "401" in operation["responses"], name


def test_a_wrong_token_learns_nothing(nobody: httpx.Client, operations: Operations) -> None:
    with_token = [each for each in operations if "security" in each[2]]
    assert len(with_token) > 40
    assert any(path.startswith("/client/v1/") for path, _, _ in with_token)
    for name, _, status in asked(nobody, with_token, "wrong"):
        assert status == 401, name


def test_errors_for_loaders_are_lines_of_text(nobody: httpx.Client, operations: Operations) -> None:
    found = [(path, each["responses"]) for path, _, each in operations if path.startswith(FOR_LOADERS)]
    assert found
    for path, responses in found:
        for status in ("401", "422"):
            assert list(responses.get(status, {"content": {"text/plain": {}}})["content"]) == ["text/plain"], path
    answer = nobody.post("/client/v1/work")
    assert (answer.status_code, answer.headers["content-type"]) == (401, "text/plain; charset=utf-8")
