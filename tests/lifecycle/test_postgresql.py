"""The real server with its registry on PostgreSQL: what it knows outlives it, and the password stays in its file."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.postgres import ESCAPED, PASSWORD, Postgres, running_postgres
from tests.support.process import Installed

MAC = "52:54:00:00:00:01"


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    with running_postgres() as server:
        yield server


def ask(server: Installed, path: str, method: str = "GET") -> Any:
    """Any: JSON of the API."""
    request = urllib.request.Request(f"{server.url}/api/v1/{path}", method=method)
    request.add_header("Authorization", f"Bearer {server.token}")
    with urllib.request.urlopen(request, timeout=20) as answer:
        return json.load(answer)


def everything_said(server: Installed) -> str:
    logs = (path.read_text(errors="replace") for path in (server.state / "log").glob("*.log"))
    return "".join(logs)


def test_devices_outlive_a_restart(server: Installed, postgres: Postgres) -> None:
    url = postgres.new_database()
    server.set("pbserv.conf", RegistryURL=url)
    said = server.ok("start")
    assert "administrator's token" in said
    assert ask(server, f"devices/{MAC}/accept", "POST")["state"] == "known"
    assert "administrator's token" not in server.ok("restart")
    assert [device["mac"] for device in ask(server, "devices")] == [MAC]
    assert postgres.sql(url.rpartition("/")[2], "SELECT mac, state FROM device").split() == [f"{MAC}|known"]
    assert not (server.state / "registry.db").exists()
    server.set("pbserv.conf", RegistryURL=f"{url}_other")
    reloaded = server.call("force-reload")
    assert "takes effect at the next restart" in reloaded.stdout
    for text in (said, reloaded.stdout, reloaded.stderr, everything_said(server)):
        assert PASSWORD not in text
        assert ESCAPED not in text


def test_a_database_that_is_not_there(server: Installed, postgres: Postgres) -> None:
    server.set("pbserv.conf", RegistryURL=postgres.url("nowhere"))
    started = server.call("start")
    assert started.returncode == 1
    assert f"registry postgresql://postgres:***@127.0.0.1:{postgres.port}/nowhere" in started.stderr
    assert 'database "nowhere" does not exist' in started.stderr
    assert ESCAPED not in started.stdout + started.stderr


def test_a_registry_url_that_is_wrong_is_not_repeated(server: Installed) -> None:
    server.set("pbserv.conf", RegistryURL="postgresql://pbserv:geheim@db.example")
    started = server.call("start")
    assert started.returncode != 0
    assert "RegistryURL: is not postgresql://user:password@host:port/database" in started.stderr
    assert "geheim" not in started.stdout + started.stderr
