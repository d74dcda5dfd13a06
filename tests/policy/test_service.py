"""The policy service with a real registry: new devices, virtual files, history."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from pbserv.journal.journal import Journal
from pbserv.log import ServiceLog
from pbserv.policy.config import PolicyConf
from pbserv.policy.service import PolicyService, PolicySettings
from pbserv.registry.migrate import migrate
from pbserv.registry.records import DeviceState, WorkKind
from pbserv.registry.registry import Registry, WorkOrder
from pbserv.registry.tokens import WorkTokens
from pbserv.types import ClientArch, MacAddress, Sighting, Verdict

MAC = "52:54:00:00:00:01"
SIGHTING = Sighting(MacAddress.parse(MAC), None, ClientArch(ClientArch.BIOS), "dhcp", "10.0.0.7")
Start = Callable[..., "PolicyService"]


@pytest.fixture
async def registry(tmp_path: Path) -> AsyncIterator[Registry]:
    migrate(tmp_path / "registry.db")
    opened = Registry.open(tmp_path / "registry.db")
    yield opened
    await opened.close()


async def started(registry: Registry, tmp_path: Path, **conf: object) -> PolicyService:
    log = ServiceLog("policy")
    log.configure(4, tmp_path / "policy.log", 1, quiet=True)
    service = PolicyService(log, registry, Journal(registry), WorkTokens(b"s" * 32))
    await service.start(PolicySettings(PolicyConf(**conf), None, 8067))  # type: ignore[arg-type]
    return service


async def test_a_new_device_is_pending_and_left_alone(registry: Registry, tmp_path: Path) -> None:
    service = await started(registry, tmp_path)
    assert service.decide(SIGHTING).verdict is Verdict.SILENT
    await service.flush()
    device = await registry.device(MAC)
    assert (device.state, device.arch, device.address) == (DeviceState.PENDING, 0, "10.0.0.7")
    assert f"pbserv device accept {MAC}" in (tmp_path / "policy.log").read_text()
    await registry.set_device(MAC, DeviceState.KNOWN)
    assert service.decide(SIGHTING).verdict is Verdict.LOCAL
    await service.flush_history()
    assert [e.what for e in await registry.history(MAC)] == ["registered", "asked by dhcp", "asked by dhcp"]
    await service.stop()


async def test_new_devices_accept_and_ignore(registry: Registry, tmp_path: Path) -> None:
    service = await started(registry, tmp_path, new_devices="accept", zone_default="menu")
    assert service.decide(SIGHTING).verdict is Verdict.MENU
    other = Sighting(MacAddress.parse("52:54:00:00:00:02"), via="dhcp")
    (await service.prepare(PolicySettings(PolicyConf(new_devices="ignore"), None, 8067))).commit()
    assert service.decide(other).verdict is Verdict.SILENT
    await service.flush()
    assert [d.mac for d in await registry.devices()] == [MAC]
    await service.stop()


async def test_virtual_files_over_tftp(registry: Registry, tmp_path: Path) -> None:
    service = await started(registry, tmp_path)
    for name in ("boot.ipxe", "autoexec.ipxe", "some/where/autoexec.ipxe"):
        text = service.find(name, "10.0.0.7", "10.0.0.2")
        assert text is not None
        assert b"http://10.0.0.2:8067/boot/${mac:hexhyp}.ipxe" in text
    assert service.find("boot/nonsense.ipxe", "10.0.0.7", "10.0.0.2") is None
    assert service.find("pxelinux.cfg/default", "10.0.0.7", "10.0.0.2") is None
    await registry.set_device(MAC, DeviceState.KNOWN)
    work = await registry.add_work(WorkOrder(MAC, WorkKind.CAPTURE, "debian"))
    script = service.find("boot/52-54-00-00-00-01.ipxe", "10.0.0.7", "10.0.0.2")
    assert script is not None
    assert f"pb.token={WorkTokens(b's' * 32).issue(work.id)}".encode() in script
    await service.stop()
    assert service.find("boot.ipxe", "10.0.0.7", "10.0.0.2") is None


async def test_addresses_in_scripts(registry: Registry, tmp_path: Path) -> None:
    service = await started(registry, tmp_path, local_interface="192.0.2.9")
    assert service.url("10.0.0.2") == "http://192.0.2.9:8067"
    (await service.prepare(PolicySettings(PolicyConf(), "192.0.2.8", 80))).commit()
    assert service.url("10.0.0.2") == "http://192.0.2.8:80"
    await service.stop()


async def test_transfers_are_kept_with_the_device_that_has_the_address(registry: Registry, tmp_path: Path) -> None:
    service = await started(registry, tmp_path)
    service.decide(SIGHTING)
    service.transferred("10.0.0.7", "undionly.kpxe", "completed", 70000)
    service.transferred("10.0.0.99", "undionly.kpxe", "completed", 70000)
    await service.flush_history()
    assert "undionly.kpxe: completed, 70000 bytes" in [e.detail for e in await registry.history(MAC)]
    await service.stop()


async def test_the_number_of_pending_devices_is_bounded(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pbserv.policy.service.MAX_PENDING", 3)
    service = await started(registry, tmp_path)
    for number in range(6):
        service.decide(Sighting(MacAddress(bytes([2, 0, 0, 0, 0, number])), via="dhcp"))
    assert len(service.snapshot.devices) == 3
    await service.stop()


async def test_what_was_seen_survives_a_decision_and_a_registry_that_cannot_be_written(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = await started(registry, tmp_path)
    seen = Sighting(SIGHTING.mac, "4c4c4544-0042-4710-8051-b4c04f4d3332", SIGHTING.arch, "dhcp", "10.0.0.7")
    service.decide(seen)
    with sqlite3.connect(tmp_path / "registry.db") as other:
        other.execute("BEGIN EXCLUSIVE")
        monkeypatch.setattr("pbserv.policy.service.RETRY_S", 0.05)
        assert await service.flush() is False
        other.rollback()
    other.close()
    await registry.set_device(MAC, DeviceState.KNOWN)
    assert await service.flush() is True
    device = await registry.device(MAC)
    assert (device.uuid, device.arch, device.address, device.state) == (
        seen.uuid, 0, "10.0.0.7", DeviceState.KNOWN,
    )  # fmt: skip
    await service.stop()


async def test_a_flood_of_unknown_addresses_leaves_no_trace_when_new_devices_are_ignored(
    registry: Registry, tmp_path: Path
) -> None:
    service = await started(registry, tmp_path, new_devices="ignore")
    for number in range(50):
        service.decide(Sighting(MacAddress(bytes([2, 0, 0, 0, 0, number])), via="http"))
    await service.flush_history()
    assert await registry.devices() == []
    assert await registry.history("02:00:00:00:00:07") == []
    await service.stop()


async def test_a_forgotten_device_is_new_again(registry: Registry, tmp_path: Path) -> None:
    service = await started(registry, tmp_path)
    service.decide(SIGHTING)
    await service.flush()
    await registry.forget(MAC)
    service.forget(MAC)
    assert service.snapshot.get(MAC) is None
    assert service.snapshot.pending == 0
    await service.stop()
