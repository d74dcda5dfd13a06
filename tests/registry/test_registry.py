"""Work is done once, survives a reopen, and a change is told after its commit; on both databases."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from pbserv.registry.engine import Place
from pbserv.registry.history import EVENTS_PER_DEVICE
from pbserv.registry.journal_rows import SESSIONS_PER_DEVICE
from pbserv.registry.records import BootSession, BundleKind, Device, DeviceState, Event, WorkState
from pbserv.registry.registry import (
    ConflictError,
    DeviceChange,
    NotFoundError,
    Progress,
    Registry,
    WorkOrder,
)

MAC = "52:54:00:00:00:01"
OTHER = "52:54:00:00:00:02"
START = datetime(2026, 1, 1, tzinfo=UTC)
ORDER = WorkOrder(MAC, BundleKind.RESTORE, "debian")


def session_of(mac: str, minutes: int = 0) -> BootSession:
    started = START + timedelta(minutes=minutes)
    return BootSession(mac, started, started + timedelta(seconds=9), "stopped", "why", "todo", b"steps", 2)


async def test_a_device_registers_once_and_keeps_its_state(registry: Registry) -> None:
    now = datetime.now(UTC)
    await registry.see([Device(MAC, None, "", 0, DeviceState.PENDING, "10.0.0.7", now, now)])
    await registry.change_device(MAC, DeviceChange(state=DeviceState.KNOWN, name="till-1"))
    await registry.see([Device(MAC, "u", "", None, DeviceState.PENDING, "", now, now)])
    device = await registry.device(MAC)
    assert (device.state, device.name, device.uuid, device.arch, device.address) == (
        DeviceState.KNOWN, "till-1", "u", 0, "10.0.0.7",
    )  # fmt: skip
    assert device.first_seen == now


async def test_work_needs_an_accepted_device(registry: Registry) -> None:
    with pytest.raises(NotFoundError, match="pbserv device accept"):
        await registry.add_work(ORDER)
    await registry.change_device(MAC, DeviceChange(state=DeviceState.PENDING))
    with pytest.raises(ConflictError, match="pending"):
        await registry.add_work(ORDER)


async def test_a_device_has_one_piece_of_work_at_a_time(registry: Registry) -> None:
    await registry.change_device(MAC, DeviceChange(state=DeviceState.KNOWN))
    work = await registry.add_work(ORDER)
    with pytest.raises(ConflictError, match=f"pbserv work cancel {work.id}"):
        await registry.add_work(ORDER)
    await registry.cancel_work(work.id)
    assert (await registry.add_work(ORDER)).id > work.id


async def test_changes_are_told_with_the_active_work(registry: Registry) -> None:
    told: list[Device] = []
    registry.subscribe(told.append)
    await registry.change_device(MAC, DeviceChange(state=DeviceState.KNOWN))
    work = await registry.add_work(ORDER)
    job = await registry.start_job(work.id, "10.0.0.7", 1)
    await registry.finish_job(job.id, ok=True, reason="")
    assert [device.work.state if device.work else None for device in told] == [
        None, WorkState.QUEUED, WorkState.RUNNING, None,
    ]  # fmt: skip


async def test_work_survives_a_restart_and_ends_with_its_report(place: Place) -> None:
    first = Registry.open(place)
    await first.change_device(MAC, DeviceChange(state=DeviceState.KNOWN))
    work = await first.add_work(ORDER)
    await first.start_job(work.id, "10.0.0.7", 1)
    await first.close()
    second = Registry.open(place)
    device = await second.device(MAC)
    assert device.work is not None
    assert device.work.state is WorkState.RUNNING
    again = await second.start_job(work.id, "10.0.0.7", 1)
    cut_off = (await second.jobs())[1]
    assert cut_off.state is WorkState.FAILED
    assert "started again" in cut_off.reason
    done = await second.finish_job(again.id, ok=True, reason="")
    assert done.state is WorkState.DONE
    assert (await second.device(MAC)).work is None
    with pytest.raises(ConflictError):
        await second.start_job(work.id, "10.0.0.7", 1)
    await second.close()


async def test_a_second_report_changes_nothing(registry: Registry) -> None:
    await registry.change_device(MAC, DeviceChange(state=DeviceState.KNOWN))
    job = await registry.start_job((await registry.add_work(ORDER)).id, "", None)
    await registry.finish_job(job.id, ok=False, reason="disk too small")
    again = await registry.finish_job(job.id, ok=True, reason="")
    assert (again.state, again.reason) == (WorkState.FAILED, "disk too small")


async def test_a_cancelled_job_ends_as_cancelled(registry: Registry) -> None:
    await registry.change_device(MAC, DeviceChange(state=DeviceState.KNOWN))
    work = await registry.add_work(ORDER)
    job = await registry.start_job(work.id, "", None)
    await registry.progress(job.id, Progress("writing", "p1", 5, 10, 1))
    await registry.cancel_work(work.id)
    assert (await registry.finish_job(job.id, ok=False, reason="cancelled")).state is WorkState.CANCELLED
    assert (await registry.job(job.id)).bytes_done == 5
    with pytest.raises(ConflictError, match="nothing to cancel"):
        await registry.cancel_work(work.id)


async def test_a_history_keeps_its_newest_events(registry: Registry) -> None:
    now = datetime.now(UTC)
    await registry.record([Event(now, MAC, "tftp", str(n)) for n in range(EVENTS_PER_DEVICE + 20)])
    kept = await registry.history(MAC, limit=1000)
    assert len(kept) == EVENTS_PER_DEVICE
    assert kept[-1].detail == str(EVENTS_PER_DEVICE + 19)
    assert [e.detail for e in await registry.history(MAC, limit=2)] == ["518", "519"]


async def test_orders_that_cross_each_other_make_one_piece_of_work(registry: Registry) -> None:
    await registry.change_device(MAC, DeviceChange(state=DeviceState.KNOWN))
    outcomes = await asyncio.gather(*(registry.add_work(ORDER) for _ in range(8)), return_exceptions=True)
    assert sum(isinstance(outcome, ConflictError) for outcome in outcomes) == 7
    assert len(await registry.works()) == 1


async def test_two_devices_cannot_be_captured_to_one_name(registry: Registry) -> None:
    for mac in (MAC, OTHER):
        await registry.change_device(mac, DeviceChange(state=DeviceState.KNOWN))
    await registry.add_work(WorkOrder(MAC, BundleKind.CAPTURE, "debian"))
    with pytest.raises(ConflictError, match=MAC):
        await registry.add_work(WorkOrder(OTHER, BundleKind.CAPTURE, "debian"))


async def test_denying_a_device_cancels_its_work(registry: Registry) -> None:
    await registry.change_device(MAC, DeviceChange(state=DeviceState.KNOWN))
    work = await registry.add_work(ORDER)
    job = await registry.start_job(work.id, "", None)
    assert (await registry.change_device(MAC, DeviceChange(state=DeviceState.DENIED))).work is None
    assert (await registry.work(work.id)).state is WorkState.CANCELLED
    await registry.close_orphans()
    assert (await registry.job(job.id)).state is WorkState.CANCELLED
    await registry.change_device(MAC, DeviceChange(state=DeviceState.KNOWN))
    assert (await registry.device(MAC)).work is None


async def test_a_session_that_goes_on_takes_its_own_place(registry: Registry) -> None:
    await registry.keep_sessions([session_of(MAC), session_of(OTHER, minutes=-1)])
    grown = replace(
        session_of(MAC), ended=START + timedelta(minutes=3), result="loader fetched", packets=4, steps=b"more"
    )
    await registry.keep_sessions([grown])
    assert [kept.mac for kept in await registry.sessions()] == [MAC, OTHER]
    assert await registry.sessions(mac=MAC) == [grown]
    assert [kept.mac for kept in await registry.sessions(limit=1)] == [MAC]


async def test_a_device_keeps_its_newest_sessions(registry: Registry) -> None:
    await registry.keep_sessions([session_of(OTHER)])
    for number in range(SESSIONS_PER_DEVICE + 3):
        await registry.keep_sessions([session_of(MAC, minutes=10 * number)])
    kept = await registry.sessions(mac=MAC)
    assert len(kept) == SESSIONS_PER_DEVICE
    assert kept[-1].started == START + timedelta(minutes=30)
    assert len(await registry.sessions(mac=OTHER)) == 1


async def test_the_sessions_of_a_device_are_those_of_all_its_addresses(registry: Registry) -> None:
    for mac in (MAC, OTHER):
        await registry.change_device(mac, DeviceChange(state=DeviceState.KNOWN))
        await registry.keep_sessions([session_of(mac)])
    assert await registry.addresses(MAC) == (MAC,)
    await registry.join_devices(OTHER, MAC)
    for mac in (MAC, OTHER):
        assert await registry.addresses(mac) == (OTHER, MAC)
        assert {kept.mac for kept in await registry.sessions(mac=mac)} == {MAC, OTHER}
    await registry.split_device(OTHER, MAC)
    assert [kept.mac for kept in await registry.sessions(mac=MAC)] == [MAC]


async def test_old_sessions_go_by_age_and_by_number(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    today = (datetime.now(UTC) - START) // timedelta(minutes=1)
    await registry.keep_sessions([session_of(f"52:54:00:00:01:{n:02x}", minutes=today - n) for n in range(9, -1, -1)])
    await registry.keep_sessions([session_of(MAC, minutes=today - 3 * 24 * 60)])
    await registry.drop_old_sessions(days=4)
    assert len(await registry.sessions()) == 11
    await registry.drop_old_sessions(days=2)
    assert MAC not in [kept.mac for kept in await registry.sessions()]
    monkeypatch.setattr("pbserv.registry.history.MOST_SESSIONS", 4)
    await registry.drop_old_sessions(days=2)
    assert [kept.mac for kept in await registry.sessions()] == [f"52:54:00:00:01:{n:02x}" for n in range(4)]


async def test_strategies_are_learned_replaced_and_forgotten(registry: Registry) -> None:
    await registry.remember_strategies({MAC: "binl", OTHER: "direct"})
    await registry.remember_strategies({MAC: "two-item"})
    assert await registry.strategies() == {MAC: "two-item", OTHER: "direct"}
    await registry.remember_strategies({OTHER: ""})
    assert await registry.strategies() == {MAC: "two-item"}


async def test_a_device_is_forgotten_with_its_history(registry: Registry) -> None:
    await registry.change_device(MAC, DeviceChange(state=DeviceState.KNOWN))
    work = await registry.add_work(ORDER)
    with pytest.raises(ConflictError, match="cancel it first"):
        await registry.forget(MAC)
    await registry.cancel_work(work.id)
    await registry.record([Event(datetime.now(UTC), MAC, "tftp", "x")])
    await registry.keep_sessions([session_of(MAC)])
    await registry.remember_strategies({MAC: "binl"})
    await registry.forget(MAC)
    assert await registry.devices() == []
    assert await registry.sessions() == []
    assert await registry.strategies() == {}
    assert await registry.history(MAC) == []
    with pytest.raises(NotFoundError):
        await registry.forget(MAC)
