"""Everything a decision is made on, as one immutable value that is replaced when the registry changes. Pure.

One rule: a change copies the affected part alone. Devices lie in shared maps (HAMT), of which a copy with one device
changed costs microseconds however many there are; the few other objects are indexed anew.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Final, Literal, TypeVar

from immutables import Map, MapMutation

from pbserv.policy.condition import Condition, parse_condition
from pbserv.policy.identity import genuine_uuid
from pbserv.policy.model import DEFAULT_MENU, ROOT, Assignment, Bundle, Folder, Group, Menu, PolicyObject, Rule
from pbserv.policy.schedule import Schedule, parse_schedule
from pbserv.registry.records import Device, DeviceState

_REFUSED: Final = (DeviceState.PENDING, DeviceState.DENIED, DeviceState.RETIRED)
Fallback = Literal["silent", "local", "loader", "menu"]
O = TypeVar("O", bound=PolicyObject)  # noqa: E741


@dataclass(frozen=True, slots=True)
class Zone:
    """What the configuration says. ``engine``: ``a.b.c.d:port`` of the other server that decides; empty: this one.

    ``elsewhere``: PrebootServer decides for all devices but those that are denied or retired here.
    """

    default: Fallback = "local"
    unknown: Fallback = "silent"
    engine: str = ""
    elsewhere: bool = False


@dataclass(frozen=True, slots=True)
class ReadyRule:
    """A rule with its condition and schedule read."""

    rule: Rule
    condition: Condition
    schedule: Schedule | None


@dataclass(frozen=True, slots=True)
class ReadyAssignment:
    assignment: Assignment
    schedule: Schedule | None


@dataclass(frozen=True, slots=True)
class Objects:
    """The objects of the policy and what is derived of them; small, made anew with each change of one.

    ``placed``: the assignments of each place, such as ``("group", "lab 1")``, in the order in which they are asked.
    ``anchored``: of each label and value the rules that it may make true; ``free``: rules that any labels may.
    """

    bundles: Mapping[str, Bundle] = field(default_factory=dict)
    groups: Mapping[str, Group] = field(default_factory=dict)
    folders: Mapping[str, Folder] = field(default_factory=dict)
    assignments: Mapping[str, Assignment] = field(default_factory=dict)
    rules: Mapping[str, Rule] = field(default_factory=dict)
    menus: Mapping[str, Menu] = field(default_factory=dict)
    placed: Mapping[tuple[str, str], tuple[ReadyAssignment, ...]] = field(default_factory=dict)
    ordered: tuple[ReadyRule, ...] = ()
    anchored: Mapping[tuple[str, str], tuple[int, ...]] = field(default_factory=dict)
    free: tuple[int, ...] = ()
    scheduled: bool = False

    @classmethod
    def of(cls, objects: Iterable[PolicyObject]) -> Objects:
        given = tuple(objects)
        assignments, rules = _named(given, Assignment), _named(given, Rule)
        placed = _placed(assignments.values())
        ordered = _ordered(rules.values())
        anchored, free = _anchors(ordered)
        return cls(
            _named(given, Bundle), _named(given, Group), _named(given, Folder), assignments, rules, _named(given, Menu),
            placed, ordered, anchored, free,
            scheduled=any(a.schedule for a in assignments.values()) or any(r.schedule for r in rules.values()),
        )  # fmt: skip

    def everything(self) -> Iterator[PolicyObject]:
        for part in (self.bundles, self.menus, self.groups, self.folders, self.assignments, self.rules):
            yield from part.values()

    def rules_for(self, labels: Mapping[str, str]) -> Iterator[ReadyRule]:
        """The rules that may be true of ``labels``, in their order. The keys of anchors are in lower case."""
        may = set(self.free)
        for name, value in labels.items():
            may.update(self.anchored.get((name, value.lower()), ()))
        return (self.ordered[at] for at in sorted(may))


@dataclass(frozen=True, slots=True)
class Snapshot:
    """``owners``: a further MAC -> the MAC by which its device is registered; ``uuids``: UUID -> such MACs, sorted."""

    zone: Zone = Zone()
    objects: Objects = Objects()
    devices: Map[str, Device] = field(default_factory=Map)
    owners: Map[str, str] = field(default_factory=Map)
    uuids: Map[str, tuple[str, ...]] = field(default_factory=Map)
    pending: int = 0
    refused: int = 0

    @classmethod
    def of(cls, devices: Iterable[Device], objects: Iterable[PolicyObject] = (), zone: Zone = Zone()) -> Snapshot:
        """Built whole: at the start, and for a policy that is tried out."""
        known = {device.mac: device for device in devices}
        owners: dict[str, str] = {}
        uuids: dict[str, list[str]] = {}
        for device in known.values():
            for mac in device.macs:
                owners[mac] = device.mac
            if device.uuid and genuine_uuid(device.uuid):
                uuids.setdefault(device.uuid, []).append(device.mac)
        states = [device.state for device in known.values()]
        return cls(
            zone, Objects.of(objects), Map(known), Map(owners),
            Map({uuid: tuple(sorted(macs)) for uuid, macs in uuids.items()}),
            pending=states.count(DeviceState.PENDING), refused=sum(state in _REFUSED for state in states),
        )  # fmt: skip

    def __len__(self) -> int:
        return len(self.devices)

    def device(self, mac: str) -> Device | None:
        """The device that has the address ``mac``, its first or a further one."""
        return self.devices.get(mac) or self.devices.get(self.owners.get(mac, ""))

    def by_uuid(self, uuid: str | None) -> Device | None:
        """The one device with this UUID; None where several have it, or it is one that boards share."""
        macs = self.uuids.get(uuid, ()) if uuid else ()
        return self.devices.get(macs[0]) if len(macs) == 1 else None

    def menu(self, name: str) -> Menu | None:
        return self.objects.menus.get(name) or (DEFAULT_MENU if name == DEFAULT_MENU.name else None)

    def with_device(self, device: Device) -> Snapshot:
        """``device`` stands as given from now on."""
        before = self.devices.get(device.mac)
        owners, uuids = self.owners, self.uuids
        if (before.macs if before else ()) != device.macs:
            changed = _left(owners, before)
            changed.update({mac: device.mac for mac in device.macs})
            owners = changed.finish()
        if before is None or before.uuid != device.uuid:
            uuids = _carrying(_without(uuids, before), device)
        # A storm of devices comes here: replace() would take three times as long.
        return Snapshot(
            self.zone, self.objects, self.devices.set(device.mac, device), owners, uuids,
            self.pending + _pending(device) - _pending(before), self.refused + _refused(device) - _refused(before),
        )  # fmt: skip

    def without_device(self, mac: str) -> Snapshot:
        before = self.devices.get(mac)
        if before is None:
            return self
        return replace(
            self, devices=self.devices.delete(mac), owners=_left(self.owners, before).finish(),
            uuids=_without(self.uuids, before),
            pending=self.pending - _pending(before), refused=self.refused - _refused(before),
        )  # fmt: skip

    def with_objects(self, objects: Iterable[PolicyObject]) -> Snapshot:
        return replace(self, objects=Objects.of(objects))

    def with_zone(self, zone: Zone) -> Snapshot:
        return replace(self, zone=zone)


@lru_cache(maxsize=4096)
def folders_up(path: str) -> tuple[str, ...]:
    """``/a/b`` -> ``("/a/b", "/a", "/")``: a folder and all that hold it, the nearest first."""
    found = [path]
    while path != ROOT:
        path = path.rpartition("/")[0] or ROOT
        found.append(path)
    return tuple(found)


@lru_cache(maxsize=16_384)
def distance(one: str, other: str) -> int:
    """Steps in the tree from a folder to another one: up to the first that holds both, and down again."""
    ours, theirs = folders_up(one), folders_up(other)
    shared = len(set(ours) & set(theirs))
    return len(ours) + len(theirs) - 2 * shared


def _named(objects: Iterable[PolicyObject], kind: type[O]) -> dict[str, O]:
    return {each.name: each for each in objects if isinstance(each, kind)}


def _placed(assignments: Iterable[Assignment]) -> dict[tuple[str, str], tuple[ReadyAssignment, ...]]:
    places: dict[tuple[str, str], list[ReadyAssignment]] = {}
    for each in sorted(assignments, key=lambda a: (-a.priority, a.name)):
        place = (
            ("device", each.device) if each.device else ("group", each.group) if each.group else ("folder", each.folder)
        )
        places.setdefault(place, []).append(ReadyAssignment(each, parse_schedule(each.schedule)))
    return {place: tuple(found) for place, found in places.items()}


def _ordered(rules: Iterable[Rule]) -> tuple[ReadyRule, ...]:
    return tuple(
        ReadyRule(rule, parse_condition(rule.when), parse_schedule(rule.schedule))
        for rule in sorted(rules, key=lambda r: (r.position, r.name))
    )


def _anchors(rules: tuple[ReadyRule, ...]) -> tuple[dict[tuple[str, str], tuple[int, ...]], tuple[int, ...]]:
    """Each rule lies under those of its anchors that the fewest others have: a serial number, not an architecture."""
    used = Counter(pair for ready in rules for choice in ready.condition.choices for pair in choice)
    anchored: dict[tuple[str, str], list[int]] = {}
    free: list[int] = []
    for at, ready in enumerate(rules):
        if not ready.condition.choices:
            free.append(at)
            continue
        for pair in min(ready.condition.choices, key=lambda choice: sum(used[pair] for pair in choice)):
            anchored.setdefault(pair, []).append(at)
    return {pair: tuple(found) for pair, found in anchored.items()}, tuple(free)


def _left(owners: Map[str, str], device: Device | None) -> MapMutation[str, str]:
    """Without the further addresses of ``device``, where they are not another's meanwhile."""
    changed = owners.mutate()
    if device is not None:
        for mac in device.macs:
            if changed.get(mac) == device.mac:
                del changed[mac]
    return changed


def _without(uuids: Map[str, tuple[str, ...]], device: Device | None) -> Map[str, tuple[str, ...]]:
    if device is None or not device.uuid or device.uuid not in uuids:
        return uuids
    left = tuple(mac for mac in uuids[device.uuid] if mac != device.mac)
    return uuids.set(device.uuid, left) if left else uuids.delete(device.uuid)


def _carrying(uuids: Map[str, tuple[str, ...]], device: Device) -> Map[str, tuple[str, ...]]:
    if not device.uuid or not genuine_uuid(device.uuid):
        return uuids
    return uuids.set(device.uuid, tuple(sorted((*uuids.get(device.uuid, ()), device.mac))))


def _pending(device: Device | None) -> int:
    return int(device is not None and device.state is DeviceState.PENDING)


def _refused(device: Device | None) -> int:
    return int(device is not None and device.state in _REFUSED)
