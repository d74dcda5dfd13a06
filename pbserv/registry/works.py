"""Work: what devices are to do once, from the order to its end.

One rule: a device has one piece of active work at a time, and a report, an administrator or the time alone ends it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from sqlalchemy import or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from pbserv.errors import PbservError
from pbserv.registry.device_rows import active_work, chunks, owners_of, work_of
from pbserv.registry.faults import ConflictError, NotFoundError
from pbserv.registry.job_rows import close_jobs
from pbserv.registry.models import DeviceRow, JobRow, WorkRow
from pbserv.registry.orders import WorkOrder
from pbserv.registry.records import ACTIVE_WORK, BundleKind, DeviceState, Work, WorkState
from pbserv.registry.store import Change, Store, now

Refusal = tuple[str, str]
"""The MAC of the order, and why it has no work."""
ADDED_AT_ONCE = 100
_OPEN = (*ACTIVE_WORK, WorkState.HELD)
"""Somebody has to do something about it."""
_AGAIN = (WorkState.HELD, WorkState.FAILED, WorkState.EXPIRED, WorkState.CANCELLED)


class Works(Store):
    """The part of the registry that is about work."""

    async def add_work(self, order: WorkOrder) -> Work:
        """Queue one piece of work; a device has at most one, and only a known device any.

        Raises NotFoundError, and ConflictError with what is to be done.
        """
        async with self._write() as change:
            added, refused = await _add(change, [order])
            if refused:
                raise refused[0][1]
        return added[0]

    async def add_works(self, orders: Sequence[WorkOrder]) -> tuple[list[Work], list[Refusal]]:
        """The same for many, in one transaction; a device that cannot take its work does not stop the others."""
        async with self._write() as change:
            added, refused = await _add(change, orders)
        return added, [(mac, str(fault)) for mac, fault in refused]

    async def works(self, *, everything: bool = False, limit: int = 1000, after: int = 0) -> list[Work]:
        """What is active or held, or with ``everything`` also what has ended; newest first, those older than number
        ``after``."""
        query = select(WorkRow).order_by(WorkRow.id.desc()).limit(limit)
        if not everything:
            query = query.where(WorkRow.state.in_(_OPEN))
        if after:
            query = query.where(WorkRow.id < after)
        async with self._read() as session:
            return [work_of(row) for row in (await session.scalars(query)).all()]

    async def work(self, work_id: int) -> Work:
        async with self._read() as session:
            return work_of(await work_row(session, work_id))

    async def cancel_work(self, work_id: int) -> Work:
        """Active or held work becomes cancelled; a job on the device learns it at its next progress report."""
        return await self._end(work_id, WorkState.CANCELLED, "cancelled by an administrator", "cancel", _OPEN)

    async def hold_work(self, work_id: int, reason: str) -> Work:
        """Active work waits for :meth:`retry_work` from now on, and the device may get other work."""
        return await self._end(work_id, WorkState.HELD, reason, "hold", ACTIVE_WORK)

    async def _end(self, work_id: int, state: WorkState, reason: str, verb: str, of: Collection[WorkState]) -> Work:
        async with self._write() as change:
            row = await work_row(change.session, work_id)
            if row.state not in of:
                raise ConflictError(f"work {work_id} is {row.state}: nothing to {verb}")
            change.end(row, state, reason)
            return work_of(row)

    async def retry_work(self, work_id: int) -> Work:
        """Work that is held, failed, expired or cancelled is queued again, under its old number; an end of its time
        that has passed is forgotten. A job of it that has not reported its end yet is closed: its report must not end
        the new run. Raises ConflictError when the device cannot take it."""
        async with self._write() as change:
            row = await work_row(change.session, work_id)
            if row.state not in _AGAIN:
                raise ConflictError(f"work {work_id} is {row.state}: nothing to try again")
            await _drop_expired(change, (row.mac,))
            desk = await _Desk.of(change.session, {row.mac: row.mac})
            refusal = desk.refusal(row.mac, row.mac, BundleKind(row.kind), row.image)
            if refusal is not None:
                raise refusal
            reason = "its work was queued again"
            await close_jobs(change, JobRow.work_id == work_id, state=WorkState.CANCELLED, reason=reason)
            row.state, row.reason, row.ended = WorkState.QUEUED.value, "", None
            row.woken, row.woken_times = None, 0
            if row.expires is not None and row.expires <= now():
                row.expires = None
            change.touch(row.mac)
            return work_of(row)

    async def works_to_wake(self, before: datetime, limit: int, times: int) -> list[Work]:
        """Work that waits for a device which is to be woken: never yet, or fewer than ``times`` times and not since
        ``before``. The highest priority first, then who was woken least often, then the oldest."""
        query = (
            select(WorkRow)
            .where(
                WorkRow.state == WorkState.QUEUED, WorkRow.wake, WorkRow.woken_times < times,
                or_(WorkRow.woken.is_(None), WorkRow.woken <= before),
                or_(WorkRow.expires.is_(None), WorkRow.expires > now()),
            )
            .order_by(WorkRow.priority.desc(), WorkRow.woken_times, WorkRow.id)
            .limit(limit)
        )  # fmt: skip
        async with self._read() as session:
            return [work_of(row) for row in (await session.scalars(query)).all()]

    async def set_woken(self, work_ids: Collection[int], at: datetime) -> None:
        """Their devices were woken once more; a thousand pieces of work at most."""
        async with self._write() as change:
            for row in (await change.session.scalars(select(WorkRow).where(WorkRow.id.in_(work_ids)))).all():
                row.woken, row.woken_times = at, row.woken_times + 1
                change.touch(row.mac)

    async def begin_work(self, work_id: int) -> Work:
        """A device is at it that has no jobs: work that waits runs from now on, and does not expire any more."""
        async with self._write() as change:
            row = await work_row(change.session, work_id)
            if row.state == WorkState.QUEUED:
                row.state, row.attempts = WorkState.RUNNING.value, row.attempts + 1
                change.touch(row.mac)
            return work_of(row)

    async def finish_work(self, work_id: int, *, ok: bool, reason: str) -> Work:
        """A report without a job: of the loader, or of the system that was installed. A second one changes nothing.

        Work that expired meanwhile was begun before that, or there would be no report: it is done.
        """
        async with self._write() as change:
            row = await work_row(change.session, work_id)
            if row.state in ACTIVE_WORK or (ok and row.state == WorkState.EXPIRED):
                close(change, row, ok=ok, reason=reason)
            return work_of(row)

    async def expire_works(self, at: datetime) -> list[Work]:
        """Work that no device has begun by its time ends. What runs may go on: half an image is worse than a late one.

        Returns what ended.
        """
        query = select(WorkRow).where(WorkRow.state == WorkState.QUEUED, WorkRow.expires <= at)
        async with self._read() as session:
            if (await session.scalars(query.limit(1))).first() is None:
                return []
        async with self._write() as change:
            rows = (await change.session.scalars(query)).all()
            for row in rows:
                _expire(change, row)
            return [work_of(row) for row in rows]


async def work_row(session: AsyncSession, work_id: int) -> WorkRow:
    """Raises NotFoundError."""
    row = await session.get(WorkRow, work_id)
    if row is None:
        raise NotFoundError(f"no work {work_id}; see: pbserv work list --all")
    return row


def close(change: Change, row: WorkRow, *, ok: bool, reason: str, again: bool = True) -> None:
    """After a run: done, or queued for the next one, or held when no run is left, or may help (not ``again``)."""
    if ok:
        change.end(row, WorkState.DONE, reason)
    elif again and row.retries > 0:
        row.retries -= 1
        row.state, row.reason = WorkState.QUEUED.value, reason
        change.touch(row.mac)
    else:
        change.end(row, WorkState.HELD, reason)


@dataclass(slots=True)
class _Desk:
    """What decides whether devices can take work. ``captures``: image -> the device that it is captured from."""

    states: Mapping[str, str]
    active: dict[str, str] = field(default_factory=dict)
    captures: dict[str, str] = field(default_factory=dict)

    @classmethod
    async def of(cls, session: AsyncSession, owners: Mapping[str, str]) -> _Desk:
        desk = cls({})
        states: dict[str, str] = {}
        for some in chunks(set(owners.values())):
            query = select(DeviceRow.mac, DeviceRow.state).where(DeviceRow.mac.in_(some))
            states.update((mac, state) for mac, state in (await session.execute(query)).all())
            for mac, work in (await active_work(session, some)).items():
                desk.active[mac] = (
                    f"has work {work.id} ({work.kind} {work.bundle or work.image}) already; "
                    f"cancel it first: pbserv work cancel {work.id}"
                )
        desk.states = states
        capture = select(WorkRow.image, WorkRow.mac, WorkRow.id).where(
            WorkRow.kind == BundleKind.CAPTURE, WorkRow.state.in_(ACTIVE_WORK)
        )
        for image, mac, number in (await session.execute(capture)).all():
            desk.captures[image] = f"{mac} (work {number})"
        return desk

    def refusal(self, mac: str, owner: str, kind: BundleKind, image: str) -> PbservError | None:
        state = self.states.get(owner)
        if state is None:
            return NotFoundError(f"no device {mac}; accept it first: pbserv device accept {mac}")
        if state != DeviceState.KNOWN:
            return ConflictError(f"device {mac} is {state}; accept it first: pbserv device accept {mac}")
        if owner in self.active:
            return ConflictError(f"device {mac} {self.active[owner]}")
        if kind is BundleKind.CAPTURE and image in self.captures:
            return ConflictError(f"image {image} is being captured already, from {self.captures[image]}")
        return None

    def take(self, owner: str, kind: BundleKind, image: str) -> None:
        self.active[owner] = "is named twice"
        if kind is BundleKind.CAPTURE:
            self.captures[image] = owner


async def _add(change: Change, orders: Sequence[WorkOrder]) -> tuple[list[Work], list[tuple[str, PbservError]]]:
    owners = await owners_of(change.session, {order.mac for order in orders})
    await _drop_expired(change, set(owners.values()))
    desk = await _Desk.of(change.session, owners)
    rows: list[WorkRow] = []
    refused: list[tuple[str, PbservError]] = []
    for order in orders:
        owner = owners[order.mac]
        refusal = desk.refusal(order.mac, owner, order.kind, order.image)
        if refusal is not None:
            refused.append((order.mac, refusal))
            continue
        desk.take(owner, order.kind, order.image)
        rows.append(_row(owner, order))
        change.session.add(rows[-1])
        change.touch(owner)
        if len(rows) % ADDED_AT_ONCE == 0:  # others get the loop in between
            await change.session.flush()
    await change.session.flush()
    return [work_of(row) for row in rows], refused


async def _drop_expired(change: Change, macs: Collection[str]) -> None:
    """Work that nobody began by its time must not stand in the way of other work until the next sweep."""
    at = now()
    for some in chunks(macs):
        query = select(WorkRow).where(WorkRow.mac.in_(some), WorkRow.state == WorkState.QUEUED, WorkRow.expires <= at)
        for row in (await change.session.scalars(query)).all():
            _expire(change, row)
    await change.session.flush()


def _expire(change: Change, row: WorkRow) -> None:
    change.end(row, WorkState.EXPIRED, f"the device did not begin it by {row.expires:%Y-%m-%d %H:%M} UTC")


def _row(mac: str, order: WorkOrder) -> WorkRow:
    return WorkRow(
        mac=mac, kind=order.kind.value, image=order.image, target_disk=order.target_disk, finish=order.finish.value,
        overwrite=order.overwrite, state=WorkState.QUEUED.value, created=now(), bundle=order.bundle,
        document=order.document, assignment=order.assignment, expires=order.expires, retries=order.retries,
        options=order.options.to_json(), priority=order.priority, wake=order.wake,
    )  # fmt: skip
