"""The tables (SQLAlchemy 2). Only registry.py and the migrations look at these classes."""

from __future__ import annotations

from datetime import UTC, datetime

from sqlalchemy import BigInteger, DateTime, ForeignKey, Index, LargeBinary, String, Text, TypeDecorator, text
from sqlalchemy.engine import Dialect
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class UtcTime(TypeDecorator[datetime]):
    """SQLite keeps no zone: store UTC, give back an aware UTC time."""

    impl = DateTime
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return None if value is None else value.astimezone(UTC).replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return None if value is None else value.replace(tzinfo=UTC)


class Base(DeclarativeBase):
    pass


class DeviceRow(Base):
    __tablename__ = "device"

    mac: Mapped[str] = mapped_column(String(17), primary_key=True)
    uuid: Mapped[str | None] = mapped_column(String(36))
    name: Mapped[str] = mapped_column(String(64), default="")
    arch: Mapped[int | None]
    state: Mapped[str] = mapped_column(String(16))
    address: Mapped[str] = mapped_column(String(45), default="")
    first_seen: Mapped[datetime] = mapped_column(UtcTime)
    last_seen: Mapped[datetime] = mapped_column(UtcTime)


class WorkRow(Base):
    __tablename__ = "work"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    mac: Mapped[str] = mapped_column(ForeignKey("device.mac"), index=True)
    kind: Mapped[str] = mapped_column(String(16))
    image: Mapped[str] = mapped_column(String(64))
    target_disk: Mapped[str] = mapped_column(String(255), default="")
    finish: Mapped[str] = mapped_column(String(16))
    overwrite: Mapped[bool] = mapped_column(default=False)
    state: Mapped[str] = mapped_column(String(16), index=True)
    reason: Mapped[str] = mapped_column(Text, default="")
    created: Mapped[datetime] = mapped_column(UtcTime)

    __table_args__ = (
        # A device does one thing at a time: two orders that cross each other would image it twice.
        Index("ux_work_active", "mac", unique=True, sqlite_where=text("state IN ('queued', 'running')")),
        {"sqlite_autoincrement": True},  # an id is part of a token: never give it out twice
    )


class JobRow(Base):
    __tablename__ = "job"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    work_id: Mapped[int] = mapped_column(ForeignKey("work.id"), index=True)
    mac: Mapped[str] = mapped_column(String(17), index=True)
    kind: Mapped[str] = mapped_column(String(16))
    image: Mapped[str] = mapped_column(String(64))
    version: Mapped[int | None]
    address: Mapped[str] = mapped_column(String(45), default="")
    state: Mapped[str] = mapped_column(String(16), index=True)
    reason: Mapped[str] = mapped_column(Text, default="")
    stage: Mapped[str] = mapped_column(String(64), default="")
    item: Mapped[str] = mapped_column(String(64), default="")
    bytes_done: Mapped[int] = mapped_column(BigInteger, default=0)
    bytes_total: Mapped[int] = mapped_column(BigInteger, default=0)
    rate: Mapped[int] = mapped_column(BigInteger, default=0)
    started: Mapped[datetime] = mapped_column(UtcTime)
    finished: Mapped[datetime | None] = mapped_column(UtcTime)
    log: Mapped[str] = mapped_column(Text, default="")

    __table_args__ = ({"sqlite_autoincrement": True},)


class EventRow(Base):
    __tablename__ = "event"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    time: Mapped[datetime] = mapped_column(UtcTime)
    mac: Mapped[str] = mapped_column(String(17))
    what: Mapped[str] = mapped_column(String(64))
    detail: Mapped[str] = mapped_column(Text, default="")

    __table_args__ = (Index("ix_event_mac_id", "mac", "id"),)


class BootSessionRow(Base):
    __tablename__ = "boot_session"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    mac: Mapped[str] = mapped_column(String(17))
    started: Mapped[datetime] = mapped_column(UtcTime)
    ended: Mapped[datetime] = mapped_column(UtcTime)
    result: Mapped[str] = mapped_column(String(64))
    why: Mapped[str] = mapped_column(Text)
    todo: Mapped[str] = mapped_column(Text)
    steps: Mapped[bytes] = mapped_column(LargeBinary)
    packets: Mapped[int]

    __table_args__ = (
        # A session that is written again, because more has happened, takes its own place.
        Index("ux_boot_session", "mac", "started", unique=True),
        Index("ix_boot_session_ended", "ended"),
    )


class StrategyRow(Base):
    __tablename__ = "strategy"

    mac: Mapped[str] = mapped_column(String(17), primary_key=True)
    name: Mapped[str] = mapped_column(String(32))
    learned: Mapped[datetime] = mapped_column(UtcTime)


class TokenRow(Base):
    __tablename__ = "token"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    name: Mapped[str] = mapped_column(String(64), unique=True)
    role: Mapped[str] = mapped_column(String(16))
    sha256: Mapped[str] = mapped_column(String(64), unique=True)
    created: Mapped[datetime] = mapped_column(UtcTime)
