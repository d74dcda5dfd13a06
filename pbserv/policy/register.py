"""The devices as the policy sees them: the snapshot that stands now, and how what is seen of a device gets into it.

One rule: the registry's record wins, except for what was seen and is not written yet.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Final, Literal

from pbserv.log import ServiceLog
from pbserv.policy.documents import PolicyError, decode
from pbserv.policy.identity import genuine_text, genuine_uuid
from pbserv.policy.labels import merge
from pbserv.policy.model import PolicyObject
from pbserv.policy.ports import Journal
from pbserv.policy.sightings import Sightings
from pbserv.policy.snapshot import Snapshot, Zone
from pbserv.registry.records import Device, DeviceState, Document, Labels
from pbserv.types import MacAddress, Sighting

MAX_PENDING: Final = 10_000
MAX_DEVICES: Final = 100_000
MAX_ADDRESSES: Final = 4
"""Of one device, by its UUID alone. Boards that share a UUID would otherwise all become one device."""
SEEN_EVERY_S: Final = 60.0
SAID_FULL_S: Final = 60.0
NEW_PER_ADDRESS: Final = 64
NEW_EVERY_S: Final = 3600.0
"""So many new devices are believed in this time to a client that names them over TFTP or HTTP."""
_NAMERS: Final = 4_096


@dataclass(frozen=True, slots=True)
class Seen:
    """What is told of a device besides its addresses; empty: nothing new."""

    serial: str = ""
    asset: str = ""
    uuid: str | None = None
    labels: Mapping[str, str] | None = None


class Register:
    """Changes :attr:`snapshot` by replacing it. ``clock`` measures; ``changed`` is told whose answers are void."""

    def __init__(self, sightings: Sightings, journal: Journal, log: ServiceLog, clock: Callable[[], float]) -> None:
        self.snapshot = Snapshot()
        self._sightings = sightings
        self._journal = journal
        self._log = log
        self._clock = clock
        self._said_full = float("-inf")
        self._namers: dict[str, tuple[float, int]] = {}  # address: since when, how many new devices it has named

    def load(self, devices: Iterable[Device], documents: Iterable[Document], zone: Zone) -> None:
        """All of the registry, at the start."""
        self.snapshot = Snapshot.of(devices, self._read(documents), zone)

    def adopt(self, zone: Zone) -> None:
        self.snapshot = self.snapshot.with_zone(zone)

    # the registry's word

    def device_changed(self, device: Device) -> None:
        self.snapshot = self.snapshot.with_device(self._sightings.merged(device))

    def documents_changed(self, changed: Sequence[Document], deleted: Sequence[tuple[str, str]]) -> None:
        gone = {*deleted, *((document.kind, document.name) for document in changed)}
        kept = [each for each in self.snapshot.objects.everything() if _key(each) not in gone]
        self.snapshot = self.snapshot.with_objects([*kept, *self._read(changed)])

    def forget(self, mac: str) -> None:
        self._sightings.forget(mac)
        self.snapshot = self.snapshot.without_device(mac)

    def _read(self, documents: Iterable[Document]) -> list[PolicyObject]:
        """What cannot be read is left out, and said: one object of a newer pbserv must not stop all boots."""
        found: list[PolicyObject] = []
        for document in documents:
            try:
                found.append(decode(document))
            except PolicyError as fault:
                self._log.critical("policy object left out", kind=document.kind, name=document.name, reason=str(fault))
        return found

    # what is seen

    def owner(self, mac: str, uuid: str | None) -> Device | None:
        """The device that boots with this address, or by its UUID where that is one of its own."""
        return self.snapshot.device(mac) or self._same_board(mac, uuid)

    def see(
        self, sighting: Sighting, new_devices: Literal["pending", "accept", "ignore"], today: datetime
    ) -> Device | None:
        """The device's record with what was seen now, where that is news; None: it is not registered."""
        mac = str(sighting.mac)
        device = self.snapshot.device(mac)
        if device is None:
            device = self._same_board(mac, sighting.uuid)
            if device is not None and sighting.via != "dhcp":
                # Names in a URL are no network card: they add no address and open nothing, but shut what is shut.
                if device.state is not DeviceState.KNOWN:
                    return device
                sighting = sighting._replace(uuid=None)  # it stays the other's
                device = None
            if device is None:
                return self._new(mac, sighting, new_devices, today)
            device = replace(device, macs=(*device.macs, mac))
            self._journal.add(device.mac, "address", f"{mac} is another network card of it: the UUID is the same")
            return self._put(self._seen(device, sighting, today))
        address = _known_address(sighting.address)
        if _seen_lately(device, today) and address in ("", device.address) and not _news(device, sighting):
            return device
        return self._put(self._seen(device, sighting, today))

    def learn(self, device: Device, seen: Seen) -> Device:
        """What the loader or the imaging client told of the machine."""
        learned = merge(device.learned, seen.labels or {})
        serial, asset = _genuine(seen.serial), _genuine(seen.asset)
        uuid = seen.uuid if seen.uuid and genuine_uuid(seen.uuid) else None
        known = replace(
            device, learned=learned, serial=device.serial or serial, asset=device.asset or asset,
            uuid=device.uuid or uuid,
        )  # fmt: skip
        return device if known == device else self._put(known)

    def _put(self, device: Device) -> Device:
        self.snapshot = self.snapshot.with_device(device)
        self._sightings.put(device)
        return device

    def _same_board(self, mac: str, uuid: str | None) -> Device | None:
        device = self.snapshot.by_uuid(uuid)
        if device is None or len(device.macs) + 1 >= MAX_ADDRESSES:
            return None
        return device if mac not in (device.mac, *device.macs) else None

    def _seen(self, device: Device, sighting: Sighting, today: datetime) -> Device:
        return device.seen(
            (sighting.uuid if sighting.via == "dhcp" else None) or device.uuid or sighting.uuid,
            device.arch if sighting.arch is None else int(sighting.arch),
            _known_address(sighting.address) or device.address,
            today,
            _learned(device.learned, sighting.details) if sighting.details else device.learned,
        )

    def _new(self, mac: str, sighting: Sighting, new_devices: str, today: datetime) -> Device | None:
        if self.snapshot.zone.engine or new_devices == "ignore" or not _one_card(sighting.mac):
            return None
        if self._full(new_devices) or self._names_too_many(sighting):
            return None
        state = DeviceState.KNOWN if new_devices == "accept" else DeviceState.PENDING
        arch = None if sighting.arch is None else int(sighting.arch)
        device = Device(mac, sighting.uuid, "", arch, state, _known_address(sighting.address), today, today,
                        learned=merge((), dict(sighting.details)))  # fmt: skip
        self._journal.add(mac, "registered", f"{state} by {sighting.via}")
        todo = f"pbserv device accept {mac}" if state is DeviceState.PENDING else "none"
        self._log.warning("new device", device=mac, state=state.value, todo=todo)
        return self._put(device)

    def _full(self, new_devices: str) -> bool:
        """Whether one more device would be too many; a flood of made-up addresses must not fill the registry."""
        snapshot = self.snapshot
        count, limit = (len(snapshot), MAX_DEVICES) if new_devices == "accept" else (snapshot.pending, MAX_PENDING)
        if count >= limit and self._clock() >= self._said_full + SAID_FULL_S:
            self._said_full = self._clock()
            self._log.warning("new device refused", reason=f"{count} devices are registered; see: pbserv device forget")
        return count >= limit

    def _names_too_many(self, sighting: Sighting) -> bool:
        """Over DHCP a device speaks for itself; over TFTP and HTTP anybody can make up as many names as he likes."""
        if sighting.via not in ("tftp", "http") or not sighting.address:
            return False
        now = self._clock()
        since, count = self._namers.pop(sighting.address, (now, 0))
        if now - since >= NEW_EVERY_S:
            since, count = now, 0
        if len(self._namers) >= _NAMERS:
            del self._namers[next(iter(self._namers))]
        self._namers[sighting.address] = (since, count + 1)
        if count == NEW_PER_ADDRESS:
            self._log.warning("new devices refused", client=sighting.address,
                              reason=f"it has named {count} in an hour")  # fmt: skip
        return count >= NEW_PER_ADDRESS


def _key(each: PolicyObject) -> tuple[str, str]:
    return type(each).__name__.lower(), each.name


def _seen_lately(device: Device, today: datetime) -> bool:
    """False also when the calendar was set back."""
    return timedelta(0) <= today - device.last_seen < timedelta(seconds=SEEN_EVERY_S)


def _news(device: Device, sighting: Sighting) -> bool:
    """A reading that differs from the record: another firmware mode, another class of client."""
    if sighting.arch is not None and device.arch is None:
        return True
    known = dict(device.learned)
    return any(known.get(name) != value for name, value in sighting.details if name not in ("kind", "client_kind"))


@lru_cache(maxsize=4096)
def _learned(old: Labels, details: tuple[tuple[str, str], ...]) -> Labels:
    """Machines of one model tell the same, and share what is made of it."""
    return merge(old, dict(details))


def _genuine(text: str) -> str:
    """A serial number or asset tag as it may be kept: printable, 64 characters at most; empty: it says nothing."""
    plain = "".join(letter for letter in text if letter.isprintable()).strip()[:64]
    return plain if genuine_text(plain) else ""


def _one_card(mac: MacAddress) -> bool:
    """Whether it can be the address of a network card: TFTP and HTTP are asked with any twelve digits."""
    return not mac.octets[0] & 1 and any(mac.octets)


def _known_address(address: str) -> str:
    return "" if address == "0.0.0.0" else address
