"""Image-safe data over HTTP: said by people, filled from pools, served to clients and installed systems."""

from __future__ import annotations

import asyncio
import shlex

import httpx
import pytest

from pbserv.registry.options import WorkOptions
from pbserv.registry.records import BundleKind, WorkState
from pbserv.registry.registry import WorkOrder
from pbserv.registry.tokens import WorkTokens
from tests.policy.api.conftest import Served

A, B, C = (f"52:54:00:00:00:0{number}" for number in (1, 2, 3))
LAB = {
    "pattern": "lab{n:02}", "last": 2, "network": "10.1.0.0/24", "addresses": "10.1.0.10-10.1.0.19",
    "gateway": "10.1.0.1", "dns": ["10.1.0.2"], "domain": "school.example", "folder": "/labs",
}  # fmt: skip


def of(mac: str) -> str:
    return f"/devices/{mac}/identity"


@pytest.fixture
async def devices(served: Served) -> Served:
    for mac in (A, B, C):
        await served.device(mac, folder="/labs/1")
    return served


async def restore(served: Served, mac: str, **options: object) -> tuple[int, dict[str, str]]:
    """A restore that runs: its number, and the header of its work's token."""
    work = await served.registry.add_work(
        WorkOrder(mac, BundleKind.RESTORE, "debian", options=WorkOptions(**options))  # type: ignore[arg-type]
    )
    job = await served.registry.start_job(work.id, "127.0.0.1", 3)
    return job.id, {"Authorization": f"Bearer {WorkTokens(b's' * 32).issue(work.id)}"}


async def client(served: Served, method: str, path: str, **more: object) -> httpx.Response:
    return await served.nobody.request(method, f"http://test/client/v1{path}", **more)  # type: ignore[arg-type]


def read(text: str) -> dict[str, str]:
    lines = [line.partition("=") for line in text.splitlines() if not line.startswith("#")]
    return {key: "".join(shlex.split(value)) for key, _, value in lines}


async def test_an_identity_is_said_seen_and_cleared(devices: Served) -> None:
    empty = await devices.viewer.get(of(A))
    assert (empty.status_code, empty.json()["hostname"], empty.json()["sources"]) == (200, "", {})
    said = await devices.operator.put(of(A), json={"hostname": "pc1", "address": "10.0.0.7", "netmask": "24"})
    assert said.status_code == 200, said.text
    assert (said.json()["netmask"], said.json()["sources"]["address"]) == ("255.255.255.0", "administrator")
    changed = await devices.operator.patch(of(A), json={"dhcp": True, "workgroup": "LAB"})
    assert {name: changed.json()[name] for name in ("hostname", "dhcp", "address", "workgroup")} == {
        "hostname": "pc1", "dhcp": True, "address": "", "workgroup": "LAB"
    }  # fmt: skip
    assert (await devices.viewer.get(of(A.upper().replace(":", "-")))).json() == changed.json()
    assert (await devices.operator.delete(of(A))).status_code == 204
    assert (await devices.viewer.get(of(A))).json() == empty.json()
    told = [each["detail"] for each in (await devices.viewer.get(f"/devices/{A}/history")).json()]
    assert "changed by an administrator: hostname pc1, address 10.0.0.7" in told
    assert "cleared by an administrator" in told


async def test_a_change_names_the_state_that_it_was_made_for(devices: Served) -> None:
    tag = (await devices.viewer.get(of(A))).headers["ETag"]
    assert (await devices.viewer.get(of(A), headers={"If-None-Match": tag})).status_code == 304
    changed = await devices.operator.patch(of(A), json={"hostname": "pc1"}, headers={"If-Match": tag})
    assert (changed.status_code, changed.headers["ETag"] != tag) == (200, True)
    for method, body in (("PATCH", {"hostname": "pc2"}), ("PUT", {}), ("DELETE", None)):
        late = await devices.operator.request(method, of(A), json=body, headers={"If-Match": tag})
        assert (late.status_code, "was changed since" in late.text) == (412, True)
    assert (await devices.viewer.get(of(A))).json()["hostname"] == "pc1"


async def test_what_is_wrong_is_said(devices: Served) -> None:
    for body, words in (
        ({"hostname": "a.b"}, "domain stands apart"), ({"address": "10.0.0.7"}, "netmask is missing"),
        ({"colour": "red"}, "no such field"), ({"dhcp": True, "address": "10.0.0.7", "netmask": "8"}, "exclude"),
    ):  # fmt: skip
        refused = await devices.operator.patch(of(A), json=body)
        assert (refused.status_code, words in refused.json()["error"]) == (422, True), refused.text
    for method in ("GET", "PUT", "PATCH", "DELETE"):
        body = {} if method in ("PUT", "PATCH") else None
        missing = await devices.operator.request(method, of("52:54:00:00:00:99"), json=body)
        assert (missing.status_code, "pbserv device list" in missing.text) == (404, True)


async def test_two_devices_never_have_one_name(devices: Served) -> None:
    await devices.operator.patch(of(A), json={"hostname": "PC1", "address": "10.0.0.7", "netmask": "24"})
    for body in ({"hostname": "pc1"}, {"address": "10.0.0.7", "netmask": "24"}):
        refused = await devices.operator.patch(of(B), json=body)
        assert (refused.status_code, f"is that of device {A}" in refused.json()["error"]) == (409, True)
    await devices.operator.patch(of(A), json={"hostname": ""})
    assert (await devices.operator.patch(of(B), json={"hostname": "pc1"})).status_code == 200


async def test_pools_are_made_changed_and_deleted(devices: Served) -> None:
    made = await devices.admin.put("/pools/lab", json=LAB, headers={"If-None-Match": "*"})
    assert (made.status_code, made.json()["revision"], made.json()["pattern"]) == (201, 1, "lab{n:02}")
    assert (await devices.admin.put("/pools/lab", json=LAB, headers={"If-None-Match": "*"})).status_code == 412
    changed = await devices.admin.put("/pools/lab", json={**LAB, "last": 3}, headers={"If-Match": made.headers["ETag"]})
    assert (changed.status_code, changed.json()["revision"]) == (200, 2)
    stale = await devices.admin.put("/pools/lab", json=LAB, headers={"If-Match": made.headers["ETag"]})
    assert stale.status_code == 412
    (listed,) = (await devices.viewer.get("/pools")).json()
    assert (listed["name"], listed["given"], listed["names"], listed["hosts"]) == ("lab", 0, 3, 10)
    assert (await devices.viewer.get("/pools/lab")).json() == listed
    assert (await devices.admin.put("/pools/x", json={"pattern": "x"})).status_code == 422
    assert (await devices.admin.put("/pools/x", json={"group": "none"})).status_code == 422
    assert (await devices.admin.delete("/pools/lab", headers={"If-Match": '"1"'})).status_code == 412
    assert (await devices.admin.delete("/pools/lab")).status_code == 204
    assert (await devices.viewer.get("/pools/lab")).status_code == 404


async def test_who_may(devices: Served) -> None:
    assert (await devices.viewer.patch(of(A), json={})).status_code == 403
    assert (await devices.viewer.post(f"{of(A)}/just-imaged")).status_code == 403
    assert (await devices.operator.put("/pools/lab", json=LAB)).status_code == 403
    assert (await devices.operator.delete("/pools/lab")).status_code == 403
    for caller in (devices.nobody,):
        assert (await caller.get(of(A))).status_code == (await caller.get("/pools")).status_code == 401


async def test_missing_values_are_given_when_the_client_asks(devices: Served) -> None:
    await devices.make("/pools/lab", **LAB)
    assert (await devices.viewer.get(of(A))).json()["lacking"] == ["hostname", "address"]
    job, token = await restore(devices, A)
    told = await client(devices, "GET", f"/jobs/{job}/identity", headers=token)
    assert told.status_code == 200, told.text
    values = read(told.text)
    assert {name: values[name] for name in ("HOSTNAME", "DOMAIN", "DHCP", "ADDRESS", "NETMASK", "GATEWAY", "DNS")} == {
        "HOSTNAME": "lab01", "DOMAIN": "school.example", "DHCP": "0", "ADDRESS": "10.1.0.10",
        "NETMASK": "255.255.255.0", "GATEWAY": "10.1.0.1", "DNS": "10.1.0.2",
    }  # fmt: skip
    assert (values["MAC"], values["IMAGE"], values["VERSION"], values["JUST_IMAGED"]) == (A, "debian", "3", "1")
    again = await client(devices, "GET", f"/jobs/{job}/identity?form=linux", headers=token)
    assert read(again.text) == values
    assert again.text.startswith("#")
    windows = await client(devices, "GET", f"/jobs/{job}/identity?form=windows", headers=token)
    assert "\r\nHOSTNAME=lab01\r\n" in windows.text
    view = (await devices.viewer.get(of(A))).json()
    assert (view["sources"]["hostname"], view["lacking"], view["just_imaged"]) == ("pool lab", [], False)
    given = (await devices.viewer.get("/pools/lab/values")).json()
    assert [(each["value"], each["mac"]) for each in given] == [("10.1.0.10", A), ("lab01", A)]


async def test_the_token_of_one_job_opens_no_other(devices: Served) -> None:
    job, token = await restore(devices, A)
    other, _ = await restore(devices, B)
    refused = await client(devices, "GET", f"/jobs/{other}/identity", headers=token)
    assert (refused.status_code, refused.text) == (409, f"error: job {other} belongs to other work\n")
    for headers in ({}, {"Authorization": "Bearer admin"}):
        assert (await client(devices, "GET", f"/jobs/{job}/identity", headers=headers)).status_code == 401


async def test_devices_that_ask_together_get_different_names_until_there_is_none(devices: Served) -> None:
    await devices.make("/pools/lab", **LAB)
    jobs = [await restore(devices, mac) for mac in (A, B, C)]
    answers = await asyncio.gather(*(client(devices, "GET", f"/jobs/{job}/identity", headers=t) for job, t in jobs))
    told = sorted(read(each.text)["HOSTNAME"] for each in answers if each.status_code == 200)
    assert told == ["lab01", "lab02"]
    (refused,) = [each for each in answers if each.status_code != 200]
    assert refused.status_code == 409
    assert "pool 'lab' is used up; give it more: pbserv pool set 'lab' --last N" in refused.text


async def test_a_restore_sets_the_flag_and_the_installed_system_clears_it(devices: Served) -> None:
    await devices.make("/pools/lab", **LAB)
    job, token = await restore(devices, A)
    values = read((await client(devices, "GET", f"/jobs/{job}/identity", headers=token)).text)
    form, own = {"mac": values["MAC"]}, {"Authorization": f"Bearer {values['TOKEN']}"}
    before = await client(devices, "POST", "/identity", data=form, headers=own)
    assert read(before.text)["JUST_IMAGED"] == "0"
    await devices.registry.finish_job(job, ok=True, reason="")
    view = (await devices.viewer.get(of(A))).json()
    assert (view["just_imaged"], view["image"], view["version"]) == (True, "debian", 3)
    now = await client(devices, "POST", "/identity", data={**form, "form": "linux"}, headers=own)
    assert (read(now.text)["JUST_IMAGED"], read(now.text)["HOSTNAME"]) == ("1", "lab01")
    for _ in range(2):
        done = await client(devices, "POST", "/identity/done", data=form, headers=own)
        assert (done.status_code, done.text) == (200, "OK\n")
    assert (await devices.viewer.get(of(A))).json()["just_imaged"] is False
    told = [each["detail"] for each in (await devices.viewer.get(f"/devices/{A}/history")).json()]
    assert told.count("just imaged: cleared by the installed system") == 1


async def test_what_does_not_set_the_flag(devices: Served) -> None:
    job, _ = await restore(devices, A, dry_run=True)
    await devices.registry.finish_job(job, ok=True, reason="")
    failed, _ = await restore(devices, B)
    await devices.registry.finish_job(failed, ok=False, reason="disk")
    for mac in (A, B):
        assert (await devices.viewer.get(of(mac))).json()["just_imaged"] is False
    assert (await devices.registry.job(failed)).state is WorkState.FAILED


async def test_a_token_of_an_installed_system_opens_its_own_identity_alone(devices: Served) -> None:
    job, token = await restore(devices, A)
    own = read((await client(devices, "GET", f"/jobs/{job}/identity", headers=token)).text)["TOKEN"]
    for mac, wrong in (
        (B, own),
        (A, own[:-1] + "x"),
        ("x", own),
        ("", own),
        (A, "admin"),
        (A, token["Authorization"][7:]),
    ):
        for path in ("/identity", "/identity/done"):
            headers = {"Authorization": f"Bearer {wrong}"}
            refused = await client(devices, "POST", path, data={"mac": mac}, headers=headers)
            assert refused.status_code == 401, refused.text
    assert (await devices.nobody.get(of(A), headers={"Authorization": f"Bearer {own}"})).status_code == 401
    await devices.registry.cancel_work((await devices.registry.device(A)).work.id)  # type: ignore[union-attr]
    await devices.registry.forget(A)
    gone = await client(devices, "POST", "/identity/done", data={"mac": A}, headers={"Authorization": f"Bearer {own}"})
    assert (gone.status_code, "not registered any more" in gone.text) == (404, True)


async def test_the_flag_by_hand(devices: Served) -> None:
    for body, wanted in ((None, True), ({"set": False}, False), ({"set": True}, True)):
        answer = await devices.operator.post(f"{of(A)}/just-imaged", json=body)
        assert (answer.status_code, answer.json()["just_imaged"]) == (200, wanted)


async def test_filled_by_hand_and_given_back_when_retired(devices: Served) -> None:
    await devices.make("/pools/lab", **LAB)
    assert (await devices.operator.post(f"{of(A)}/fill")).json()["hostname"] == "lab01"
    refused = await devices.admin.delete("/pools/lab")
    assert (refused.status_code, "--release" in refused.text) == (409, True)
    await devices.operator.post(f"/devices/{A}/retire")
    assert (await devices.viewer.get(of(A))).json()["hostname"] == ""
    retired = await devices.operator.post(f"{of(A)}/fill")
    assert (retired.status_code, "is retired" in retired.text) == (409, True)
    assert (await devices.operator.post(f"{of(B)}/fill")).json()["hostname"] == "lab01"
    assert (await devices.admin.delete("/pools/lab", params={"release": True})).status_code == 204
    assert (await devices.viewer.get(of(B))).json()["hostname"] == ""


async def test_what_an_administrator_says_takes_the_place_of_what_a_pool_gave(devices: Served) -> None:
    await devices.make("/pools/lab", **LAB)
    await devices.operator.post(f"{of(A)}/fill")
    mine = await devices.operator.patch(of(A), json={"hostname": "lab01", "dhcp": True})
    assert (mine.json()["sources"]["hostname"], mine.json()["address"]) == ("administrator", "")
    given = (await devices.viewer.get("/pools/lab/values")).json()
    assert given == []
    assert (await devices.operator.post(f"{of(B)}/fill")).json()["hostname"] == "lab02"
    assert (await devices.operator.patch(of(A), json={"hostname": "other"})).status_code == 200
    assert (await devices.operator.post(f"{of(C)}/fill")).json()["hostname"] == "lab01"
