"""Jobs: the runs of work on devices.

One rule: a job is closed once; what comes after that changes nothing.
"""

from __future__ import annotations

import typing
from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Final

from sqlalchemy import Table, bindparam, or_, select, update

from pbserv.registry.faults import ConflictError, NotFoundError
from pbserv.registry.identity import mark_imaged
from pbserv.registry.job_rows import close_jobs, job_of
from pbserv.registry.models import JobRow, WorkRow
from pbserv.registry.options import WorkOptions
from pbserv.registry.orders import Progress
from pbserv.registry.records import ACTIVE_WORK, RESTORES, BundleKind, Job, WorkState
from pbserv.registry.store import Store, now
from pbserv.registry.works import close

_JOB: Final = typing.cast(Table, JobRow.__table__)
_PROGRESS: Final = ("stage", "item", "bytes_done", "bytes_total", "rate")

_REPEATED: Final = "the device ordered the same again and had not reported of this job: its answer was lost"
_NOT_WHOLE: Final = ('"dry_run": true', '"partitions": [', '"target_partition": ')
"""What the options of work say when a restore did not write the whole image."""


class Jobs(Store):
    """The part of the registry that is about jobs."""

    async def close_orphans(self, before: datetime | None = None) -> None:
        """Jobs that no report will end any more, because their work has ended, are closed: at the start all of them,
        later those whose work has ended ``before``."""
        open_work = WorkRow.state.in_(ACTIVE_WORK)
        needed = select(WorkRow.id).where(open_work if before is None else or_(open_work, WorkRow.ended > before))
        orphans = (JobRow.state == WorkState.RUNNING, JobRow.work_id.not_in(needed))
        async with self._read() as session:
            if (await session.scalars(select(JobRow.id).where(*orphans).limit(1))).first() is None:
                return
        async with self._write() as change:
            reason = "cancelled; the device did not report"
            await close_jobs(change, *orphans, state=WorkState.CANCELLED, reason=reason)

    async def start_job(
        self, work_id: int, address: str, version: int | None, *, store: str = "", queued_s: int = 0
    ) -> Job:
        """The device begins: its work runs, and a job that was cut off (power, kill) is closed as failed.

        ``store``: of the image; ``queued_s``: how long the device waited for a place. That is an attempt, but uses up
        no retry: only a report of failure does. Raises ConflictError when the work does not wait for a device (any
        more).
        """
        at = now()
        async with self._write() as change:
            session = change.session
            work = await session.get(WorkRow, work_id)
            if work is None or work.state not in ACTIVE_WORK:
                raise ConflictError(f"work {work_id} is not waiting for a device")
            if work.state == WorkState.QUEUED and work.expires is not None and work.expires <= at:
                raise ConflictError(f"work {work_id} has expired; to do it all the same: pbserv work retry {work_id}")
            reason = "the device started again before it reported"
            await close_jobs(change, JobRow.work_id == work_id, state=WorkState.FAILED, reason=reason)
            work.state = WorkState.RUNNING.value
            work.attempts += 1
            row = _begun(work_id, work.mac, work.kind, work.image, address, version, store, queued_s)
            session.add(row)
            await session.flush()
            change.touch(work.mac)
            return job_of(row)

    async def add_job(
        self, within: int, kind: BundleKind, image: str, address: str, version: int | None, *, store: str = "",
        queued_s: int = 0, instead_of: Collection[int] = (),
    ) -> Job:  # fmt: skip
        """A further job that was ordered on the device while the job ``within`` runs. It ends alone: the work goes on
        until the job of its own kind ends. Raises NotFoundError, and ConflictError when that job or its work is over.

        ``instead_of``: jobs of the same order that the device never heard of; they are closed.
        """
        async with self._write() as change:
            session = change.session
            parent = _found(await session.get(JobRow, within), within)
            work = await session.get(WorkRow, parent.work_id)
            if parent.state != WorkState.RUNNING or work is None or work.state not in ACTIVE_WORK:
                raise ConflictError(f"job {within} is over")
            if instead_of:
                unheard = (JobRow.id.in_(instead_of), JobRow.work_id == parent.work_id)
                await close_jobs(change, *unheard, state=WorkState.FAILED, reason=_REPEATED)
            row = _begun(parent.work_id, parent.mac, kind.value, image, address, version, store, queued_s)
            session.add(row)
            await session.flush()
            return job_of(row)

    async def job(self, job_id: int) -> Job:
        async with self._read() as session:
            return job_of(_found(await session.get(JobRow, job_id), job_id))

    async def jobs(
        self, *, mac: str | None = None, state: WorkState | None = None, limit: int = 100, after: int = 0
    ) -> list[Job]:
        """Newest first, those older than number ``after``."""
        query = select(JobRow).order_by(JobRow.id.desc()).limit(limit)
        if state is not None:
            query = query.where(JobRow.state == state)
        if mac is not None:
            query = query.where(JobRow.mac == mac)
        if after:
            query = query.where(JobRow.id < after)
        async with self._read() as session:
            return [job_of(row) for row in (await session.scalars(query)).all()]

    async def running_jobs(self) -> list[Job]:
        """Those that no report has ended, the oldest first."""
        query = select(JobRow).where(JobRow.state == WorkState.RUNNING).order_by(JobRow.id)
        async with self._read() as session:
            return [job_of(row) for row in (await session.scalars(query)).all()]

    async def device_images(self, mac: str, limit: int = 20) -> list[Job]:
        """Jobs of the device that wrote an image to it or took one, the newest first; no dry runs."""
        query = (
            select(JobRow)
            .join(WorkRow, WorkRow.id == JobRow.work_id)
            .where(JobRow.mac == mac, JobRow.image != "", WorkRow.options.not_like('%"dry_run": true%'))
            .order_by(JobRow.id.desc())
            .limit(limit)
        )
        async with self._read() as session:
            return [job_of(row) for row in (await session.scalars(query)).all()]

    async def current_image(self, mac: str) -> Job | None:
        """The newest job that wrote a whole image to the device's disk, None where there is none: no dry runs, and none
        that wrote one partition of it alone."""
        query = (
            select(JobRow)
            .join(WorkRow, WorkRow.id == JobRow.work_id)
            .where(
                JobRow.mac == mac, JobRow.state == WorkState.DONE, JobRow.kind.in_(RESTORES),
                *(WorkRow.options.not_like(f"%{said}%") for said in _NOT_WHOLE),
            )
            .order_by(JobRow.id.desc())
            .limit(1)
        )  # fmt: skip
        async with self._read() as session:
            row = (await session.scalars(query)).first()
        return None if row is None else job_of(row)

    async def image_users(self, image: str, version: int | None = None) -> list[str]:
        """Who needs the image now: jobs that run (not those whose work has ended), and work that waits, runs or is
        held, as their target or an add-on.

        With ``version`` only those that need this one: jobs that began with it, work that asks for it by its number.
        Words for people, such as ``job 17 of 52:54:00:12:34:56``.
        """
        jobs = (
            select(JobRow.id, JobRow.mac, JobRow.work_id)
            .join(WorkRow, WorkRow.id == JobRow.work_id)
            .where(JobRow.image == image, JobRow.state == WorkState.RUNNING, WorkRow.state.in_(ACTIVE_WORK))
        )
        if version is not None:
            jobs = jobs.where(JobRow.version == version)
        works = select(WorkRow.id, WorkRow.mac, WorkRow.image, WorkRow.options).where(
            WorkRow.state.in_((*ACTIVE_WORK, WorkState.HELD)), or_(WorkRow.image == image, WorkRow.options != "")
        )
        async with self._read() as session:
            running = (await session.execute(jobs)).all()
            open_work = (await session.execute(works)).all()
        told = {work for _, _, work in running}
        found = [f"job {number} of {mac}" for number, mac, _ in running]
        for number, mac, target, text in open_work:
            options = WorkOptions.read(text)
            pinned = target == image and version in (None, options.version)
            if number not in told and (pinned or (version is None and image in options.addons)):
                found.append(f"work {number} of {mac}")
        return found

    async def progress(self, job_id: int, progress: Progress) -> None:
        await self.progresses({job_id: progress})

    async def progresses(self, many: Mapping[int, Progress]) -> None:
        """How far jobs are, in one transaction; those that are over stay as they are."""
        if not many:
            return
        statement = (
            update(_JOB)
            .where(_JOB.c.id == bindparam("job"), _JOB.c.state == WorkState.RUNNING.value)
            .values({name: bindparam(f"new_{name}") for name in _PROGRESS})
        )
        rows = [
            {"job": number, **{f"new_{name}": getattr(each, name) for name in _PROGRESS}}
            for number, each in many.items()
        ]
        async with self._write() as change:
            await (await change.session.connection()).execute(statement, rows)

    async def set_job_version(self, job_id: int, version: int) -> None:
        """The image version that a capture became."""
        async with self._write() as change:
            await change.session.execute(update(JobRow).where(JobRow.id == job_id).values(version=version))

    async def cancel_job(self, job_id: int) -> Job:
        """A job that runs is to stop: with its work, or alone when it was ordered on the device (:meth:`add_job`).

        The device learns it at its next report; with its work the job ends by that. Raises ConflictError.
        """
        async with self._write() as change:
            row = _found(await change.session.get(JobRow, job_id), job_id)
            work = await change.session.get(WorkRow, row.work_id)
            if row.state != WorkState.RUNNING or work is None or work.state not in ACTIVE_WORK:
                raise ConflictError(f"job {job_id} is over: nothing to cancel")
            if work.kind == row.kind:
                change.end(work, WorkState.CANCELLED, "cancelled by an administrator")
            else:
                row.state, row.reason, row.finished = WorkState.CANCELLED.value, "cancelled by an administrator", now()
                change.touch(row.mac)
                change.over.append(job_of(row))
            return job_of(row)

    async def finish_job(
        self, job_id: int, *, ok: bool, reason: str, log: str = "", last: Progress | None = None, verified: str = "",
        bytes_sent: int = 0, waited_ms: int = 0, again: bool = True,
    ) -> Job:  # fmt: skip
        """Close a job; the second report of the same job changes nothing.

        Its work ends with it when ``ok``. Else it is queued again while it has retries left, and held after that, or at
        once where another run could not help (not ``again``). A job that was ordered on the device (:meth:`add_job`)
        ends alone, or with its work. A restore that is ``ok``, and not a dry run, sets the device's just-imaged flag.
        ``last``: how far it came; the figures as in Job.
        """
        async with self._write() as change:
            row = _found(await change.session.get(JobRow, job_id), job_id)
            if row.state == WorkState.RUNNING:
                work = await change.session.get(WorkRow, row.work_id)
                cancelled = work is not None and work.state == WorkState.CANCELLED
                state = WorkState.DONE if ok else WorkState.CANCELLED if cancelled else WorkState.FAILED
                row.state, row.reason, row.log, row.finished = state.value, reason, log, now()
                row.verified, row.bytes_sent, row.waited_ms = verified, bytes_sent, waited_ms
                for name in _PROGRESS if last is not None else ():
                    setattr(row, name, getattr(last, name))
                if work is not None and work.state in ACTIVE_WORK and work.kind == row.kind:
                    close(change, work, ok=ok, reason=reason, again=again)
                    others = (JobRow.work_id == work.id, JobRow.id != row.id)
                    await close_jobs(change, *others, state=WorkState.FAILED, reason=f"job {row.id} ended")
                if ok and row.kind in RESTORES and not (work and WorkOptions.read(work.options).dry_run):
                    await mark_imaged(change.session, row.mac, row.image, row.version)
                change.touch(row.mac)
                change.over.append(job_of(row))
            return job_of(row)


def _begun(
    work_id: int, mac: str, kind: str, image: str, address: str, version: int | None, store: str, queued_s: int
) -> JobRow:
    return JobRow(
        work_id=work_id, mac=mac, kind=kind, image=image, version=version, address=address,
        state=WorkState.RUNNING.value, reason="", stage="start", item="", bytes_done=0, bytes_total=0, rate=0,
        started=now(), log="", store=store, queued_s=queued_s,
    )  # fmt: skip


def _found(row: JobRow | None, job_id: int) -> JobRow:
    if row is None:
        raise NotFoundError(f"no job {job_id}; see: pbserv job list")
    return row
