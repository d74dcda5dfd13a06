"""A whole policy at once: its diff, its application, all or nothing."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.policy.api.conftest import Served

MAC = "52:54:00:00:00:01"
OTHER = "52:54:00:00:00:02"
POLICY: dict[str, Any] = {
    "bundle": {"rescue": {"kind": "linux", "kernel": "k"}, "plain": {"kind": "local"}},
    "menu": {"m": {"items": [{"name": "r", "title": "Rescue", "bundle": "rescue"}]}},
    "group": {"lab": {"folder": "/a"}},
    "folder": {"/a": {"menu": "m"}},
    "assignment": {"lab": {"bundle": "rescue", "group": "lab"}},
    "rule": {"old": {"bundle": "plain", "when": "manufacturer"}},
}


async def exported(served: Served) -> Any:
    return (await served.viewer.get("/export")).json()


def actions(answer: Any) -> list[tuple[str, str, str]]:
    return [(each["action"], each["kind"], each["name"]) for each in answer.json()["changes"]]


async def test_a_policy_is_tried_applied_and_read_back(served: Served) -> None:
    body: dict[str, Any] = {"objects": POLICY, "devices": {MAC.upper(): {"groups": ["lab"], "name": "pc"}}}
    tried = await served.admin.post("/apply", json={**body, "dry_run": True})
    assert tried.status_code == 200, tried.text
    assert tried.json()["applied"] is False
    assert {action for action, _, _ in actions(tried)} == {"create"}
    assert not any((await exported(served)).values())
    done = await served.admin.post("/apply", json=body)
    assert (done.json()["applied"], actions(done)) == (True, actions(tried))
    assert actions(done)[-1] == ("create", "device", MAC)
    assert done.json()["changes"][-1]["after"] == {"groups": ["lab"], "name": "pc"}
    assert await exported(served) == {**{kind: {} for kind in POLICY}, **POLICY}
    assert (await served.registry.device(MAC)).groups == ("lab",)
    again = await served.admin.post("/apply", json={**body, "prune": True})
    assert (again.json()["applied"], {action for action, _, _ in actions(again)}) == (False, {"none"})
    assert {document.revision for document in await served.registry.documents()} == {1}


async def test_prune_deletes_objects_and_never_devices(served: Served) -> None:
    await served.admin.post("/apply", json={"objects": POLICY})
    await served.device(OTHER)
    smaller = {"bundle": {"plain": {"kind": "local", "title": "New"}}}
    kept = await served.admin.post("/apply", json={"objects": smaller})
    assert actions(kept) == [("change", "bundle", "plain")]
    change = kept.json()["changes"][0]
    assert (change["before"], change["after"]) == ({"kind": "local"}, {"kind": "local", "title": "New"})
    pruned = await served.admin.post("/apply", json={"objects": smaller, "prune": True})
    assert ("delete", "bundle", "rescue") in actions(pruned)
    assert {kind: named for kind, named in (await exported(served)).items() if named} == smaller
    assert len(served.policy.snapshot) == 1
    assert list(served.policy.snapshot.objects.bundles) == ["plain"]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"objects": {"bundle": {"a": {"kind": "linux"}, "b": {"kind": "x"}}}}, ["bundle 'a'", "bundle 'b'"]),
        ({"objects": {"bundle": {"\0": {"kind": "local"}}}}, ["no name"]),
        ({"objects": {"bundle": {"a": {"kind": "local", "\ud800": 1}}}}, ["bundle 'a'"]),
        ({"objects": {"assignment": {"a": {"bundle": "none", "folder": "/"}}}}, ["no bundle 'none'"]),
        ({"objects": {"colour": {}}}, ["colour"]),
        ({"objects": {}, "prune": True}, [MAC, "no group 'lab'"]),
        ({"devices": {MAC: {"groups": ["none"]}}}, [MAC, "no group 'none'"]),
        ({"devices": {OTHER: {"menu": "none"}}}, [OTHER, "no menu 'none'"]),
        ({"devices": {"zz": {}}}, ["zz"]),
        ({"devices": {MAC: {"colour": 1}}}, ["colour"]),
        ({"objects": {"group": {"new": {}}}, "devices": {OTHER: {"groups": ["new", "old"]}}}, ["no group 'old'"]),
    ],
)
async def test_one_fault_and_nothing_is_changed(served: Served, body: dict[str, Any], words: list[str]) -> None:
    await served.make("/groups/lab")
    await served.device(MAC, groups=["lab"])
    answer = await served.admin.post("/apply", content=json.dumps(body), headers={"Content-Type": "application/json"})
    assert answer.status_code == 422, answer.text
    for word in words:
        assert word in answer.json()["error"]
    assert [each.name for each in await served.registry.documents()] == ["lab"]
    assert len(await served.registry.devices()) == 1


async def test_devices_may_leave_what_is_pruned(served: Served) -> None:
    await served.make("/groups/lab")
    await served.device(MAC, groups=["lab"])
    answer = await served.admin.post("/apply", json={"devices": {MAC: {"groups": []}}, "prune": True})
    assert actions(answer) == [("delete", "group", "lab"), ("change", "device", MAC)]
    assert (await served.registry.device(MAC)).groups == ()


async def test_two_addresses_of_one_device_are_refused(served: Served) -> None:
    await served.device(MAC)
    await served.device(OTHER)
    await served.operator.post(f"/devices/{MAC}/join", json={"mac": OTHER})
    answer = await served.admin.post("/apply", json={"devices": {MAC: {"name": "a"}, OTHER: {"name": "b"}}})
    assert (answer.status_code, "one device" in answer.json()["error"]) == (422, True)
    one = await served.admin.post("/apply", json={"devices": {OTHER: {"name": "b"}}})
    assert (one.json()["applied"], (await served.registry.device(MAC)).name) == (True, "b")


async def test_what_was_wrong_before_stops_nothing(served: Served) -> None:
    await served.registry.change_documents([("assignment", "a", '{"bundle": "gone", "folder": "/"}')])
    answer = await served.admin.post("/apply", json={"objects": {"group": {"g": {}}}})
    assert (answer.status_code, answer.json()["applied"]) == (200, True)
