"""Figures of the policy: read by Prometheus's own parser, counted by a real registry."""

from __future__ import annotations

from pathlib import Path

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from pbserv.policy.exposition import FRESH_S, PolicyCollector
from pbserv.policy.model import Group
from pbserv.policy.oracles.ports import Oracle
from pbserv.policy.snapshot import Snapshot
from pbserv.registry.migrate import migrate
from pbserv.registry.orders import DeviceChange
from pbserv.registry.records import DeviceState
from pbserv.registry.registry import Registry
from pbserv.types import Verdict
from tests.policy.oracles.host import Host
from tests.policy.oracles.test_hook import BOOTS, SIGHTING, asking


class Policy:
    def __init__(self) -> None:
        self.snapshot = Snapshot()
        self.decided = dict.fromkeys(Verdict, 0)
        self.oracle: Oracle | None = None


def figures(collector: PolicyCollector) -> dict[tuple[str, str], float]:
    registry = CollectorRegistry()
    registry.register(collector)
    return {
        (sample.name, next(iter(sample.labels.values()), "")): sample.value
        for family in text_string_to_metric_families(generate_latest(registry).decode())
        for sample in family.samples
    }


async def test_devices_decisions_and_objects(tmp_path: Path) -> None:
    migrate(tmp_path / "registry.db")
    registry, policy, now = Registry.open(tmp_path / "registry.db"), Policy(), [0.0]
    collector = PolicyCollector(policy, registry, clock=lambda: now[0])
    try:
        await collector.refresh()
        empty = figures(collector)
        assert {state for name, state in empty if name == "pbserv_policy_devices"} == set(DeviceState)
        assert empty["pbserv_policy_work", "queued"] == empty["pbserv_policy_work", "held"] == 0
        assert {verdict for name, verdict in empty if name == "pbserv_policy_decisions_total"} == {
            verdict.value for verdict in Verdict
        }
        await registry.change_device("52:54:00:00:00:01", DeviceChange(state=DeviceState.KNOWN))
        await registry.change_device("52:54:00:00:00:02", DeviceChange(state=DeviceState.DENIED))
        policy.snapshot = Snapshot.of(await registry.devices(), [Group(name="lab")])
        policy.decided[Verdict.BOOT] += 3
        now[0] = FRESH_S - 0.1
        await collector.refresh()
        assert figures(collector)["pbserv_policy_devices", "known"] == 0, "not counted anew at each scrape"
        now[0] = FRESH_S
        await collector.refresh()
        after = figures(collector)
    finally:
        await registry.close()
    assert (after["pbserv_policy_devices", "known"], after["pbserv_policy_devices", "denied"]) == (1, 1)
    assert after["pbserv_policy_decisions_total", "boot"] == 3
    assert (after["pbserv_policy_objects", "group"], after["pbserv_policy_snapshot_devices", ""]) == (1, 2)


async def test_without_a_database_the_scrape_goes_on(tmp_path: Path) -> None:
    registry = Registry.open("postgresql://nobody:x@127.0.0.1:1/none")
    collector = PolicyCollector(Policy(), registry)
    await collector.refresh()
    await registry.close()
    found = figures(collector)
    assert not any(name in ("pbserv_policy_devices", "pbserv_policy_work") for name, _ in found)
    assert found["pbserv_policy_decisions_total", "silent"] == 0


async def test_questions_to_another_server(tmp_path: Path) -> None:
    registry, policy = Registry.open(tmp_path / "registry.db"), Policy()
    collector = PolicyCollector(policy, registry)
    assert figures(collector)["pbserv_policy_questions_total", "asked"] == 0
    async with Host(BOOTS).serving() as host, asking(host) as policy.oracle:
        await policy.oracle.wait(SIGHTING, 5.0)
        found = figures(collector)
    await registry.close()
    assert [found["pbserv_policy_questions_total", name] for name in ("asked", "answered", "failed")] == [1, 1, 0]
