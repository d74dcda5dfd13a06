"""The large zone of bench.policy, and what its table says of figures."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from bench.policy import measure, table, zone
from bench.policy.fill import fill
from pbserv.app import GARBAGE
from pbserv.policy.decide import Query, decide
from pbserv.policy.integrity import problems
from pbserv.policy.model import Assignment, Folder, Group, Rule
from pbserv.policy.snapshot import Objects, Snapshot
from pbserv.registry.migrate import migrate
from pbserv.types import Verdict


def test_the_zone_is_as_large_as_is_said_and_whole():
    objects = zone.objects()
    counts = Counter(type(each) for each in objects)
    assert (counts[Group], counts[Folder], counts[Assignment], counts[Rule]) == (
        zone.GROUPS, zone.FOLDERS, zone.ASSIGNMENTS, zone.RULES)  # fmt: skip
    assert len({(type(each), each.name) for each in objects}) == len(objects)
    assert problems(Objects.of(objects), zone.devices(200)) == []


def test_most_devices_are_asked_of_many_places_and_few_rules_are_true():
    snapshot = Snapshot.of(zone.devices(2_000), zone.objects())
    rulings = [decide(Query(device.mac, device), snapshot, zone.NOW) for device in snapshot.devices.values()]
    verdicts = Counter(ruling.decision.verdict for ruling in rulings)
    assert {Verdict.SILENT, Verdict.LOCAL, Verdict.BOOT, Verdict.MENU} == set(verdicts)
    by_rule = sum(ruling.decision.reason.startswith("rule ") for ruling in rulings)
    assert 0 < by_rule < len(rulings) / 4
    assert sum("nothing assigned" in ruling.decision.reason for ruling in rulings) > len(rulings) / 6


def test_what_is_filled_in_is_what_is_read(tmp_path: Path):
    place = tmp_path / "registry.db"
    migrate(place)
    asyncio.run(fill(place, zone.devices(300), zone.objects()))
    found, meant = asyncio.run(measure.read(place)), Snapshot.of(zone.devices(300), zone.objects())
    assert found.objects == meant.objects
    assert set(found.devices) == set(meant.devices)
    for mac, device in meant.devices.items():
        other = found.devices[mac]
        for part in ("macs", "groups", "labels", "learned", "runs", "folder", "uuid", "state", "name"):
            assert getattr(other, part) == getattr(device, part)
        assert bool(other.work) is bool(device.work)


def test_garbage_is_searched_for_as_pbserv_does():
    assert measure.GARBAGE == GARBAGE


def results(**changes: float) -> dict[str, Any]:
    figures = [{"sqlite_s": seconds, "busy_asked_per_s": 1000.0, **changes} for seconds in (2.0, 2.5, 9.0)]
    machine = {"cpu": "c", "cores": 2, "memory_gb": 4, "kernel": "k", "python": "3"}
    size = {"devices": 100_000, "groups": 1_000, "folders": 300, "assignments": 2_000, "rules": 200}
    return {"date": "d", "machine": machine, "versions": {}, "rounds": 3, "quick": False, "size": size,
            "figures": figures}  # fmt: skip


def test_the_median_of_the_rounds_counts():
    assert table.missed(results()) == []
    ((title, lines),) = table.tables(results())
    assert "100,000 devices" in title
    assert lines[1] == ["snapshot from SQLite, with the read", "2.50 s", "2.00 s to 9.00 s", "< 3.00 s", "pass"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [({"sqlite_s": 3.0}, "(sqlite_s): 3.00 s, wanted < 3.00 s"), ({"busy_asked_per_s": 900.0}, "wanted >= 990"),
     ({"loop_late_ms_p99": 10.5}, "(loop_late_ms_p99): 10.50 ms, wanted < 10.00 ms")],
)  # fmt: skip
def test_what_lies_beyond_its_limit_is_named(changes, said):
    (missed,) = table.missed(results(**changes))
    assert said in missed
