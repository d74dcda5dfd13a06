"""Brings the database to the newest revision before anything else opens it. Synchronous: called before the loop."""

from __future__ import annotations

import asyncio
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.util.exc import CommandError
from sqlalchemy import Connection, create_engine, text
from sqlalchemy.exc import SQLAlchemyError

from pbserv.errors import PbservError
from pbserv.registry.engine import ONE_WRITER, Place, open_engine, shown
from pbserv.registry.faults import first_line


def config_of_migrations() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.set_main_option("path_separator", "os")
    return config


def migrate(place: Place) -> None:
    """Create or upgrade the SQLite file or the PostgreSQL database at ``place``; all or nothing.

    Raises PbservError when it cannot be read or written. The database itself must exist, the file need not.
    """
    try:
        if isinstance(place, Path):
            _migrate_file(place)
        else:
            asyncio.run(_migrate_server(place))
    except (SQLAlchemyError, CommandError) as fault:
        reason = first_line(fault)
        raise PbservError(
            f"registry {shown(place)}: {reason}; it may be damaged, not writable or of a newer pbserv"
        ) from fault
    except OSError as fault:
        raise PbservError(f"registry {shown(place)}: cannot be reached: {first_line(fault)}") from fault


def upgrade(connection: Connection, revision: str = "head") -> None:
    """Within the transaction of ``connection``, which the caller commits."""
    config = config_of_migrations()
    config.attributes["connection"] = connection
    command.upgrade(config, revision)


def _migrate_file(path: Path) -> None:
    engine = create_engine(f"sqlite:///{path}")
    try:
        with engine.connect() as connection:
            # WAL lets readers go on while one writer commits; the mode stays with the file.
            connection.execute(text("PRAGMA journal_mode=WAL"))
            connection.commit()
            upgrade(connection)
            connection.commit()
    finally:
        engine.dispose()
    path.chmod(0o600)


async def _migrate_server(url: str) -> None:
    engine = open_engine(url)
    try:
        async with engine.begin() as connection:
            await connection.execute(ONE_WRITER)  # another server may be starting at this moment
            await connection.run_sync(upgrade)
    finally:
        await engine.dispose()
