"""The life of work: tried again, held, expired, for many devices at once; on both databases."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from pbserv.registry.engine import Place
from pbserv.registry.records import BundleKind, Device, DeviceState, Finish, Work, WorkState
from pbserv.registry.registry import ConflictError, DeviceChange, NotFoundError, Registry, WorkOrder

MAC = "52:54:00:00:00:01"
OTHER = "52:54:00:00:00:02"
THIRD = "52:54:00:00:00:03"


async def known(registry: Registry, *macs: str) -> None:
    await registry.change_devices({mac: DeviceChange(state=DeviceState.KNOWN) for mac in macs})


async def fail(registry: Registry, work: Work, reason: str) -> Work:
    job = await registry.start_job(work.id, "10.0.0.7", 1)
    closed = await registry.finish_job(job.id, ok=False, reason=reason)
    assert closed.state is WorkState.FAILED
    return await registry.work(work.id)


async def test_all_of_an_order_is_kept(registry: Registry) -> None:
    await known(registry, MAC)
    until = datetime.now(UTC) + timedelta(days=1)
    order = WorkOrder(
        MAC, BundleKind.INSTALL, "", "/dev/sda", Finish.NONE, True, "debian 12", '{"kernel": "é"}', "rule:" + "n" * 64,
        until, 3,
    )  # fmt: skip
    work = await registry.add_work(order)
    assert work == Work(
        work.id, MAC, BundleKind.INSTALL, "", "/dev/sda", Finish.NONE, True, WorkState.QUEUED, "", work.created,
        "debian 12", '{"kernel": "é"}', "rule:" + "n" * 64, until, 3, 0,
    )  # fmt: skip
    assert await registry.work(work.id) == work
    assert (await registry.device(MAC)).work == work


async def test_a_failed_run_is_tried_again_and_then_held(registry: Registry) -> None:
    await known(registry, MAC)
    work = await registry.add_work(WorkOrder(MAC, BundleKind.RESTORE, "debian", retries=1, assignment="nightly"))
    once = await fail(registry, work, "disk full")
    assert (once.state, once.reason, once.retries, once.attempts) == (WorkState.QUEUED, "disk full", 0, 1)
    assert (await registry.device(MAC)).runs == ()
    twice = await fail(registry, work, "disk still full")
    assert (twice.state, twice.reason, twice.attempts) == (WorkState.HELD, "disk still full", 2)
    device = await registry.device(MAC)
    assert device.work is None
    assert [run.state for run in device.runs] == [WorkState.HELD]
    with pytest.raises(ConflictError, match="not waiting"):
        await registry.start_job(work.id, "", None)


async def test_held_work_does_not_block_and_can_be_tried_again(registry: Registry) -> None:
    await known(registry, MAC)
    held = await fail(registry, await registry.add_work(WorkOrder(MAC, BundleKind.RESTORE, "debian")), "x")
    newer = await registry.add_work(WorkOrder(MAC, BundleKind.RESTORE, "fedora"))
    with pytest.raises(ConflictError, match=f"has work {newer.id}"):
        await registry.retry_work(held.id)
    await registry.cancel_work(newer.id)
    told: list[Device] = []
    registry.subscribe(told.append)
    again = await registry.retry_work(held.id)
    assert (again.id, again.state, again.reason, again.attempts) == (held.id, WorkState.QUEUED, "", 1)
    assert [device.work for device in told] == [again]
    with pytest.raises(ConflictError, match="nothing to try again"):
        await registry.retry_work(held.id)


@pytest.mark.parametrize("ended", ["cancelled", "held"])
async def test_the_report_of_a_job_that_was_ended_does_not_touch_its_work_that_was_queued_again(
    registry: Registry, ended: str
) -> None:
    await known(registry, MAC)
    work = await registry.add_work(WorkOrder(MAC, BundleKind.RESTORE, "debian", retries=1))
    job = await registry.start_job(work.id, "10.0.0.7", 1)
    await (registry.cancel_work(work.id) if ended == "cancelled" else registry.hold_work(work.id, "later"))
    await registry.retry_work(work.id)
    before = await registry.job(job.id)
    assert (before.state, before.reason) == (WorkState.CANCELLED, "its work was queued again")
    assert (await registry.finish_job(job.id, ok=False, reason="stopped")) == before
    seen = await registry.work(work.id)
    assert (seen.state, seen.reason, seen.retries) == (WorkState.QUEUED, "", 1)
    again = await registry.start_job(work.id, "10.0.0.7", 1)
    assert (await registry.finish_job(job.id, ok=True, reason="")) == before
    assert (await registry.finish_job(again.id, ok=True, reason="")).state is WorkState.DONE


async def test_only_a_known_device_gets_its_work_again(registry: Registry) -> None:
    await known(registry, MAC)
    work = await registry.add_work(WorkOrder(MAC, BundleKind.RESTORE, "debian"))
    await registry.change_device(MAC, DeviceChange(state=DeviceState.DENIED))
    with pytest.raises(ConflictError, match="denied"):
        await registry.retry_work(work.id)
    await known(registry, MAC)
    assert (await registry.retry_work(work.id)).active


async def test_work_is_held_with_a_reason(registry: Registry) -> None:
    await known(registry, MAC)
    work = await registry.add_work(WorkOrder(MAC, BundleKind.RESTORE, "debian"))
    assert (await registry.hold_work(work.id, "no such image")).state is WorkState.HELD
    assert (await registry.work(work.id)).reason == "no such image"
    with pytest.raises(ConflictError, match="nothing to hold"):
        await registry.hold_work(work.id, "again")
    with pytest.raises(NotFoundError):
        await registry.hold_work(work.id + 1, "x")


async def test_a_report_without_a_job(registry: Registry) -> None:
    await known(registry, MAC)
    first = await registry.add_work(WorkOrder(MAC, BundleKind.INSTALL, retries=1))
    assert (await registry.finish_work(first.id, ok=False, reason="no disk")).state is WorkState.QUEUED
    assert (await registry.finish_work(first.id, ok=True, reason="")).state is WorkState.DONE
    assert (await registry.finish_work(first.id, ok=False, reason="late")).state is WorkState.DONE
    second = await registry.add_work(WorkOrder(MAC, BundleKind.INSTALL))
    assert (await registry.finish_work(second.id, ok=False, reason="no disk")).state is WorkState.HELD


async def test_work_that_nobody_begins_expires(registry: Registry) -> None:
    await known(registry, MAC, OTHER, THIRD)
    now = datetime.now(UTC)
    soon = now + timedelta(hours=1)
    (late, running, open_end), _ = await registry.add_works(
        [
            WorkOrder(mac, BundleKind.RESTORE, "debian", expires=expires)
            for mac, expires in ((MAC, soon), (OTHER, soon), (THIRD, None))
        ]
    )
    await registry.start_job(running.id, "", None)
    assert await registry.expire_works(now) == []
    (ended,) = await registry.expire_works(now + timedelta(hours=2))
    assert (ended.id, ended.state) == (late.id, WorkState.EXPIRED)
    assert "did not begin it by" in ended.reason
    assert {work.id for work in await registry.works()} == {running.id, open_end.id}
    assert (await registry.retry_work(late.id)).expires == soon


async def test_expired_work_is_not_begun_and_its_retry_has_no_end(registry: Registry) -> None:
    await known(registry, MAC)
    past = datetime.now(UTC) - timedelta(minutes=1)
    work = await registry.add_work(WorkOrder(MAC, BundleKind.RESTORE, "debian", expires=past))
    with pytest.raises(ConflictError, match=f"pbserv work retry {work.id}"):
        await registry.start_job(work.id, "", None)
    await registry.expire_works(datetime.now(UTC))
    assert (await registry.retry_work(work.id)).expires is None
    assert (await registry.start_job(work.id, "", None)).state is WorkState.RUNNING


async def test_an_order_for_many_is_refused_in_parts(registry: Registry) -> None:
    await known(registry, MAC, OTHER)
    await registry.change_device(THIRD, DeviceChange(state=DeviceState.PENDING))
    busy = await registry.add_work(WorkOrder(OTHER, BundleKind.RESTORE, "debian"))
    told: list[str] = []
    registry.subscribe(lambda device: told.append(device.mac))
    orders = [WorkOrder(mac, BundleKind.RESTORE, "fedora") for mac in (MAC, OTHER, THIRD, "52:54:00:00:00:09", MAC)]
    works, refusals = await registry.add_works(orders)
    assert [(work.mac, work.image, work.state) for work in works] == [(MAC, "fedora", WorkState.QUEUED)]
    reasons = [(mac, reason) for mac, reason in refusals]
    assert [mac for mac, _ in reasons] == [OTHER, THIRD, "52:54:00:00:00:09", MAC]
    assert f"pbserv work cancel {busy.id}" in reasons[0][1]
    assert "is pending" in reasons[1][1]
    assert "accept it first" in reasons[2][1]
    assert "named twice" in reasons[3][1]
    assert told == [MAC]
    assert await registry.add_works([]) == ([], [])


async def test_many_devices_are_not_captured_to_one_name(registry: Registry) -> None:
    await known(registry, MAC, OTHER)
    works, refusals = await registry.add_works([WorkOrder(mac, BundleKind.CAPTURE, "x") for mac in (MAC, OTHER)])
    assert [work.mac for work in works] == [MAC]
    assert "being captured already" in refusals[0][1]


async def test_pages_of_work_and_jobs(registry: Registry) -> None:
    await known(registry, MAC)
    for _ in range(5):
        work = await registry.add_work(WorkOrder(MAC, BundleKind.RESTORE, "debian"))
        await registry.finish_job((await registry.start_job(work.id, "", None)).id, ok=True, reason="")
    newest = [work.id for work in await registry.works(everything=True, limit=2)]
    older = [work.id for work in await registry.works(everything=True, limit=2, after=newest[-1])]
    assert newest + older == list(range(newest[0], newest[0] - 4, -1))
    assert await registry.works() == []
    jobs = [job.id for job in await registry.jobs(limit=3)]
    assert [job.id for job in await registry.jobs(after=jobs[-1], mac=MAC)] == [jobs[-1] - 1, jobs[-1] - 2]


async def test_a_restart_loses_no_work(place: Place) -> None:
    before = Registry.open(place)
    macs = [f"52:54:00:00:01:{number:02x}" for number in range(20)]
    await known(before, *macs)
    works, _ = await before.add_works(
        [WorkOrder(mac, BundleKind.RESTORE, "debian", retries=2, assignment="nightly") for mac in macs]
    )
    job = await before.start_job(works[0].id, "10.0.0.7", 1)
    devices = await before.devices()
    await before.close()
    after = Registry.open(place)
    await after.close_orphans()
    assert await after.devices() == devices
    assert [device.work.state for device in devices if device.work] == [WorkState.RUNNING, *[WorkState.QUEUED] * 19]
    assert (await after.finish_job(job.id, ok=True, reason="")).state is WorkState.DONE
    await after.close()
