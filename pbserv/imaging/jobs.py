"""Jobs: what a device does with its work, from its first question to its result. Knows no HTTP.

One rule: work ends by a completion report only; a device that vanishes leaves it running and may ask again. A capture
that committed its image has nothing to do again: it is done when its device asks.
"""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Final, Protocol

from pbserv.imaging.hooks import Crowded
from pbserv.imaging.ports import Hooks, Policy
from pbserv.imaging.queue import Waiting
from pbserv.imaging.running import Figures, Running
from pbserv.log import ServiceLog
from pbserv.registry.records import CLIENT_KINDS, RESTORES, BundleKind, Job, Work, WorkState
from pbserv.registry.registry import ConflictError, Progress, Registry, WorkOrder

UNICAST: Final = "done as a restore of this device alone: this server has no multicast sessions yet"
"""What is said of work of kind multicast."""
_AROUND: Final = RESTORES | {BundleKind.CAPTURE}
"""Kinds of jobs that have scripts around them."""
DRY_RUN: Final = "dry run: nothing was written"
COMMITTED: Final = "the image was committed; the device started again before it reported"
"""How a capture ended whose device was cut off after the commit: there is nothing left to capture."""
ASKED_AGAIN: Final = "the device asked again meanwhile"


class History(Protocol):
    """Where the steps of a device are kept."""

    def add(self, mac: str, what: str, detail: str = "") -> None: ...

    def learn(self, address: str, mac: str) -> None: ...


class Counters(Protocol):
    """The imaging statistics (table D-18): one request is one job start."""

    def request(self, source: str, kind: str, result: str, *, image: str = "", detail: str = "") -> None: ...

    def ended(self, kind: str, result: str) -> None: ...


@dataclass(frozen=True, slots=True)
class Begun:
    """``job`` is None when there is nothing to do: ``reason`` says why; or when the device has to wait for a place."""

    job: Job | None
    reason: str = ""
    waiting: Waiting | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """How a device says that its job ended. ``verified``: stream, read or nothing; ``plan``: of a dry run."""

    ok: bool
    reason: str = ""
    log: str = ""
    verified: str = ""
    waited_ms: int = 0
    plan: str = ""


class Jobs:
    def __init__(
        self, registry: Registry, history: History, counters: Counters, policy: Policy, log: ServiceLog, hooks: Hooks
    ) -> None:
        self._registry = registry
        self._history = history
        self._counters = counters
        self._policy = policy
        self._log = log
        self._hooks = hooks
        self._asking: dict[tuple[int, str], asyncio.Timeout] = {}
        self._orders: dict[int, str] = {}
        self._alone = itertools.count()
        self.running_now = Running(registry, policy, log)
        registry.subscribe(self.running_now.device_changed)
        registry.subscribe_jobs(self._ended)

    @property
    def busy(self) -> bool:
        """Whether a device is at work: it began or reported within the last two minutes."""
        return self.running_now.busy

    async def work(self, work_id: int) -> Work:
        return await self._registry.work(work_id)

    async def begin(
        self, work: Work, mac: str, address: str, version: int | None, refusal: str = "", store: str = "",
        *, referred: bool = False,
    ) -> Begun:  # fmt: skip
        """Start a job of ``work``, or say for what the device has to wait. ``refusal`` (no such image ...) closes it at
        once as failed. ``store``: of the image; ``referred``: it is another server's. A capture that committed its
        image before the device was cut off is done: it does not begin anew."""
        self._history.learn(address, work.mac)
        reason = _not_for(work, mac)
        if reason:
            self._counters.request(mac or address, work.kind.value, "denied", image=work.image, detail=reason)
            return Begun(None, reason)
        complete = await self._complete(work)
        if complete:
            return Begun(None, complete)
        queued_s = 0
        if not refusal:
            place = self.running_now.admit(work, work.kind, work.image, store)
            if isinstance(place, Waiting):
                return self._waits(work, place)
            queued_s = place.waited_s
        with self._placed(work, work.kind, work.image, store):
            if not refusal:
                said = await self._allowed(work, work.kind, work.image, _facts(work, address, version, store))
                if isinstance(said, Waiting):
                    self.running_now.given_up(work, work.kind, work.image, store, keep=True)
                    return self._waits(work, said)
                refusal = said
            if refusal:
                self.running_now.given_up(work, work.kind, work.image, store)
            job = await self._registry.start_job(work.id, address, version, store=store, queued_s=queued_s)
        how = f" ({UNICAST})" if work.kind is BundleKind.MULTICAST else ""
        self._history.add(work.mac, "job", f"{job.id}: {work.kind} {work.image or work.bundle} started{how}")
        if refusal:
            self._counters.request(work.mac, work.kind.value, "failed", image=work.image, detail=refusal)
            await self._close(job, Report(False, refusal))
            return Begun(None, refusal)
        started = _started(referred)
        self._counters.request(work.mac, work.kind.value, started, image=work.image, detail=f"job {job.id}")
        self.running_now.began(job)
        self._hooks.tell("job-started", _facts_of(job))
        return Begun(job)

    async def _allowed(
        self, work: Work, kind: BundleKind, image: str, facts: Mapping[str, str], number: str = ""
    ) -> str | Waiting:
        """What the administrator's program says of a job that is to begin: empty, or why not. A device that asks again
        has given its older question up, which leaves the line: its job would be closed by the next one at once.
        ``number``: of an order; each of them is a question of its own."""
        key = work.id, number
        older = self._asking.get(key)
        if older is not None:
            older.reschedule(asyncio.get_running_loop().time())
        said = ""
        try:
            async with asyncio.timeout(None) as turn:
                self._asking[key] = turn
                said = await self._hooks.ask("before-job", facts)
        except Crowded as fault:
            return self.running_now.later(work, kind, image, facts["store"], str(fault), fault.waiting)
        except TimeoutError:
            pass  # a newer one took its place
        finally:
            newest = self._asking.get(key) is turn
            if newest:
                del self._asking[key]
        return said if newest else self.running_now.later(work, kind, image, facts["store"], ASKED_AGAIN)

    async def _unheard(self, within: Job, number: str) -> list[int]:
        """The same order's jobs, which no client has: it would not ask again if the answer had come."""
        return [
            job.id
            for job in await self._registry.jobs(mac=within.mac, state=WorkState.RUNNING)
            if number and job.work_id == within.work_id and self._orders.get(job.id) == number
        ]

    async def _complete(self, work: Work) -> str:
        """Close a capture that lacks nothing but its report, as done: how it ended; empty: there is none."""
        if work.kind is not BundleKind.CAPTURE:
            return ""
        running = await self._registry.jobs(mac=work.mac, state=WorkState.RUNNING)
        committed = [job for job in running if job.work_id == work.id and job.version is not None]
        if not committed:
            return ""
        after = "; its script after may not have ended" if "after" in scripts_of(work) else ""
        return (await self.finish(committed[0].id, work.id, Report(True, COMMITTED + after))).reason

    @contextmanager
    def _placed(self, work: Work, kind: BundleKind, image: str, store: str) -> Iterator[None]:
        """A device has its place for what is to begin; when that does not begin, whatever stops it, the place is free
        again."""
        try:
            yield
        except BaseException:
            self.running_now.given_up(work, kind, image, store)
            raise

    def _waits(self, work: Work, place: Waiting) -> Begun:
        """No job yet; its first question is a line of the history."""
        if place.first:
            self._history.add(work.mac, "queue", f"waits at position {place.position} ({place.reason})")
        return Begun(None, waiting=place)

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

    async def order(
        self, within: Job, kind: BundleKind, image: str, version: int | None, address: str, store: str = "",
        *, referred: bool = False, number: str = "",
    ) -> Begun:  # fmt: skip
        """A job that was ordered in imaging maintenance; it ends alone, the maintenance goes on. It takes a place like
        any other. ``number``: the client's own for this order, the same whenever it repeats it; empty: an older
        client's."""
        work = await self._registry.work(within.work_id)
        place = self.running_now.admit(work, kind, image, store)
        if isinstance(place, Waiting):
            return self._waits(work, place)
        asked = {**_facts(work, address, version, store), "kind": kind.value, "image": image}
        with self._placed(work, kind, image, store):
            reason = await self._allowed(work, kind, image, asked, number or f"alone {next(self._alone)}")
            if isinstance(reason, Waiting):
                self.running_now.given_up(work, kind, image, store, keep=True)
                return self._waits(work, reason)
            if reason:
                raise ConflictError(reason)
            unheard = await self._unheard(within, number)
            job = await self._registry.add_job(
                within.id, kind, image, address, version, store=store, queued_s=place.waited_s, instead_of=unheard
            )
        self._history.add(job.mac, "job", f"{job.id}: {kind} {image} started, ordered on the device")
        self._counters.request(job.mac, kind.value, _started(referred), image=image, detail=f"job {job.id}")
        if number:
            self._orders[job.id] = number
        self.running_now.began(job, within=True)
        self._hooks.tell("job-started", _facts_of(job))
        return Begun(job)

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
        await self._close(within, Report(True, f"went on with {order.bundle}"))
        return await self._registry.add_work(order)

    async def script(self, job_id: int, work_id: int) -> str:
        """The shell script of a running job, with line ends as sh wants them."""
        job = await self.running(job_id, work_id)
        if job.kind is not BundleKind.SCRIPT:
            raise ConflictError(f"job {job_id} is a {job.kind}, not a script")
        work = await self._registry.work(work_id)
        text = scripts_of(work).get("script")
        if not text:
            raise ConflictError(f"work {work_id} has no script in it; cancel it: pbserv work cancel {work_id}")
        return text

    async def script_around(self, job_id: int, work_id: int, which: str) -> str:
        """The script ``before`` or ``after`` a running job; raises ConflictError where its work has none."""
        job = await self.running(job_id, work_id)
        text = scripts_of(await self._registry.work(work_id)).get(which) if job.kind in _AROUND else None
        if not text:
            raise ConflictError(f"job {job_id} has no script {which}")
        return text

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

    async def uploading(self, job_id: int, work_id: int) -> Job:
        """Like :meth:`running`, and the job takes an image and stores it; raises ConflictError."""
        job = await self.running(job_id, work_id)
        if job.kind is not BundleKind.CAPTURE:
            raise ConflictError(f"job {job_id} is a {job.kind}, not a capture")
        if (await self._registry.work(work_id)).options.dry_run:
            raise ConflictError(f"job {job_id} is a dry run: nothing is uploaded")
        return job

    async def progress(self, job_id: int, work_id: int, progress: Progress, waited_ms: int = 0) -> bool:
        """What the device reports; False tells it to stop: its work was cancelled, or its job is over."""
        return await self.running_now.report(job_id, work_id, progress, waited_ms)

    async def cancel(self, job_id: int) -> Job:
        """The device stops at its next report: with its work, or a job alone that was ordered on it."""
        job = await self._registry.cancel_job(job_id)
        self.running_now.stop(job.id)
        self._history.add(job.mac, "job", f"{job.id}: cancelled by an administrator")
        return job

    async def finish(self, job_id: int, work_id: int, report: Report) -> Job:
        """The completion report. A repeated report (its first answer was lost) is answered and changes nothing."""
        job = await self.of_work(job_id, work_id)
        if job.state is not WorkState.RUNNING:
            self.running_now.end(job)
            return job
        work = await self._registry.work(work_id)
        options, taken = work.options, job.kind is BundleKind.CAPTURE and job.version is not None
        dry = options.dry_run and job.kind is not BundleKind.MAINTENANCE
        if report.ok and dry:
            plan = f"{report.plan.rstrip()}\n\n{report.log}" if report.plan else report.log
            report = replace(report, reason=DRY_RUN, log=plan, verified="")
        elif report.ok and job.kind is BundleKind.CAPTURE and job.version is None:
            report = replace(report, ok=False, reason="the device reported success, but no image was committed")
        elif report.ok and job.kind is BundleKind.MULTICAST:
            report = replace(report, reason=UNICAST)
        closed = await self._close(job, report, again=work.overwrite or not taken)  # the name of its image is taken
        whole = not (dry or options.partitions or options.target_partition)
        if report.ok and whole and job.kind in RESTORES and job.version is not None:
            self._policy.learn(job.mac, {"image": job.image, "image_version": str(job.version)})
        return closed

    async def committed(self, job: Job, version: int) -> None:
        """A captured image became visible: job and history name its version."""
        await self._registry.set_job_version(job.id, version)
        self._history.add(job.mac, "image", f"{job.image} version {version} committed")

    def _ended(self, job: Job) -> None:
        """A job is over, whatever ended it: its report, an administrator, the next start of its device."""
        self._orders.pop(job.id, None)
        self.running_now.over(job)
        self._counters.ended(job.kind.value, job.state.value)
        tell = self._log.transaction if job.state is WorkState.DONE else self._log.warning
        tell("job", device=job.mac, job=job.id, kind=job.kind.value, image=job.image, result=job.state.value,
             reason=job.reason or "ok", seconds=round(_seconds(job), 1), version=job.version,
             verified=job.verified or None)  # fmt: skip

    async def _close(self, job: Job, report: Report, *, again: bool = True) -> Job:
        figures = self.running_now.figures(job.id)
        closed = await self._registry.finish_job(
            job.id, ok=report.ok, reason=report.reason, log=report.log, last=_last(job, figures, ok=report.ok),
            verified=report.verified, bytes_sent=figures.sent, waited_ms=max(report.waited_ms, figures.waited_ms),
            again=again,
        )  # fmt: skip
        self.running_now.end(job)
        seconds = _seconds(closed)
        what, why = f"{job.kind} {job.image}".rstrip(), report.reason or "ok"
        self._history.add(job.mac, "job", f"{job.id}: {what} {closed.state}: {why}")
        ended = {"reason": why, "verified": report.verified, "seconds": str(round(seconds))}
        self._hooks.tell("job-done" if report.ok else "job-failed", _facts_of(closed) | ended)
        return closed


def _seconds(job: Job) -> float:
    """How long a job took that is over."""
    return (job.finished - job.started).total_seconds() if job.finished else 0.0


def _started(referred: bool) -> str:
    """What became of the request that a job start is."""
    return "referred" if referred else "started"


def scripts_of(work: Work) -> dict[str, str]:
    """The scripts of the bundle as it was when the work was made, with line ends as sh wants them; those it has."""
    said = json.loads(work.document or "{}")
    texts = {name: str(said.get(name) or "") for name in ("script", "before", "after")}
    return {name: text.replace("\r\n", "\n").rstrip("\n") + "\n" for name, text in texts.items() if text.strip()}


def _facts(work: Work, address: str, version: int | None, store: str) -> dict[str, str]:
    """What the administrator's programs are told of a job that is to begin."""
    return {
        "device": work.mac, "address": address, "work": str(work.id), "kind": work.kind.value, "image": work.image,
        "version": "" if version is None else str(version), "store": store, "bundle": work.bundle,
    }  # fmt: skip


def _facts_of(job: Job) -> dict[str, str]:
    """The same of one that runs, or is over."""
    return {
        "device": job.mac, "address": job.address, "work": str(job.work_id), "job": str(job.id),
        "kind": job.kind.value, "image": job.image, "version": "" if job.version is None else str(job.version),
        "store": job.store,
    }  # fmt: skip


def _not_for(work: Work, mac: str) -> str:
    """Why the device that says it is ``mac`` has nothing to do with this work; empty: it has."""
    if not work.active:
        return f"work {work.id} is {work.state}"
    if mac and mac != work.mac:
        return f"work {work.id} belongs to {work.mac}"
    if work.kind not in CLIENT_KINDS:
        return f"work {work.id} is a {work.kind}, which the boot loader does"
    return ""


def _last(job: Job, figures: Figures, *, ok: bool) -> Progress | None:
    """The last picture of a job: of one that succeeded everything is done, of another one what it reported last."""
    if not ok:
        return figures.last
    last = figures.last or Progress(job.stage, job.item, job.bytes_done, job.bytes_total, job.rate)
    done = max(last.bytes_done, last.bytes_total)
    return Progress("done", "", done, done, last.rate)
