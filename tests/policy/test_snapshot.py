"""A snapshot that was changed step by step is the one that is built whole."""

from __future__ import annotations

from dataclasses import fields, replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pbserv.policy.decide import Query, decide
from pbserv.policy.model import DEFAULT_MENU, Menu, PolicyObject
from pbserv.policy.snapshot import Objects, Snapshot, Zone, distance, folders_up
from pbserv.registry.records import Device, DeviceState

from .policies import BUNDLES, MAC, MACS, NOW, OBJECTS, UUIDS, ZONES, device, devices

CHANGES = st.lists(
    st.sampled_from(MACS[:4]).flatmap(lambda mac: st.tuples(st.just(mac), st.none() | devices(mac))), max_size=12
)


def same(one: Snapshot, other: Snapshot) -> None:
    for field in fields(Snapshot):
        assert getattr(one, field.name) == getattr(other, field.name), field.name
    for mac in (*MACS, "52:54:00:00:00:11", "52:54:00:00:00:12"):
        assert one.device(mac) == other.device(mac)
        for now in (NOW, NOW + timedelta(days=1)):
            asked = [decide(Query(mac, each.device(mac)), each, now, everything=True) for each in (one, other)]
            assert asked[0] == asked[1]
    for uuid in UUIDS:
        assert one.by_uuid(uuid) == other.by_uuid(uuid)


@given(CHANGES, OBJECTS, OBJECTS, ZONES)
def test_changes_lead_to_what_is_built_whole(
    changes: list[tuple[str, Device | None]], before: list[PolicyObject], after: list[PolicyObject], zone: Zone
) -> None:
    snapshot, left = Snapshot.of((), before), dict[str, Device]()
    for mac, changed in changes:
        kept = snapshot
        if changed is None:
            snapshot = snapshot.without_device(mac)
            left.pop(mac, None)
            assert snapshot is kept or mac in kept.devices
        else:
            snapshot = snapshot.with_device(changed)
            left[mac] = changed
        same(kept, kept)
    same(snapshot.with_objects(after).with_zone(zone), Snapshot.of(left.values(), after, zone))
    assert len(snapshot) == len(left)


def test_a_snapshot_does_not_change() -> None:
    before = Snapshot.of([device()], BUNDLES)
    after = before.with_device(device(state=DeviceState.DENIED, uuid=UUIDS[1]))
    assert before.device(MAC) == device()
    assert (before.refused, after.refused, before.by_uuid(UUIDS[1])) == (0, 1, None)


def test_joined_and_split_devices_in_either_order() -> None:
    one, two = device(MACS[0]), device(MACS[1])
    both = replace(one, macs=(MACS[1],))
    apart = Snapshot.of([one, two])
    joined = Snapshot.of([both])
    same(apart.with_device(both).without_device(MACS[1]), joined)
    same(apart.without_device(MACS[1]).with_device(both), joined)
    same(joined.with_device(one).with_device(two), apart)
    same(joined.with_device(two).with_device(one), apart)
    assert joined.device(MACS[1]) == both


def test_an_address_that_moves_to_another_device_in_either_order() -> None:
    card = "52:54:00:00:00:11"
    one, two = device(MACS[0]), device(MACS[1])
    before = Snapshot.of([replace(one, macs=(card,)), two])
    after = Snapshot.of([one, replace(two, macs=(card,))])
    same(before.with_device(one).with_device(replace(two, macs=(card,))), after)
    same(before.with_device(replace(two, macs=(card,))).with_device(one), after)
    gone = before.with_device(replace(two, macs=(card,))).without_device(MACS[0])
    assert gone.device(card) == replace(two, macs=(card,))


def test_a_uuid_that_several_have_or_boards_share_is_nobodys() -> None:
    one, two = device(MACS[0], uuid=UUIDS[1]), device(MACS[1], uuid=UUIDS[1])
    snapshot = Snapshot.of([one])
    assert snapshot.by_uuid(UUIDS[1]) == one
    assert snapshot.with_device(two).by_uuid(UUIDS[1]) is None
    assert snapshot.with_device(two).without_device(MACS[0]).by_uuid(UUIDS[1]) == two
    assert Snapshot.of([device(uuid=UUIDS[3])]).by_uuid(UUIDS[3]) is None
    assert snapshot.by_uuid(None) is None
    assert snapshot.by_uuid("") is None


def test_counts_of_states() -> None:
    snapshot = Snapshot.of([device(mac, state=state) for mac, state in zip(MACS, DeviceState, strict=False)])
    assert (snapshot.pending, snapshot.refused, len(snapshot)) == (1, 3, 4)
    assert snapshot.with_device(device(MACS[0])).pending == 0
    assert snapshot.without_device(MACS[2]).refused == 2


def test_the_default_menu_is_there_unless_another_has_its_name() -> None:
    ours = Menu(name="default", title="Ours")
    assert Snapshot.of([]).menu("default") is DEFAULT_MENU
    assert Snapshot.of([], [ours]).menu("default") == ours
    assert Snapshot.of([]).menu("other") is None


def test_the_tree() -> None:
    assert folders_up("/") == ("/",)
    assert folders_up("/a/b") == ("/a/b", "/a", "/")


@pytest.mark.parametrize(
    ("one", "other", "steps"), [("/", "/", 0), ("/a", "/", 1), ("/a/b", "/a/c", 2), ("/a/b", "/c", 3), ("/ab", "/a", 2)]
)
def test_distance(one: str, other: str, steps: int) -> None:
    assert distance(one, other) == distance(other, one) == steps


@given(OBJECTS)
def test_all_objects_are_told(objects: list[PolicyObject]) -> None:
    last = {(type(each), each.name): each for each in objects}
    built = Objects.of(objects)
    assert sorted(map(repr, built.everything())) == sorted(map(repr, last.values()))
    assert Objects.of(built.everything()) == built
    assert built.scheduled is any(getattr(each, "schedule", "") for each in last.values())
