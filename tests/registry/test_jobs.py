"""Jobs: progress of many at once, figures at the end, cancel, who needs an image, who is woken; on both databases."""

from __future__ import annotations

from datetime import timedelta

import pytest

from pbserv.registry.options import WorkOptions
from pbserv.registry.records import BundleKind, DeviceState, Job, Work, WorkState
from pbserv.registry.registry import ConflictError, DeviceChange, NotFoundError, Progress, Registry, WorkOrder
from pbserv.registry.store import now

MACS = [f"52:54:00:00:00:{number:02x}" for number in range(1, 7)]
MAC = MACS[0]


async def order(registry: Registry, mac: str = MAC, kind: BundleKind = BundleKind.RESTORE, image: str = "one",
                options: WorkOptions = WorkOptions(), priority: int = 0, wake: bool = False) -> Work:  # fmt: skip
    await registry.change_device(mac, DeviceChange(state=DeviceState.KNOWN))
    return await registry.add_work(WorkOrder(mac, kind, image, options=options, priority=priority, wake=wake))


async def begun(registry: Registry, mac: str = MAC, **of_work: object) -> Job:
    work = await order(registry, mac, **of_work)  # type: ignore[arg-type]
    return await registry.start_job(work.id, "10.0.0.7", 1, store="main", queued_s=12)


async def test_progress_of_many_is_written_at_once_and_not_of_those_that_are_over(registry: Registry) -> None:
    jobs = [await begun(registry, mac) for mac in MACS[:3]]
    await registry.finish_job(jobs[2].id, ok=False, reason="no disk")
    big = 2**62
    await registry.progresses({job.id: Progress("write", f"p{job.id}", big, big + 1, 7) for job in jobs})
    await registry.progresses({})
    await registry.progresses({999: Progress("write", "", 1, 1, 1)})
    seen = [await registry.job(job.id) for job in jobs]
    assert [(each.stage, each.item, each.bytes_done) for each in seen[:2]] == [
        ("write", f"p{job.id}", big) for job in jobs[:2]
    ]
    assert (seen[2].stage, seen[2].bytes_done) == ("start", 0)
    assert [job.id for job in await registry.running_jobs()] == [job.id for job in jobs[:2]]
    assert (seen[0].store, seen[0].queued_s) == ("main", 12)


async def test_a_job_ends_with_its_figures(registry: Registry) -> None:
    job = await begun(registry)
    last = Progress("done", "", 9, 9, 3)
    closed = await registry.finish_job(
        job.id, ok=True, reason="", log="l", last=last, verified="read", bytes_sent=2**40, waited_ms=2**33
    )
    assert (closed.verified, closed.bytes_sent, closed.waited_ms, closed.stage) == ("read", 2**40, 2**33, "done")
    again = await registry.finish_job(job.id, ok=True, reason="", verified="stream")
    assert again.verified == "read", "the second report changes nothing"
    assert [each.id for each in await registry.jobs(state=WorkState.DONE)] == [job.id]
    assert await registry.jobs(state=WorkState.RUNNING) == []


async def test_every_job_that_ends_is_told_once_after_its_commit(registry: Registry) -> None:
    told: list[tuple[int, str, str]] = []
    registry.subscribe_jobs(lambda job: told.append((job.id, job.state.value, job.reason)))
    first = await begun(registry)
    second = await registry.start_job(first.work_id, "10.0.0.7", 1)
    assert told == [(first.id, "failed", "the device started again before it reported")]
    await registry.finish_job(second.id, ok=False, reason="disk broke")
    await registry.finish_job(second.id, ok=False, reason="disk broke")
    await registry.retry_work(first.work_id)
    third = await registry.start_job(first.work_id, "10.0.0.7", 1)
    await registry.cancel_work(first.work_id)
    await registry.close_orphans()
    await registry.close_orphans()
    assert told[1:] == [
        (second.id, "failed", "disk broke"),
        (third.id, "cancelled", "cancelled; the device did not report"),
    ]


async def test_jobs_that_end_with_another_one_are_told_too(registry: Registry) -> None:
    told: list[tuple[int, str]] = []
    registry.subscribe_jobs(lambda job: told.append((job.id, job.state.value)))
    within = await begun(registry, kind=BundleKind.MAINTENANCE, image="")
    jobs = [await registry.add_job(within.id, BundleKind.CAPTURE, f"new{n}", "", None) for n in range(2)]
    await registry.cancel_job(jobs[0].id)
    await registry.finish_job(within.id, ok=True, reason="")
    assert sorted(told) == [(within.id, "done"), (jobs[0].id, "cancelled"), (jobs[1].id, "failed")]
    assert all([(await registry.job(number)).finished for number, _ in told])


async def test_a_job_is_cancelled_with_its_work(registry: Registry) -> None:
    job = await begun(registry)
    told: list[WorkState | None] = []
    registry.subscribe(lambda device: told.append(device.work.state if device.work else None))
    assert (await registry.cancel_job(job.id)).state is WorkState.RUNNING, "until the device reports"
    assert told == [None], "the device has no work any more"
    assert (await registry.work(job.work_id)).state is WorkState.CANCELLED
    assert (await registry.finish_job(job.id, ok=False, reason="stopped")).state is WorkState.CANCELLED
    with pytest.raises(ConflictError, match="is over"):
        await registry.cancel_job(job.id)
    with pytest.raises(NotFoundError):
        await registry.cancel_job(999)


async def test_a_job_that_was_ordered_on_the_device_is_cancelled_alone(registry: Registry) -> None:
    within = await begun(registry, kind=BundleKind.MAINTENANCE, image="")
    job = await registry.add_job(within.id, BundleKind.CAPTURE, "new", "", None, store="main", queued_s=3)
    assert (job.store, job.queued_s) == ("main", 3)
    assert (await registry.cancel_job(job.id)).state is WorkState.CANCELLED
    assert (await registry.work(within.work_id)).state is WorkState.RUNNING
    assert [each.id for each in await registry.running_jobs()] == [within.id]


async def test_who_needs_an_image(registry: Registry) -> None:
    job = await begun(registry)
    waiting = await order(registry, MACS[1])
    adding = await order(registry, MACS[2], image="other", options=WorkOptions(addons=("one",)))
    await order(registry, MACS[3], image="other", options=WorkOptions(resize=True))
    held = await begun(registry, MACS[4])
    await registry.finish_job(held.id, ok=False, reason="no disk")
    done = await begun(registry, MACS[5])
    await registry.finish_job(done.id, ok=True, reason="")
    assert set(await registry.image_users("one")) == {
        f"job {job.id} of {MAC}", f"work {waiting.id} of {MACS[1]}", f"work {adding.id} of {MACS[2]}",
        f"work {held.work_id} of {MACS[4]}",
    }  # fmt: skip
    assert await registry.image_users("none") == []


async def test_a_device_that_is_gone_needs_nothing_when_its_work_was_cancelled(registry: Registry) -> None:
    gone, held, there = [await begun(registry, mac) for mac in MACS[:3]]
    await registry.cancel_work(gone.work_id)
    await registry.hold_work(held.work_id, "later")
    assert set(await registry.image_users("one")) == {
        f"work {held.work_id} of {MACS[1]}",
        f"job {there.id} of {MACS[2]}",
    }
    assert await registry.image_users("one", 1) == [f"job {there.id} of {MACS[2]}"]
    await registry.close_orphans(now() - timedelta(minutes=1))
    assert len(await registry.running_jobs()) == 3, "its work has ended just now: the device may still report"
    await registry.close_orphans(now() + timedelta(minutes=1))
    assert await registry.running_jobs() == [there]
    closed = await registry.job(gone.id)
    assert (closed.state, closed.reason) == (WorkState.CANCELLED, "cancelled; the device did not report")
    assert closed.finished is not None


async def test_who_needs_a_version(registry: Registry) -> None:
    job = await begun(registry)
    pinned = await order(registry, MACS[1], options=WorkOptions(version=3))
    await order(registry, MACS[2])
    await order(registry, MACS[3], image="other", options=WorkOptions(version=3, addons=("one",)))
    held = await begun(registry, MACS[4], options=WorkOptions(version=3))
    await registry.finish_job(held.id, ok=False, reason="no disk")
    expected = {f"work {pinned.id} of {MACS[1]}", f"work {held.work_id} of {MACS[4]}"}
    assert set(await registry.image_users("one", 3)) == expected
    assert await registry.image_users("one", 4) == []
    await registry.set_job_version(job.id, 4)
    assert await registry.image_users("one", 4) == [f"job {job.id} of {MAC}"]


async def test_who_is_to_be_woken(registry: Registry) -> None:
    at = now()
    low = await order(registry, MACS[0], wake=True)
    high = await order(registry, MACS[1], wake=True, priority=5)
    await order(registry, MACS[2])
    assert [each.id for each in await registry.works_to_wake(at, 10, 2)] == [high.id, low.id]
    assert [each.id for each in await registry.works_to_wake(at, 1, 2)] == [high.id]
    await registry.set_woken([low.id, high.id], at)
    assert await registry.works_to_wake(at - timedelta(seconds=30), 10, 2) == []
    later = at + timedelta(seconds=31)
    assert len(await registry.works_to_wake(later - timedelta(seconds=30), 10, 2)) == 2
    await registry.set_woken([high.id], later)
    assert [each.id for each in await registry.works_to_wake(later, 10, 2)] == [low.id], "often enough"
    seen = await registry.work(high.id)
    assert (seen.woken_times, seen.woken) == (2, later)
    await registry.start_job(low.id, "", 1)
    assert await registry.works_to_wake(later, 10, 2) == []
    await registry.cancel_work(high.id)
    assert (await registry.retry_work(high.id)).woken_times == 0


async def test_who_was_never_woken_is_woken_before_who_did_not_wake(registry: Registry) -> None:
    at = now()
    works = [await order(registry, mac, wake=True) for mac in MACS[:4]]
    urgent = await order(registry, MACS[4], wake=True, priority=5)
    await registry.set_woken([works[0].id, works[1].id, urgent.id], at)
    found = [each.id for each in await registry.works_to_wake(at, 10, 3)]
    assert found == [urgent.id, works[2].id, works[3].id, works[0].id, works[1].id]
    assert [each.id for each in await registry.works_to_wake(at, 2, 3)] == found[:2]


async def test_which_images_a_device_has_seen(registry: Registry) -> None:
    first = await begun(registry)
    await registry.finish_job(first.id, ok=True, reason="")
    dry = await begun(registry, options=WorkOptions(dry_run=True))
    await registry.finish_job(dry.id, ok=True, reason="dry run")
    second = await begun(registry, image="two")
    await begun(registry, MACS[1])
    assert [job.id for job in await registry.device_images(MAC)] == [second.id, first.id]
    assert [job.id for job in await registry.device_images(MAC, 1)] == [second.id]


async def test_which_image_is_on_a_device(registry: Registry) -> None:
    assert await registry.current_image(MAC) is None
    first = await begun(registry)
    await registry.finish_job(first.id, ok=True, reason="")
    for options in ({"dry_run": True}, {"partitions": (1,)}, {"target_partition": 3}):
        other = await begun(registry, image="two", options=WorkOptions(**options))  # type: ignore[arg-type]
        await registry.finish_job(other.id, ok=True, reason="")
    for kind in (BundleKind.CAPTURE, BundleKind.CACHE):
        other = await begun(registry, kind=kind, image="three")
        await registry.finish_job(other.id, ok=True, reason="")
    failed = await begun(registry, image="four")
    await registry.finish_job(failed.id, ok=False, reason="no disk")
    await registry.cancel_work(failed.work_id)
    current = await registry.current_image(MAC)
    assert current is not None
    assert (current.id, current.image) == (first.id, "one")
    newest = await begun(registry, image="five", options=WorkOptions(resize=True, store="partitions"))
    await registry.finish_job(newest.id, ok=True, reason="")
    current = await registry.current_image(MAC)
    assert current is not None
    assert current.id == newest.id
