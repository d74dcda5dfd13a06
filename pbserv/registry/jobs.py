"""Jobs: the runs of work on devices.

One rule: a job is closed once; what comes after that changes nothing.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import select, update

from pbserv.registry.faults import ConflictError, NotFoundError
from pbserv.registry.identity import mark_imaged
from pbserv.registry.models import JobRow, WorkRow
from pbserv.registry.options import WorkOptions
from pbserv.registry.orders import Progress
from pbserv.registry.records import ACTIVE_WORK, BundleKind, Job, WorkState
from pbserv.registry.store import Store, now
from pbserv.registry.works import close

_RESTORES: Final = (BundleKind.RESTORE, BundleKind.MULTICAST)


class Jobs(Store):
    """The part of the registry that is about jobs."""

    async def close_orphans(self) -> None:
        """At the start: jobs that no report can end any more, because their work has ended, are closed."""
        active = select(WorkRow.id).where(WorkRow.state.in_(ACTIVE_WORK))
        async with self._write() as change:
            await change.session.execute(
                update(JobRow)
                .where(JobRow.state == WorkState.RUNNING, JobRow.work_id.not_in(active))
                .values(state=WorkState.CANCELLED.value, reason="cancelled; the device did not report", finished=now())
            )

    async def start_job(self, work_id: int, address: str, version: int | None) -> Job:
        """The device begins: its work runs, and a job that was cut off (power, kill) is closed as failed.

        That is an attempt, but uses up no retry: only a report of failure does. Raises ConflictError when the work does
        not wait for a device (any more).
        """
        at = now()
        async with self._write() as change:
            session = change.session
            work = await session.get(WorkRow, work_id)
            if work is None or work.state not in ACTIVE_WORK:
                raise ConflictError(f"work {work_id} is not waiting for a device")
            if work.state == WorkState.QUEUED and work.expires is not None and work.expires <= at:
                raise ConflictError(f"work {work_id} has expired; to do it all the same: pbserv work retry {work_id}")
            await session.execute(
                update(JobRow)
                .where(JobRow.work_id == work_id, JobRow.state == WorkState.RUNNING)
                .values(state=WorkState.FAILED.value, reason="the device started again before it reported", finished=at)
            )
            work.state = WorkState.RUNNING.value
            work.attempts += 1
            row = _begun(work_id, work.mac, work.kind, work.image, address, version)
            session.add(row)
            await session.flush()
            change.touch(work.mac)
            return _job(row)

    async def add_job(self, within: int, kind: BundleKind, image: str, address: str, version: int | None) -> Job:
        """A further job that was ordered on the device while the job ``within`` runs. It ends alone: the work goes on
        until the job of its own kind ends. Raises NotFoundError, and ConflictError when that job or its work is over.
        """
        async with self._write() as change:
            session = change.session
            parent = _found(await session.get(JobRow, within), within)
            work = await session.get(WorkRow, parent.work_id)
            if parent.state != WorkState.RUNNING or work is None or work.state not in ACTIVE_WORK:
                raise ConflictError(f"job {within} is over")
            row = _begun(parent.work_id, parent.mac, kind.value, image, address, version)
            session.add(row)
            await session.flush()
            return _job(row)

    async def job(self, job_id: int) -> Job:
        async with self._read() as session:
            return _job(_found(await session.get(JobRow, job_id), job_id))

    async def jobs(self, *, mac: str | None = None, limit: int = 100, after: int = 0) -> list[Job]:
        """Newest first, those older than number ``after``."""
        query = select(JobRow).order_by(JobRow.id.desc()).limit(limit)
        if mac is not None:
            query = query.where(JobRow.mac == mac)
        if after:
            query = query.where(JobRow.id < after)
        async with self._read() as session:
            return [_job(row) for row in (await session.scalars(query)).all()]

    async def progress(self, job_id: int, progress: Progress) -> None:
        async with self._write() as change:
            await change.session.execute(
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
        async with self._write() as change:
            await change.session.execute(update(JobRow).where(JobRow.id == job_id).values(version=version))

    async def finish_job(self, job_id: int, *, ok: bool, reason: str, log: str = "") -> Job:
        """Close a job; the second report of the same job changes nothing.

        Its work ends with it when ``ok``. Else it is queued again while it has retries left, and held after that. A job
        that was ordered on the device (:meth:`add_job`) ends alone, or with its work. A restore that is ``ok``, and not
        a dry run, sets the device's just-imaged flag.
        """
        async with self._write() as change:
            row = _found(await change.session.get(JobRow, job_id), job_id)
            if row.state == WorkState.RUNNING:
                work = await change.session.get(WorkRow, row.work_id)
                cancelled = work is not None and work.state == WorkState.CANCELLED
                state = WorkState.DONE if ok else WorkState.CANCELLED if cancelled else WorkState.FAILED
                row.state, row.reason, row.log, row.finished = state.value, reason, log, now()
                if work is not None and work.state in ACTIVE_WORK and work.kind == row.kind:
                    close(change, work, ok=ok, reason=reason)
                    await change.session.execute(
                        update(JobRow)
                        .where(JobRow.work_id == work.id, JobRow.state == WorkState.RUNNING, JobRow.id != row.id)
                        .values(state=WorkState.FAILED.value, reason=f"job {row.id} ended", finished=now())
                    )
                if ok and row.kind in _RESTORES and not (work and WorkOptions.read(work.options).dry_run):
                    await mark_imaged(change.session, row.mac, row.image, row.version)
                change.touch(row.mac)
            return _job(row)


def _begun(work_id: int, mac: str, kind: str, image: str, address: str, version: int | None) -> JobRow:
    return JobRow(
        work_id=work_id, mac=mac, kind=kind, image=image, version=version, address=address,
        state=WorkState.RUNNING.value, reason="", stage="start", item="", bytes_done=0, bytes_total=0, rate=0,
        started=now(), log="",
    )  # fmt: skip


def _found(row: JobRow | None, job_id: int) -> JobRow:
    if row is None:
        raise NotFoundError(f"no job {job_id}")
    return row


def _job(row: JobRow) -> Job:
    return Job(
        id=row.id, work_id=row.work_id, mac=row.mac, kind=BundleKind(row.kind), image=row.image, version=row.version,
        address=row.address, state=WorkState(row.state), reason=row.reason, stage=row.stage, item=row.item,
        bytes_done=row.bytes_done, bytes_total=row.bytes_total, rate=row.rate, started=row.started,
        finished=row.finished, log=row.log, store=row.store or "", verified=row.verified or "",
        bytes_sent=row.bytes_sent or 0, waited_ms=row.waited_ms or 0, queued_s=row.queued_s or 0,
    )  # fmt: skip
