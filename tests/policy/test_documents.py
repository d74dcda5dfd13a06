"""Objects as JSON and as plain values: what is written is read as the same object."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pbserv.policy.documents import PolicyError, decode, encode, kind_of, read_object, values_of
from pbserv.policy.model import KINDS, Bundle, Folder, Group, Menu, MenuItem, PolicyObject
from pbserv.registry.records import BundleKind, Document

from .policies import ASSIGNMENT, BUNDLE, FOLDER, GROUP, MENU, NOW, RULE
from .test_model import VALID

LINES = st.text(st.characters(categories=["L", "N", "P", "S"]), max_size=20)
OBJECT = st.one_of(
    BUNDLE, GROUP, FOLDER, RULE, ASSIGNMENT, MENU,
    st.sampled_from(list(VALID)).flatmap(lambda kind: st.builds(
        lambda title, retries: Bundle(name="it", kind=kind, title=title, retries=retries, **VALID[kind]),
        LINES, st.integers(0, 100))),
    st.builds(
        lambda titles, show, timeout_s: Menu(
            name="m", show=show, timeout_s=timeout_s,
            items=tuple(MenuItem(name=f"i{n}", title=title, bundle="b", arguments=title)
                        for n, title in enumerate(titles)),
        ),
        st.lists(LINES, min_size=1, max_size=4), st.sampled_from(["always", "never", "key"]), st.integers(0, 3600),
    ),
)  # fmt: skip


@given(OBJECT)
def test_what_is_written_is_read_as_the_same(each: PolicyObject) -> None:
    kind = kind_of(each)
    values = values_of(each)
    assert read_object(kind, each.name, values) == each
    assert read_object(kind, each.name, json.loads(json.dumps(values))) == each
    assert decode(Document(kind, each.name, encode(each), 1, NOW)) == each
    assert encode(decode(Document(kind, each.name, encode(each), 1, NOW))) == encode(each)
    assert "name" not in values


def test_only_what_differs_from_the_defaults_is_written() -> None:
    assert values_of(Group(name="g")) == {}
    assert values_of(Menu(name="m")) == {}
    assert values_of(Menu(name="m", items=(MenuItem(name="a", title="A", action="exit"),))) == {
        "items": [{"name": "a", "title": "A", "action": "exit"}]}  # fmt: skip
    assert values_of(Bundle(name="b", kind=BundleKind.LINUX, kernel="k", initrd=("i",))) == {
        "kind": "linux", "kernel": "k", "initrd": ["i"]}  # fmt: skip
    assert encode(Folder(name="/a", title="Ä")) == '{"title": "Ä"}'


@pytest.mark.parametrize(
    ("kind", "values", "said"),
    [
        ("zone", {}, "'zone' is no kind of policy object: bundle, group"),
        ("bundle", {}, "bundle 'it': kind: Field required"),
        ("bundle", {"kind": "floppy"}, "bundle 'it': kind: Input should be"),
        ("bundle", {"kind": "restore"}, "bundle 'it': a bundle of kind restore needs: image"),
        ("bundle", {"kind": "local", "colour": "red"}, "bundle 'it': colour: there is no such field"),
        ("bundle", {"kind": "linux", "kernel": "k", "initrd": "i"}, "initrd: "),
        ("bundle", {"kind": "local", "retries": "many"}, "retries: "),
        ("group", {"priority": 1.5}, "priority: "),
        ("rule", {"when": "a =", "bundle": "b"}, "rule 'it': column 3"),
        ("menu", {"items": [{"name": "a", "title": "A", "action": "dance"}]}, "items.0.action: "),
        ("menu", {"items": [{"name": "a", "title": "A", "verb": "x"}]}, "items.0.verb: there is no such field"),
        ("menu", {"items": [{"name": "a", "title": "A"}]}, "items.0: menu item 'a' has a bundle or an action"),
        ("menu", {"show": "sometimes"}, "show: "),
    ],
)
def test_what_is_wrong_is_said_with_object_and_field(kind: str, values: dict[str, Any], said: str) -> None:
    with pytest.raises(PolicyError) as fault:
        read_object(kind, "it", values)
    assert said in str(fault.value)
    assert fault.value.status == 422


def test_several_errors_are_said_at_once() -> None:
    with pytest.raises(PolicyError) as fault:
        read_object("menu", "m", {"show": "x", "timeout_s": "y"})
    assert "show: " in str(fault.value)
    assert "timeout_s: " in str(fault.value)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
FIELDS = st.sampled_from(["kind", "image", "kernel", "initrd", "when", "bundle", "folder", "items", "show", "device",
    "schedule", "priority", "retries", "finish", "title", "x"])  # fmt: skip


@given(st.sampled_from(list(KINDS)), st.text(max_size=8), st.dictionaries(FIELDS, JSON, max_size=5))
def test_any_values_are_read_or_refused(kind: str, name: str, values: dict[str, Any]) -> None:
    try:
        each = read_object(kind, name, values)
    except PolicyError:
        return
    assert read_object(kind, name, values_of(each)) == each


@given(st.text(max_size=30) | JSON.map(json.dumps))
def test_any_record_is_read_or_refused(body: str) -> None:
    try:
        assert decode(Document("group", "g", body, 1, NOW)).name == "g"
    except PolicyError:
        return
