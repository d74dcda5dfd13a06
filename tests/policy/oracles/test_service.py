"""The real policy service with a hook on a real connection: who is asked about whom, and for how long it counts."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from pbserv.journal.journal import Journal
from pbserv.log import ServiceLog
from pbserv.policy.config import PolicyConf
from pbserv.policy.service import PolicyService, PolicySettings
from pbserv.registry.migrate import migrate
from pbserv.registry.records import BundleKind, DeviceState
from pbserv.registry.registry import DeviceChange, Registry, WorkOrder
from pbserv.registry.tokens import WorkTokens
from pbserv.types import ClientArch, MacAddress, Sighting, Verdict
from tests.policy.oracles.host import Host, answer, owned
from tests.policy.oracles.test_hook import BOOTS, Clock

MAC = "52:54:00:12:34:56"
DHCP = Sighting(MacAddress.parse(MAC), None, ClientArch(7), "dhcp")
HTTP = Sighting(MacAddress.parse(MAC), via="http")


@dataclass
class Deciding:
    policy: PolicyService
    registry: Registry
    clock: Clock


@contextlib.asynccontextmanager
async def deciding(host: Host, place: Path, **conf: str) -> AsyncIterator[Deciding]:
    migrate(place / "registry.db")
    registry, clock = Registry.open(place / "registry.db"), Clock()
    async with owned() as supervisor:
        policy = PolicyService(
            ServiceLog("policy"),
            registry,
            Journal(registry),
            WorkTokens(b"s" * 32),
            spawn=supervisor.spawn,
            clock=clock,
        )
        given = PolicyConf.model_validate({"hook": f"{host.url}/{{mac}}", "new_devices": "accept", **conf})
        await policy.start(PolicySettings(given, None, 8067))
        yield Deciding(policy, registry, clock)
        await policy.stop()
    await registry.close()


async def test_what_is_explained_is_what_the_other_server_said(tmp_path: Path) -> None:
    async with Host(BOOTS).serving() as host, deciding(host, tmp_path) as it:
        before = it.policy.explain(MAC).decision
        assert before.verdict is not Verdict.BOOT
        assert "is asked when the device boots" in before.steps[0]
        assert host.asked == []
        await it.policy.settle(HTTP)
        after = it.policy.explain(MAC).decision
        assert (after.verdict, after.bundle) == (Verdict.BOOT, "hook")


async def test_later_first_and_then_the_same_for_all(tmp_path: Path) -> None:
    async with Host(BOOTS).serving() as host, deciding(host, tmp_path) as it:
        first = it.policy.decide(DHCP)
        assert (first.verdict, first.later) == (Verdict.SILENT, True)
        assert f"127.0.0.1:{host.port}" in first.reason
        ruling = await it.policy.settle(HTTP)
        assert (ruling.decision.verdict, ruling.decision.bundle) == (Verdict.BOOT, "hook")
        assert it.policy.decide(DHCP) == ruling.decision
        assert len(host.asked) == 1


async def test_what_is_left_to_us(tmp_path: Path) -> None:
    async with Host(answer(404)).serving() as host, deciding(host, tmp_path, zone_default="loader") as it:
        ruling = await it.policy.settle(DHCP)
        assert (ruling.decision.verdict, ruling.decision.later) == (Verdict.LOADER, False)
        assert "answers 404" in ruling.decision.steps[0]


async def test_a_failure_counts_for_a_moment_only(tmp_path: Path) -> None:
    async with (
        Host(answer(500)).serving() as host,
        deciding(host, tmp_path, hook_failure="closed", zone_default="loader") as it,
    ):
        ruling = await it.policy.settle(DHCP)
        assert (ruling.decision.verdict, "closed" in ruling.decision.reason) == (Verdict.SILENT, True)
        host.says = BOOTS
        it.clock.now += 6
        assert it.policy.decide(DHCP).later
        assert (await it.policy.settle(DHCP)).decision.verdict is Verdict.BOOT


async def test_denied_devices_pending_ones_and_work_are_ours_alone(tmp_path: Path) -> None:
    async with Host(BOOTS).serving() as host, deciding(host, tmp_path, new_devices="pending") as it:
        assert "pending" in (await it.policy.settle(DHCP)).refused
        await it.policy.flush()
        await it.registry.change_device(MAC, DeviceChange(state=DeviceState.DENIED))
        assert (await it.policy.settle(DHCP)).refused == "device is denied"
        await it.registry.change_device(MAC, DeviceChange(state=DeviceState.KNOWN))
        await it.registry.add_work(WorkOrder(MAC, BundleKind.RESTORE, "win11"))
        ruling = await it.policy.settle(DHCP)
        assert ruling.work is not None
        assert host.asked == []


async def test_a_reload_keeps_what_is_known_unless_it_is_another_server(tmp_path: Path) -> None:
    async with Host(BOOTS).serving() as host, deciding(host, tmp_path) as it:
        await it.policy.settle(DHCP)
        same = PolicyConf(hook=f"{host.url}/{{mac}}", new_devices="accept", zone_default="silent")
        (await it.policy.prepare(PolicySettings(same, None, 8067))).commit()
        assert it.policy.decide(DHCP).verdict is Verdict.BOOT
        other = PolicyConf(hook=f"{host.url}/other/{{mac}}", new_devices="accept")
        (await it.policy.prepare(PolicySettings(other, None, 8067))).commit()
        assert it.policy.decide(DHCP).later
        (await it.policy.prepare(PolicySettings(PolicyConf(), None, 8067))).commit()
        assert it.policy.decide(DHCP).verdict is Verdict.LOCAL


async def test_a_device_that_is_forgotten_is_asked_about_again(tmp_path: Path) -> None:
    async with Host(BOOTS).serving() as host, deciding(host, tmp_path) as it:
        await it.policy.settle(DHCP)
        it.policy.forget(MAC)
        assert it.policy.decide(DHCP).later
