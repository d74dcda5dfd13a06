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


@pytest.fixture(scope="session")
def ready(postgres: Postgres) -> str:
    """A database of the newest revision with nothing in it, to be copied."""
    url = postgres.new_database()
    migrate(url)
    return url


BOTH = ("sqlite", "postgresql")


@pytest.fixture(params=BOTH)
def empty(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    """A database without tables."""
    if request.param == "sqlite":
        yield tmp_path / "registry.db"
        return
    server: Postgres = request.getfixturevalue("postgres")
    url = server.new_database()
    yield url
    server.drop(url)


@pytest.fixture(params=BOTH)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    """A registry of the newest revision, with nothing in it."""
    if request.param == "sqlite":
        migrate(tmp_path / "registry.db")
        yield tmp_path / "registry.db"
        return
    server: Postgres = request.getfixturevalue("postgres")
    url = server.new_database(like=request.getfixturevalue("ready"))
    yield url
    server.drop(url)


@pytest.fixture
async def registry(place: Place) -> AsyncIterator[Registry]:
    opened = Registry.open(place)
    yield opened
    await opened.close()
