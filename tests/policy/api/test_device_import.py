"""Import and export over HTTP: all rows of a file or none."""

from __future__ import annotations

import json

from pbserv.registry.records import DeviceState
from pbserv.web.limits import MAX_BODY_BYTES, MAX_FILE_BYTES
from tests.policy.api.conftest import Served

MAC = "52:54:00:00:00:01"
OTHER = "52:54:00:00:00:02"
CSV = {"Content-Type": "text/csv; charset=utf-8"}


async def test_a_file_creates_and_changes_devices(served: Served) -> None:
    await served.make("/groups/lab")
    await served.device(MAC, name="old", serial="S1")
    text = f"mac,name,groups,labels,state\n{MAC},new,lab,room=5,\n{OTHER},-5,,,pending\n"
    tried = await served.admin.post("/devices/import?dry_run=1", content=text, headers=CSV)
    assert tried.json() == {"created": 1, "changed": 1, "unchanged": 0, "errors": []}
    assert [d["mac"] for d in (await served.viewer.get("/devices")).json()] == [MAC]
    done = await served.admin.post("/devices/import", content=text, headers=CSV)
    assert done.json() == tried.json()
    device, other = await served.registry.device(MAC), await served.registry.device(OTHER)
    assert (device.name, device.serial, device.groups, device.labels) == ("new", "S1", ("lab",), (("room", "5"),))
    assert (other.name, other.state) == ("-5", DeviceState.PENDING)
    assert served.policy.snapshot.devices[OTHER] == other
    again = await served.admin.post("/devices/import", content=text, headers=CSV)
    assert again.json() == {"created": 0, "changed": 0, "unchanged": 2, "errors": []}
    history = (await served.viewer.get(f"/devices/{MAC}/history")).json()
    assert [event["what"] for event in history].count("changed") == 1


async def test_what_is_exported_is_imported_without_a_change(served: Served) -> None:
    await served.make("/groups/lab")
    await served.device(
        MAC, name="=HYPERLINK()", groups=["lab"], labels={"room": "a|b\\c"}, folder="/x", menu="default"
    )
    await served.device(OTHER, state="denied")
    for form, kind in (("csv", "text/csv; charset=utf-8"), ("json", "application/json")):
        answer = await served.viewer.get(f"/devices/export?format={form}")
        assert answer.headers["Content-Type"] == kind
        assert answer.headers["Content-Disposition"] == f'attachment; filename="devices.{form}"'
        back = await served.admin.post("/devices/import", content=answer.content, headers={"Content-Type": kind})
        assert back.json() == {"created": 0, "changed": 0, "unchanged": 2, "errors": []}
    assert b"'=HYPERLINK()" in (await served.viewer.get("/devices/export")).content


async def test_one_faulty_row_and_nothing_is_changed(served: Served) -> None:
    await served.device(MAC)
    await served.device("52:54:00:00:00:09")
    await served.operator.post(f"/devices/{MAC}/join", json={"mac": "52:54:00:00:00:09"})
    text = f"mac,groups,menu\n{OTHER},,\n{MAC},none,\nnonsense,,\n52:54:00:00:00:09,,odd\n"
    answer = await served.admin.post("/devices/import", content=text, headers=CSV)
    told = answer.json()
    assert answer.status_code == 422
    assert [fault["row"] for fault in told["errors"]] == [3, 4, 5, 5]
    assert "row 3: there is no group 'none'" in told["error"]
    assert "an address of the device in row 3" in told["error"]
    assert len(served.policy.snapshot) == 1


async def test_json_is_imported_too(served: Served) -> None:
    body = [{"mac": MAC, "labels": {"room": "5"}}, {"mac": OTHER, "name": "x"}]
    answer = await served.admin.post("/devices/import", json=body)
    assert answer.json()["created"] == 2
    assert (await served.registry.device(MAC)).labels == (("room", "5"),)


async def test_other_content_is_refused(served: Served) -> None:
    for headers, content, status in (
        ({}, b"mac\n", 415), ({"Content-Type": "text/plain"}, b"mac\n", 415), (CSV, b"mac\n\xff\n", 422),
        ({"Content-Type": "application/json"}, b"", 422), (CSV, b"", 422),
    ):  # fmt: skip
        answer = await served.admin.post("/devices/import", content=content, headers=headers)
        assert (answer.status_code, bool(answer.json()["error"])) == (status, True)


async def test_a_file_may_be_larger_than_other_bodies_and_has_a_limit_too(served: Served) -> None:
    rows = "".join(f"52:54:00:01:{n >> 8:02x}:{n & 255:02x},{'x' * 64},{'y' * 128}\n" for n in range(3000))
    assert len(rows) > 2 * MAX_BODY_BYTES
    answer = await served.admin.post("/devices/import", content=f"mac,name,serial\n{rows}", headers=CSV)
    assert answer.json()["created"] == 3000
    assert len(served.policy.snapshot) == 3000
    large = await served.admin.post("/devices/import", content=b"x" * (MAX_FILE_BYTES + 1), headers=CSV)
    assert large.status_code == 413
    for method, path in (("PUT", "/bundles/x"), ("PATCH", f"/devices/{MAC}"), ("POST", "/work")):
        answer = await served.admin.request(method, path, content=b" " * (MAX_BODY_BYTES + 1))
        assert answer.status_code == 413, path
    without = await served.nobody.post("/devices/import", content=json.dumps([{"mac": MAC}]))
    assert without.status_code == 401
