"""Jobs as the API shows them, live where the server hears of them: the shape that several services answer with.

One rule: what a device reported a moment ago is shown, not what the registry was told last.
"""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from typing import Protocol

from pydantic import BaseModel, Field

from pbserv.registry.orders import Progress
from pbserv.registry.records import BundleKind, Job, WorkState


class Live(Protocol):
    """How far a job is now."""

    @property
    def progress(self) -> Progress: ...

    @property
    def rate(self) -> int:
        """Bytes per second over the last seconds."""

    @property
    def eta_s(self) -> int | None:
        """Seconds until the last byte; None: nobody can say."""

    @property
    def waited_ms(self) -> int: ...


class JobView(BaseModel):
    """One run of a piece of work on a device."""

    id: int
    work_id: int
    mac: str
    kind: BundleKind
    image: str
    version: int | None
    address: str
    state: WorkState
    reason: str
    stage: str
    item: str
    bytes_done: int
    bytes_total: int
    rate: int = Field(description="bytes per second")
    started: datetime
    finished: datetime | None
    log: str
    store: str = Field(description="of the image")
    verified: str = Field(description="how what was written was verified: stream, read, or not at all")
    bytes_sent: int = Field(description="bytes of the image that left this server, of a job that is over")
    waited_ms: int = Field(description="how long the device waited for them")
    queued_s: int = Field(description="how long the device waited for a place in the queue")
    eta_s: int | None = Field(description="seconds until the last byte; null: nobody can say, or the job is over")
    seconds: float = Field(description="how long it took, or how long it runs by now")


def job_view(job: Job, live: Live | None = None) -> JobView:
    """``live``: what is known of a job that runs."""
    fields = {**asdict(job), "eta_s": None, "seconds": _seconds(job)}
    if live is not None and job.state is WorkState.RUNNING:
        fields |= asdict(live.progress) | {"rate": live.rate, "eta_s": live.eta_s, "waited_ms": live.waited_ms}
    return JobView.model_validate(fields)


def _seconds(job: Job) -> float:
    end = job.finished or datetime.now(UTC)
    return round(max(0.0, (end - job.started).total_seconds()), 1)
