"""One-shot work over HTTP: of images and of bundles, for devices and groups."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from pbserv.policy.orders import bundle_of
from pbserv.registry.records import BundleKind, WorkState
from tests.policy.api.conftest import Served

MAC = "52:54:00:00:00:01"
OTHER = "52:54:00:00:00:02"
THIRD = "52:54:00:00:00:03"


async def test_work_of_an_image(served: Served) -> None:
    await served.device(MAC)
    made = await served.operator.post(
        "/work", json={"mac": MAC.upper(), "kind": "capture", "image": "debian", "target_disk": "/dev/sda",
                       "finish": "poweroff", "expires": "8h", "retries": 3},
    )  # fmt: skip
    assert made.status_code == 201, made.text
    work = made.json()["work"]
    assert (work["mac"], work["kind"], work["image"], work["state"], work["retries"]) == (
        MAC, "capture", "debian", "queued", 3,
    )  # fmt: skip
    left = datetime.fromisoformat(work["expires"]) - datetime.now(UTC)
    assert timedelta(hours=7, minutes=59) < left <= timedelta(hours=8)
    assert "pbserv client build" in made.json()["warnings"][0]
    assert (await served.viewer.get(f"/work/{work['id']}")).json() == work
    assert (await served.viewer.get(f"/devices/{MAC}")).json()["work"] == work
    second = await served.operator.post("/work", json={"mac": MAC, "kind": "capture", "image": "other"})
    assert (second.status_code, f"work cancel {work['id']}" in second.json()["error"]) == (409, True)
    assert (await served.operator.post(f"/work/{work['id']}/cancel")).json()["state"] == "cancelled"
    assert (await served.operator.post(f"/work/{work['id']}/cancel")).status_code == 409
    assert (await served.operator.post(f"/work/{work['id']}/retry")).json()["state"] == "queued"
    assert (await served.operator.post(f"/work/{work['id']}/retry")).status_code == 409
    for number in ("0", "99999999999999999999", "x", "-1"):
        assert (await served.operator.post(f"/work/{number}/cancel")).status_code == 422
    assert (await served.viewer.get("/work/77")).status_code == 404


async def test_work_of_a_bundle_keeps_what_the_bundle_was(served: Served) -> None:
    await served.make("/bundles/rescue", kind="linux", kernel="k", arguments="one", retries=2)
    await served.device(MAC)
    made = await served.operator.post("/work", json={"mac": MAC, "bundle": "rescue"})
    work = made.json()["work"]
    assert (work["bundle"], work["kind"], work["retries"], work["expires"]) == ("rescue", "linux", 2, None)
    assert made.json()["warnings"] == [], "no imaging client is needed"
    await served.make("/bundles/rescue", kind="linux", kernel="k", arguments="two")
    kept = bundle_of(await served.registry.work(work["id"]))
    assert (kept.kind, kept.arguments) == (BundleKind.LINUX, "one")
    assert (await served.viewer.get(f"/explain?mac={MAC}")).json()["work"]["id"] == work["id"]


async def test_work_for_a_group_is_for_all_that_are_in_it_now(served: Served) -> None:
    await served.make("/groups/lab")
    await served.make("/bundles/memory", kind="memtest")
    empty = await served.operator.post("/work", json={"group": "lab", "bundle": "memory"})
    assert (empty.status_code, "no device" in empty.json()["error"]) == (409, True)
    for mac in (MAC, OTHER, THIRD):
        await served.device(mac, groups=["lab"])
    await served.operator.post(f"/devices/{THIRD}/deny")
    await served.operator.post("/work", json={"mac": OTHER, "bundle": "memory"})
    made = (await served.operator.post("/work", json={"group": "lab", "bundle": "memory", "retries": 1})).json()
    assert [(work["mac"], work["retries"]) for work in made["work"]] == [(MAC, 1)]
    assert set(made["refusals"]) == {OTHER, THIRD}
    assert "denied" in made["refusals"][THIRD]
    again = await served.operator.post("/work", json={"group": "lab", "bundle": "memory"})
    assert (again.status_code, OTHER in again.json()["error"]) == (409, True)
    assert (await served.operator.post("/work", json={"group": "none", "bundle": "memory"})).status_code == 404


@pytest.mark.parametrize(
    ("body", "status", "word"),
    [
        ({"kind": "capture", "image": "x"}, 422, "mac or group"),
        ({"mac": MAC, "group": "lab", "kind": "capture", "image": "x"}, 422, "mac or group"),
        ({"mac": MAC}, 422, "bundle"),
        ({"mac": MAC, "kind": "explode", "image": "x"}, 422, "kind"),
        ({"mac": MAC, "kind": "script", "image": "x"}, 422, "kind"),
        ({"mac": MAC, "kind": "capture"}, 422, "image"),
        ({"mac": MAC, "kind": "capture", "image": "../x"}, 400, "name"),
        ({"mac": MAC, "kind": "capture", "image": "a\0b"}, 422, "printable"),
        ({"mac": MAC, "kind": "restore", "image": "none"}, 404, "pbserv image list"),
        ({"mac": MAC, "kind": "multicast", "image": "none"}, 404, "pbserv image list"),
        ({"mac": MAC, "kind": "restore", "image": "x", "overwrite": True}, 422, "overwrite"),
        ({"mac": MAC, "kind": "capture", "image": "x", "target_disk": "a'; reboot"}, 422, "target_disk"),
        ({"mac": MAC, "bundle": "none"}, 404, "none"),
        ({"mac": MAC, "bundle": "plain"}, 422, "assign"),
        ({"mac": MAC, "bundle": "memory", "image": "x"}, 422, "image"),
        ({"mac": MAC, "bundle": "memory", "retries": 101}, 422, "retries"),
        ({"mac": MAC, "bundle": "memory", "expires": "tomorrow"}, 422, "expires"),
        ({"mac": MAC, "bundle": "memory", "expires": "2030-01-01T00:00:00"}, 422, "zone"),
        ({"mac": MAC, "bundle": "memory", "expires": "2001-01-01T00:00:00Z"}, 422, "366 days"),
        ({"mac": MAC, "bundle": "memory", "expires": "0001-01-01T00:00:00+23:59"}, 422, "too far"),
        ({"mac": MAC, "bundle": "memory", "expires": "99999w"}, 422, "366 days"),
        ({"mac": "52:54:00:00:00:77", "bundle": "memory"}, 404, "pbserv device accept"),
        ({"group": "lab", "kind": "capture", "image": "x"}, 422, "one device"),
    ],
)
async def test_work_that_could_only_fail_is_refused(
    served: Served, body: dict[str, object], status: int, word: str
) -> None:
    await served.make("/groups/lab")
    await served.make("/bundles/plain", kind="local")
    await served.make("/bundles/memory", kind="memtest")
    await served.device(MAC)
    answer = await served.operator.post("/work", json=body)
    assert (answer.status_code, word in answer.json()["error"]) == (status, True), answer.text
    assert await served.registry.works(everything=True) == []


async def test_lists_of_work_and_jobs_come_in_pages(served: Served) -> None:
    await served.make("/bundles/memory", kind="memtest")
    for number in range(5):
        mac = f"52:54:00:00:02:{number:02x}"
        await served.device(mac)
        work = (await served.operator.post("/work", json={"mac": mac, "bundle": "memory"})).json()["work"]
        await served.registry.start_job(work["id"], "10.0.0.1", None)
    for path in ("/work", "/jobs"):
        first = await served.viewer.get(f"{path}?limit=3")
        rest = await served.viewer.get(first.links["next"]["url"].removeprefix("/api/v1"))
        numbers = [each["id"] for each in (*first.json(), *rest.json())]
        assert numbers == sorted(numbers, reverse=True)
        assert (len(numbers), rest.links) == (5, {})
    [job] = (await served.viewer.get("/jobs?mac=5254.0000.0204")).json()
    await served.registry.finish_work(job["work_id"], ok=True, reason="")
    assert len((await served.viewer.get("/work")).json()) == 4
    everything = (await served.viewer.get("/work?everything=true")).json()
    assert [work["state"] for work in everything].count(WorkState.DONE) == 1


async def test_held_work_is_listed_until_somebody_decides(served: Served) -> None:
    await served.device(MAC)
    await served.make("/bundles/memory", kind="memtest")
    work = (await served.operator.post("/work", json={"mac": MAC, "bundle": "memory"})).json()["work"]
    await served.registry.finish_work(work["id"], ok=False, reason="no disk")
    [held] = (await served.viewer.get("/work")).json()
    assert (held["state"], held["reason"]) == ("held", "no disk")
    assert (await served.operator.post(f"/work/{held['id']}/cancel")).json()["state"] == "cancelled"
    assert (await served.viewer.get("/work")).json() == []
    assert (await served.operator.post(f"/work/{held['id']}/cancel")).status_code == 409


async def test_a_time_that_is_none_says_what_to_write(served: Served) -> None:
    await served.device(MAC)
    await served.make("/bundles/memory", kind="memtest")
    refused = await served.operator.post("/work", json={"mac": MAC, "bundle": "memory", "expires": "3x"})
    assert (refused.status_code, "'3x' is no time; write 8h" in refused.json()["error"]) == (422, True)
