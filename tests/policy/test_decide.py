"""Each step of the order of a decision, and that silent and local disk are different answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from pbserv.policy.decide import Query, Ruling, decide, imaging_of, refusal
from pbserv.policy.model import DEFAULT_MENU, Bundle, Folder, Group, Menu, PolicyObject, Rule
from pbserv.policy.snapshot import Snapshot, Zone
from pbserv.registry.records import RESTORES, BundleKind, Device, DeviceState, Run, WorkState
from pbserv.types import Verdict

from .policies import BUNDLES, LINUX, MAC, NOW, OTHER, RESTORE, assign, device, work

DAY = timedelta(days=1)
EVERYWHERE = assign("all", folder="/")


def ask(
    asker: Device | None = None, *objects: PolicyObject, zone: Zone = Zone(), labels: Mapping[str, str] | None = None,
    now: datetime = NOW, everything: bool = False,
) -> Ruling:  # fmt: skip
    snapshot = Snapshot.of([asker] if asker else [], [*BUNDLES, *objects], zone)
    return decide(Query(MAC, asker, labels or {}), snapshot, now, everything=everything)


# Denied and retired.


@pytest.mark.parametrize(
    ("state", "said"), [(DeviceState.DENIED, "denied"), (DeviceState.RETIRED, f"pbserv device accept {MAC}")]
)
@pytest.mark.parametrize("zone", [Zone(), Zone("menu", "menu"), Zone(engine="10.0.0.9:998")])
def test_denied_and_retired_devices_get_nothing(state: DeviceState, said: str, zone: Zone) -> None:
    asker = device(state=state, work=work(), groups=("lab",), menu="m", loader="own.efi")
    ruling = ask(asker, assign("d", device=MAC), Rule(name="r", when="true", bundle="rescue", unknown=True),
                 Menu(name="m"), zone=zone)  # fmt: skip
    assert ruling.decision.verdict is Verdict.SILENT
    assert said in ruling.refused
    assert ruling == Ruling(ruling.decision, ruling.refused)
    assert (ruling.decision.file, ruling.decision.work, ruling.decision.bundle) == ("", None, "")


# The other server.


@pytest.mark.parametrize("state", [DeviceState.KNOWN, DeviceState.PENDING])
def test_another_server_decides(state: DeviceState) -> None:
    ruling = ask(device(state=state, work=work()), EVERYWHERE, zone=Zone(engine="10.0.0.9:998"))
    assert ruling.decision.verdict is Verdict.LOADER
    assert "10.0.0.9:998" in ruling.decision.reason
    assert (ruling.refused, ruling.work, ruling.bundle) == ("", None, None)
    assert ask(None, zone=Zone(engine="10.0.0.9:998")).decision.verdict is Verdict.LOADER


# One-shot work.


@pytest.mark.parametrize("state", [WorkState.QUEUED, WorkState.RUNNING])
@pytest.mark.parametrize("expires", [None, NOW + DAY])
def test_work_goes_before_all_that_is_assigned(state: WorkState, expires: datetime | None) -> None:
    ruling = ask(device(work=work(state, expires), menu="m"), assign("d", device=MAC), Menu(name="m"))
    assert ruling.decision.verdict is Verdict.BOOT
    assert ruling.decision.work == 7
    assert ruling.work is not None
    assert ruling.bundle is None
    assert ruling.menu is None
    assert ruling.decision.reason == "work 7: restore debian"


def test_work_that_runs_does_not_expire() -> None:
    """The time is that by which it has to begin."""
    ruling = ask(device(work=work(WorkState.RUNNING, NOW - DAY)), EVERYWHERE)
    assert ruling.decision.work == 7


@pytest.mark.parametrize("expires", [NOW, NOW - DAY])
def test_expired_work_is_passed_and_said(expires: datetime) -> None:
    ruling = ask(device(work=work(expires=expires)), EVERYWHERE)
    assert (ruling.work, ruling.bundle) == (None, LINUX)
    assert f"work 7 expired at {expires:%Y-%m-%d %H:%M}" in ruling.decision.steps


@pytest.mark.parametrize("state", [WorkState.HELD, WorkState.DONE, WorkState.FAILED, WorkState.CANCELLED])
def test_work_that_is_over_or_held_is_none(state: WorkState) -> None:
    ruling = ask(device(work=work(state)))
    assert ruling.decision.verdict is Verdict.LOCAL
    assert "no work" in ruling.decision.steps


def test_work_has_the_arguments_of_the_assignment_that_led_to_it() -> None:
    asker = device(work=work(assignment="d"), arguments="own")
    assert ask(asker, assign("d", "win11", device=MAC, arguments="theirs")).arguments == "own theirs"
    by_rule = replace(asker, work=work(assignment="rule:d"))
    rule = Rule(name="d", when="true", bundle="win11", arguments="of rule")
    assert ask(by_rule, rule, assign("d", device=MAC, arguments="theirs")).arguments == "own of rule"
    assert ask(asker).arguments == "own"


# Device, group, folder, rules.

LAYERS: tuple[PolicyObject, ...] = (
    assign("1-device", "other", device=MAC),
    assign("2-group", "disk", group="lab"),
    assign("3-folder", "rescue", folder="/n/x"),
    assign("4-above", "other", folder="/n"),
    assign("5-zone", "rescue", folder="/"),
    Rule(name="6-rule", when='group == "lab"', bundle="quiet"),
)
WINNERS = [
    (0, Verdict.BOOT, "assignment 1-device to the device: linux other"),
    (1, Verdict.LOCAL, "assignment 2-group to group lab: local disk"),
    (2, Verdict.BOOT, "assignment 3-folder to folder /n/x: linux rescue"),
    (3, Verdict.BOOT, "assignment 4-above to folder /n: linux other"),
    (4, Verdict.BOOT, "assignment 5-zone to the zone: linux rescue"),
    (5, Verdict.SILENT, "rule 6-rule: nothing quiet"),
    (6, Verdict.LOCAL, "nothing assigned; ZoneDefault = local"),
]


@pytest.mark.parametrize(("first", "verdict", "reason"), WINNERS)
def test_the_nearest_place_wins_and_the_losers_are_named(first: int, verdict: Verdict, reason: str) -> None:
    asker = device(folder="/n/x", groups=("lab",))
    ruling = ask(asker, *LAYERS[first:], everything=True)
    assert (ruling.decision.verdict, ruling.decision.reason) == (verdict, reason)
    losers = [step for step in ruling.decision.steps if step.endswith(" loses")]
    assert len(losers) == max(0, len(LAYERS) - first - 1)
    assert losers == [step for name in range(first + 2, 7) for step in losers if f" {name}-" in step]
    brief = ask(asker, *LAYERS[first:])
    assert not any(step.endswith(" loses") for step in brief.decision.steps)
    assert brief.decision.steps[:2] == ("not denied", "known")


def test_what_is_assigned_elsewhere_is_not_asked() -> None:
    others = (assign("d", device="52:54:00:00:00:99"), assign("g", group="other"), assign("f", folder="/n/x/y"))
    assert ask(device(folder="/n/x", groups=("lab",)), *others).bundle is None


def test_an_assignment_to_any_address_of_a_device_is_to_the_device() -> None:
    further = "52:54:00:00:00:99"
    asker = device(macs=(further,))
    low, high = assign("a", device=MAC), assign("b", "other", device=further.upper().replace(":", "-"), priority=1)
    assert ask(asker, low).bundle == LINUX
    assert ask(asker, low, high).bundle == OTHER


@pytest.mark.parametrize(
    ("one", "two", "winner"),
    [
        (Group(name="g1", folder="/n/x"), Group(name="g2", folder="/n", priority=9), "g1"),
        (Group(name="g1", folder="/n"), Group(name="g2", folder="/n/x"), "g2"),
        (Group(name="g1", folder="/"), Group(name="g2", folder="/s"), "g1"),
        (Group(name="g1"), Group(name="g2", priority=1), "g2"),
        (Group(name="g1", priority=-1), Group(name="g2"), "g2"),
        (Group(name="g1"), Group(name="g2"), "g1"),
        (Group(name="g3"), Group(name="g2", folder="/s/t/u"), "g2"),
    ],
)
def test_of_several_groups_the_nearest_then_the_priority_then_the_name(one: Group, two: Group, winner: str) -> None:
    asker = device(folder="/n/x", groups=("g2", "g1"))
    ruling = ask(asker, one, two, assign("a1", group="g1"), assign("a2", "other", group="g2"))
    assert f"to group {winner}:" in ruling.decision.reason


def test_of_one_place_the_priority_then_the_name() -> None:
    found = [assign("b", "rescue", folder="/"), assign("a", "disk", folder="/"), assign("c", "other", folder="/")]
    assert "assignment a " in ask(device(), *found).decision.reason
    assert "assignment c " in ask(device(), *found, replace(found[2], priority=1)).decision.reason


def test_rules_are_asked_in_order_and_the_first_that_is_true_wins() -> None:
    rules = (
        Rule(name="z", position=1, when="memory_mb > 100000", bundle="disk"),
        Rule(name="b", position=2, when='arch == "UEFI x64"', bundle="other"),
        Rule(name="a", position=2, when='arch == "uefi X64" and memory_mb >= 8', bundle="rescue"),
        Rule(name="c", position=3, when="true", bundle="quiet"),
    )
    assert "rule a:" in ask(device(), *rules, labels={"memory_mb": "8"}).decision.reason
    assert "rule b:" in ask(device(), *rules).decision.reason
    assert "rule c:" in ask(device(), *rules, labels={"arch": "BIOS"}).decision.reason


@pytest.mark.parametrize(
    ("source", "why"),
    [
        (assign("a", folder="/", enabled=False), "is disabled"),
        (assign("a", "gone", folder="/"), "there is no bundle gone"),
        (assign("a", folder="/", schedule="window sun 00:00-24:00"), "not now (window sun 00:00-24:00)"),
        (assign("a", folder="/", schedule="at 2027-01-01 00:00"), "not now (at 2027-01-01 00:00)"),
        (Rule(name="a", when="true", bundle="rescue", enabled=False), "is disabled"),
        (Rule(name="a", when="true", bundle="rescue", schedule="once until 2026-01-01"), "not now"),
    ],
)
def test_what_has_no_effect_is_passed_and_said_why(source: PolicyObject, why: str) -> None:
    ruling = ask(device(), source)
    assert ruling.decision.verdict is Verdict.LOCAL
    assert any(why in step for step in ruling.decision.steps)


def test_what_is_in_effect_now_wins_over_what_is_not() -> None:
    found = ask(device(), assign("a", device=MAC, schedule="window sun 00:00-24:00"), assign("b", "other", folder="/"))
    assert found.bundle == OTHER
    found = ask(device(), assign("a", device=MAC, schedule="window sat 00:00-24:00"), assign("b", "other", folder="/"))
    assert found.bundle == LINUX
    assert found.order == ""


# Once per device.


def run(name: str, state: WorkState = WorkState.DONE, ended: datetime = NOW - DAY) -> Run:
    return Run(name, state, ended)


def test_a_bundle_that_changes_the_machine_is_ordered_once() -> None:
    ruling = ask(device(), assign("a", "win11", folder="/"))
    assert (ruling.decision.verdict, ruling.bundle, ruling.order) == (Verdict.BOOT, RESTORE, "a")
    rule = Rule(name="a", when="true", bundle="win11")
    assert ask(device(), rule).order == "rule:a"
    assert ask(device(), EVERYWHERE).order == ""


@pytest.mark.parametrize("state", [WorkState.DONE, WorkState.HELD, WorkState.FAILED, WorkState.CANCELLED])
@pytest.mark.parametrize("schedule", ["", "once", "window sat 00:00-24:00"])
def test_what_has_run_or_was_held_does_not_begin_again(state: WorkState, schedule: str) -> None:
    ruling = ask(device(runs=(run("b"), run("a", state))), assign("a", "win11", folder="/", schedule=schedule))
    assert ruling.decision.verdict is Verdict.LOCAL
    assert f"assignment a to the zone: {state} since 2026-11-20 12:00" in ruling.decision.steps


def test_a_window_does_not_repeat_what_is_done_once() -> None:
    found = assign("a", "win11", folder="/", schedule="window daily 00:00-24:00")
    asker = device(runs=(run("a", WorkState.HELD, NOW - 30 * DAY),))
    assert ask(asker, found).decision.verdict is Verdict.LOCAL


@pytest.mark.parametrize("bundle", ["win11", "rescue"])
def test_each_occurrence_of_a_schedule_is_for_once(bundle: str) -> None:
    found = assign("a", bundle, folder="/", schedule="cron 0 2 * * *")  # today at 2:00, ten hours ago
    assert ask(device(), found).order == "a"
    assert ask(device(runs=(run("a", ended=NOW - DAY),)), found).order == "a"
    done = ask(device(runs=(run("a", ended=NOW - DAY / 24),)), found)
    assert done.decision.verdict is Verdict.LOCAL
    assert ask(device(runs=(run("a", ended=NOW - DAY / 24),)), found, now=NOW + DAY).order == "a"


def test_runs_of_a_rule_and_of_an_assignment_of_the_same_name_differ() -> None:
    rule = Rule(name="a", when="true", bundle="win11")
    assert ask(device(runs=(run("a"),)), rule).order == "rule:a"
    assert ask(device(runs=(run("rule:a"),)), rule).order == ""
    assert ask(device(runs=(run("rule:a"),)), assign("a", "win11", folder="/")).order == "a"


def test_schedules_are_of_the_zone_of_now() -> None:
    night = assign("a", folder="/", schedule="window sat 12:00-13:00")
    assert ask(device(), night).bundle == LINUX
    east = datetime.fromisoformat("2026-11-21T14:00+02:00")
    assert east.astimezone(UTC) == NOW
    assert ask(device(), night, now=east).bundle is None


# Nothing assigned.


@pytest.mark.parametrize("default", ["silent", "local", "loader", "menu"])
def test_the_zone_default_is_for_known_devices(default: str) -> None:
    ruling = ask(device(), zone=Zone(default=default))
    assert ruling.decision.verdict is Verdict(default)
    assert f"ZoneDefault = {default}" in ruling.decision.reason
    assert ruling.refused == ""
    assert ruling.menu == (DEFAULT_MENU if default == "menu" else None)


@pytest.mark.parametrize("unknown", ["silent", "local", "loader", "menu"])
@pytest.mark.parametrize("known", [True, False])
def test_the_unknown_policy_is_for_the_others(unknown: str, known: bool) -> None:
    asker = device(state=DeviceState.PENDING, menu="m", work=work()) if known else None
    ruling = ask(asker, Menu(name="m"), assign("a", device=MAC), EVERYWHERE, zone=Zone(unknown=unknown))
    assert ruling.decision.verdict is Verdict(unknown)
    assert (ruling.bundle, ruling.work) == (None, None)
    assert ruling.menu == (DEFAULT_MENU if unknown == "menu" else None)
    assert bool(ruling.refused) is (known and unknown == "silent")
    if known and unknown == "silent":
        assert f"pbserv device accept {MAC}" in ruling.decision.reason
    elif not known:
        assert "not registered" in ruling.decision.reason


@pytest.mark.parametrize("asker", [None, device(state=DeviceState.PENDING)])
def test_a_rule_for_unknown_devices_is_asked_for_them(asker: Device | None) -> None:
    welcome = Rule(name="welcome", when='arch == "BIOS"', bundle="rescue", unknown=True, arguments="hello")
    known_only = Rule(name="first", when="true", bundle="other", position=1)
    ruling = ask(asker, welcome, known_only, labels={"arch": "BIOS"})
    assert (ruling.bundle, ruling.refused, ruling.arguments) == (LINUX, "", "hello")
    assert ask(asker, welcome, labels={"arch": "UEFI x64"}).decision.verdict is Verdict.SILENT
    assert ask(asker, replace(welcome, enabled=False), labels={"arch": "BIOS"}).bundle is None


def test_what_needs_work_needs_a_known_device() -> None:
    rule = Rule(name="r", when="true", bundle="win11", unknown=True)
    assert ask(device(state=DeviceState.PENDING), rule).bundle is None
    assert ask(None, rule).decision.verdict is Verdict.SILENT
    assert ask(device(), rule).order == "rule:r"


@pytest.mark.parametrize(
    ("state", "zone", "said"),
    [
        (None, Zone(), ""),
        (DeviceState.KNOWN, Zone("silent"), ""),
        (DeviceState.PENDING, Zone(), f"pbserv device accept {MAC}"),
        (DeviceState.PENDING, Zone(unknown="loader"), ""),
        (DeviceState.PENDING, Zone(engine="10.0.0.9:998"), ""),
        (DeviceState.DENIED, Zone(unknown="menu"), "denied"),
        (DeviceState.RETIRED, Zone(unknown="menu"), "retired"),
    ],
)
def test_refusal_is_what_the_ruling_says(state: DeviceState | None, zone: Zone, said: str) -> None:
    asker = None if state is None else device(state=state)
    snapshot = Snapshot.of([], BUNDLES, zone)
    assert said in refusal(Query(MAC, asker), snapshot, NOW)
    assert refusal(Query(MAC, asker), snapshot, NOW) == decide(Query(MAC, asker), snapshot, NOW).refused


# Menus.

TREE = (Folder(name="/", menu="zone"), Folder(name="/n", menu="north"), Menu(name="zone"), Menu(name="north"),
        Menu(name="own"), Menu(name="hidden", show="never"), Menu(name="key", show="key"))  # fmt: skip


@pytest.mark.parametrize(
    ("asker", "menu"),
    [
        (device(), "zone"),
        (device(folder="/s"), "zone"),
        (device(folder="/n"), "north"),
        (device(folder="/n/x"), "north"),
        (device(folder="/n/x", menu="own"), "own"),
        (device(folder="/n/x", menu="key"), "key"),
        (device(folder="/n/x", menu="hidden"), None),
        (device(menu="default"), "default"),
        (device(menu="gone"), None),
    ],
)
def test_the_menu_policy_is_inherited_unless_the_device_has_its_own(asker: Device, menu: str | None) -> None:
    ruling = ask(asker, *TREE, EVERYWHERE)
    assert (ruling.menu.name if ruling.menu else None) == menu
    assert ruling.bundle == LINUX
    if menu is None:
        assert (ruling.decision.verdict, ruling.without_menu) == (Verdict.BOOT, None)
    else:
        assert (ruling.decision.verdict, ruling.without_menu) == (Verdict.MENU, Verdict.BOOT)
        assert ruling.decision.bundle == "rescue"
        assert f"menu {menu}" in ruling.decision.reason
        assert ruling.decision.steps[-1] == f"menu {menu}: {'key' if menu == 'key' else 'always'}"


@pytest.mark.parametrize(
    ("bundle", "default", "inside"),
    [("rescue", "local", Verdict.BOOT), ("disk", "silent", Verdict.LOCAL), ("quiet", "local", Verdict.SILENT),
     ("", "silent", Verdict.SILENT), ("", "loader", Verdict.LOADER), ("", "menu", None)],
)  # fmt: skip
def test_a_menu_stands_before_the_decision_without_it(bundle: str, default: str, inside: Verdict | None) -> None:
    objects = [assign("a", bundle, folder="/")] if bundle else []
    ruling = ask(device(menu="own"), *objects, *TREE, zone=Zone(default=default))
    assert (ruling.decision.verdict, ruling.without_menu) == (Verdict.MENU, inside)
    assert ruling.menu == Menu(name="own")


def test_a_menu_that_is_never_shown_turns_a_default_of_menu_into_the_disk() -> None:
    ruling = ask(device(menu="hidden"), *TREE, zone=Zone(default="menu"))
    assert (ruling.decision.verdict, ruling.menu) == (Verdict.LOCAL, None)
    assert ruling.decision.steps[-1] == "menu hidden: never"


def test_a_default_menu_of_ones_own_is_the_one_that_is_shown() -> None:
    ours = Menu(name="default", title="Ours")
    assert ask(device(), ours, zone=Zone(default="menu")).menu == ours
    assert ask(None, ours, zone=Zone(unknown="menu")).menu == ours


def test_the_imaging_item_is_the_first_imaging_bundle_even_when_it_has_run() -> None:
    asker = device(runs=(run("b"),), folder="/n")
    objects = [*BUNDLES, assign("a", "rescue", device=MAC), assign("b", "win11", folder="/n"),
               Rule(name="r", when="true", bundle="win11")]  # fmt: skip
    assert imaging_of(Query(MAC, asker), Snapshot.of([asker], objects)) == (RESTORE, "b")
    rules = Snapshot.of([asker], [*BUNDLES, objects[-1]])
    assert imaging_of(Query(MAC, asker), rules) == (RESTORE, "rule:r")
    assert imaging_of(Query(MAC, asker), Snapshot.of([asker], BUNDLES)) is None
    assert imaging_of(Query(MAC, None), rules) is None


# Arguments and loader.


def test_arguments_of_the_zone_down_to_the_assignment() -> None:
    tree = (Folder(name="/", arguments="z"), Folder(name="/n", arguments="n"), Folder(name="/n/x/y", arguments="no"))
    asker = device(folder="/n/x", arguments="d")
    found = assign("a", device=MAC, arguments="a")
    assert ask(asker, *tree, found).arguments == "z n d a"
    assert ask(asker, *tree).arguments == "z n d"
    assert ask(replace(asker, work=work()), *tree, found).arguments == "z n d"
    assert ask(device(), found).arguments == "a"


@pytest.mark.parametrize("extra", [{}, {"work": work()}, {"menu": "own"}])
def test_a_device_with_a_loader_of_its_own_gets_that_file(extra: dict[str, object]) -> None:
    asker = replace(device(loader="shim/own.efi"), **extra)
    assert ask(asker, EVERYWHERE, *TREE).decision.file == "shim/own.efi"
    assert ask(replace(asker, loader=""), EVERYWHERE, *TREE).decision.file == ""


@pytest.mark.parametrize("kind", [kind for kind in BundleKind if kind not in (BundleKind.LOCAL, BundleKind.NOTHING)])
def test_every_kind_but_two_is_a_boot(kind: BundleKind) -> None:
    fields = {
        **{kind: {"image": "i"} for kind in (*RESTORES, BundleKind.CACHE, BundleKind.CAPTURE)},
        BundleKind.SCRIPT: {"script": "true"}, BundleKind.LINUX: {"kernel": "k"}, BundleKind.EFI: {"file": "f"},
        BundleKind.INSTALL: {"kernel": "k", "installer": "preseed", "answer": "x"}, BundleKind.ISO: {"file": "f"},
        BundleKind.IPXE: {"script": "exit"}, BundleKind.CHAIN: {"url": "http://h/x"},
        BundleKind.WINPE: {"files": ("f",)},
    }.get(kind, {})  # fmt: skip
    ruling = ask(device(), Bundle(name="it", kind=kind, **fields), assign("a", "it", folder="/"))
    assert ruling.decision.verdict is Verdict.BOOT
    assert bool(ruling.order) is ruling.bundle.once if ruling.bundle else False
