"""Devices over HTTP: who they are, who may boot, what is said of them."""

from __future__ import annotations

import json

import pytest

from pbserv.registry.records import DeviceState
from pbserv.types import ClientArch, MacAddress, Sighting
from tests.policy.api.conftest import Served

MAC = "52:54:00:00:00:01"
OTHER = "52:54:00:00:00:02"
JSON = {"Content-Type": "application/json"}


async def test_a_device_that_was_seen_is_shown_with_all_that_is_known(served: Served) -> None:
    served.policy.decide(Sighting(MacAddress.parse(MAC), None, ClientArch(7), "dhcp", "10.0.0.7"))
    [device] = (await served.viewer.get("/devices")).json()
    assert (device["mac"], device["state"], device["arch_name"], device["address"]) == (
        MAC, "pending", "UEFI x64", "10.0.0.7",
    )  # fmt: skip
    history = (await served.viewer.get(f"/devices/{MAC}/history")).json()
    assert [event["what"] for event in history] == ["registered", "asked by dhcp"]


async def test_a_device_is_created_changed_and_forgotten(served: Served) -> None:
    await served.make("/groups/lab 1")
    made = await served.operator.post("/devices", json={"mac": MAC.upper().replace(":", "-"), "name": "pc-1"})
    assert (made.status_code, made.json()["mac"], made.json()["state"]) == (201, MAC, "known")
    again = await served.operator.post("/devices", json={"mac": MAC})
    assert (again.status_code, again.json()["error"]) == (409, f"there is a device {MAC} already")
    changed = await served.operator.patch(
        f"/devices/{MAC}",
        json={"serial": "S1", "folder": "/a/b", "groups": ["lab 1"], "labels": {"room": "5"}, "menu": "default",
              "loader": "shim/shimx64.efi", "arguments": "quiet"},
    )  # fmt: skip
    told = changed.json()
    assert changed.status_code == 200, told
    assert (told["name"], told["serial"], told["folder"], told["groups"], told["labels"]) == (
        "pc-1", "S1", "/a/b", ["lab 1"], {"room": "5"},
    )  # fmt: skip
    assert (told["menu"], told["loader"], told["arguments"]) == ("default", "shim/shimx64.efi", "quiet")
    cleared = await served.operator.patch(f"/devices/{MAC}", json={"groups": [], "name": "", "serial": None})
    assert (cleared.json()["groups"], cleared.json()["name"], cleared.json()["serial"]) == ([], "", "S1")
    assert (await served.operator.delete(f"/devices/{MAC}")).status_code == 403
    assert (await served.admin.delete(f"/devices/{MAC}")).status_code == 204
    assert (await served.viewer.get(f"/devices/{MAC}")).status_code == 404
    assert served.policy.snapshot.device(MAC) is None


@pytest.mark.parametrize(
    ("body", "word"),
    [
        ({"groups": ["nowhere"]}, "group 'nowhere'"),
        ({"menu": "nothing"}, "menu 'nothing'"),
        ({"folder": "a"}, "no folder"),
        ({"labels": {"Room": "5"}}, "'Room'"),
        ({"labels": {"room": "5\n"}}, None),
        ({"labels": {"room": "a\nb"}}, "printable"),
        ({"name": "a\0b"}, "printable"),
        ({"name": "\ud800"}, "name"),
        ({"loader": "../x"}, "loader"),
        ({"loader": "http://x/y"}, "loader"),
        ({"state": "known"}, "state"),
        ({"\ud800": 1}, "string"),
        ({"nam\u00e9": 1}, "there is no such field"),
        ({"serial": "x" * 129}, "128"),
        ([], ""),
    ],
)
async def test_what_cannot_be_is_refused_and_named(served: Served, body: object, word: str | None) -> None:
    await served.device(MAC)
    answer = await served.operator.patch(f"/devices/{MAC}", content=json.dumps(body), headers=JSON)
    assert answer.status_code == (200 if word is None else 422), answer.text
    assert word is None or word.lower() in answer.json()["error"].lower()


@pytest.mark.parametrize(
    "body", [b"{", b"\xff", b'{"a":' * 5000, b'{"name": ' + b"9" * 5000 + b"}", b'{"name": 1e999}', b"NaN"]
)
async def test_a_body_that_is_none_is_refused(served: Served, body: bytes) -> None:
    answer = await served.operator.patch(f"/devices/{MAC}", content=body, headers=JSON)
    assert answer.status_code == 422, answer.text
    without = await served.nobody.patch(f"/devices/{MAC}", content=body, headers=JSON)
    assert without.status_code == 401, "nobody learns what is wrong with a body without a token"


async def test_no_address_of_a_device_is_refused(served: Served) -> None:
    for wrong in ("nonsense", "01:00:5e:00:00:01", "00:00:00:00:00:00", "52:54:00:00:00", "%00", "52:54:00:00:00:0%00"):
        answer = await served.viewer.get(f"/devices/{wrong}")
        assert answer.status_code == 422, (wrong, answer.text)


async def test_any_spelling_and_any_address_of_a_device_names_it(served: Served) -> None:
    await served.device(MAC)
    await served.device(OTHER, name="second")
    joined = await served.operator.post(f"/devices/{MAC}/join", json={"mac": OTHER})
    assert joined.json()["macs"] == [OTHER]
    for spelled in ("5254.0000.0002", OTHER.upper(), "525400000002", "52-54-00-00-00-01"):
        assert (await served.viewer.get(f"/devices/{spelled}")).json()["mac"] == MAC
    assert [d["mac"] for d in (await served.viewer.get("/devices")).json()] == [MAC]
    assert list(served.policy.snapshot.devices) == [MAC]
    taken = await served.operator.post("/devices", json={"mac": OTHER})
    assert (taken.status_code, "further address" in taken.json()["error"]) == (409, True)
    twice = await served.operator.post(f"/devices/{MAC}/join", json={"mac": OTHER})
    assert twice.status_code == 409
    made = await served.operator.post(f"/devices/{OTHER}/split", json={"mac": OTHER})
    assert (made.json()["mac"], made.json()["state"]) == (OTHER, "pending")
    assert served.policy.snapshot.device(OTHER) is not None
    assert (await served.operator.post(f"/devices/{MAC}/split", json={"mac": OTHER})).status_code == 409


async def test_accept_deny_and_retire(served: Served) -> None:
    assert (await served.operator.post(f"/devices/{MAC}/retire")).status_code == 404
    accepted = await served.operator.post(f"/devices/{MAC}/accept", json={"name": "desk"})
    assert (accepted.json()["state"], accepted.json()["name"]) == ("known", "desk")
    for way, state in (("deny", "denied"), ("accept", "known"), ("retire", "retired")):
        assert (await served.operator.post(f"/devices/{MAC}/{way}")).json()["state"] == state
    assert (await served.registry.device(MAC)).state is DeviceState.RETIRED
    history = (await served.viewer.get(f"/devices/{MAC}/history")).json()
    assert [event["detail"] for event in history if event["what"] == "state"] == [
        f"{state} by an administrator" for state in ("known", "denied", "known", "retired")
    ]


async def test_a_change_falls_on_the_state_that_it_was_made_for(served: Served) -> None:
    await served.device(MAC)
    first = await served.viewer.get(f"/devices/{MAC}")
    tag = first.headers["ETag"]
    assert (await served.viewer.get(f"/devices/{MAC}", headers={"If-None-Match": tag})).status_code == 304
    changed = await served.operator.patch(f"/devices/{MAC}", json={"name": "a"}, headers={"If-Match": tag})
    assert changed.headers["ETag"] != tag
    late = await served.operator.patch(f"/devices/{MAC}", json={"name": "b"}, headers={"If-Match": tag})
    assert late.status_code == 412
    assert (await served.admin.delete(f"/devices/{MAC}", headers={"If-Match": tag})).status_code == 412
    stale = await served.viewer.get(f"/devices/{MAC}", headers={"If-None-Match": tag})
    assert (stale.status_code, stale.json()["name"]) == (200, "a")
    assert stale.headers["ETag"] == changed.headers["ETag"]
    several = f'"x", {changed.headers["ETag"]}'
    assert (await served.admin.delete(f"/devices/{MAC}", headers={"If-Match": several})).status_code == 204


async def test_lists_come_in_pages_that_lead_to_each_other(served: Served) -> None:
    macs = [f"52:54:00:00:01:{number:02x}" for number in range(7)]
    for mac in macs:
        await served.device(mac, name=f"é {mac[-2:]}", folder="/a b/c")
    found, path = [], "/devices?limit=3&folder=/a%20b&text=%C3%A9"
    while path:
        answer = await served.viewer.get(path)
        page = [device["mac"] for device in answer.json()]
        assert 0 < len(page) <= 3
        found += page
        link = answer.links.get("next", {}).get("url", "")
        assert answer.headers.get("X-Next-Cursor", "") == (page[-1] if link else "")
        path = link.removeprefix("/api/v1")
    assert found == macs
    assert (await served.viewer.get("/devices?limit=7")).links == {}
    for wrong in ("limit=0", "limit=1001", "limit=x", "state=odd", "folder=a", "text=%00", "after=%00", "group=%00"):
        assert (await served.viewer.get(f"/devices?{wrong}")).status_code == 422, wrong


async def test_lists_are_filtered(served: Served) -> None:
    await served.make("/groups/lab")
    await served.device(MAC, name="alpha", groups=["lab"], folder="/x")
    await served.device(OTHER, name="beta", state="pending")
    for query, expected in (
        ("state=pending", [OTHER]), ("group=lab", [MAC]), ("text=ALPH", [MAC]), ("text=%25", []), ("folder=/x", [MAC]),
        ("text=00:02", [OTHER]), ("state=known&text=beta", []),
    ):  # fmt: skip
        assert [d["mac"] for d in (await served.viewer.get(f"/devices?{query}")).json()] == expected, query


async def test_the_members_of_a_group_change_all_at_once_or_not_at_all(served: Served) -> None:
    await served.make("/groups/lab 1")
    await served.device(MAC)
    await served.device(OTHER, groups=["lab 1"])
    strange = "52:54:00:00:00:99"
    missing = await served.operator.post("/groups/lab 1/members", json={"add": [MAC, strange]})
    assert (missing.status_code, strange in missing.json()["error"]) == (404, True)
    assert (await served.registry.device(MAC)).groups == ()
    done = await served.operator.post("/groups/lab 1/members", json={"add": [MAC.upper()], "remove": [OTHER]})
    assert done.json() == {"group": "lab 1", "added": [MAC], "removed": [OTHER]}
    again = await served.operator.post("/groups/lab 1/members", json={"add": [MAC], "remove": [OTHER]})
    assert again.json() == {"group": "lab 1", "added": [], "removed": []}
    assert [d["mac"] for d in (await served.viewer.get("/groups/lab 1/members")).json()] == [MAC]
    both = await served.operator.post("/groups/lab 1/members", json={"add": [MAC], "remove": [MAC]})
    assert both.status_code == 422
    assert (await served.operator.post("/groups/other/members", json={"add": [MAC]})).status_code == 404
    assert (await served.viewer.get("/groups/%00/members")).status_code == 422
