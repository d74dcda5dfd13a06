"""The six kinds of objects over HTTP, alike: list, look, put, delete."""

from __future__ import annotations

import pytest

from pbserv.policy.model import KINDS
from tests.policy.api.conftest import Served

MAC = "52:54:00:00:00:01"
SAMPLES = {
    "bundle": ("/bundles/b 1", {"kind": "linux", "kernel": "debian/vmlinuz", "initrd": ["debian/initrd.gz"]}),
    "group": ("/groups/lab 1", {"title": "Lab", "folder": "/a", "priority": 5}),
    "folder": ("/folders/a/b c", {"title": "Rooms", "arguments": "quiet"}),
    "assignment": ("/assignments/nightly", {"bundle": "used", "folder": "/", "schedule": "cron 0 2 * * sun"}),
    "rule": ("/rules/old ones", {"bundle": "used", "when": 'manufacturer == "ACME"', "position": 7}),
    "menu": ("/menus/m", {"show": "key", "items": [{"name": "x", "title": "X", "bundle": "used"}], "default": "x"}),
}
NAMES = {
    "bundle": "b 1",
    "group": "lab 1",
    "folder": "/a/b c",
    "assignment": "nightly",
    "rule": "old ones",
    "menu": "m",
}


@pytest.mark.parametrize("kind", KINDS)
async def test_an_object_of_each_kind_lives(served: Served, kind: str) -> None:
    path, fields = SAMPLES[kind]
    await served.make("/bundles/used", kind="local")
    assert (await served.viewer.get(path)).status_code == 404
    made = await served.admin.put(path, json=fields)
    assert (made.status_code, made.headers["ETag"]) == (201, '"1"'), made.text
    told = made.json()
    assert (told["name"], told["revision"]) == (NAMES[kind], 1)
    assert {key: told[key] for key in fields if key != "items"} == {k: v for k, v in fields.items() if k != "items"}
    assert isinstance(told["warnings"], list)
    same = await served.admin.put(path, json=fields)
    assert (same.status_code, same.headers["ETag"]) == (200, '"1"'), "an equal object changes nothing"
    other = await served.admin.put(path, json={**fields, "title": "T"} if kind not in ("assignment", "rule") else
                                   {**fields, "arguments": "T"})  # fmt: skip
    assert (other.status_code, other.headers["ETag"], other.json()["revision"]) == (200, '"2"', 2)
    seen = await served.viewer.get(path, headers={"If-None-Match": 'W/"2"'})
    assert (seen.status_code, seen.content) == (304, b"")
    shown = (await served.viewer.get(path)).json()
    assert shown == {key: value for key, value in other.json().items() if key != "warnings"}
    plural = path.split("/")[1]
    assert NAMES[kind] in [each["name"] for each in (await served.viewer.get(f"/{plural}")).json()]
    assert (await served.admin.delete(path, headers={"If-Match": '"1"'})).status_code == 412
    assert (await served.admin.delete(path, headers={"If-Match": '"2"'})).status_code == 204
    assert (await served.admin.delete(path)).status_code == 404


async def test_conditions_of_a_put(served: Served) -> None:
    path, only_new = "/groups/g", {"If-None-Match": "*"}
    assert (await served.admin.put(path, json={}, headers={"If-Match": '"1"'})).status_code == 412
    assert (await served.admin.put(path, json={}, headers={"If-Match": "*"})).status_code == 412
    assert (await served.admin.put(path, json={}, headers=only_new)).status_code == 201
    there = await served.admin.put(path, json={"title": "b"}, headers=only_new)
    assert (there.status_code, "already" in there.json()["error"]) == (412, True)
    for tag, status in (('"2"', 412), ("nonsense", 412), ('W/"1"', 412), ('"7", "1"', 200), ("*", 200)):
        answer = await served.admin.put(path, json={"title": tag}, headers={"If-Match": tag})
        assert answer.status_code == status, tag
    assert (await served.viewer.get(path)).json()["revision"] == 3


async def test_the_zone_is_written_with_a_tilde(served: Served) -> None:
    await served.make("/folders/~", arguments="zone")
    await served.make("/folders/a", arguments="a")
    assert (await served.viewer.get("/folders/~")).json()["name"] == "/"
    assert [each["name"] for each in (await served.viewer.get("/folders")).json()] == ["/", "/a"]
    assert (await served.viewer.get("/folders/a%2Fb")).status_code == 404
    for wrong in ("", "/a", "a//b", "a/", "%00", "a/%2E%2E/b", "/".join("abcdefghi")):
        answer = await served.admin.put(f"/folders/{wrong}", json={})
        assert answer.status_code == 422, (wrong, answer.text)


@pytest.mark.parametrize(
    ("path", "fields", "words"),
    [
        ("/bundles/x", {}, ["kind"]),
        ("/bundles/x", {"kind": "linux"}, ["kernel"]),
        ("/bundles/x", {"kind": "local", "kernel": "x"}, ["has no kernel"]),
        ("/bundles/x", {"kind": "local", "name": "y"}, ["name", "no such field"]),
        ("/bundles/x", {"kind": "linux", "kernel": "a\0b"}, ["file"]),
        ("/bundles/%00", {"kind": "local"}, ["no name"]),
        ("/bundles/-x", {"kind": "local"}, ["no name"]),
        ("/bundles/" + "x" * 65, {"kind": "local"}, []),
        ("/groups/x", {"folder": "a"}, ["folder"]),
        ("/groups/x", {"priority": "high"}, ["priority"]),
        ("/assignments/x", {"bundle": "none", "folder": "/"}, ["no bundle 'none'"]),
        ("/assignments/x", {"bundle": "used", "group": "none"}, ["no group 'none'"]),
        ("/assignments/x", {"bundle": "used", "device": "zz"}, ["MAC"]),
        ("/assignments/x", {"bundle": "used"}, ["one device, group or folder"]),
        ("/assignments/x", {"bundle": "used", "folder": "/", "schedule": "some day"}, ["schedule"]),
        ("/rules/x", {"bundle": "used", "when": "((("}, ["rule"]),
        ("/rules/x", {"bundle": "none", "when": "mac"}, []),
        ("/menus/x", {"items": [{"name": "a", "title": "A", "bundle": "none"}]}, ["no bundle 'none'"]),
        ("/menus/x", {"items": []}, ["1 to 50"]),
        ("/folders/x", {"menu": "none"}, ["no menu 'none'"]),
    ],
)
async def test_what_cannot_be_is_refused_and_named(
    served: Served, path: str, fields: dict[str, object], words: list[str]
) -> None:
    await served.make("/bundles/used", kind="local")
    answer = await served.admin.put(path, json=fields)
    assert answer.status_code == 422, answer.text
    for word in words:
        assert word in answer.json()["error"]
    assert [each.name for each in await served.registry.documents()] == ["used"]


async def test_an_object_that_is_named_stays(served: Served) -> None:
    await served.make("/bundles/b", kind="local")
    await served.make("/menus/m", items=[{"name": "i", "title": "I", "bundle": "b"}])
    await served.make("/groups/g", folder="/f")
    await served.make("/folders/f", menu="m")
    await served.make("/assignments/a", bundle="b", group="g")
    await served.make("/rules/r", bundle="b", when="manufacturer")
    await served.device(MAC, name="pc", groups=["g"], menu="m", folder="/f")
    for path, users in (
        ("/bundles/b", ["assignment 'a'", "rule 'r'", "menu 'm', item 'i'"]),
        ("/menus/m", ["folder '/f'", MAC]),
        ("/groups/g", ["assignment 'a'", MAC]),
        ("/folders/f", ["group 'g'", MAC]),
    ):
        answer = await served.admin.delete(path)
        assert answer.status_code == 409, path
        for user in users:
            assert user in answer.json()["error"]
    for path in ("/assignments/a", "/rules/r"):
        assert (await served.admin.delete(path)).status_code == 204
    assert served.policy.snapshot.objects.assignments == {}


async def test_the_device_of_an_assignment_is_written_in_one_way(served: Served) -> None:
    await served.make("/bundles/b", kind="local")
    made = await served.make("/assignments/a", bundle="b", device=MAC.upper().replace(":", "-"))
    assert made.json()["device"] == MAC


async def test_what_is_odd_is_said_and_stored(served: Served) -> None:
    await served.make("/bundles/b", kind="local")
    made = await served.make("/rules/r", bundle="b", when='colour == "red"')
    [warning] = made.json()["warnings"]
    assert "colour" in warning
    await served.device(MAC, labels={"colour": "red"})
    assert (await served.make("/rules/r", bundle="b", when='colour == "blue"')).json()["warnings"] == []


async def test_lists_come_in_pages(served: Served) -> None:
    for number in range(5):
        await served.make(f"/groups/g {number}")
    first = await served.viewer.get("/groups?limit=2")
    assert [each["name"] for each in first.json()] == ["g 0", "g 1"]
    second = await served.viewer.get(first.links["next"]["url"].removeprefix("/api/v1"))
    assert [each["name"] for each in second.json()] == ["g 2", "g 3"]
    last = await served.viewer.get(f"/groups?limit=2&after={second.headers['X-Next-Cursor']}")
    assert ([each["name"] for each in last.json()], last.links) == (["g 4"], {})


async def test_an_object_of_a_newer_pbserv_stops_no_other(served: Served) -> None:
    await served.registry.change_documents([("group", "new", '{"colour": "red"}')])
    assert (await served.viewer.get("/groups")).json() == []
    assert (await served.viewer.get("/groups/new")).status_code == 422
    await served.make("/groups/old")
    assert (await served.admin.delete("/groups/new")).status_code == 204


async def test_long_names_of_folders_are_cursors_too(served: Served) -> None:
    for letter in "ab":
        await served.make("/folders/" + "/".join([letter * 64] * 8))
    first = await served.viewer.get("/folders?limit=1")
    second = await served.viewer.get("/folders", params={"limit": 1, "after": first.headers["X-Next-Cursor"]})
    assert [each["name"][1] for each in (*first.json(), *second.json())] == ["a", "b"]
