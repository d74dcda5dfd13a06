"""Labels: whose word counts, and how much is kept of what a device tells."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pbserv.policy.labels import KNOWN, MAX_LABELS, MAX_VALUE, OF_RECORD, labels_of, merge
from pbserv.registry.records import Device, DeviceState

MAC = "52:54:00:00:00:01"
NOW = datetime(2026, 1, 1, tzinfo=UTC)
DEVICE = Device(
    MAC, "u", "till-1", 7, DeviceState.KNOWN, "10.0.0.9", NOW, NOW, serial="S1", asset="A1", folder="/north/lab",
    groups=("tills", "north"), labels=(("room", "b"), ("vendor_class", "ours")),
    learned=(("cores", "8"), ("room", "a"), ("vendor_class", "theirs"), ("memory_mb", "1")),
)  # fmt: skip


def test_the_record_is_told_as_labels() -> None:
    assert labels_of(MAC, DEVICE, {"memory_mb": "2", "vendor_class": "live"}) == {
        "mac": MAC, "uuid": "u", "name": "till-1", "state": "known", "serial": "S1", "asset": "A1",
        "folder": "/north/lab", "group": "tills", "groups": "tills,north", "arch": "UEFI x64", "firmware": "uefi",
        "cores": "8", "room": "b", "vendor_class": "ours", "memory_mb": "2",
    }  # fmt: skip


def test_a_further_address_is_the_same_device() -> None:
    assert labels_of("52:54:00:00:00:99", DEVICE, {})["mac"] == MAC


@pytest.mark.parametrize("known", [True, False])
def test_a_device_cannot_say_what_its_record_says(known: bool) -> None:
    device = replace(DEVICE, groups=(), name="", learned=tuple((name, "x") for name in sorted(OF_RECORD)))
    said = labels_of(MAC, device if known else None, dict.fromkeys(OF_RECORD, "vip"))
    assert said["mac"] == MAC
    assert not {"x", "vip"} & set(said.values())
    assert ("state" in said) is known


def test_a_device_without_record_has_what_it_tells_now() -> None:
    assert labels_of(MAC, None, {"arch": "BIOS", "serial": "S"}) == {
        "mac": MAC, "arch": "BIOS", "serial": "S", "firmware": "bios"}  # fmt: skip


def test_the_architecture_of_this_boot_counts() -> None:
    labels = labels_of(MAC, DEVICE, {"arch": "BIOS"})
    assert (labels["arch"], labels["firmware"]) == ("BIOS", "bios")
    assert "firmware" not in labels_of(MAC, replace(DEVICE, arch=41), {})
    assert "arch" not in labels_of(MAC, replace(DEVICE, arch=None), {})


def test_the_firmware_of_another_boot_gives_way_to_the_architecture() -> None:
    learned = replace(DEVICE, learned=(("firmware", "bios"),))
    assert labels_of(MAC, learned, {})["firmware"] == "uefi"
    assert labels_of(MAC, replace(learned, arch=None), {})["firmware"] == "bios"
    assert labels_of(MAC, replace(learned, labels=(("firmware", "coreboot"),)), {})["firmware"] == "coreboot"
    assert labels_of(MAC, learned, {"firmware": "bios"})["firmware"] == "bios"


def test_merge_keeps_sorts_and_removes() -> None:
    old = (("a", "1"), ("c", "3"))
    assert merge(old, {"b": "2", "c": "4"}) == (("a", "1"), ("b", "2"), ("c", "4"))
    assert merge(old, {"a": ""}) == (("c", "3"),)
    assert merge(old, {"a": "1"}) is old


@pytest.mark.parametrize(
    ("name", "value"),
    [("A", "1"), ("1a", "1"), ("a-b", "1"), ("a" * 33, "1"), ("", "1"), ("a\n", "1"), ("b", "x" * 129), ("b", "\x00"),
     ("b", "a\nb"), ("mac", "1"), ("state", "known"), ("groups", "x"), ("serial", "1"), ("uuid", "1")],
)  # fmt: skip
def test_merge_leaves_out(name: str, value: str) -> None:
    assert merge((("a", "1"),), {name: value}) == (("a", "1"),)


def test_no_more_than_fits_and_old_ones_may_still_change() -> None:
    old = merge((), {f"l{n:02}": "1" for n in range(80)})
    assert len(old) == MAX_LABELS
    assert merge(old, {"new": "1"}) == old
    assert dict(merge(old, {"new": "1", "l00": "2"}))["l00"] == "2"
    assert dict(merge(old, {"l00": "", "new": "1"}))["new"] == "1"


@given(st.dictionaries(st.text("ab_0A", max_size=40), st.text(max_size=140), max_size=80))
def test_what_is_kept_is_bounded(new: dict[str, str]) -> None:
    kept = merge((), new)
    assert len(kept) <= MAX_LABELS
    assert list(kept) == sorted(dict(kept).items())
    assert all(0 < len(value) <= MAX_VALUE and value.isprintable() for _, value in kept)


def test_every_label_says_where_it_comes_from() -> None:
    assert all(text and not text.endswith(".") for text in KNOWN.values())
    assert set(labels_of(MAC, DEVICE, {})) - {"room"} <= set(KNOWN)
