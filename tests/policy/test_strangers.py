"""Pending devices that nobody decided about have an end; all others stay."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from pbserv.log import ServiceLog
from pbserv.policy.snapshot import Snapshot
from pbserv.policy.strangers import AT_ONCE, CROWDED, Strangers, stale
from pbserv.registry.migrate import migrate
from pbserv.registry.records import Device, DeviceState
from pbserv.registry.registry import DeviceChange, Registry

NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)


def device(number: int, state: DeviceState, seen: timedelta) -> Device:
    mac = f"02:00:00:00:{number >> 8:02x}:{number & 255:02x}"
    return Device(mac, None, "", None, state, "", NOW - seen, NOW - seen)


def test_who_is_forgotten() -> None:
    long_ago, lately = timedelta(days=31), timedelta(days=29)
    devices = [
        device(1, DeviceState.PENDING, long_ago), device(2, DeviceState.PENDING, lately),
        device(3, DeviceState.KNOWN, long_ago), device(4, DeviceState.DENIED, long_ago),
        device(5, DeviceState.PENDING, 2 * long_ago),
    ]  # fmt: skip
    snapshot = Snapshot.of(devices)
    assert stale(snapshot, NOW, 30) == [devices[4].mac, devices[0].mac]
    assert stale(snapshot, NOW, 90) == []
    crowded = replace(snapshot, pending=CROWDED)
    assert stale(crowded, NOW, 90) == [devices[4].mac, devices[0].mac, devices[1].mac]


def test_a_crowd_goes_a_part_at_a_time() -> None:
    crowd = [device(number, DeviceState.PENDING, timedelta(days=1, seconds=number)) for number in range(CROWDED)]
    found = stale(Snapshot.of(crowd), NOW, 90)
    assert found == [each.mac for each in reversed(crowd[-AT_ONCE:])]


class Policy:
    pending_days = 30

    def __init__(self, devices: list[Device]) -> None:
        self.snapshot = Snapshot.of(devices)
        self.forgotten: list[str] = []

    def forget(self, mac: str) -> None:
        self.forgotten.append(mac)


@pytest.fixture
async def registry(tmp_path: Path) -> AsyncIterator[Registry]:
    migrate(tmp_path / "registry.db")
    opened = Registry.open(tmp_path / "registry.db")
    yield opened
    await opened.close()


async def test_a_decision_that_was_made_meanwhile_counts(registry: Registry) -> None:
    devices = [device(number, DeviceState.PENDING, timedelta(days=31)) for number in range(3)]
    await registry.see(devices)
    policy = Policy(devices)
    await registry.change_device(devices[1].mac, DeviceChange(state=DeviceState.KNOWN))
    await registry.forget(devices[2].mac)
    strangers = Strangers(registry, policy, ServiceLog("policy"), lambda: NOW)
    assert await strangers.sweep() == 1
    assert policy.forgotten == [devices[0].mac]
    assert [each.mac for each in await registry.devices()] == [devices[1].mac]
    policy.snapshot = Snapshot.of([])
    assert await strangers.sweep() == 0
