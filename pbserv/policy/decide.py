"""What is this device to do? A pure function over a snapshot; the order of its steps is the policy.

One rule: denied -> one-shot work -> device -> group -> folder -> rules -> zone default -> unknown policy; the first
step that has an answer wins, and every step that was passed is named in the decision.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from immutables import Map

from pbserv.policy.labels import labels_of
from pbserv.policy.model import Assignment, Bundle, Menu, Rule
from pbserv.policy.schedule import Schedule
from pbserv.policy.snapshot import ReadyAssignment, Snapshot, distance, folders_up
from pbserv.registry.records import CLIENT_KINDS, BundleKind, Device, DeviceState, Run, Work, WorkState
from pbserv.types import Decision, Verdict

NO_LABELS: Final[Mapping[str, str]] = Map()
_RUN_AT_ALL: Final = (WorkState.DONE, WorkState.HELD, WorkState.FAILED, WorkState.CANCELLED, WorkState.EXPIRED)
"""An assignment whose work ended like this has had its run: one that was held must not begin again by itself."""


_RULE: Final = "rule:"
"""Before the name of a rule where that of an assignment may stand, which has no colon."""


@dataclass(frozen=True, slots=True)
class Query:
    """Who asks: its address, its record if it has one, and what is known of this boot beyond the record."""

    mac: str
    device: Device | None
    labels: Mapping[str, str] = NO_LABELS


@dataclass(frozen=True, slots=True)
class Ruling:
    """The answer with everything that rendering it needs.

    ``refused``: why the device gets nothing at all over TFTP and HTTP; empty when it may ask. ``bundle``: what it is to
    do, or with ``menu`` what the default item stands for; None for plain verdicts. ``work``: the one-shot work.
    ``order``: the assignment, or ``rule:`` and the rule, of which work is to be made before the device can begin; the
    work has it as its ``assignment``. ``arguments``: kernel arguments of folders, device and assignment, in this order;
    the bundle's own go before them. ``menu``: it is shown; ``without_menu`` is the verdict of its default item then.
    ``url`` and ``token``: of the other server that has the work, where one resolved the policy; empty: this one.
    """

    decision: Decision
    refused: str = ""
    bundle: Bundle | None = None
    work: Work | None = None
    order: str = ""
    arguments: str = ""
    menu: Menu | None = None
    without_menu: Verdict | None = None
    url: str = ""
    token: str = ""


@dataclass(frozen=True, slots=True)
class _Candidate:
    """One assignment or rule that is about the device, with the place it has in the order."""

    where: str
    source: Assignment | Rule
    schedule: Schedule | None

    @property
    def key(self) -> str:
        """What its work is kept under: rules and assignments have names of their own, which may be the same."""
        return f"{_RULE}{self.source.name}" if isinstance(self.source, Rule) else self.source.name


def decide(query: Query, snapshot: Snapshot, now: datetime, *, everything: bool = False) -> Ruling:
    """``now`` is aware, in the site's time zone. ``everything``: the steps name those too who came after the winner."""
    device, zone = query.device, snapshot.zone
    refused = refusal(query, snapshot, now)
    if device is not None and device.state in (DeviceState.DENIED, DeviceState.RETIRED):
        return Ruling(Decision(Verdict.SILENT, refused, (f"{device.state}",)), refused)
    if zone.engine:
        return Ruling(
            Decision(Verdict.LOADER, f"NovellPolicyEngine {zone.engine} decides", ("not denied", "another server"))
        )
    if device is None or device.state is DeviceState.PENDING:
        return _stranger(query, snapshot, now, refused)
    steps = ["not denied", "known"]
    ruling = _by_work(device, snapshot, now, steps) or _by_order(
        query, device, snapshot, now, steps, everything=everything
    )
    if device.loader:
        ruling = replace(ruling, decision=replace(ruling.decision, file=device.loader))
    arguments = _arguments(device, snapshot, ruling.arguments)
    return ruling if arguments == ruling.arguments else replace(ruling, arguments=arguments)


def refusal(query: Query, snapshot: Snapshot, now: datetime) -> str:
    """Why the device gets nothing at all, over DHCP, TFTP and HTTP alike; empty when it may ask.

    That is not a verdict of silent, which leaves a known device to other servers: these may send it here for files.
    """
    device = query.device
    if device is None or (snapshot.zone.engine and device.state is DeviceState.PENDING):
        return ""
    match device.state:
        case DeviceState.DENIED:
            return "device is denied"
        case DeviceState.RETIRED:
            return f"device is retired; if it is in use again: pbserv device accept {device.mac}"
        case DeviceState.PENDING if snapshot.zone.unknown == "silent" and _rule(query, snapshot, now, True) is None:
            return f"device is pending; accept it with: pbserv device accept {device.mac}"
    return ""


def imaging_of(query: Query, snapshot: Snapshot) -> tuple[Bundle, str] | None:
    """What "Start imaging" of a menu means: the first bundle for the imaging client that is assigned to the device,
    whether it has run before or not, with what the work is kept under (``Ruling.order``)."""
    if query.device is None:
        return None
    for candidate in _candidates(query, query.device, snapshot):
        bundle = snapshot.objects.bundles.get(candidate.source.bundle)
        if bundle is not None and bundle.kind in CLIENT_KINDS and candidate.source.enabled:
            return bundle, candidate.key
    return None


def _by_work(device: Device, snapshot: Snapshot, now: datetime, steps: list[str]) -> Ruling | None:
    work = device.work
    if work is None or not work.active:
        steps.append("no work")
        return None
    if work.state is WorkState.QUEUED and work.expires is not None and work.expires <= now:  # what runs may go on
        steps.append(f"work {work.id} expired at {work.expires:%Y-%m-%d %H:%M}")
        return None
    text = f"work {work.id}: {work.kind} {work.bundle or work.image}".rstrip()
    steps.append(text)
    decision = Decision(Verdict.BOOT, text, tuple(steps), work.id, work.bundle)
    objects, name = snapshot.objects, work.assignment
    source = objects.rules.get(name.removeprefix(_RULE)) if name.startswith(_RULE) else objects.assignments.get(name)
    return Ruling(decision, work=work, arguments=source.arguments if source is not None else "")


def _by_order(
    query: Query, device: Device, snapshot: Snapshot, now: datetime, steps: list[str], *, everything: bool
) -> Ruling:
    won: Ruling | None = None
    losers: list[str] = []
    for candidate in _candidates(query, device, snapshot):
        if won is not None:
            losers.append(f"{candidate.where}: {candidate.source.bundle} loses")
            continue
        bundle = snapshot.objects.bundles.get(candidate.source.bundle)
        why_not = _idle(candidate, bundle, device, now)
        if bundle is None or why_not:
            steps.append(f"{candidate.where}: {why_not}")
            continue
        steps.append(f"{candidate.where}: {bundle.kind} {bundle.name}")
        won = _winning(candidate, bundle, steps)
        if not everything:
            break
    if won is None:
        reason = f"nothing assigned; ZoneDefault = {snapshot.zone.default}"
        won = Ruling(
            Decision(Verdict(snapshot.zone.default), reason, (*steps, f"zone default: {snapshot.zone.default}"))
        )
    if losers:
        won = replace(won, decision=replace(won.decision, steps=(*won.decision.steps, *losers)))
    return _with_menu(won, device, snapshot)


def _winning(candidate: _Candidate, bundle: Bundle, steps: list[str]) -> Ruling:
    once = bundle.once or (candidate.schedule is not None and candidate.schedule.once)
    reason = f"{candidate.where}: {bundle.kind} {bundle.name}"
    verdict = _VERDICTS.get(bundle.kind, Verdict.BOOT)
    return Ruling(
        Decision(verdict, reason, tuple(steps), bundle=bundle.name),
        bundle=bundle,
        order=candidate.key if once and verdict is Verdict.BOOT else "",
        arguments=candidate.source.arguments,
    )


_VERDICTS: Final = {BundleKind.LOCAL: Verdict.LOCAL, BundleKind.NOTHING: Verdict.SILENT}


def _candidates(query: Query, device: Device, snapshot: Snapshot) -> Iterator[_Candidate]:
    """All that is assigned to the device, in the order in which it is asked."""
    placed = snapshot.objects.placed
    if placed:
        for ready in _of_device(device, snapshot):
            yield _Candidate(f"assignment {ready.assignment.name} to the device", ready.assignment, ready.schedule)
        for group in groups_of(device, snapshot):
            for ready in placed.get(("group", group), ()):
                yield _Candidate(
                    f"assignment {ready.assignment.name} to group {group}", ready.assignment, ready.schedule
                )
        for folder in folders_up(device.folder):
            where = "the zone" if folder == "/" else f"folder {folder}"
            for ready in placed.get(("folder", folder), ()):
                yield _Candidate(f"assignment {ready.assignment.name} to {where}", ready.assignment, ready.schedule)
    yield from _matching(query, snapshot, unknown=False)


def _of_device(device: Device, snapshot: Snapshot) -> Sequence[ReadyAssignment]:
    """Those to any of its addresses: they are one place."""
    placed = snapshot.objects.placed
    found = placed.get(("device", device.mac), ())
    if not device.macs:
        return found
    every = [*found, *(ready for mac in device.macs for ready in placed.get(("device", mac), ()))]
    return sorted(every, key=lambda ready: (-ready.assignment.priority, ready.assignment.name))


def groups_of(device: Device, snapshot: Snapshot) -> tuple[str, ...]:
    """The device's groups: the nearest in the tree first, then the higher priority, then by name."""
    if len(device.groups) < 2:
        return device.groups
    groups = snapshot.objects.groups

    def place(name: str) -> tuple[int, int, str]:
        group = groups.get(name)
        return (distance(device.folder, group.folder), -group.priority, name) if group else (99, 0, name)

    return tuple(sorted(device.groups, key=place))


def _matching(query: Query, snapshot: Snapshot, *, unknown: bool) -> Iterator[_Candidate]:
    if not snapshot.objects.ordered:
        return
    labels = labels_of(query.mac, query.device, query.labels)
    for ready in snapshot.objects.rules_for(labels):
        if (not unknown or ready.rule.unknown) and ready.condition.test(labels):
            yield _Candidate(f"rule {ready.rule.name}", ready.rule, ready.schedule)


def _idle(candidate: _Candidate, bundle: Bundle | None, device: Device | None, now: datetime) -> str:
    """Why what is assigned has no effect now; empty: it has."""
    if not candidate.source.enabled:
        return "is disabled"
    if bundle is None:
        return f"there is no bundle {candidate.source.bundle}"
    start = None
    if candidate.schedule is not None:
        start = candidate.schedule.occurrence(now)
        if start is None:
            return f"not now ({candidate.source.schedule})"
    if not (bundle.once or (candidate.schedule is not None and candidate.schedule.once)):
        return ""
    if device is None:
        return "needs a device that is known"
    run = _run_of(device, candidate.key)
    if run is None:
        return ""
    if start is not None and candidate.schedule is not None and candidate.schedule.once and run.ended < start:
        return ""  # another occurrence; a window has none of its own, it only says when the one run may begin
    return f"{run.state} since {run.ended:%Y-%m-%d %H:%M}"


def _run_of(device: Device, name: str) -> Run | None:
    return next((run for run in device.runs if run.assignment == name and run.state in _RUN_AT_ALL), None)


def _stranger(query: Query, snapshot: Snapshot, now: datetime, refused: str) -> Ruling:
    """A device that is not registered, or that nobody has accepted."""
    steps = ["not denied", "not registered" if query.device is None else "pending"]
    rule = _rule(query, snapshot, now, True)
    if rule is not None:
        bundle = snapshot.objects.bundles[rule.source.bundle]
        return _winning(rule, bundle, [*steps, f"{rule.where}: {bundle.kind} {bundle.name}"])
    unknown = snapshot.zone.unknown
    if refused:
        return Ruling(Decision(Verdict.SILENT, refused, (*steps, "unknown policy: silent")), refused)
    reason = f"UnknownDevices = {unknown}"
    if query.device is None:
        reason = f"device is not registered; {reason}"
    ruling = Ruling(Decision(Verdict(unknown), reason, (*steps, f"unknown policy: {unknown}")))
    return replace(ruling, menu=snapshot.menu("default")) if unknown == "menu" else ruling


def _rule(query: Query, snapshot: Snapshot, now: datetime, unknown: bool) -> _Candidate | None:
    for candidate in _matching(query, snapshot, unknown=unknown):
        if not _idle(candidate, snapshot.objects.bundles.get(candidate.source.bundle), None, now):
            return candidate
    return None


def menu_of(device: Device, snapshot: Snapshot) -> Menu | None:
    """The menu policy that the device has, or inherits of its nearest folder."""
    names = [device.menu] if device.menu else []
    if not names and snapshot.objects.folders:
        folders = snapshot.objects.folders
        names = [folders[path].menu for path in folders_up(device.folder) if path in folders and folders[path].menu]
    return snapshot.menu(names[0]) if names else None


def _with_menu(ruling: Ruling, device: Device, snapshot: Snapshot) -> Ruling:
    """The menu, where one is to be shown; the ruling is its default item then."""
    menu = menu_of(device, snapshot)
    if menu is None:
        asked = ruling.decision.verdict is Verdict.MENU
        return replace(ruling, menu=snapshot.menu("default")) if asked else ruling
    if menu.show == "never":
        return _never(ruling, menu)
    if ruling.decision.verdict is Verdict.MENU:
        return replace(ruling, menu=menu)
    decision = ruling.decision
    shown = replace(
        decision, verdict=Verdict.MENU, reason=f"menu {menu.name}; by itself {decision.reason}",
        steps=(*decision.steps, f"menu {menu.name}: {menu.show}"),
    )  # fmt: skip
    return replace(ruling, decision=shown, menu=menu, without_menu=decision.verdict)


def _never(ruling: Ruling, menu: Menu) -> Ruling:
    """A zone default of menu means the local disk for a device whose own policy shows none."""
    decision = ruling.decision
    if decision.verdict is not Verdict.MENU:
        return ruling
    reason = f"{decision.reason}; menu {menu.name} is never shown"
    steps = (*decision.steps, f"menu {menu.name}: never")
    return replace(ruling, decision=replace(decision, verdict=Verdict.LOCAL, reason=reason, steps=steps))


def _arguments(device: Device, snapshot: Snapshot, own: str) -> str:
    """Of the zone, of the folders down to the device, its own, and the assignment's: the kernel takes the last word."""
    folders = snapshot.objects.folders
    inherited = (
        [folders[path].arguments for path in reversed(folders_up(device.folder)) if path in folders] if folders else []
    )
    return " ".join(text for text in (*inherited, device.arguments, own) if text)
