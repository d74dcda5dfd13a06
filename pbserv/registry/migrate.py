"""Brings the database to the newest revision before anything else opens it. Synchronous: called before the loop."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.util.exc import CommandError
from sqlalchemy import create_engine, text
from sqlalchemy.exc import SQLAlchemyError

from pbserv.errors import PbservError


def config_of_migrations() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.set_main_option("path_separator", "os")
    return config


def migrate(path: Path) -> None:
    """Create or upgrade the SQLite file at ``path``; raises PbservError when it cannot be read or written."""
    engine = create_engine(f"sqlite:///{path}")
    config = config_of_migrations()
    try:
        with engine.connect() as connection:
            # WAL lets readers go on while one writer commits; the mode stays with the file.
            connection.execute(text("PRAGMA journal_mode=WAL"))
            connection.commit()
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
            connection.commit()
    except (SQLAlchemyError, CommandError) as fault:
        reason = str(fault).splitlines()[0]
        raise PbservError(f"registry {path}: {reason}; it may be damaged, not writable or of a newer pbserv") from fault
    finally:
        engine.dispose()
    path.chmod(0o600)
