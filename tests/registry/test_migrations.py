"""A registry of an older pbserv, with data, brought to the newest revision; on both databases."""

from __future__ import annotations

import asyncio
import stat
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, inspect, text

from pbserv.errors import PbservError
from pbserv.registry.engine import Place, open_engine
from pbserv.registry.migrate import config_of_migrations, migrate, upgrade
from pbserv.registry.models import Base
from pbserv.registry.records import BootSession, BundleKind, DeviceState, WorkState
from pbserv.registry.registry import ConflictError, DeviceChange, Registry, WorkOrder

MAC = "52:54:00:00:00:01"
OTHER = "52:54:00:00:00:02"
SEEN = "2026-01-02 03:04:05.000000"
TIME = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def on(place: Place, step: Callable[[Connection], object]) -> None:
    """One transaction on the database."""

    async def run() -> None:
        engine = open_engine(place)
        async with engine.begin() as connection:
            await connection.run_sync(step)
        await engine.dispose()

    asyncio.run(run())


def statements(*words: str) -> Callable[[Connection], None]:
    def run(connection: Connection) -> None:
        for each in words:
            connection.execute(text(each))

    return run


def downgrade(connection: Connection) -> None:
    config = config_of_migrations()
    config.attributes["connection"] = connection
    command.downgrade(config, "0001")


def of_the_first_revision(place: Place) -> None:
    on(place, lambda connection: upgrade(connection, "0001"))
    on(place, statements(
        f"INSERT INTO device VALUES ('{MAC}', NULL, 'till-1', 7, 'known', '10.0.0.7', '{SEEN}', '{SEEN}')",
        f"INSERT INTO device VALUES ('{OTHER}', 'u', '', NULL, 'pending', '', '{SEEN}', '{SEEN}')",
        f"INSERT INTO event VALUES (1, '{SEEN}', '{MAC}', 'tftp', 'snponly.efi: completed, 9 bytes')",
        "INSERT INTO work (mac, kind, image, target_disk, finish, overwrite, state, reason, created) VALUES "
        f"('{MAC}', 'restore', 'debian', '', 'reboot', false, 'done', 'ok', '{SEEN}'), "
        f"('{MAC}', 'capture', 'debian', '/dev/sda', 'none', true, 'running', '', '{SEEN}')",
        "INSERT INTO job (work_id, mac, kind, image, address, state, reason, stage, item, bytes_done, bytes_total, "
        f"rate, started, log) SELECT id, mac, kind, image, '', state, '', '', '', 0, 0, 0, '{SEEN}', '' FROM work",
        f"INSERT INTO token (name, role, sha256, created) VALUES ('made at start 1', 'admin', 'abc', '{SEEN}')",
    ))  # fmt: skip


def of_the_second_revision(place: Place) -> None:
    of_the_first_revision(place)
    on(place, lambda connection: upgrade(connection, "0002"))
    on(place, statements(
        "INSERT INTO boot_session (mac, started, ended, result, why, todo, steps, packets) VALUES "
        f"('{MAC}', '{SEEN}', '{SEEN}', 'offered', '', '', '', 2)",
        f"INSERT INTO strategy VALUES ('{MAC}', 'binl', '{SEEN}')",
    ))  # fmt: skip


async def what_stands_in(place: Place) -> None:
    """All that the oldest revision had is there, and new things can be done with it."""
    registry = Registry.open(place)
    device, other = await registry.devices()
    assert (device.name, device.state, device.arch, device.address) == ("till-1", DeviceState.KNOWN, 7, "10.0.0.7")
    assert (device.first_seen, device.last_seen) == (TIME, TIME)
    assert (device.folder, device.groups, device.labels, device.learned, device.runs) == ("/", (), (), (), ())
    assert (other.state, other.uuid, other.serial, other.menu) == (DeviceState.PENDING, "u", "", "")
    assert [event.detail for event in await registry.history(MAC)] == ["snponly.efi: completed, 9 bytes"]
    running, done = await registry.works(everything=True)
    assert (running.kind, running.target_disk, running.overwrite) == (BundleKind.CAPTURE, "/dev/sda", True)
    assert (done.state, done.bundle, done.document, done.expires, done.retries) == (WorkState.DONE, "", "", None, 0)
    assert device.work == running
    assert [job.work_id for job in await registry.jobs()] == [running.id, done.id]
    assert await registry.token_digests() == {"abc": "admin"}
    with pytest.raises(ConflictError, match="has work"):
        await registry.add_work(WorkOrder(MAC, BundleKind.RESTORE, "x"))
    changed = await registry.change_device(MAC, DeviceChange(groups=("a",), labels=(("x", "y"),), folder="/b"))
    assert (changed.groups, changed.labels, changed.folder) == (("a",), (("x", "y"),), "/b")
    assert (await registry.finish_work(running.id, ok=True, reason="")).state is WorkState.DONE
    await registry.keep_sessions([BootSession(OTHER, TIME, TIME, "stopped", "", "", b"", 0)])
    assert (await registry.sessions(mac=OTHER))[0].result == "stopped"
    await registry.close()


def test_from_the_first_revision_with_data(empty: Place) -> None:
    of_the_first_revision(empty)
    migrate(empty)
    asyncio.run(what_stands_in(empty))


def test_from_the_second_revision_with_data(empty: Place) -> None:
    of_the_second_revision(empty)
    migrate(empty)

    async def kept() -> None:
        registry = Registry.open(empty)
        (session,) = await registry.sessions()
        assert (session.mac, session.started, session.result, session.packets) == (MAC, TIME, "offered", 2)
        assert await registry.strategies() == {MAC: "binl"}
        await registry.close()

    asyncio.run(kept())
    asyncio.run(what_stands_in(empty))


def test_back_to_the_first_revision(place: Place) -> None:
    found: list[set[str]] = []
    on(place, downgrade)
    on(place, lambda connection: found.append(set(inspect(connection).get_table_names())))
    assert found[0] == {"alembic_version", "device", "event", "job", "token", "work"}
    migrate(place)


def test_migrations_lead_to_the_models(place: Place) -> None:
    def compare(connection: Connection) -> None:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, Base.metadata) == []

    on(place, compare)


def test_migrating_twice_changes_nothing(place: Place) -> None:
    before = place.read_bytes() if isinstance(place, Path) else b""
    migrate(place)
    if isinstance(place, Path):
        assert place.read_bytes() == before
        assert stat.S_IMODE(place.stat().st_mode) == 0o600


def test_a_newer_revision_is_refused(place: Place) -> None:
    on(place, statements("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(PbservError, match="of a newer pbserv"):
        migrate(place)


def test_a_file_that_is_no_database_is_named(tmp_path: Path) -> None:
    path = tmp_path / "registry.db"
    path.write_text("this is not a database, but it is long enough to be looked at" * 20)
    with pytest.raises(PbservError, match=r"registry\.db"):
        migrate(path)
