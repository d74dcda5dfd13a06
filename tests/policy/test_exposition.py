"""Figures of the policy: read by Prometheus's own parser, counted by a real registry."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from pbserv.policy.exposition import FRESH_S, PolicyCollector
from pbserv.policy.model import Group
from pbserv.policy.oracles.ports import RESULTS, Oracle
from pbserv.policy.snapshot import Snapshot
from pbserv.registry.migrate import migrate
from pbserv.registry.orders import DeviceChange, WorkOrder
from pbserv.registry.records import BundleKind, DeviceState, WorkState
from pbserv.registry.registry import Registry
from pbserv.types import Verdict
from tests.policy.oracles.host import Host, answer
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
        (sample.name, " ".join(value for _, value in sorted(sample.labels.items()))): sample.value
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
    none = figures(collector)
    for key in ("PolicyHook", "PrebootServer"):
        assert [none["pbserv_policy_questions_total", f"{key} {name}"] for name in RESULTS] == [0] * len(RESULTS)
    async with Host(BOOTS).serving() as host, asking(host) as policy.oracle:
        await policy.oracle.wait(SIGHTING, 5.0)
        found = figures(collector)
    await registry.close()
    results = {name: found["pbserv_policy_questions_total", f"PolicyHook {name}"] for name in RESULTS}
    assert results == {"asked": 1, "answered": 1, "left": 0, "failed": 0, "too_many": 0}
    assert found["pbserv_policy_questions_total", "PrebootServer asked"] == 0


async def test_a_hook_that_fails(tmp_path: Path) -> None:
    registry, policy = Registry.open(tmp_path / "registry.db"), Policy()
    async with Host(answer(503)).serving() as host, asking(host) as policy.oracle:
        await policy.oracle.wait(SIGHTING, 5.0)
        found = figures(PolicyCollector(policy, registry))
    await registry.close()
    assert found["pbserv_policy_questions_total", "PolicyHook failed"] == 1


async def test_when_something_was_changed_last(tmp_path: Path) -> None:
    migrate(tmp_path / "registry.db")
    registry, now = Registry.open(tmp_path / "registry.db"), [1000.0]
    collector = PolicyCollector(Policy(), registry, calendar=lambda: now[0])
    name = "pbserv_policy_last_change_timestamp_seconds"
    try:
        assert (figures(collector)[name, "device"], figures(collector)[name, "object"]) == (0, 0)
        await registry.change_device("52:54:00:00:00:01", DeviceChange(state=DeviceState.KNOWN))
        now[0] = 2000.0
        await registry.change_documents([("group", "lab", "{}")], [])
        assert (figures(collector)[name, "device"], figures(collector)[name, "object"]) == (1000.0, 2000.0)
    finally:
        await registry.close()


async def test_work_in_every_state(tmp_path: Path) -> None:
    migrate(tmp_path / "registry.db")
    registry = Registry.open(tmp_path / "registry.db")
    collector = PolicyCollector(Policy(), registry)
    past = datetime.now(UTC) - timedelta(hours=1)
    try:
        made = []
        for number in range(4):
            mac = f"52:54:00:00:00:0{number}"
            await registry.change_device(mac, DeviceChange(state=DeviceState.KNOWN))
            order = WorkOrder(mac, BundleKind.RESTORE, "win", expires=past if number == 3 else None)
            made.append(await registry.add_work(order))
        await registry.start_job(made[1].id, "", None)
        await registry.hold_work(made[2].id, "tried often enough")
        await registry.expire_works(datetime.now(UTC))
        await collector.refresh()
        found = figures(collector)
    finally:
        await registry.close()
    counted = {state: found["pbserv_policy_work", state.value] for state in WorkState}
    wanted = {WorkState.QUEUED: 1, WorkState.RUNNING: 1, WorkState.HELD: 1, WorkState.EXPIRED: 1}
    assert counted == {state: wanted.get(state, 0) for state in WorkState}
