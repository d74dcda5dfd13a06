"""Each test of the registry runs on a SQLite file and on a real PostgreSQL."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from pbserv.registry.engine import Place
from pbserv.registry.migrate import migrate
from pbserv.registry.registry import Registry
from tests.support.postgres import Postgres, running_postgres


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    with running_postgres() as server:
        yield server


@pytest.fixture(params=["sqlite", "postgresql"])
def empty(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    """A database without tables."""
    if request.param == "sqlite":
        yield tmp_path / "registry.db"
        return
    server: Postgres = request.getfixturevalue("postgres")
    url = server.new_database()
    yield url
    server.drop(url)


@pytest.fixture
def place(empty: Place) -> Place:
    """A registry of the newest revision, with nothing in it."""
    migrate(empty)
    return empty


@pytest.fixture
async def registry(place: Place) -> AsyncIterator[Registry]:
    opened = Registry.open(place)
    yield opened
    await opened.close()
