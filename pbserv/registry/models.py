"""The tables (SQLAlchemy 2). Only the registry's own modules and the migrations look at these classes."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any  # Any: what a driver gives

from sqlalchemy import (
    BigInteger,
    DateTime,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    String,
    Text,
    TypeDecorator,
    text,
)
from sqlalchemy.engine import Dialect
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

BIG = BigInteger().with_variant(Integer, "sqlite")
"""Numbers of rows that come with every packet: SQLite counts in 64 bits under the name of INTEGER alone."""
ACTIVE = text("state IN ('queued', 'running')")
CAPTURING = text("kind = 'capture' AND state IN ('queued', 'running')")


class UtcTime(TypeDecorator[datetime]):
    """No zone is kept: store UTC, give back an aware UTC time."""

    impl = DateTime
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return None if value is None else value.astimezone(UTC).replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return None if value is None else value.replace(tzinfo=UTC)

    def result_processor(self, dialect: Dialect, coltype: object) -> Callable[[Any], datetime | None]:
        """In one step where a time is stored as text: a hundred thousand devices have many of them."""
        if dialect.name == "sqlite":
            return _utc_of_text
        return super().result_processor(dialect, coltype) or _utc_of_text


def _utc_of_text(value: str | None) -> datetime | None:
    return None if value is None else datetime.fromisoformat(value + "+00:00")


class Words(TypeDecorator[str]):
    """Text from anywhere, made fit for both databases: PostgreSQL refuses NUL, half characters and what is too long.

    Much of it comes from devices; a batch must not fail for ever for one odd character.
    """

    impl = String
    cache_ok = True

    def __init__(self, length: int | None) -> None:
        super().__init__(length)
        self.length = length

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        if value is None:
            return None
        if "\0" in value:
            value = value.replace("\0", "")
        if not value.isascii():
            value = value.encode("utf-8", "replace").decode()
        return value if self.length is None or len(value) <= self.length else value[: self.length]


class Prose(Words):
    """The same of any length."""

    impl = Text
    cache_ok = True

    def __init__(self) -> None:
        super().__init__(None)


class Base(DeclarativeBase):
    pass


class DeviceRow(Base):
    __tablename__ = "device"

    mac: Mapped[str] = mapped_column(Words(17), primary_key=True)
    uuid: Mapped[str | None] = mapped_column(Words(36))
    name: Mapped[str] = mapped_column(Words(64), default="")
    arch: Mapped[int | None]
    state: Mapped[str] = mapped_column(Words(16))
    address: Mapped[str] = mapped_column(Words(45), default="")
    first_seen: Mapped[datetime] = mapped_column(UtcTime)
    last_seen: Mapped[datetime] = mapped_column(UtcTime)
    serial: Mapped[str] = mapped_column(Words(128), default="")
    asset: Mapped[str] = mapped_column(Words(128), default="")
    folder: Mapped[str] = mapped_column(Words(600), default="/")
    labels: Mapped[str] = mapped_column(Prose(), default="{}")
    learned: Mapped[str] = mapped_column(Prose(), default="{}")
    menu: Mapped[str] = mapped_column(Words(64), default="")
    loader: Mapped[str] = mapped_column(Words(1024), default="")
    arguments: Mapped[str] = mapped_column(Words(1024), default="")


class DeviceMacRow(Base):
    """A further address of a device. An address is here or in ``device``, never in both."""

    __tablename__ = "device_mac"

    mac: Mapped[str] = mapped_column(Words(17), primary_key=True)
    device: Mapped[str] = mapped_column(ForeignKey("device.mac"), index=True)


class DeviceGroupRow(Base):
    __tablename__ = "device_group"

    mac: Mapped[str] = mapped_column(ForeignKey("device.mac"), primary_key=True)
    name: Mapped[str] = mapped_column(Words(64), primary_key=True, index=True)


class DeviceRunRow(Base):
    """How each assignment ended last on a device. To look for it in ``work`` takes longer the more there ever was."""

    __tablename__ = "device_run"

    mac: Mapped[str] = mapped_column(ForeignKey("device.mac"), primary_key=True)
    assignment: Mapped[str] = mapped_column(Words(160), primary_key=True)
    state: Mapped[str] = mapped_column(Words(16))
    ended: Mapped[datetime] = mapped_column(UtcTime)


class WorkRow(Base):
    __tablename__ = "work"

    id: Mapped[int] = mapped_column(BIG, primary_key=True, autoincrement=True)
    mac: Mapped[str] = mapped_column(ForeignKey("device.mac"), index=True)
    kind: Mapped[str] = mapped_column(Words(16))
    image: Mapped[str] = mapped_column(Words(64))
    target_disk: Mapped[str] = mapped_column(Words(255), default="")
    finish: Mapped[str] = mapped_column(Words(16))
    overwrite: Mapped[bool] = mapped_column(default=False)
    state: Mapped[str] = mapped_column(Words(16), index=True)
    reason: Mapped[str] = mapped_column(Prose(), default="")
    created: Mapped[datetime] = mapped_column(UtcTime)
    bundle: Mapped[str] = mapped_column(Words(64), default="")
    document: Mapped[str] = mapped_column(Prose(), default="")
    assignment: Mapped[str] = mapped_column(Words(80), default="")
    expires: Mapped[datetime | None] = mapped_column(UtcTime)
    retries: Mapped[int] = mapped_column(default=0)
    attempts: Mapped[int] = mapped_column(default=0)
    ended: Mapped[datetime | None] = mapped_column(UtcTime)
    options: Mapped[str] = mapped_column(Prose(), default="")
    priority: Mapped[int] = mapped_column(default=0)
    wake: Mapped[bool] = mapped_column(default=False)
    woken: Mapped[datetime | None] = mapped_column(UtcTime)
    woken_times: Mapped[int] = mapped_column(default=0)

    __table_args__ = (
        # A device does one thing at a time: two orders that cross each other would image it twice.
        Index("ux_work_active", "mac", unique=True, sqlite_where=ACTIVE, postgresql_where=ACTIVE),
        # Two captures of one name would overwrite each other.
        Index("ux_work_capture", "image", unique=True, sqlite_where=CAPTURING, postgresql_where=CAPTURING),
        {"sqlite_autoincrement": True},  # an id is part of a token: never give it out twice
    )


class JobRow(Base):
    __tablename__ = "job"

    id: Mapped[int] = mapped_column(BIG, primary_key=True, autoincrement=True)
    work_id: Mapped[int] = mapped_column(ForeignKey("work.id"), index=True)
    mac: Mapped[str] = mapped_column(Words(17), index=True)
    kind: Mapped[str] = mapped_column(Words(16))
    image: Mapped[str] = mapped_column(Words(64))
    version: Mapped[int | None]
    address: Mapped[str] = mapped_column(Words(45), default="")
    state: Mapped[str] = mapped_column(Words(16), index=True)
    reason: Mapped[str] = mapped_column(Prose(), default="")
    stage: Mapped[str] = mapped_column(Words(64), default="")
    item: Mapped[str] = mapped_column(Words(64), default="")
    bytes_done: Mapped[int] = mapped_column(BigInteger, default=0)
    bytes_total: Mapped[int] = mapped_column(BigInteger, default=0)
    rate: Mapped[int] = mapped_column(BigInteger, default=0)
    started: Mapped[datetime] = mapped_column(UtcTime)
    finished: Mapped[datetime | None] = mapped_column(UtcTime)
    log: Mapped[str] = mapped_column(Prose(), default="")
    store: Mapped[str] = mapped_column(Words(32), default="")
    verified: Mapped[str] = mapped_column(Words(16), default="")
    bytes_sent: Mapped[int] = mapped_column(BigInteger, default=0)
    waited_ms: Mapped[int] = mapped_column(BigInteger, default=0)
    queued_s: Mapped[int] = mapped_column(default=0)

    __table_args__ = (Index("ix_job_image", "image"), {"sqlite_autoincrement": True})


class IdentityRow(Base):
    """Image-safe data of a device. ``body``: JSON of what an administrator or a pool gave it."""

    __tablename__ = "identity"

    mac: Mapped[str] = mapped_column(ForeignKey("device.mac"), primary_key=True)
    body: Mapped[str] = mapped_column(Prose())
    just_imaged: Mapped[bool] = mapped_column(default=False)
    image: Mapped[str] = mapped_column(Words(64), default="")
    version: Mapped[int | None]
    changed: Mapped[datetime] = mapped_column(UtcTime)


class NamePoolRow(Base):
    __tablename__ = "name_pool"

    name: Mapped[str] = mapped_column(Words(64), primary_key=True)
    body: Mapped[str] = mapped_column(Prose())
    revision: Mapped[int]


class PoolValueRow(Base):
    """A value of a pool that a device has; none is given twice."""

    __tablename__ = "pool_value"

    pool: Mapped[str] = mapped_column(Words(64), primary_key=True)
    value: Mapped[str] = mapped_column(Words(64), primary_key=True)
    mac: Mapped[str] = mapped_column(ForeignKey("device.mac"), index=True)
    given: Mapped[datetime] = mapped_column(UtcTime)


class EventRow(Base):
    __tablename__ = "event"

    id: Mapped[int] = mapped_column(BIG, primary_key=True, autoincrement=True)
    time: Mapped[datetime] = mapped_column(UtcTime)
    mac: Mapped[str] = mapped_column(Words(17))
    what: Mapped[str] = mapped_column(Words(64))
    detail: Mapped[str] = mapped_column(Prose(), default="")

    __table_args__ = (Index("ix_event_mac_id", "mac", "id"),)


class BootSessionRow(Base):
    __tablename__ = "boot_session"

    id: Mapped[int] = mapped_column(BIG, primary_key=True, autoincrement=True)
    mac: Mapped[str] = mapped_column(Words(17))
    started: Mapped[datetime] = mapped_column(UtcTime)
    ended: Mapped[datetime] = mapped_column(UtcTime)
    result: Mapped[str] = mapped_column(Words(64))
    why: Mapped[str] = mapped_column(Prose())
    todo: Mapped[str] = mapped_column(Prose())
    steps: Mapped[bytes] = mapped_column(LargeBinary)
    packets: Mapped[int]

    __table_args__ = (
        # A session that is written again, because more has happened, takes its own place.
        Index("ux_boot_session", "mac", "started", unique=True),
        Index("ix_boot_session_ended", "ended"),
    )


class StrategyRow(Base):
    __tablename__ = "strategy"

    mac: Mapped[str] = mapped_column(Words(17), primary_key=True)
    name: Mapped[str] = mapped_column(Words(32))
    learned: Mapped[datetime] = mapped_column(UtcTime)


class TokenRow(Base):
    __tablename__ = "token"

    id: Mapped[int] = mapped_column(BIG, primary_key=True, autoincrement=True)
    name: Mapped[str] = mapped_column(Words(64), unique=True)
    role: Mapped[str] = mapped_column(Words(16))
    sha256: Mapped[str] = mapped_column(Words(64), unique=True)
    created: Mapped[datetime] = mapped_column(UtcTime)


class DocumentRow(Base):
    __tablename__ = "document"

    kind: Mapped[str] = mapped_column(Words(16), primary_key=True)
    name: Mapped[str] = mapped_column(Words(600), primary_key=True)
    body: Mapped[str] = mapped_column(Prose())
    revision: Mapped[int]
    changed: Mapped[datetime] = mapped_column(UtcTime)


class CounterRow(Base):
    __tablename__ = "counter"

    name: Mapped[str] = mapped_column(Words(64), primary_key=True)
    value: Mapped[int] = mapped_column(BigInteger)
