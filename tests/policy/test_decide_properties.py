"""What holds for every policy, device and question."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pbserv.policy.decide import Query, Ruling, decide, refusal
from pbserv.policy.snapshot import Snapshot
from pbserv.registry.records import DeviceState
from pbserv.types import Verdict

from .policies import LIVE, MAC, MACS, NOW, SNAPSHOTS, devices

TIMES = st.integers(0, 200).map(lambda hours: NOW - timedelta(hours=100) + timedelta(hours=hours))
PLACES = st.sampled_from([*MACS, "52:54:00:00:00:11"])


@given(SNAPSHOTS, PLACES, LIVE, TIMES)
def test_the_same_question_has_the_same_answer(
    snapshot: Snapshot, mac: str, live: dict[str, str], now: datetime
) -> None:
    query = Query(mac, snapshot.device(mac), live)
    rebuilt = Snapshot.of(
        reversed(list(snapshot.devices.values())), reversed(list(snapshot.objects.everything())), snapshot.zone
    )
    first = decide(query, snapshot, now)
    assert first == decide(query, snapshot, now)
    assert first == decide(replace(query, device=rebuilt.device(mac)), rebuilt, now)
    assert first.refused == refusal(query, snapshot, now)


@given(SNAPSHOTS, devices(MAC), st.sampled_from([DeviceState.DENIED, DeviceState.RETIRED]), LIVE, TIMES, st.booleans())
def test_a_denied_or_retired_device_gets_nothing(
    snapshot: Snapshot, device: object, state: DeviceState, live: dict[str, str], now: datetime, everything: bool
) -> None:
    denied = replace(device, state=state)
    with_it = snapshot.with_device(denied)
    for mac in (denied.mac, *denied.macs):
        ruling = decide(Query(mac, with_it.device(mac), live), with_it, now, everything=everything)
        assert ruling.decision.verdict is Verdict.SILENT
        assert ruling.refused
        assert ruling == Ruling(ruling.decision, ruling.refused)
        assert (ruling.decision.work, ruling.decision.bundle, ruling.decision.file) == (None, "", "")


@given(SNAPSHOTS, PLACES, LIVE, TIMES)
def test_everything_adds_steps_and_nothing_else(
    snapshot: Snapshot, mac: str, live: dict[str, str], now: datetime
) -> None:
    query = Query(mac, snapshot.device(mac), live)
    brief, full = decide(query, snapshot, now), decide(query, snapshot, now, everything=True)
    assert set(brief.decision.steps) <= set(full.decision.steps)
    steps = [step for step in full.decision.steps if not step.endswith(" loses")]
    assert steps == list(brief.decision.steps)
    assert brief == replace(full, decision=replace(full.decision, steps=brief.decision.steps))


@given(SNAPSHOTS, PLACES, LIVE, TIMES)
def test_an_answer_is_whole(snapshot: Snapshot, mac: str, live: dict[str, str], now: datetime) -> None:
    ruling = decide(Query(mac, snapshot.device(mac), live), snapshot, now)
    verdict = ruling.decision.verdict
    assert (verdict is Verdict.MENU) is (ruling.menu is not None)
    assert not (ruling.refused and verdict is not Verdict.SILENT)
    assert ruling.without_menu is not Verdict.MENU
    if verdict is Verdict.BOOT:
        assert (ruling.bundle is None) is (ruling.work is not None)
    if ruling.order:
        assert ruling.bundle is not None
        assert ruling.decision.bundle == ruling.bundle.name
    assert ruling.decision.reason
    assert ruling.decision.steps
    assert ruling.arguments == " ".join(ruling.arguments.split())


@given(SNAPSHOTS, PLACES, TIMES)
def test_what_a_device_says_does_not_lift_its_refusal(snapshot: Snapshot, mac: str, now: datetime) -> None:
    device = snapshot.device(mac)
    lies = {"state": "known", "group": "a", "groups": "a", "folder": "/n", "name": "vip", "mac": MACS[0]}
    assert decide(Query(mac, device, lies), snapshot, now) == decide(Query(mac, device), snapshot, now)


@pytest.mark.parametrize("mac", [MAC])
def test_the_answer_is_immutable(mac: str) -> None:
    ruling = decide(Query(mac, None), Snapshot(), NOW)
    with pytest.raises(AttributeError):
        ruling.refused = ""
