"""A ruling as JSON, there and back; and JSON that is none."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pbserv.policy.decide import Ruling
from pbserv.policy.model import Bundle, Installer, Menu, MenuItem
from pbserv.policy.oracles.wire import (
    MOST_LETTERS,
    MOST_STEPS,
    Question,
    WireFault,
    question_of,
    read_ruling,
    wire_of,
    write_ruling,
)
from pbserv.registry.records import BundleKind, Finish, Work, WorkState
from pbserv.types import ClientArch, Decision, MacAddress, Sighting, Verdict

NAMES = st.from_regex(r"[A-Za-z0-9]([A-Za-z0-9._ -]{0,8}[A-Za-z0-9])?", fullmatch=True)
LINES = st.text(st.characters(codec="utf-8", exclude_categories=("C", "Z")), max_size=30)
TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=60)
TIMES = st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC))
URLS = st.sampled_from(["http://10.0.0.1:8067", "https://zen.example:8443", "http://[2001:db8::1]:80/a"])
TOKENS = st.from_regex(r"[0-9]{1,5}\.[0-9a-f]{64}", fullmatch=True)
BUNDLES = st.one_of(
    st.builds(Bundle, name=NAMES, kind=st.just(BundleKind.RESTORE), image=NAMES, title=LINES,
              finish=st.sampled_from(Finish), retries=st.integers(0, 100)),
    st.builds(Bundle, name=NAMES, kind=st.just(BundleKind.IPXE), script=TEXTS),
    st.builds(Bundle, name=NAMES, kind=st.just(BundleKind.INSTALL), kernel=st.just("debian/linux"), answer=TEXTS,
              installer=st.sampled_from(Installer), initrd=st.just(("a", "b")), meta=TEXTS),
    st.builds(Bundle, name=NAMES, kind=st.just(BundleKind.LOCAL)),
)  # fmt: skip
ITEMS = st.lists(st.builds(MenuItem, name=NAMES, title=LINES, action=st.sampled_from(("local", "exit", "decision"))),
                 min_size=1, max_size=4, unique_by=lambda item: item.name).map(tuple)  # fmt: skip
MENUS = st.builds(Menu, name=NAMES, title=LINES, show=st.sampled_from(("always", "key")),
                  timeout_s=st.integers(0, 3600)) | st.builds(Menu, name=NAMES, items=ITEMS)  # fmt: skip
WORK = st.builds(
    Work, id=st.integers(1, 2**62), mac=st.just("52:54:00:12:34:56"), kind=st.sampled_from(BundleKind), image=NAMES,
    target_disk=st.just("/dev/sda"), finish=st.sampled_from(Finish), overwrite=st.booleans(),
    state=st.sampled_from(WorkState), reason=st.just(""), created=TIMES, bundle=NAMES, assignment=NAMES,
)  # fmt: skip


@st.composite
def rulings(draw: st.DrawFn) -> Ruling:
    """As a server gives them."""
    bundle = draw(st.none() | BUNDLES)
    verdicts = [verdict for verdict in Verdict if bundle is not None or verdict is not Verdict.BOOT]
    name = "" if bundle is None else bundle.name
    steps = tuple(draw(st.lists(LINES, max_size=5)))
    file = draw(st.sampled_from(("", "loaders/special.efi")))
    decision = Decision(draw(st.sampled_from(verdicts)), draw(LINES), steps, bundle=name, file=file)
    work = draw(st.none() | WORK)
    menu = draw(st.none() | MENUS)
    return Ruling(
        decision, draw(LINES), bundle, work, arguments=draw(LINES), menu=menu,
        without_menu=draw(st.sampled_from(verdicts)) if menu is not None else None,
        url=draw(URLS), token=draw(TOKENS) if work is not None else "",
    )  # fmt: skip


@given(rulings())
def test_there_and_back(ruling: Ruling) -> None:
    text = write_ruling(ruling)
    assert read_ruling(text) == ruling
    assert write_ruling(read_ruling(text)) == text
    assert read_ruling(wire_of(ruling, url="http://other", token="other").model_dump_json()) == ruling


MAC = "52:54:00:12:34:56"
MADE = datetime(2026, 11, 21, tzinfo=UTC)
RESTORE = Bundle(name="win", kind=BundleKind.RESTORE, image="win11")
ORDERED = Work(
    7, MAC, BundleKind.RESTORE, "win11", "", Finish.REBOOT, False, WorkState.QUEUED, "", MADE,
    document='{"secret": 1}', retries=2,
)  # fmt: skip


def test_what_is_ones_own_stays() -> None:
    """The number of the work, and that work has yet to be made, mean something on the server that decided only."""
    ours = Ruling(Decision(Verdict.BOOT, "work 7", work=7, bundle="win"), bundle=RESTORE, work=ORDERED, order="weekly")
    told = read_ruling(wire_of(ours, url="http://10.0.0.1:8067", token="7.abc").model_dump_json())
    assert (told.decision.work, told.order, told.url, told.token) == (None, "", "http://10.0.0.1:8067", "7.abc")
    assert told.work == replace(ORDERED, document="", retries=0)


def test_the_token_of_a_third_server_is_passed_on() -> None:
    theirs = Ruling(Decision(Verdict.BOOT, "work"), bundle=RESTORE, work=ORDERED, url="http://far", token="9.def")
    told = read_ruling(wire_of(theirs, url="http://near", token="7.abc").model_dump_json())
    assert (told.url, told.token) == ("http://far", "9.def")


def test_what_people_read_is_made_to_fit() -> None:
    steps = tuple(f"step {number}\n" for number in range(2 * MOST_STEPS))
    ruling = Ruling(Decision(Verdict.LOCAL, "x\0y" + "z" * MOST_LETTERS, steps))
    told = read_ruling(write_ruling(ruling)).decision
    assert told.reason.startswith("x yzz")
    assert (len(told.reason), len(told.steps), told.steps[-1]) == (MOST_LETTERS, MOST_STEPS, "step 2047 ")


WIRE: dict[str, Any] = {
    "verdict": "boot", "reason": "because", "bundle": {"name": "win", "kind": "restore", "image": "win11"},
    "work": {"id": 7, "mac": "x", "kind": "restore", "created": "2026-11-21T00:00:00Z"},
    "url": "http://10.0.0.1:8067", "token": "7.abc", "a key of later": 1,
}  # fmt: skip


def test_a_later_server_may_say_more() -> None:
    found = read_ruling(json.dumps(WIRE))
    assert (found.bundle, found.decision.verdict) == (RESTORE, Verdict.BOOT)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"verdict": "explode"}, "verdict"),
        ({"reason": 7}, "reason"),
        ({"reason": "a\nimgexec evil"}, "reason"),
        ({"steps": ["x"] * (MOST_STEPS + 1)}, "steps"),
        ({"bundle": None}, "bundle"),
        ({"bundle": {"kind": "local"}}, "bundle"),
        ({"bundle": {"name": "x", "kind": "later"}}, "kind"),
        ({"bundle": {"name": "x", "kind": "linux", "kernel": "/etc/passwd"}}, "file"),
        ({"menu": {"name": "x", "items": []}}, "menu"),
        ({"token": ""}, "work"),
        ({"url": ""}, "work"),
        ({"url": "http://10.0.0.1/$(x)"}, "url"),
        ({"url": "file:///x"}, "url"),
        ({"token": "7.abc && evil"}, "token"),
        ({"file": "../../etc/shadow"}, "file"),
        ({"arguments": "a\0"}, "arguments"),
        ({"work": {"id": "x"}}, "work"),
    ],
)
def test_what_is_no_ruling_is_named(change: dict[str, Any], says: str) -> None:
    with pytest.raises(WireFault, match=says):
        read_ruling(json.dumps({**WIRE, **change}))


@given(st.binary(max_size=100) | st.text(max_size=100))
def test_any_text_is_a_ruling_or_refused(text: bytes | str) -> None:
    with contextlib.suppress(WireFault):
        read_ruling(text)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
)


@given(key=st.sampled_from(sorted(WIRE)), value=JSON)
def test_any_value_of_any_key_is_taken_or_refused(key: str, value: object) -> None:
    with contextlib.suppress(WireFault):
        read_ruling(json.dumps({**WIRE, key: value}))


@pytest.mark.parametrize(
    "read", [lambda body: Question.model_validate(body), lambda body: Question.model_validate_json(json.dumps(body))]
)
def test_a_question_there_and_back(read: Callable[[dict[str, Any]], Question]) -> None:
    sighting = Sighting(
        MacAddress.parse(MAC), "4c4c4544-0043-4410-8052-b4c04f4e4d32", ClientArch(7), "dhcp", "10.0.0.9",
        (("client_kind", "uefi"), ("vendor_class", "PXEClient" + "x" * 300)),
    )  # fmt: skip
    asked = read(question_of(sighting)).sighting()
    assert (asked.mac, asked.uuid, asked.arch, asked.address) == (*sighting[:3], "10.0.0.9")
    assert asked.via == "site"
    assert dict(asked.details) == {"client_kind": "uefi", "vendor_class": ("PXEClient" + "x" * 300)[:256]}


def test_the_shortest_question() -> None:
    sighting = Sighting(MacAddress.parse("52:54:00:12:34:56"))
    assert Question.model_validate(question_of(sighting)).sighting() == sighting._replace(via="site")
