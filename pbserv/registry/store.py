"""What all parts of the registry share: transactions that read or write, and telling what has changed.

One rule: a change is told only after its commit, in the order of the commits, as frozen records that were read in the
same transaction; nobody acts on what may be rolled back, or learns an older state after a newer one.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, NotSupportedError, ProgrammingError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker

from pbserv.registry.device_rows import devices_of
from pbserv.registry.engine import ONE_WRITER, is_shared, reading, upsert_of, writing
from pbserv.registry.faults import ConflictError, UnavailableError, first_line
from pbserv.registry.models import DeviceRunRow, WorkRow
from pbserv.registry.records import Device, Document, Job, WorkState

DeviceChanged = Callable[[Device], None]
JobEnded = Callable[[Job], None]
DocumentName = tuple[str, str]
"""Kind and name."""
DocumentsChanged = Callable[[Sequence[Document], Sequence[DocumentName]], None]


TOLD_AT_ONCE: Final = 50


def now() -> datetime:
    return datetime.now(UTC)


@dataclass(slots=True)
class Change:
    """A transaction that writes. Whoever changes a device or its work names it in ``touched``.

    ``over``: jobs that it closes, as they are then. ``devices``: the touched ones as they stand at the end; filled
    before the commit.
    """

    session: AsyncSession
    touched: dict[str, None] = field(default_factory=dict)
    documents: list[Document] = field(default_factory=list)
    deleted: list[DocumentName] = field(default_factory=list)
    over: list[Job] = field(default_factory=list)
    runs: dict[tuple[str, str], dict[str, object]] = field(default_factory=dict)
    devices: dict[str, Device] = field(default_factory=dict)

    def touch(self, mac: str) -> None:
        """``mac`` is the device's name in the registry."""
        self.touched[mac] = None

    def end(self, row: WorkRow, state: WorkState, reason: str) -> None:
        """Work that was active ends; the device keeps how, where an assignment had led to it."""
        row.state, row.reason, row.ended = state.value, reason, now()
        if row.assignment:
            self.runs[row.mac, row.assignment] = {
                "mac": row.mac, "assignment": row.assignment, "state": state.value, "ended": row.ended,
            }  # fmt: skip
        self.touch(row.mac)


class Store:
    """An engine, with transactions on it. Writers of this process wait for each other."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._shared = is_shared(engine)
        self._upsert = upsert_of(engine)
        self._reads = async_sessionmaker(reading(engine), expire_on_commit=False)
        self._writes = async_sessionmaker(writing(engine), expire_on_commit=False)
        self._writing = asyncio.Lock()
        self._subscribers: list[DeviceChanged] = []
        self._document_subscribers: list[DocumentsChanged] = []
        self._job_subscribers: list[JobEnded] = []

    async def close(self) -> None:
        await self._engine.dispose()

    def subscribe(self, changed: DeviceChanged) -> None:
        """``changed`` is called in the loop, after each commit that touches a device or its work."""
        self._subscribers.append(changed)

    def subscribe_documents(self, changed: DocumentsChanged) -> None:
        """``changed(changed, deleted)`` is called in the loop, after each commit that touches documents."""
        self._document_subscribers.append(changed)

    def subscribe_jobs(self, ended: JobEnded) -> None:
        """``ended`` is called in the loop, once for each job that is over, whatever ended it, after the commit."""
        self._job_subscribers.append(ended)

    @contextlib.asynccontextmanager
    async def _read(self) -> AsyncIterator[AsyncSession]:
        """A transaction that sees one state of the database."""
        with _translated():
            async with self._reads() as session:
                yield session

    @contextlib.asynccontextmanager
    async def _write(self) -> AsyncIterator[Change]:
        """A transaction that nobody writes beside: what it has read still holds when it commits."""
        async with self._writing:
            with _translated():
                async with self._writes.begin() as session:
                    if self._shared:
                        await session.execute(ONE_WRITER)
                    change = Change(session)
                    yield change
                    await self._complete(change)
            await self._tell(change)

    async def _complete(self, change: Change) -> None:
        """The last statements of a transaction."""
        session = change.session
        if change.runs:
            new = self._upsert(DeviceRunRow)
            newest = {"state": new.excluded.state, "ended": new.excluded.ended}
            keep = new.on_conflict_do_update(index_elements=["mac", "assignment"], set_=newest)
            await (await session.connection()).execute(keep, list(change.runs.values()))
        if change.touched:
            await session.flush()
            change.devices = {d.mac: d for d in await devices_of(session, list(change.touched))}

    async def _tell(self, change: Change) -> None:
        """Many devices are told of a few at a time, others get the loop in between; but with documents all at once,
        because these belong together. The next change waits until all is told."""
        for job in change.over:
            for ended in self._job_subscribers:
                ended(job)
        whole = bool(change.documents or change.deleted)
        waiting = iter(change.devices.values())
        try:
            for number, device in enumerate(waiting, 1):
                self._tell_of(device)
                if number % TOLD_AT_ONCE == 0 and not whole:
                    await asyncio.sleep(0)
        finally:
            for device in waiting:  # cancelled meanwhile: what is committed has to be told all the same
                self._tell_of(device)
        if whole:
            for tell in self._document_subscribers:
                tell(tuple(change.documents), tuple(change.deleted))

    def _tell_of(self, device: Device) -> None:
        for told in self._subscribers:
            told(device)


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    """Faults of the connection as callers expect them; the driver raises those of the network as they are."""
    try:
        yield
    except IntegrityError as fault:
        raise ConflictError("the registry was changed by somebody else at the same time; look again") from fault
    except (ProgrammingError, DataError, NotSupportedError):
        raise  # a fault of ours, not of the connection or the server
    except DBAPIError as fault:
        raise UnavailableError(f"the registry's database cannot be used: {first_line(fault)}") from fault
    except OSError as fault:  # TimeoutError is one
        raise UnavailableError(f"the registry's database cannot be reached: {first_line(fault)}") from fault
