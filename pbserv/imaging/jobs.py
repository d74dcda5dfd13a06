"""Jobs: what a device does with its work, from its first question to its result. Knows no HTTP.

One rule: work ends by a completion report only; a device that vanishes leaves it running and may ask again.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, replace
from typing import Final, Protocol

from pbserv.imaging.ports import Policy
from pbserv.log import ServiceLog
from pbserv.registry.records import CLIENT_KINDS, BundleKind, Job, Work, WorkState
from pbserv.registry.registry import ConflictError, Progress, Registry, WorkOrder

SILENT_AFTER_S = 120.0
UNICAST: Final = "done as a restore of this device alone: this server has no multicast sessions yet"
"""What is said of work of kind multicast."""


class History(Protocol):
    """Where the steps of a device are kept."""

    def add(self, mac: str, what: str, detail: str = "") -> None: ...

    def learn(self, address: str, mac: str) -> None: ...


class Counters(Protocol):
    """The imaging statistics (table D-18): one request is one job start."""

    def request(self, source: str, kind: str, result: str, *, image: str = "", detail: str = "") -> None: ...


@dataclass(frozen=True, slots=True)
class Begun:
    """``job`` is None when there is nothing to do; ``reason`` says why."""

    job: Job | None
    reason: str = ""


class Jobs:
    def __init__(
        self, registry: Registry, history: History, counters: Counters, policy: Policy, log: ServiceLog
    ) -> None:
        self._registry = registry
        self._history = history
        self._counters = counters
        self._policy = policy
        self._log = log
        self._heard: dict[int, float] = {}

    @property
    def busy(self) -> bool:
        """Whether a device is at work: it began or reported within the last two minutes."""
        now = time.monotonic()
        self._heard = {job: when for job, when in self._heard.items() if now - when < SILENT_AFTER_S}
        return bool(self._heard)

    async def work(self, work_id: int) -> Work:
        return await self._registry.work(work_id)

    async def begin(self, work: Work, mac: str, address: str, version: int | None, refusal: str = "") -> Begun:
        """Start a job of ``work``; ``refusal`` (no such image ...) closes it at once as failed."""
        self._history.learn(address, work.mac)
        reason = _not_for(work, mac)
        if reason:
            self._counters.request(mac or address, work.kind.value, "denied", image=work.image, detail=reason)
            return Begun(None, reason)
        job = await self._registry.start_job(work.id, address, version)
        how = f" ({UNICAST})" if work.kind is BundleKind.MULTICAST else ""
        self._history.add(work.mac, "job", f"{job.id}: {work.kind} {work.image or work.bundle} started{how}")
        if refusal:
            self._counters.request(work.mac, work.kind.value, "failed", image=work.image, detail=refusal)
            await self._close(job, ok=False, reason=refusal, log="")
            return Begun(None, refusal)
        self._counters.request(work.mac, work.kind.value, "started", image=work.image, detail=f"job {job.id}")
        self._heard[job.id] = time.monotonic()
        return Begun(job)

    async def maintenance(self, job_id: int, work_id: int) -> Job:
        """Like :meth:`running`, and somebody must be in a shell on the device."""
        job = await self.running(job_id, work_id)
        if job.kind is not BundleKind.MAINTENANCE:
            raise ConflictError(f"job {job_id} is a {job.kind}, not imaging maintenance")
        return job

    async def with_images(self, job_id: int, work_id: int) -> Job:
        """Like :meth:`maintenance`, and images must be open to it; raises ConflictError."""
        job = await self.maintenance(job_id, work_id)
        closed = self._policy.images_closed(await self._registry.work(work_id))
        if closed:
            raise ConflictError(closed)
        return job

    async def order(self, within: Job, kind: BundleKind, image: str, version: int | None, address: str) -> Job:
        """A job that was ordered in imaging maintenance; it ends alone, the maintenance goes on."""
        job = await self._registry.add_job(within.id, kind, image, address, version)
        self._history.add(job.mac, "job", f"{job.id}: {kind} {image} started, ordered on the device")
        self._counters.request(job.mac, kind.value, "started", image=image, detail=f"job {job.id}")
        self._heard[job.id] = time.monotonic()
        return job

    def assigned(self, within: Job) -> WorkOrder | str:
        """What somebody in imaging maintenance can go on with: the work that is to be made, or why there is none."""
        order = self._policy.imaging(within.mac)
        if order is None:
            return "no imaging is assigned to this device"
        if order.kind is BundleKind.MAINTENANCE:
            return f"imaging maintenance itself is assigned to this device (bundle {order.bundle})"
        return order

    async def hand_over(self, within: Job, order: WorkOrder) -> Work:
        """Imaging maintenance ends and what was assigned begins."""
        await self._close(within, ok=True, reason=f"went on with {order.bundle}", log="")
        return await self._registry.add_work(order)

    async def script(self, job_id: int, work_id: int) -> str:
        """The shell script of a running job, with line ends as sh wants them."""
        job = await self.running(job_id, work_id)
        if job.kind is not BundleKind.SCRIPT:
            raise ConflictError(f"job {job_id} is a {job.kind}, not a script")
        work = await self._registry.work(work_id)
        text = json.loads(work.document or "{}").get("script")
        if not text:
            raise ConflictError(f"work {work_id} has no script in it; cancel it: pbserv work cancel {work_id}")
        return str(text).replace("\r\n", "\n").rstrip("\n") + "\n"

    async def of_work(self, job_id: int, work_id: int) -> Job:
        """The job, when it belongs to the caller's work; raises ConflictError or NotFoundError."""
        job = await self._registry.job(job_id)
        if job.work_id != work_id:
            raise ConflictError(f"job {job_id} belongs to other work")
        return job

    async def running(self, job_id: int, work_id: int) -> Job:
        """Like :meth:`of_work`, and the job must run; work that was cancelled gets no more bytes."""
        job = await self.of_work(job_id, work_id)
        if job.state is not WorkState.RUNNING:
            raise ConflictError(f"job {job_id} is {job.state}")
        if not (await self._registry.work(work_id)).active:
            raise ConflictError(f"work {work_id} was cancelled")
        return job

    async def progress(self, job: Job, progress: Progress) -> bool:
        """Store what the device reports; False tells it to stop: its work was cancelled, or its job is over."""
        if job.state is not WorkState.RUNNING:
            return False
        self._heard[job.id] = time.monotonic()
        await self._registry.progress(job.id, progress)
        return (await self._registry.work(job.work_id)).active

    async def finish(self, job_id: int, work_id: int, *, ok: bool, reason: str, log: str) -> Job:
        """The completion report. A repeated report (its first answer was lost) is answered and changes nothing."""
        job = await self.of_work(job_id, work_id)
        if job.state is not WorkState.RUNNING:
            return job
        if ok and job.kind is BundleKind.CAPTURE and job.version is None:
            ok, reason = False, "the device reported success, but no image was committed"
        if ok and job.kind is BundleKind.MULTICAST:
            reason = UNICAST
        return await self._close(job, ok=ok, reason=reason, log=log)

    async def committed(self, job: Job, version: int) -> None:
        """A captured image became visible: job and history name its version."""
        await self._registry.set_job_version(job.id, version)
        self._history.add(job.mac, "image", f"{job.image} version {version} committed")

    async def _close(self, job: Job, *, ok: bool, reason: str, log: str) -> Job:
        if ok:
            await self._registry.progress(job.id, _complete(job))
        self._heard.pop(job.id, None)
        closed = await self._registry.finish_job(job.id, ok=ok, reason=reason, log=log)
        seconds = (closed.finished - closed.started).total_seconds() if closed.finished else 0.0
        what = f"{job.kind} {job.image}".rstrip()
        self._history.add(job.mac, "job", f"{job.id}: {what} {closed.state}: {reason or 'ok'}")
        tell = self._log.transaction if ok else self._log.warning
        tell("job", device=job.mac, job=job.id, kind=job.kind.value, image=job.image, result=closed.state.value,
             reason=reason or "ok", seconds=round(seconds, 1))  # fmt: skip
        return closed


def _not_for(work: Work, mac: str) -> str:
    """Why the device that says it is ``mac`` has nothing to do with this work; empty: it has."""
    if not work.active:
        return f"work {work.id} is {work.state}"
    if mac and mac != work.mac:
        return f"work {work.id} belongs to {work.mac}"
    if work.kind not in CLIENT_KINDS:
        return f"work {work.id} is a {work.kind}, which the boot loader does"
    return ""


def _complete(job: Job) -> Progress:
    """The last picture of a job that succeeded: everything done."""
    done = replace(job, bytes_done=max(job.bytes_done, job.bytes_total))
    return Progress("done", "", done.bytes_done, done.bytes_done, job.rate)
