"""Policy files: both forms say the same, all faults are named at once, and what is written is read as it was."""

from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pbserv.policy.entries import entry_of
from pbserv.policy.files import PolicyFileError, read_policy, write_policy
from pbserv.policy.model import Assignment, Bundle, Group, Installer, Menu, MenuItem, PolicyObject
from pbserv.policy.snapshot import Zone
from pbserv.registry.records import BundleKind, DeviceState

POLICY = '''
[zone]
default = "menu"

[bundle.rescue]
kind = "linux"
kernel = "rescue/vmlinuz"
initrd = ["rescue/initrd.img"]

[bundle."room 1"]
kind = "ipxe"
script = """
#!ipxe
[bundle.not-a-head]
chain x.efi
"""

[group.lab]
folder = "/labs/1"

[assignment.lab]
bundle = "rescue"
device = "52-54-00-AA-BB-01"

[rule.dell]
when = 'manufacturer == "Dell Inc."'
bundle = "rescue"

[menu.staff]
timeout_s = 5
[[menu.staff.items]]
name = "one"
title = "One"
bundle = "room 1"

[device."52:54:00:AA:BB:01"]
name = "pc-1"
groups = ["lab"]
labels = { room = "3.14" }
'''


def test_all_tables() -> None:
    policy = read_policy(POLICY, "toml", "lab.toml")
    assert [type(each).__name__ for each in policy.objects] == [
        "Bundle", "Bundle", "Group", "Assignment", "Rule", "Menu",
    ]  # fmt: skip
    assert policy.zone == Zone(default="menu")
    assert policy.zoned
    [assignment] = [each for each in policy.objects if isinstance(each, Assignment)]
    assert assignment.device == "52:54:00:aa:bb:01"
    [device] = policy.devices
    assert (device.mac, device.name, device.state) == ("52:54:00:aa:bb:01", "pc-1", DeviceState.KNOWN)
    assert policy.entries == {"52:54:00:aa:bb:01": {"name": "pc-1", "groups": ["lab"], "labels": {"room": "3.14"}}}


def test_json_says_the_same() -> None:
    policy = read_policy(POLICY, "toml", "a")
    text = write_policy(policy.objects, "json", policy.entries, policy.zone)
    assert read_policy(text, "json", "b") == policy
    assert json.loads(text)["menu"]["staff"]["items"] == [{"name": "one", "title": "One", "bundle": "room 1"}]


def test_every_fault_is_named_with_its_line() -> None:
    with pytest.raises(PolicyFileError) as said:
        read_policy(
            '[bundle.a]\nkind = "linux"\n\n[bundle."b c"]\nkind = "ipxe"\nscript = "x"\nkernal = "y"\n'
            '[assignment.x]\nbundle = "a"\ndevice = "nonsense"\n[device."01:00:5e:00:00:01"]\n'
            '[device."52:54:00:00:00:01"]\nstate = "odd"\ngroups = "lab"\n[rule.r]\nwhen = "=="\nbundle = "a"\n'
            '[zone]\ndefault = "nothing"\n[bundel.x]\n',
            "toml",
            "p.toml",
        )
    found = said.value.problems
    for words in (
        ("p.toml: line 1: [bundle.a]: ", "kernel is missing"),
        ('line 4: [bundle."b c"]: kernal', "there is no such field"),
        ("line 8: [assignment.x]: ", "is not a MAC address"),
        ('line 11: [device."01:00:5e:00:00:01"]: ', "no device's address"),
        ('line 12: [device."52:54:00:00:00:01"]: state: ', "groups: a list of names"),
        ("line 15: [rule.r]: ", "column"),
        ("line 18: [zone]: default: write one of silent,",),
        ("[bundel]: there is no such table",),
    ):
        assert any(all(word in problem for word in words) for problem in found), (words, found)
    assert len(found) == 8
    assert str(said.value) == "\n".join(found)


def test_files_beside() -> None:
    text = '[bundle.i]\nkind = "install"\nkernel = "k"\ninstaller = "preseed"\nanswer_file = "i.cfg"\n'
    policy = read_policy(text, "toml", "p", lambda path: f"text of {path}")
    assert policy.objects == (
        Bundle(name="i", kind=BundleKind.INSTALL, kernel="k", installer=Installer.PRESEED, answer="text of i.cfg"),
    )
    with pytest.raises(PolicyFileError, match="policy files on disk"):
        read_policy(text, "toml", "p")
    with pytest.raises(PolicyFileError, match=r"answer_file: no i\.cfg"):
        read_policy(text, "toml", "p", _nothing)
    with pytest.raises(PolicyFileError, match="both given"):
        read_policy(text + 'answer = "x"', "toml", "p", lambda path: path)


def _nothing(path: str) -> str:
    raise ValueError(f"no {path}")


@pytest.mark.parametrize(
    ("text", "form", "words"),
    [
        ("a = \n b", "toml", "line 1"),
        ("{\n]", "json", "line 2"),
        ("[]", "json", "an object with the tables"),
        ('{"bundle": 3}', "json", "named tables"),
        ('{"bundle": {"a": 3}}', "json", "a: a table was expected"),
        ('{"bundle": {"a": {"name": "b", "kind": "local"}}}', "json", "stands in the head"),
        ('{"zone": 1}', "json", "[zone]: a table"),
        ('{"zone": {"colour": 1}}', "json", "there is no colour"),
        ("[" * 100_000, "json", "cannot be read"),
        ("a = " + "[" * 100_000, "toml", "cannot be read"),
        ("[bundle]\n[bundle]", "toml", "line 2"),
    ],
)  # fmt: skip
def test_what_is_no_policy(text: str, form: str, words: str) -> None:
    with pytest.raises(PolicyFileError) as said:
        read_policy(text, form, "p")  # type: ignore[arg-type]
    assert words in str(said.value)


@given(st.text(), st.sampled_from(["toml", "json"]))
def test_any_text_is_read_or_refused(text: str, form: str) -> None:
    with contextlib.suppress(PolicyFileError):
        read_policy(text, form, "p")  # type: ignore[arg-type]


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
KEYS = st.sampled_from(["kind", "bundle", "items", "labels", "groups", "when", "state", "script_file", "x"])
TABLES = st.dictionaries(
    st.sampled_from(["bundle", "menu", "rule", "assignment", "device", "zone", "group", "folder"]),
    VALUES | st.dictionaries(st.sampled_from(["a", "52:54:00:00:00:01", "/"]), st.dictionaries(KEYS, VALUES)),
)


@given(TABLES)
def test_any_values_are_read_or_refused(values: dict[str, object]) -> None:
    with contextlib.suppress(PolicyFileError):
        read_policy(json.dumps(values), "json", "p")


NAMES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._ -]{0,20}[A-Za-z0-9]", fullmatch=True)
TITLES = st.text(st.characters(categories=["L", "N", "P", "S"]), max_size=30)
OBJECTS: st.SearchStrategy[PolicyObject] = st.one_of(
    st.builds(
        Bundle, name=NAMES, kind=st.just(BundleKind.IPXE), script=st.text(min_size=1, max_size=200), title=TITLES
    ),
    st.builds(Group, name=NAMES, title=TITLES, priority=st.integers(-5, 5)),
    st.builds(
        Menu, name=NAMES,
        items=st.lists(st.builds(MenuItem, name=NAMES, title=TITLES, bundle=NAMES), min_size=1, max_size=3,
                       unique_by=lambda item: item.name).map(tuple),
    ),
)  # fmt: skip


@given(st.lists(OBJECTS, unique_by=lambda each: (type(each), each.name)), st.sampled_from(["toml", "json"]))
def test_what_is_written_is_read_as_it_was(objects: list[PolicyObject], form: str) -> None:
    text = write_policy(objects, form)  # type: ignore[arg-type]
    again = read_policy(text, form, "p").objects  # type: ignore[arg-type]
    assert set(again) == set(objects)
    assert write_policy(reversed(again), form) == text  # type: ignore[arg-type]


def test_devices_are_written_as_they_are_read() -> None:
    [device] = read_policy(POLICY, "toml", "p").devices
    assert entry_of(device) == {
        "state": "known", "name": "pc-1", "groups": ["lab"], "labels": {"room": "3.14"},
    }  # fmt: skip
