"""Jobs that are ordered on a device while another one runs: they end alone, or with their work; on both databases."""

from __future__ import annotations

import pytest

from pbserv.registry.records import BundleKind, DeviceState, WorkState
from pbserv.registry.registry import ConflictError, DeviceChange, NotFoundError, Registry, WorkOrder

MAC = "52:54:00:00:00:01"


async def maintained(registry: Registry) -> tuple[int, int]:
    """The numbers of work of kind maintenance and of its job."""
    await registry.change_device(MAC, DeviceChange(state=DeviceState.KNOWN))
    work = await registry.add_work(WorkOrder(MAC, BundleKind.MAINTENANCE, bundle="maintenance"))
    return work.id, (await registry.start_job(work.id, "10.0.0.7", None)).id


async def test_work_goes_on_whichever_way_such_a_job_ends(registry: Registry) -> None:
    number, within = await maintained(registry)
    for ok, image in ((True, "one"), (False, "two")):
        job = await registry.add_job(within, BundleKind.RESTORE, image, "10.0.0.7", 3)
        assert (job.work_id, job.mac, job.kind, job.image, job.version) == (number, MAC, BundleKind.RESTORE, image, 3)
        closed = await registry.finish_job(job.id, ok=ok, reason="why")
        assert closed.state is (WorkState.DONE if ok else WorkState.FAILED)
        assert (await registry.job(within)).state is WorkState.RUNNING
        assert (await registry.work(number)).state is WorkState.RUNNING
    await registry.finish_job(within, ok=True, reason="")
    assert (await registry.work(number)).state is WorkState.DONE


async def test_they_end_with_the_work(registry: Registry) -> None:
    number, within = await maintained(registry)
    job = await registry.add_job(within, BundleKind.CAPTURE, "image", "", None)
    await registry.finish_job(within, ok=True, reason="")
    ended = await registry.job(job.id)
    assert (ended.state, ended.reason) == (WorkState.FAILED, f"job {within} ended")
    assert ended.finished is not None
    assert (await registry.finish_job(job.id, ok=True, reason="late")).state is WorkState.FAILED
    assert (await registry.work(number)).state is WorkState.DONE


async def test_a_device_that_starts_again_closes_them(registry: Registry) -> None:
    number, within = await maintained(registry)
    job = await registry.add_job(within, BundleKind.RESTORE, "image", "", 1)
    again = await registry.start_job(number, "", None)
    states = [(await registry.job(each)).state for each in (within, job.id, again.id)]
    assert states == [WorkState.FAILED, WorkState.FAILED, WorkState.RUNNING]


async def test_nothing_is_added_to_what_is_over(registry: Registry) -> None:
    number, within = await maintained(registry)
    with pytest.raises(NotFoundError):
        await registry.add_job(99, BundleKind.RESTORE, "image", "", 1)
    await registry.cancel_work(number)
    with pytest.raises(ConflictError, match="is over"):
        await registry.add_job(within, BundleKind.RESTORE, "image", "", 1)
    await registry.finish_job(within, ok=False, reason="cancelled")
    with pytest.raises(ConflictError, match="is over"):
        await registry.add_job(within, BundleKind.RESTORE, "image", "", 1)
