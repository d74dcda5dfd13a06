"""The two databases that can hold the registry, a SQLite file and PostgreSQL, and what differs between them.

One rule: a password is in the URL that the driver gets, and in no text that anybody reads.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final, cast

from sqlalchemy import URL, Connection, event, make_url, text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import ArgumentError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry

from pbserv.errors import PbservError
from pbserv.registry.models import Base

Place = Path | str
"""A SQLite file, or ``postgresql://user:password@host:port/database`` (``?sslmode=`` and ``?host=/SOCKETS`` too)."""
Upsert = Callable[[type[Base]], sqlite.Insert]

ONE_WRITER: Final = text("SELECT pg_advisory_xact_lock(722811903)")
"""Held until the end of a transaction. The number is ours: whoever else writes to this database is a pbserv."""
_WRITES: Final = "pbserv_writes"
_CONNECT_S: Final = 10
_COMMAND_S: Final = 120
_SESSION: Final = {
    "application_name": "pbserv",
    "lock_timeout": "15s",
    # a server that vanished in a transaction must not keep the others from writing
    "idle_in_transaction_session_timeout": "60s",
    "jit": "off",  # short statements: compiling them takes longer than they do
}


def url_of(place: Place) -> URL:
    """What the driver connects to. Raises PbservError for a text that is no URL of PostgreSQL."""
    if isinstance(place, Path):
        return URL.create("sqlite+aiosqlite", database=str(place))
    try:
        url = make_url(place)
    except (ArgumentError, ValueError):
        url = URL.create("unknown")
    if url.drivername not in ("postgresql", "postgres", "postgresql+asyncpg") or not url.database:
        raise PbservError("RegistryURL: write postgresql://user:password@host:port/database") from None
    query = dict(url.query)
    if "sslmode" in query:
        query["ssl"] = query.pop("sslmode")
    return url.set(drivername="postgresql+asyncpg", query=query)


def shown(place: Place) -> str:
    """For messages: without the password."""
    if isinstance(place, Path):
        return str(place)
    return url_of(place).set(drivername="postgresql").render_as_string(hide_password=True)


def open_engine(place: Place) -> AsyncEngine:
    """Connects at the first use."""
    url = url_of(place)
    if not isinstance(place, Path):
        arguments = {"timeout": _CONNECT_S, "command_timeout": _COMMAND_S, "server_settings": _SESSION}
        return create_async_engine(url, pool_pre_ping=True, connect_args=arguments)
    engine = create_async_engine(url)
    event.listen(engine.sync_engine, "connect", _on_connect)
    event.listen(engine.sync_engine, "begin", _on_begin)
    return engine


def is_shared(engine: AsyncEngine) -> bool:
    """Whether other processes may write to the same database: then each transaction that writes takes ONE_WRITER."""
    return engine.dialect.name != "sqlite"


def reading(engine: AsyncEngine) -> AsyncEngine:
    """Transactions that see one state of the database, however many statements they have."""
    return engine.execution_options(isolation_level="REPEATABLE READ") if is_shared(engine) else engine


def writing(engine: AsyncEngine) -> AsyncEngine:
    """Transactions that write: SQLite's take the write lock at their begin, so what they have read stays true."""
    return engine.execution_options(**{_WRITES: True})


def upsert_of(engine: AsyncEngine) -> Upsert:
    """``INSERT ... ON CONFLICT`` of the engine's dialect; both have the same methods and write the same SQL."""
    return cast("Upsert", postgresql.insert) if is_shared(engine) else sqlite.insert


def _on_connect(connection: DBAPIConnection, _entry: ConnectionPoolEntry) -> None:
    # The driver would begin a transaction at the first write only, and read before it without one.
    connection.isolation_level = None
    cursor = connection.cursor()
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.execute("PRAGMA busy_timeout=5000")
    # FULL: work that was promised to an administrator outlives a power cut.
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.close()


def _on_begin(connection: Connection) -> None:
    writes = connection.get_execution_options().get(_WRITES)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
