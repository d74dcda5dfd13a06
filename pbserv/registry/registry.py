"""Reads and writes of the registry, each in its own transaction; every change is told to the subscribers.

One rule: a change is told only after its commit, as a frozen record, so that nobody acts on what may be rolled back.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from sqlalchemy import case, delete, event, func, insert, select, update
from sqlalchemy.dialects.sqlite import Insert
from sqlalchemy.dialects.sqlite import insert as upsert
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry

from pbserv.errors import PbservError
from pbserv.registry.journal_rows import KEEP_SESSION, KEEP_STRATEGY, boot_session, surplus_sessions, values_of
from pbserv.registry.models import BootSessionRow, DeviceRow, EventRow, JobRow, StrategyRow, TokenRow, WorkRow
from pbserv.registry.records import (
    ACTIVE_WORK,
    BootSession,
    BundleKind,
    Device,
    DeviceState,
    Event,
    Finish,
    Job,
    Work,
    WorkState,
)

DeviceChanged = Callable[[Device], None]
EVENTS_PER_DEVICE = 500
SEEN_AT_ONCE = 50
"""Devices per statement: packets that come meanwhile are answered in between."""
MOST_SESSIONS = 20_000
MOST_EVENTS = 1_000_000
"""Of all devices together: MAC addresses are easily made up, and need not be registered to have a history."""
MOST_STRATEGIES = 16_384


def first_line(fault: Exception) -> str:
    """The database's own words without the statement and its parameters."""
    return str(fault).splitlines()[0]


class NotFoundError(PbservError):
    """No such device, work or job."""


class ConflictError(PbservError):
    """The change contradicts what the registry holds."""


@dataclass(frozen=True, slots=True)
class WorkOrder:
    """What an administrator asks for; an empty ``target_disk`` means the only disk that fits."""

    mac: str
    kind: BundleKind
    image: str
    target_disk: str = ""
    finish: Finish = Finish.REBOOT
    overwrite: bool = False


@dataclass(frozen=True, slots=True)
class Progress:
    stage: str
    item: str
    bytes_done: int
    bytes_total: int
    rate: int


def _now() -> datetime:
    return datetime.now(UTC)


def _on_connect(connection: DBAPIConnection, _entry: ConnectionPoolEntry) -> None:
    cursor = connection.cursor()
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.execute("PRAGMA busy_timeout=5000")
    # FULL: work that was promised to an administrator outlives a power cut.
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.close()


class Registry:
    """Open with :meth:`open` after :func:`pbserv.registry.migrate.migrate`; close with :meth:`close`."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._session = async_sessionmaker(engine, expire_on_commit=False)
        self._subscribers: list[DeviceChanged] = []
        self._writing = asyncio.Lock()

    @contextlib.asynccontextmanager
    async def _write(self) -> AsyncIterator[AsyncSession]:
        """A transaction that nobody else of this process writes beside: what it read still holds when it commits."""
        async with self._writing, self._session.begin() as session:
            yield session

    @classmethod
    def open(cls, path: Path) -> Registry:
        engine = create_async_engine(f"sqlite+aiosqlite:///{path}")
        event.listen(engine.sync_engine, "connect", _on_connect)
        return cls(engine)

    async def close(self) -> None:
        await self._engine.dispose()

    def subscribe(self, changed: DeviceChanged) -> None:
        """``changed`` is called in the loop, after each commit that touches a device or its work."""
        self._subscribers.append(changed)

    # devices

    async def devices(self) -> list[Device]:
        async with self._session() as session:
            rows = (await session.scalars(select(DeviceRow).order_by(DeviceRow.mac))).all()
            work = await _active_work(session)
            return [_device(row, work.get(row.mac)) for row in rows]

    async def device(self, mac: str) -> Device:
        async with self._session() as session:
            return await _load_device(session, mac)

    async def see(self, devices: Sequence[Device]) -> None:
        """Store what was seen of devices, all in one transaction; a state is written only for a device that is new."""
        async with self._write() as session:
            connection = await session.connection()
            statement = _seeing()
            for at in range(0, len(devices), SEEN_AT_ONCE):
                await connection.execute(statement, [_seen(device) for device in devices[at : at + SEEN_AT_ONCE]])

    async def set_device(self, mac: str, state: DeviceState | None = None, name: str | None = None) -> Device:
        """Accept, deny or name a device; one that was never seen is created, so that work can be prepared for it."""
        async with self._write() as session:
            row = await session.get(DeviceRow, mac)
            if row is None:
                now = _now()
                row = DeviceRow(mac=mac, name="", address="", first_seen=now, last_seen=now)
                row.state = (state or DeviceState.KNOWN).value
                session.add(row)
            if state is not None:
                row.state = state.value
            if state is DeviceState.DENIED:
                await session.execute(
                    update(WorkRow)
                    .where(WorkRow.mac == mac, WorkRow.state.in_(ACTIVE_WORK))
                    .values(state=WorkState.CANCELLED.value, reason="the device was denied")
                )
            if name is not None:
                row.name = name
        return await self._changed(mac)

    async def forget(self, mac: str) -> None:
        """Remove a device with everything that is known of it; refused while it has work."""
        async with self._write() as session:
            if await session.get(DeviceRow, mac) is None:
                raise NotFoundError(f"no device {mac}; see: pbserv device list")
            active = (await _active_work(session)).get(mac)
            if active is not None:
                raise ConflictError(
                    f"device {mac} has work {active.id}; cancel it first: pbserv work cancel {active.id}"
                )
            for table in (EventRow, JobRow, WorkRow, BootSessionRow, StrategyRow, DeviceRow):
                await session.execute(delete(table).where(table.mac == mac))

    async def close_orphans(self) -> None:
        """At the start: jobs that no report can end any more, because their work was cancelled, are closed."""
        active = select(WorkRow.id).where(WorkRow.state.in_(ACTIVE_WORK))
        async with self._write() as session:
            await session.execute(
                update(JobRow)
                .where(JobRow.state == WorkState.RUNNING, JobRow.work_id.not_in(active))
                .values(state=WorkState.CANCELLED.value, reason="cancelled; the device did not report", finished=_now())
            )

    # work

    async def add_work(self, order: WorkOrder) -> Work:
        """Queue one piece of work; a device has at most one, and a denied or pending device none."""
        async with self._write() as session:
            device = await session.get(DeviceRow, order.mac)
            if device is None:
                raise NotFoundError(f"no device {order.mac}; accept it first: pbserv device accept {order.mac}")
            if device.state != DeviceState.KNOWN:
                raise ConflictError(
                    f"device {order.mac} is {device.state}; accept it first: pbserv device accept {order.mac}"
                )
            active = (await _active_work(session)).get(order.mac)
            if active is not None:
                raise ConflictError(
                    f"device {order.mac} has work {active.id} ({active.kind} {active.image}) already; "
                    f"cancel it first: pbserv work cancel {active.id}"
                )
            if order.kind is BundleKind.CAPTURE:
                await _refuse_second_capture(session, order.image)
            row = WorkRow(
                mac=order.mac,
                kind=order.kind.value,
                image=order.image,
                target_disk=order.target_disk,
                finish=order.finish.value,
                overwrite=order.overwrite,
                state=WorkState.QUEUED.value,
                created=_now(),
            )
            row.reason = ""
            session.add(row)
            await session.flush()
            work = _work(row)
        await self._changed(order.mac)
        return work

    async def works(self, *, everything: bool = False, limit: int = 1000) -> list[Work]:
        """Active work, or with ``everything`` also what is done; newest first."""
        query = select(WorkRow).order_by(WorkRow.id.desc()).limit(limit)
        if not everything:
            query = query.where(WorkRow.state.in_(ACTIVE_WORK))
        async with self._session() as session:
            return [_work(row) for row in (await session.scalars(query)).all()]

    async def work(self, work_id: int) -> Work:
        async with self._session() as session:
            row = await session.get(WorkRow, work_id)
            if row is None:
                raise NotFoundError(f"no work {work_id}; see: pbserv work list --all")
            return _work(row)

    async def cancel_work(self, work_id: int) -> Work:
        """Active work becomes cancelled; the job on the device learns it at its next progress report."""
        async with self._write() as session:
            row = await session.get(WorkRow, work_id)
            if row is None:
                raise NotFoundError(f"no work {work_id}; see: pbserv work list --all")
            if row.state not in ACTIVE_WORK:
                raise ConflictError(f"work {work_id} is {row.state}: nothing to cancel")
            row.state, row.reason = WorkState.CANCELLED.value, "cancelled by an administrator"
            work = _work(row)
        await self._changed(work.mac)
        return work

    # jobs

    async def start_job(self, work_id: int, address: str, version: int | None) -> Job:
        """The device begins: its work runs, and a job that was cut off (power, kill) is closed as failed."""
        now = _now()
        async with self._write() as session:
            work = await session.get(WorkRow, work_id)
            if work is None or work.state not in ACTIVE_WORK:
                raise ConflictError(f"work {work_id} is not waiting for a device")
            await session.execute(
                update(JobRow)
                .where(JobRow.work_id == work_id, JobRow.state == WorkState.RUNNING)
                .values(
                    state=WorkState.FAILED.value, reason="the device started again before it reported", finished=now
                )
            )
            work.state = WorkState.RUNNING.value
            row = JobRow(
                work_id=work_id, mac=work.mac, kind=work.kind, image=work.image, version=version, address=address,
                state=WorkState.RUNNING.value, reason="", stage="start", item="", bytes_done=0, bytes_total=0, rate=0,
                started=now, log="",
            )  # fmt: skip
            session.add(row)
            await session.flush()
            job = _job(row)
        await self._changed(job.mac)
        return job

    async def job(self, job_id: int) -> Job:
        async with self._session() as session:
            row = await session.get(JobRow, job_id)
            if row is None:
                raise NotFoundError(f"no job {job_id}")
            return _job(row)

    async def jobs(self, *, mac: str | None = None, limit: int = 100) -> list[Job]:
        """Newest first."""
        query = select(JobRow).order_by(JobRow.id.desc()).limit(limit)
        if mac is not None:
            query = query.where(JobRow.mac == mac)
        async with self._session() as session:
            return [_job(row) for row in (await session.scalars(query)).all()]

    async def progress(self, job_id: int, progress: Progress) -> None:
        async with self._write() as session:
            await session.execute(
                update(JobRow)
                .where(JobRow.id == job_id, JobRow.state == WorkState.RUNNING)
                .values(
                    stage=progress.stage,
                    item=progress.item,
                    bytes_done=progress.bytes_done,
                    bytes_total=progress.bytes_total,
                    rate=progress.rate,
                )
            )

    async def set_job_version(self, job_id: int, version: int) -> None:
        """The image version that a capture became."""
        async with self._write() as session:
            await session.execute(update(JobRow).where(JobRow.id == job_id).values(version=version))

    async def finish_job(self, job_id: int, *, ok: bool, reason: str, log: str = "") -> Job:
        """Close a job once; the second report of the same job changes nothing. Its work ends with it."""
        async with self._write() as session:
            row = await session.get(JobRow, job_id)
            if row is None:
                raise NotFoundError(f"no job {job_id}")
            if row.state == WorkState.RUNNING:
                work = await session.get(WorkRow, row.work_id)
                cancelled = work is not None and work.state == WorkState.CANCELLED
                state = WorkState.DONE if ok else WorkState.CANCELLED if cancelled else WorkState.FAILED
                row.state, row.reason, row.log, row.finished = state.value, reason, log, _now()
                if work is not None and work.state in ACTIVE_WORK:
                    work.state, work.reason = state.value, reason
            job = _job(row)
        await self._changed(job.mac)
        return job

    # history

    async def record(self, events: Sequence[Event]) -> None:
        """Append to the histories of devices; the newest ``EVENTS_PER_DEVICE`` of each stay, ``MOST_EVENTS`` in all."""
        if not events:
            return
        rows = [{"time": e.time, "mac": e.mac, "what": e.what, "detail": e.detail} for e in events]
        counted = select(EventRow.mac).where(EventRow.mac.in_({e.mac for e in events})).group_by(EventRow.mac)
        async with self._write() as session:
            await session.execute(insert(EventRow), rows)
            for mac in await session.scalars(counted.having(func.count() > EVENTS_PER_DEVICE)):
                newest = select(EventRow.id).where(EventRow.mac == mac).order_by(EventRow.id.desc())
                oldest_kept = newest.offset(EVENTS_PER_DEVICE - 1).limit(1).scalar_subquery()
                await session.execute(delete(EventRow).where(EventRow.mac == mac, EventRow.id < oldest_kept))
            newest_id = select(func.max(EventRow.id)).scalar_subquery()
            await session.execute(delete(EventRow).where(EventRow.id <= newest_id - MOST_EVENTS))

    async def history(self, mac: str, limit: int = 200) -> list[Event]:
        """The newest ``limit`` events of a device, oldest first."""
        query = select(EventRow).where(EventRow.mac == mac).order_by(EventRow.id.desc()).limit(limit)
        async with self._session() as session:
            rows = (await session.scalars(query)).all()
        return [Event(row.time, row.mac, row.what, row.detail) for row in reversed(rows)]

    # boot sessions

    async def keep_sessions(self, sessions: Sequence[BootSession]) -> None:
        """Write sessions, or write them again. Of each of their devices the newest ones stay (``journal_rows``)."""
        if not sessions:
            return
        async with self._write() as session:
            await session.execute(KEEP_SESSION, [values_of(kept) for kept in sessions])
            await session.execute(surplus_sessions({kept.mac for kept in sessions}))

    async def drop_old_sessions(self, days: int) -> None:
        """Remove what ended more than ``days`` ago, and the oldest above ``MOST_SESSIONS``."""
        first_kept = select(BootSessionRow.id).order_by(BootSessionRow.id.desc()).offset(MOST_SESSIONS - 1).limit(1)
        async with self._write() as session:
            await session.execute(delete(BootSessionRow).where(BootSessionRow.ended < _now() - timedelta(days=days)))
            await session.execute(delete(BootSessionRow).where(BootSessionRow.id < first_kept.scalar_subquery()))

    async def sessions(self, *, mac: str | None = None, limit: int = 100) -> list[BootSession]:
        """Newest first, by the time of their last step."""
        query = select(BootSessionRow).order_by(BootSessionRow.ended.desc(), BootSessionRow.id.desc()).limit(limit)
        if mac is not None:
            query = query.where(BootSessionRow.mac == mac)
        async with self._session() as session:
            return [boot_session(row) for row in (await session.scalars(query)).all()]

    async def strategies(self) -> dict[str, str]:
        """MAC address -> name of the strategy that was learned for it."""
        async with self._session() as session:
            return {row.mac: row.name for row in (await session.scalars(select(StrategyRow))).all()}

    async def remember_strategies(self, learned: Mapping[str, str]) -> None:
        """MAC address -> name; an empty name forgets what was learned. The newest ``MOST_STRATEGIES`` stay."""
        kept = [{"mac": mac, "name": name, "learned": _now()} for mac, name in learned.items() if name]
        async with self._write() as session:
            if kept:
                await session.execute(KEEP_STRATEGY, kept)
            await session.execute(
                delete(StrategyRow).where(StrategyRow.mac.in_([m for m in learned if not learned[m]]))
            )
            newest = select(StrategyRow.mac).order_by(StrategyRow.learned.desc()).limit(MOST_STRATEGIES)
            if (await session.scalar(select(func.count()).select_from(StrategyRow)) or 0) > MOST_STRATEGIES:
                await session.execute(delete(StrategyRow).where(StrategyRow.mac.not_in(newest)))

    # tokens

    async def add_token(self, name: str, role: str, sha256: str) -> None:
        async with self._write() as session:
            session.add(TokenRow(name=name, role=role, sha256=sha256, created=_now()))

    async def token_digests(self) -> dict[str, str]:
        """SHA-256 hex digest of each token -> role."""
        async with self._session() as session:
            return {row.sha256: row.role for row in (await session.scalars(select(TokenRow))).all()}

    async def _changed(self, mac: str) -> Device:
        device = await self.device(mac)
        for subscriber in self._subscribers:
            subscriber(device)
        return device


def _seeing() -> Insert:
    """What was seen of a device wins over what is stored, where it says something; the state stays what it is."""
    new = upsert(DeviceRow)
    seen = new.excluded
    return new.on_conflict_do_update(
        index_elements=[DeviceRow.mac],
        set_={
            "uuid": func.coalesce(seen.uuid, DeviceRow.uuid),
            "arch": func.coalesce(seen.arch, DeviceRow.arch),
            "address": case((seen.address != "", seen.address), else_=DeviceRow.address),
            "last_seen": seen.last_seen,
        },
    )


def _seen(device: Device) -> dict[str, object]:
    return {
        "mac": device.mac, "uuid": device.uuid or None, "name": device.name, "arch": device.arch,
        "state": device.state.value, "address": device.address, "first_seen": device.first_seen,
        "last_seen": device.last_seen,
    }  # fmt: skip


async def _refuse_second_capture(session: AsyncSession, image: str) -> None:
    query = select(WorkRow).where(
        WorkRow.kind == BundleKind.CAPTURE, WorkRow.image == image, WorkRow.state.in_(ACTIVE_WORK)
    )
    other = await session.scalar(query.limit(1))
    if other is not None:
        raise ConflictError(f"image {image} is being captured already, from {other.mac} (work {other.id})")


async def _active_work(session: AsyncSession) -> dict[str, Work]:
    rows = await session.scalars(select(WorkRow).where(WorkRow.state.in_(ACTIVE_WORK)).order_by(WorkRow.id))
    return {row.mac: _work(row) for row in rows}


async def _load_device(session: AsyncSession, mac: str) -> Device:
    row = await session.get(DeviceRow, mac)
    if row is None:
        raise NotFoundError(f"no device {mac}; see: pbserv device list")
    query = select(WorkRow).where(WorkRow.mac == mac, WorkRow.state.in_(ACTIVE_WORK)).order_by(WorkRow.id.desc())
    work = await session.scalar(query.limit(1))
    return _device(row, None if work is None else _work(work))


def _device(row: DeviceRow, work: Work | None) -> Device:
    return Device(
        mac=row.mac, uuid=row.uuid, name=row.name, arch=row.arch, state=DeviceState(row.state), address=row.address,
        first_seen=row.first_seen, last_seen=row.last_seen, work=work,
    )  # fmt: skip


def _work(row: WorkRow) -> Work:
    return Work(
        id=row.id, mac=row.mac, kind=BundleKind(row.kind), image=row.image, target_disk=row.target_disk or "",
        finish=Finish(row.finish), overwrite=row.overwrite, state=WorkState(row.state), reason=row.reason or "",
        created=row.created,
    )  # fmt: skip


def _job(row: JobRow) -> Job:
    return Job(
        id=row.id, work_id=row.work_id, mac=row.mac, kind=BundleKind(row.kind), image=row.image, version=row.version,
        address=row.address, state=WorkState(row.state), reason=row.reason, stage=row.stage, item=row.item,
        bytes_done=row.bytes_done, bytes_total=row.bytes_total, rate=row.rate, started=row.started,
        finished=row.finished, log=row.log,
    )  # fmt: skip
