"""The policy service with a real registry: new devices, virtual files, history."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from pbserv.journal.journal import Journal
from pbserv.log import ServiceLog
from pbserv.net.neighbours import NeighbourTable
from pbserv.policy.config import PolicyConf
from pbserv.policy.ports import Neighbours
from pbserv.policy.service import PolicyService, PolicySettings, Refused
from pbserv.policy.virtual import VirtualFiles
from pbserv.registry.migrate import migrate
from pbserv.registry.records import BundleKind, DeviceState
from pbserv.registry.registry import DeviceChange, Registry, WorkOrder
from pbserv.registry.tokens import WorkTokens
from pbserv.types import ClientArch, MacAddress, Sighting, Verdict
from tests.policy.test_attribution import Link

MAC = "52:54:00:00:00:01"
SIGHTING = Sighting(MacAddress.parse(MAC), None, ClientArch(ClientArch.BIOS), "dhcp", "10.0.0.7")
Start = Callable[..., "PolicyService"]


@pytest.fixture
async def registry(tmp_path: Path) -> AsyncIterator[Registry]:
    migrate(tmp_path / "registry.db")
    opened = Registry.open(tmp_path / "registry.db")
    yield opened
    await opened.close()


class Clock:
    """Monotonic time and the calendar, moved by hand."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.dates = 0
        self._began = datetime.now(UTC)

    def __call__(self) -> float:
        return self.now

    def calendar(self) -> datetime:
        self.dates += 1
        return self._began + timedelta(seconds=self.now - 1000.0)

    def move(self, seconds: float) -> None:
        self.now += seconds


async def started(
    registry: Registry,
    tmp_path: Path,
    *,
    engine: str | None = None,
    neighbours: Callable[[], Neighbours] = NeighbourTable,
    clock: Clock | None = None,
    **conf: object,
) -> PolicyService:
    log = ServiceLog("policy")
    log.configure(4, tmp_path / "policy.log", 1, quiet=True)
    times = {} if clock is None else {"clock": clock, "calendar": clock.calendar}
    service = PolicyService(
        log,
        registry,
        Journal(registry),
        WorkTokens(b"s" * 32),
        neighbours=neighbours,
        **times,  # type: ignore[arg-type]
    )
    await service.start(PolicySettings(PolicyConf(**conf), None, 8067, engine))  # type: ignore[arg-type]
    return service


async def test_a_new_device_is_pending_and_left_alone(registry: Registry, tmp_path: Path) -> None:
    service = await started(registry, tmp_path)
    assert service.decide(SIGHTING).verdict is Verdict.SILENT
    await service.flush()
    device = await registry.device(MAC)
    assert (device.state, device.arch, device.address) == (DeviceState.PENDING, 0, "10.0.0.7")
    assert f"pbserv device accept {MAC}" in (tmp_path / "policy.log").read_text()
    await registry.change_device(MAC, DeviceChange(state=DeviceState.KNOWN))
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
        text = VirtualFiles(service).find(name, "10.0.0.7", "10.0.0.2")
        assert text is not None
        assert b"http://10.0.0.2:8067/boot/${mac:hexhyp}.ipxe" in text
    assert VirtualFiles(service).find("boot/nonsense.ipxe", "10.0.0.7", "10.0.0.2") is None
    assert VirtualFiles(service).find("pxelinux.cfg/default", "10.0.0.7", "10.0.0.2") is None
    await registry.change_device(MAC, DeviceChange(state=DeviceState.KNOWN))
    work = await registry.add_work(WorkOrder(MAC, BundleKind.CAPTURE, "debian"))
    script = VirtualFiles(service).find("boot/52-54-00-00-00-01.ipxe", "10.0.0.7", "10.0.0.2")
    assert script is not None
    assert f"pb.token={WorkTokens(b's' * 32).issue(work.id)}".encode() in script
    await service.stop()
    assert VirtualFiles(service).find("boot.ipxe", "10.0.0.7", "10.0.0.2") is None


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
    monkeypatch.setattr("pbserv.policy.register.MAX_PENDING", 3)
    service = await started(registry, tmp_path)
    for number in range(6):
        service.decide(Sighting(MacAddress(bytes([2, 0, 0, 0, 0, number])), via="dhcp"))
    assert len(service.snapshot) == 3
    await service.stop()


async def test_what_was_seen_survives_a_decision_and_a_registry_that_cannot_be_written(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = await started(registry, tmp_path)
    seen = Sighting(SIGHTING.mac, "4c4c4544-0042-4710-8051-b4c04f4d3332", SIGHTING.arch, "dhcp", "10.0.0.7")
    service.decide(seen)
    with sqlite3.connect(tmp_path / "registry.db") as other:
        other.execute("BEGIN EXCLUSIVE")
        monkeypatch.setattr("pbserv.policy.sightings.RETRY_S", 0.05)
        assert await service.flush() is False
        other.rollback()
    other.close()
    await registry.change_device(MAC, DeviceChange(state=DeviceState.KNOWN))
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
    assert service.snapshot.device(MAC) is None
    service.decide(SIGHTING)
    await service.flush_history()
    assert [e.what for e in await registry.history(MAC)] == ["registered", "asked by dhcp"]
    service.forget(MAC)
    assert service.snapshot.pending == 0
    await service.stop()


def script_of(service: PolicyService, sighting: Sighting, local: str, *, sent: bool = False) -> str:
    """What an iPXE that asks over HTTP reads. Raises Refused."""
    ruling = service.ruling(sighting)
    if ruling.refused:
        raise Refused(ruling.refused)
    return service.scripts.of(ruling, service.facts(sighting, ruling, local), sent=sent)


# -- speed: what is remembered -----------------------------------------------------------------------------------------


async def test_the_repeat_of_a_question_is_answered_from_memory(registry: Registry, tmp_path: Path) -> None:
    clock = Clock()
    service = await started(registry, tmp_path, clock=clock)
    await registry.change_device(MAC, DeviceChange(state=DeviceState.KNOWN))
    clock.move(120)
    first = service.decide(SIGHTING)
    asked = clock.dates
    for _ in range(10):
        clock.move(5)
        assert service.decide(SIGHTING) is first
    assert clock.dates == asked
    clock.move(15)
    assert service.decide(SIGHTING) == first
    device = service.snapshot.device(MAC)
    assert device is not None
    assert device.last_seen == clock.calendar()  # once a minute
    await service.stop()


async def test_one_line_per_question_within_twenty_seconds(registry: Registry, tmp_path: Path) -> None:
    clock = Clock()
    service = await started(registry, tmp_path, clock=clock)
    await registry.change_device(MAC, DeviceChange(state=DeviceState.KNOWN))
    for seconds in (0, 5, 14, 2, 0):  # the fourth comes after 21 seconds
        clock.move(seconds)
        service.decide(SIGHTING)
        service.decide(SIGHTING._replace(address="10.0.0.8"))  # news for the record, not for the reader
    service.decide(SIGHTING._replace(via="http"))
    await registry.change_device(MAC, DeviceChange(state=DeviceState.DENIED))
    service.decide(SIGHTING)
    await service.flush_history()
    history = [(e.what, e.detail.partition(":")[0]) for e in await registry.history(MAC)]
    assert history == [("asked by dhcp", "local")] * 2 + [("asked by http", "local"), ("asked by dhcp", "silent")]
    assert (tmp_path / "policy.log").read_text().count(": decided ") == 4
    await service.stop()


async def test_what_happened_to_two_devices_that_become_one_is_not_lost(registry: Registry, tmp_path: Path) -> None:
    other = "52:54:00:00:00:02"
    service = await started(registry, tmp_path)
    for mac in (MAC, other):
        await registry.change_device(mac, DeviceChange(name=mac[-1]))
        service.note(mac, "seen", "before")
    await registry.join_devices(MAC, other)
    service.joined(other)
    await service.flush_history()
    assert [(e.mac, e.what) for e in await registry.history(MAC)] == [(MAC, "seen"), (other, "seen")]
    service.note(other, "seen", "last")
    await registry.forget(MAC)
    service.forget(MAC)
    await service.flush_history()
    assert await registry.history(MAC) == await registry.history(other) == []
    assert service.snapshot.device(other) is None
    await service.stop()


async def test_a_storm_of_new_devices_is_counted_and_written(registry: Registry, tmp_path: Path) -> None:
    service = await started(registry, tmp_path)
    for number in range(1, 1001):
        service.decide(Sighting(MacAddress(number.to_bytes(6, "big")), via="dhcp"))
    assert (len(service.snapshot), service.snapshot.pending) == (1000, 1000)
    assert await service.flush()
    assert len(await registry.devices()) == 1000
    await service.stop()


async def test_settings_and_records_that_change_are_not_answered_from_memory(
    registry: Registry, tmp_path: Path
) -> None:
    service = await started(registry, tmp_path)
    await registry.change_device(MAC, DeviceChange(state=DeviceState.KNOWN))
    assert service.decide(SIGHTING).verdict is Verdict.LOCAL
    work = await registry.add_work(WorkOrder(MAC, BundleKind.CAPTURE, "debian"))
    assert service.decide(SIGHTING).verdict is Verdict.BOOT
    await registry.cancel_work(work.id)
    (await service.prepare(PolicySettings(PolicyConf(zone_default="menu"), None, 8067))).commit()
    assert service.decide(SIGHTING).verdict is Verdict.MENU
    await service.stop()
    assert service.decide(SIGHTING).verdict is Verdict.SILENT


# -- the gate ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("state", "reason"),
    [(DeviceState.DENIED, "device is denied"), (DeviceState.PENDING, "device is pending"), (DeviceState.KNOWN, "")],
)
async def test_the_gate_knows_devices_by_what_dhcp_told(
    registry: Registry, tmp_path: Path, state: DeviceState, reason: str
) -> None:
    service = await started(registry, tmp_path)
    await registry.change_device(MAC, DeviceChange(state=state))
    service.decide(SIGHTING)
    assert service.refuses("10.0.0.7").startswith(reason)
    assert bool(service.refuses("10.0.0.7")) is bool(reason)
    assert service.refuses("10.0.0.8") == ""
    service.transferred("10.0.0.7", "undionly.kpxe", "refused", 0)
    await service.flush_history()
    assert f"undionly.kpxe: refused{', ' if reason else ''}{reason}" in "".join(
        event.detail for event in await registry.history(MAC)
    )
    await service.stop()
    assert service.refuses("10.0.0.7") == ""


async def test_the_gate_knows_neighbours_and_believes_the_kernel(registry: Registry, tmp_path: Path) -> None:
    link = Link()
    service = await started(registry, tmp_path, neighbours=lambda: link)
    other = "52:54:00:00:00:02"
    await registry.change_device(MAC, DeviceChange(state=DeviceState.DENIED))
    await registry.change_device(other, DeviceChange(state=DeviceState.KNOWN))
    link.macs["10.0.0.9"] = MAC
    assert service.refuses("10.0.0.9") == "device is denied"
    service.decide(SIGHTING)  # had 10.0.0.7 last; now a known device has it
    link.macs["10.0.0.7"] = other
    assert service.refuses("10.0.0.7") == ""
    service.fetched("10.0.0.7", "snponly.efi", "completed", 5)
    await service.flush_history()
    assert [(e.what, e.detail) for e in await registry.history(other)] == [("http", "snponly.efi: completed, 5 bytes")]
    await service.stop()
    assert link.closed


async def test_where_nothing_goes_to_strangers_a_name_is_not_enough(registry: Registry, tmp_path: Path) -> None:
    link, peer, other = Link(), "10.9.0.5", "52:54:00:00:00:02"
    loose = await started(registry, tmp_path, neighbours=lambda: link)
    assert loose.contradicts(MAC, peer) == ""
    await loose.stop()
    service = await started(registry, tmp_path, neighbours=lambda: link, unattributed="nothing")
    assert "UnattributedRequests = nothing" in service.contradicts(MAC, peer)
    assert service.contradicts(MAC, peer, proven=True) == ""
    service.decide(SIGHTING._replace(address=peer))  # it asked on 4011 with this address
    assert service.contradicts(MAC, peer) == ""
    assert service.contradicts(other, peer) == f"{peer} is the address of {MAC}, which is not {other}"
    await service.stop()


async def test_a_refused_device_gets_no_script_and_its_name_teaches_no_address(
    registry: Registry, tmp_path: Path
) -> None:
    service = await started(registry, tmp_path)
    await registry.change_device(MAC, DeviceChange(state=DeviceState.DENIED))
    with pytest.raises(Refused, match="device is denied"):
        script_of(service, Sighting(SIGHTING.mac, via="http", address="10.0.0.5"), "10.0.0.2")
    with pytest.raises(PermissionError, match="device is denied"):
        VirtualFiles(service).find(f"boot/{MAC}.ipxe", "10.0.0.5", "10.0.0.2")
    assert service.refuses("10.0.0.5") == "", "anybody could name a denied device and shut its own address out"
    await registry.change_device(MAC, DeviceChange(state=DeviceState.KNOWN))
    assert script_of(service, Sighting(SIGHTING.mac, via="http", address="10.0.0.5"), "10.0.0.2").startswith("#!ipxe")
    await registry.change_device(MAC, DeviceChange(state=DeviceState.DENIED))
    assert service.refuses("10.0.0.5") == "device is denied"
    await service.stop()


async def test_a_known_device_that_is_left_to_others_still_gets_files(registry: Registry, tmp_path: Path) -> None:
    service = await started(registry, tmp_path, zone_default="silent")
    await registry.change_device(MAC, DeviceChange(state=DeviceState.KNOWN))
    assert service.decide(SIGHTING).verdict is Verdict.SILENT
    assert service.refuses("10.0.0.7") == ""
    assert "ZoneDefault = silent" in script_of(service, SIGHTING, "10.0.0.2")
    await service.stop()


# -- NovellPolicyEngine ------------------------------------------------------------------------------------------------


async def test_another_servers_policy_decides(registry: Registry, tmp_path: Path) -> None:
    service = await started(registry, tmp_path, engine="203.0.113.9")
    assert service.decide(SIGHTING).verdict is Verdict.LOADER
    assert len(service.snapshot) == 0
    chain = "chain --replace --autofree http://203.0.113.9:8067/boot/${mac:hexhyp}.ipxe?"
    for name in ("boot.ipxe", "autoexec.ipxe", f"boot/{MAC}.ipxe"):
        text = VirtualFiles(service).find(name, "10.0.0.7", "10.0.0.2")
        assert text is not None
        assert chain in text.decode()
    back = script_of(service, SIGHTING, "10.0.0.2", sent=True)
    assert "two servers send their clients on" in back
    assert "chain" not in back
    await registry.change_device(MAC, DeviceChange(state=DeviceState.DENIED))
    assert service.decide(SIGHTING).verdict is Verdict.SILENT
    assert service.refuses("10.0.0.7") == "device is denied"
    await service.stop()


@pytest.mark.parametrize(
    ("engine", "url"),
    [
        (None, "http://10.0.0.2:8067"),
        ("127.0.0.1", "http://10.0.0.2:8067"),
        ("127.0.0.1:8067", "http://10.0.0.2:8067"),
        ("127.0.0.1:80", "http://127.0.0.1:80"),
        ("203.0.113.9:80", "http://203.0.113.9:80"),
    ],
)
async def test_which_server_decides(registry: Registry, tmp_path: Path, engine: str | None, url: str) -> None:
    service = await started(registry, tmp_path, engine=engine)
    assert f"chain --replace --autofree {url}/boot/" in service.scripts.first("10.0.0.2")
    await service.stop()
