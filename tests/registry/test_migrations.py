"""A registry of an older pbserv, with data, brought to the newest revision."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

from alembic import command
from sqlalchemy import create_engine

from pbserv.registry.migrate import config_of_migrations, migrate
from pbserv.registry.records import BootSession, DeviceState
from pbserv.registry.registry import Registry

MAC = "52:54:00:00:00:01"
SEEN = "2026-01-02 03:04:05.000000"


def registry_of_revision(path: Path, revision: str) -> None:
    engine = create_engine(f"sqlite:///{path}")
    config = config_of_migrations()
    with engine.connect() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, revision)
        connection.commit()
    engine.dispose()


async def test_from_the_first_revision_with_data(tmp_path: Path) -> None:
    path = tmp_path / "registry.db"
    registry_of_revision(path, "0001")
    with closing(sqlite3.connect(path)) as old, old:
        old.execute("INSERT INTO device VALUES (?, NULL, 'till-1', 7, 'known', '10.0.0.7', ?, ?)", (MAC, SEEN, SEEN))
        old.execute("INSERT INTO event VALUES (1, ?, ?, 'tftp', 'snponly.efi: completed, 9 bytes')", (SEEN, MAC))
    migrate(path)
    registry = Registry.open(path)
    try:
        device = await registry.device(MAC)
        assert (device.name, device.state, device.arch) == ("till-1", DeviceState.KNOWN, 7)
        assert [event.detail for event in await registry.history(MAC)] == ["snponly.efi: completed, 9 bytes"]
        assert await registry.sessions() == []
        now = datetime.now(UTC)
        await registry.keep_sessions([BootSession(MAC, now, now, "offered", "", "", b"", 0)])
        await registry.remember_strategies({MAC: "binl"})
        assert (await registry.sessions())[0].result == "offered"
        assert await registry.strategies() == {MAC: "binl"}
    finally:
        await registry.close()


def test_back_to_the_first_revision(tmp_path: Path) -> None:
    path = tmp_path / "registry.db"
    migrate(path)
    engine = create_engine(f"sqlite:///{path}")
    config = config_of_migrations()
    with engine.connect() as connection:
        config.attributes["connection"] = connection
        command.downgrade(config, "0001")
        connection.commit()
    engine.dispose()
    with closing(sqlite3.connect(path)) as old:
        tables = {name for (name,) in old.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    assert "device" in tables
    assert not tables & {"boot_session", "strategy"}
