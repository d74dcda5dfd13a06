"""What is PostgreSQL's alone: a server that goes away, two processes on one database, and passwords kept quiet."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Iterator

import pytest
from sqlalchemy.exc import SQLAlchemyError

from pbserv.errors import PbservError
from pbserv.journal.journal import Journal
from pbserv.registry.engine import shown, url_of
from pbserv.registry.migrate import migrate
from pbserv.registry.records import BundleKind, DeviceState
from pbserv.registry.registry import ConflictError, DeviceChange, Registry, UnavailableError, WorkOrder
from tests.support.postgres import ESCAPED, PASSWORD, Postgres

MAC = "52:54:00:00:00:01"
OTHER = "52:54:00:00:00:02"


@pytest.fixture
def url(postgres: Postgres, ready: str) -> Iterator[str]:
    url = postgres.new_database(like=ready)
    yield url
    postgres.drop(url)


async def test_a_server_that_goes_away_and_comes_back(postgres: Postgres, url: str) -> None:
    registry = Registry.open(url)
    journal = Journal(registry)
    try:
        await registry.change_device(MAC, DeviceChange(name="till"))
        postgres.stop()
        try:
            with pytest.raises(UnavailableError, match="cannot be reached"):
                await registry.devices()
            with pytest.raises(SQLAlchemyError):
                await registry.change_device(MAC, DeviceChange(name="lost"))
            journal.add(MAC, "tftp", "x")
            assert await journal.flush() is False
        finally:
            postgres.start()
        assert [device.name for device in await registry.devices()] == ["till"]
        assert await journal.flush() is True
        assert [event.detail for event in await registry.history(MAC)] == ["x"]
    finally:
        await registry.close()


async def test_a_connection_that_breaks_in_a_transaction(postgres: Postgres, url: str) -> None:
    registry = Registry.open(url)
    await registry.change_device(MAC, DeviceChange(name="till"))
    others = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'pbserv'"

    async def cut_off() -> None:
        async with registry._write() as change:
            postgres.sql("postgres", others)
            change.touch(MAC)

    with pytest.raises(UnavailableError):
        await cut_off()
    assert (await registry.change_device(MAC, DeviceChange(menu="m"))).name == "till"
    await registry.close()


async def test_a_server_that_lets_nobody_in(postgres: Postgres, url: str) -> None:
    """As one that starts, stops, or has no connection left."""
    registry = Registry.open(url)
    await registry.change_device(MAC, DeviceChange(name="till"))
    name = url.rpartition("/")[2]
    postgres.sql("postgres", f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
    postgres.sql("postgres", f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")
    with pytest.raises(UnavailableError, match="not currently accepting connections"):
        await registry.devices()
    postgres.sql("postgres", f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
    assert len(await registry.devices()) == 1
    await registry.close()


async def test_two_processes_do_not_cross_each_other(url: str) -> None:
    registries = [Registry.open(url) for _ in range(3)]
    try:
        for mac in (MAC, OTHER):
            await registries[0].change_device(mac, DeviceChange(state=DeviceState.KNOWN))
        orders = [WorkOrder(mac, BundleKind.CAPTURE, "debian") for mac in (MAC, OTHER)]
        outcomes = await asyncio.gather(
            *(registry.add_work(order) for registry in registries for order in orders), return_exceptions=True
        )
        assert sum(isinstance(outcome, ConflictError) for outcome in outcomes) == 5
        (work,) = await registries[1].works()
        outcomes = await asyncio.gather(
            *(registry.start_job(work.id, "", None) for registry in registries), return_exceptions=True
        )
        assert not [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
        assert (await registries[2].work(work.id)).attempts == 3
    finally:
        for registry in registries:
            await registry.close()


def test_two_servers_that_start_together(postgres: Postgres) -> None:
    url = postgres.new_database()

    async def both() -> None:
        await asyncio.gather(*(asyncio.to_thread(migrate, url) for _ in range(3)))

    asyncio.run(both())
    postgres.drop(url)


def test_errors_do_not_show_the_password(postgres: Postgres) -> None:
    wrong = postgres.url("postgres").replace(ESCAPED, "geheim")
    for url in (wrong, postgres.url("no_such_database"), f"postgresql://u:{ESCAPED}@127.0.0.1:1/x"):
        with pytest.raises(PbservError) as caught:
            migrate(url)
        text = "".join(traceback.format_exception(caught.value)) + repr(caught.value)
        assert "registry postgresql://" in text
        assert not [secret for secret in (PASSWORD, ESCAPED, "geheim") if secret in text]


def test_an_url_that_is_none() -> None:
    for text in ("mysql://u:geheim@h/d", "postgresql://u:geheim@h", "geheim", "postgresql://u:geheim@h:x/d"):
        with pytest.raises(PbservError, match="RegistryURL: write") as caught:
            url_of(text)
        assert "geheim" not in "".join(traceback.format_exception(caught.value))


def test_urls_as_people_write_them() -> None:
    assert shown("postgres://u:p%40ss@db.example/pbserv?sslmode=require") == (
        "postgresql://u:***@db.example/pbserv?ssl=require"
    )
    url = url_of("postgresql:///pbserv?host=/run/postgresql")
    assert (url.drivername, url.query["host"], url.database) == ("postgresql+asyncpg", "/run/postgresql", "pbserv")
