"""How devices get into the snapshot: new ones, those that come back, those that boot from another network card."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from pbserv.log import ServiceLog
from pbserv.policy.register import MAX_ADDRESSES, NEW_EVERY_S, NEW_PER_ADDRESS, Register, Seen
from pbserv.policy.sightings import Sightings
from pbserv.policy.snapshot import Zone
from pbserv.registry.records import Device, DeviceState, Document
from pbserv.types import ClientArch, MacAddress, Sighting

MAC, OTHER = "52:54:00:00:00:01", "52:54:00:00:00:02"
UUID = "c181f717-48e8-4c82-8367-e47f4c972d88"
SHARED = "03000200-0400-0500-0006-000700080009"
NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)


class Store:
    def __init__(self) -> None:
        self.seen: dict[str, Device] = {}

    async def see(self, devices: Sequence[Device]) -> None:
        self.seen.update({device.mac: device for device in devices})


class Lines:
    """What the journal is told."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str, str]] = []

    def add(self, mac: str, what: str, detail: str = "") -> None:
        self.lines.append((mac, what, detail))

    def learn(self, address: str, mac: str) -> None: ...

    def mac_of(self, address: str) -> str | None:
        return None

    def forget(self, mac: str) -> None: ...

    async def flush_events(self) -> bool:
        return True


class Room:
    def __init__(self) -> None:
        self.store, self.journal, self.now = Store(), Lines(), 0.0
        self.sightings = Sightings(self.store, ServiceLog("policy"))
        self.register = Register(self.sightings, self.journal, ServiceLog("policy"), lambda: self.now)

    def see(
        self, mac: str, uuid: str | None = None, *, new: str = "accept", after_s: float = 0, **more: object
    ) -> Device | None:
        sighting = Sighting(MacAddress.parse(mac), uuid, ClientArch(7), "dhcp", **more)  # type: ignore[arg-type]
        return self.register.see(sighting, new, NOW + timedelta(seconds=after_s))  # type: ignore[arg-type]


@pytest.fixture
def room() -> Room:
    return Room()


def test_a_new_device_is_registered_as_the_zone_says(room: Room) -> None:
    pending = room.see(MAC, new="pending")
    known = room.see(OTHER, new="accept", details=(("vendor_class", "PXEClient"),))
    assert pending is not None
    assert known is not None
    assert (pending.state, known.state) == (DeviceState.PENDING, DeviceState.KNOWN)
    assert known.learned == (("vendor_class", "PXEClient"),)
    assert room.see("52:54:00:00:00:03", new="ignore") is None
    assert room.register.snapshot.pending == 1


def test_another_card_of_the_same_machine_is_the_same_device(room: Room) -> None:
    room.see(MAC, UUID)
    found = room.see(OTHER, UUID)
    assert found is not None
    assert (found.mac, found.macs) == (MAC, (OTHER,))
    assert room.register.snapshot.device(OTHER) is room.register.snapshot.device(MAC)
    assert room.journal.lines[-1][:2] == (MAC, "address")


def test_boards_that_share_a_uuid_are_not_one_device(room: Room) -> None:
    room.see(MAC, SHARED)
    found = room.see(OTHER, SHARED)
    assert found is not None
    assert found.mac == OTHER
    assert len(room.register.snapshot) == 2


def test_names_in_a_url_add_no_address_and_replace_no_uuid(room: Room) -> None:
    device = room.see(MAC, UUID)
    assert device is not None
    claim = Sighting(MacAddress.parse(OTHER), UUID, None, "http")
    stranger = room.register.see(claim, "accept", NOW)
    assert stranger is not None
    assert (stranger.mac, stranger.macs, stranger.uuid) == (OTHER, (), None)
    assert room.register.snapshot.device(MAC) == device
    room.register.see(Sighting(MacAddress.parse(MAC), UUID[:-1] + "9", None, "http"), "accept", NOW)
    found = room.register.snapshot.device(MAC)
    assert found is not None
    assert found.uuid == UUID
    third = "52:54:00:00:00:13"
    room.register.device_changed(replace(found, state=DeviceState.DENIED))
    refused = room.register.see(Sighting(MacAddress.parse(third), UUID, None, "http"), "accept", NOW)
    assert refused is not None
    assert refused.state is DeviceState.DENIED
    assert room.register.snapshot.device(third) is None


def test_a_uuid_takes_in_a_few_addresses_only(room: Room) -> None:
    for number in range(MAX_ADDRESSES + 2):
        room.see(f"52:54:00:00:01:{number:02x}", UUID)
    first = room.register.snapshot.device("52:54:00:00:01:00")
    assert first is not None
    assert len(first.macs) == MAX_ADDRESSES - 1
    assert len(room.register.snapshot) == 3


async def test_what_was_seen_is_written_and_only_once_a_minute(room: Room) -> None:
    room.see(MAC)
    await room.sightings.flush()
    room.store.seen.clear()
    room.see(MAC, after_s=10)
    await room.sightings.flush()
    assert room.store.seen == {}
    room.see(MAC, after_s=70)
    await room.sightings.flush()
    assert list(room.store.seen) == [MAC]


async def test_a_name_is_given_when_its_parts_are_known(room: Room) -> None:
    async def namer(device: Device) -> str:
        return f"pc-{device.serial}" if device.serial else ""

    room.sightings.namer, room.sightings.named = namer, room.register.device_changed
    device = room.see(MAC)
    assert device is not None
    await room.sightings.flush()
    assert room.store.seen[MAC].name == ""
    room.register.learn(device, Seen(serial="ABC123", labels={"product": "OptiPlex"}))
    await room.sightings.flush()
    found = room.register.snapshot.device(MAC)
    assert found is not None
    assert (room.store.seen[MAC].name, found.name) == ("pc-ABC123", "pc-ABC123")
    assert dict(found.learned)["product"] == "OptiPlex"


def test_a_placeholder_of_the_maker_is_no_serial_number(room: Room) -> None:
    device = room.see(MAC)
    assert device is not None
    assert room.register.learn(device, Seen(serial="To Be Filled By O.E.M.")) is device


def test_the_registry_wins_but_for_what_it_has_not_heard(room: Room) -> None:
    device = room.see(MAC, UUID)
    assert device is not None
    room.register.device_changed(replace(device, uuid=None, name="from the registry", state=DeviceState.DENIED))
    found = room.register.snapshot.device(MAC)
    assert found is not None
    assert (found.name, found.state, found.uuid) == ("from the registry", DeviceState.DENIED, UUID)


def document(what: str, name: str, **body: object) -> Document:
    return Document(what, name, json.dumps(body), 1, NOW)


def test_objects_change_one_by_one_and_a_broken_one_is_left_out(room: Room) -> None:
    room.register.load([], [document("bundle", "a", kind="local"), document("bundle", "b", kind="no such")], Zone())
    assert list(room.register.snapshot.objects.bundles) == ["a"]
    room.register.documents_changed([document("bundle", "a", kind="nothing"), document("group", "g")], [])
    assert room.register.snapshot.objects.bundles["a"].kind == "nothing"
    room.register.documents_changed([], [("bundle", "a")])
    assert (list(room.register.snapshot.objects.bundles), list(room.register.snapshot.objects.groups)) == ([], ["g"])


@pytest.mark.parametrize("mac", ["ff:ff:ff:ff:ff:ff", "01:00:5e:00:00:01", "00:00:00:00:00:00"])
def test_what_is_no_address_of_a_card_is_not_registered(room: Room, mac: str) -> None:
    """No call of the API could name it again, to deny or to forget it."""
    assert room.see(mac) is None
    assert len(room.register.snapshot) == 0


def test_serial_and_asset_are_kept_as_printable_text(room: Room) -> None:
    device = room.see(MAC)
    assert device is not None
    known = room.register.learn(device, Seen("AB\x1b[2J\r\n12" + "x" * 200, "\x00\n"))
    assert known.serial == ("AB[2J12" + "x" * 200)[:64]
    assert known.asset == ""


def test_one_client_does_not_fill_the_registry_with_names_that_it_makes_up(room: Room) -> None:
    def name(number: int, via: str = "http", address: str = "10.9.0.1") -> Device | None:
        mac = MacAddress(bytes([2, 0, 0, 0, number >> 8, number & 255]))
        return room.register.see(Sighting(mac, via=via, address=address), "pending", NOW)

    assert [name(number) is not None for number in range(NEW_PER_ADDRESS + 5)] == [True] * NEW_PER_ADDRESS + [False] * 5
    assert name(1000, "tftp") is None
    assert name(1, "tftp") is not None, "it is there already"
    assert name(1001, address="10.9.0.2") is not None
    assert name(1002, "dhcp") is not None
    assert name(1003, "http", "") is not None, "another server asks for it, with a token"
    room.now += NEW_EVERY_S
    assert name(1004) is not None
    for number in range(5000):
        name(2000 + number, address=f"10.8.{number >> 8}.{number & 255}")
    assert len(room.register._namers) <= 4096


async def test_who_asks_for_a_flush_waits_for_the_one_under_way(room: Room) -> None:
    going, go = asyncio.Event(), asyncio.Event()
    see = room.store.see

    async def slow(devices: Sequence[Device]) -> None:
        going.set()
        await go.wait()
        await see(devices)

    room.store.see = slow  # type: ignore[method-assign]
    room.see(MAC)
    async with asyncio.TaskGroup() as group:
        group.create_task(room.sightings.flush())
        await going.wait()
        second = group.create_task(room.sightings.flush())
        await asyncio.sleep(0)
        assert not second.done()
        go.set()
    assert second.result() is True
    assert set(room.store.seen) == {MAC}
