"""Jobs as the table has them, and their end.

One rule: whatever closes a job names it to the transaction; who counts jobs hears of each once, after the commit.
"""

from __future__ import annotations

from sqlalchemy import ColumnElement, select

from pbserv.registry.models import JobRow
from pbserv.registry.records import BundleKind, Job, WorkState
from pbserv.registry.store import Change, now


async def close_jobs(change: Change, *which: ColumnElement[bool], state: WorkState, reason: str) -> None:
    """Jobs that run and that no report of a device ends; ``which``: conditions besides."""
    running = select(JobRow).where(JobRow.state == WorkState.RUNNING, *which).order_by(JobRow.id)
    for row in (await change.session.scalars(running)).all():
        row.state, row.reason, row.finished = state.value, reason, now()
        change.over.append(job_of(row))


def job_of(row: JobRow) -> Job:
    """The record of a row."""
    return Job(
        id=row.id, work_id=row.work_id, mac=row.mac, kind=BundleKind(row.kind), image=row.image, version=row.version,
        address=row.address, state=WorkState(row.state), reason=row.reason, stage=row.stage, item=row.item,
        bytes_done=row.bytes_done, bytes_total=row.bytes_total, rate=row.rate, started=row.started,
        finished=row.finished, log=row.log, store=row.store or "", verified=row.verified or "",
        bytes_sent=row.bytes_sent or 0, waited_ms=row.waited_ms or 0, queued_s=row.queued_s or 0,
    )  # fmt: skip
