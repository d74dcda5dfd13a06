"""References that lead nowhere, who names what, and what applying a policy changes."""

from __future__ import annotations

from pbserv.policy.diff import Change, changes
from pbserv.policy.entries import device_of
from pbserv.policy.integrity import problems, uses, warnings
from pbserv.policy.model import Assignment, Bundle, Folder, Group, Menu, MenuItem, PolicyObject, Rule
from pbserv.policy.snapshot import Objects
from pbserv.registry.records import BundleKind, Device

LOCAL = Bundle(name="disk", kind=BundleKind.LOCAL)
LAB = Group(name="lab")
WHOLE: tuple[PolicyObject, ...] = (
    LOCAL,
    LAB,
    Menu(name="staff", items=(MenuItem(name="one", title="One", bundle="disk"),)),
    Folder(name="/labs", menu="staff"),
    Folder(name="/halls", menu="default"),
    Assignment(name="a", bundle="disk", group="lab"),
    Assignment(name="b", bundle="disk", folder="/labs/never-made"),
    Rule(name="r", when='manufacturer == "X"', bundle="disk"),
)


def device(last: int, **fields: object) -> Device:
    return device_of(f"52:54:00:00:00:{last:02x}", dict(fields))


def test_a_whole_policy_has_no_problems() -> None:
    objects = Objects.of(WHOLE)
    assert problems(objects, [device(1, groups=["lab"], menu="staff"), device(2, menu="default")]) == []
    assert warnings(objects) == []


def test_every_reference_that_leads_nowhere() -> None:
    broken = Objects.of((
        Menu(name="m", items=(MenuItem(name="one", title="One", bundle="x"),)),
        Folder(name="/f", menu="y"),
        Assignment(name="a", bundle="x", group="g"),
        Assignment(name="d", bundle="x", device="52-54-00-00-00-01"),
        Rule(name="a", when="true", bundle="x"),
    ))  # fmt: skip
    assert problems(broken, [device(1, groups=["g"], menu="y")]) == [
        "menu 'm': item 'one': there is no bundle 'x'",
        "folder '/f': there is no menu 'y'",
        "assignment 'a': there is no bundle 'x'",
        "assignment 'a': there is no group 'g'",
        "assignment 'd': there is no bundle 'x'",
        "rule 'a': there is no bundle 'x'",
        "device 52:54:00:00:00:01: there is no group 'g'",
        "device 52:54:00:00:00:01: there is no menu 'y'",
    ]


def test_warnings() -> None:
    objects = Objects.of((LOCAL, Rule(name="r", when='colour == "red" and room', bundle="none")))
    [strange, unused] = warnings(objects)
    assert strange.startswith("rule 'r': colour, room: no label that pbserv learns")
    assert unused.startswith("bundle 'disk': nothing assigns it")
    [strange, _] = warnings(objects, [device(1, labels={"room": "1"})])
    assert strange.startswith("rule 'r': colour: no label")


def test_who_names_an_object() -> None:
    objects = Objects.of((*WHOLE, Group(name="low", folder="/labs")))
    many = [device(number, groups=["lab"], folder="/labs", menu="default") for number in range(5)]
    assert uses(objects, "bundle", "disk") == [
        "assignment 'a'",
        "assignment 'b'",
        "rule 'r'",
        "menu 'staff', item 'one'",
    ]
    assert uses(objects, "group", "lab", many) == [
        "assignment 'a'", "device 52:54:00:00:00:00", "device 52:54:00:00:00:01", "device 52:54:00:00:00:02",
        "2 more devices",
    ]  # fmt: skip
    assert uses(objects, "folder", "/labs", many[:1]) == ["group 'low'", "device 52:54:00:00:00:00"]
    assert uses(objects, "folder", "/", [device(1)]) == []  # all devices lie there, with its object and without
    assert uses(objects, "menu", "staff", [device(1, menu="staff", name="pc")]) == [
        "folder '/labs'", "device 52:54:00:00:00:01 (pc)",
    ]  # fmt: skip
    assert uses(objects, "menu", "default", many) == []  # without the object the built-in one is meant
    assert uses(objects, "rule", "r") == []


def test_changes() -> None:
    before = Objects.of((LOCAL, LAB, Rule(name="r", when="true", bundle="disk")))
    after = [Rule(name="r", when="false", bundle="disk"), LOCAL, Group(name="new")]
    expected = [
        Change("none", "bundle", "disk", {"kind": "local"}, {"kind": "local"}),
        Change("create", "group", "new", None, {}),
        Change("change", "rule", "r", {"when": "true", "bundle": "disk"}, {"when": "false", "bundle": "disk"}),
    ]
    assert changes(before, after, prune=False) == expected
    assert changes(before, after, prune=True) == [*expected, Change("delete", "group", "lab", {}, None)]
    assert {change.action for change in changes(before, before.everything(), prune=True)} == {"none"}
    gone = changes(before, [], prune=True)
    assert [change.kind for change in gone] == ["rule", "group", "bundle"]
