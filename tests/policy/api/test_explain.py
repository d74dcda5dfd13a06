"""What would a device get, and why: asked without changing anything."""

from __future__ import annotations

import pytest

from pbserv.types import ClientArch, MacAddress, Sighting
from tests.policy.api.conftest import Served

MAC = "52:54:00:00:00:01"
OTHER = "52:54:00:00:00:02"
UUID = "4c4c4544-0031-3010-8052-b4c04f4a3132"


async def test_the_decision_with_every_step_and_the_losers(served: Served) -> None:
    await served.make("/bundles/rescue", kind="linux", kernel="k", arguments="quiet")
    await served.make("/bundles/plain", kind="local")
    await served.make("/groups/lab")
    await served.make("/assignments/a", bundle="rescue", group="lab", arguments="own")
    await served.make("/assignments/z", bundle="plain", folder="/")
    await served.device(MAC, groups=["lab"], arguments="its")
    told = (await served.viewer.get("/explain", params={"mac": MAC.upper()})).json()
    assert (told["mac"], told["verdict"], told["bundle"], told["kind"]) == (MAC, "boot", "rescue", "linux")
    assert told["arguments"].split() == ["its", "own"]
    assert any("group lab" in step for step in told["steps"])
    assert any("the zone" in step and "loses" in step for step in told["steps"])
    assert told["device"]["mac"] == MAC
    assert (told["refused"], told["menu"], told["work"]) == ("", "", None)


async def test_a_device_is_found_by_any_of_its_addresses_and_by_its_uuid(served: Served) -> None:
    served.policy.decide(Sighting(MacAddress.parse(MAC), UUID, ClientArch(7), "dhcp", "10.0.0.7"))
    await served.operator.post(f"/devices/{MAC}/accept")
    await served.device(OTHER)
    await served.operator.post(f"/devices/{MAC}/join", json={"mac": OTHER})
    for query in ({"mac": OTHER}, {"uuid": UUID.upper()}):
        told = (await served.viewer.get("/explain", params=query)).json()
        assert told["device"]["mac"] == MAC, query
    assert (await served.viewer.get("/explain", params={"uuid": UUID[:-1] + "9"})).status_code == 404


async def test_labels_and_architecture_are_tried_out(served: Served) -> None:
    await served.make("/bundles/rescue", kind="linux", kernel="k")
    await served.make("/rules/r", bundle="rescue", when='product == "X=1" and arch == "UEFI x64"')
    await served.device(MAC)
    for arch in ("7", "UEFI x64", "uefi X64"):
        told = await served.viewer.get("/explain", params={"mac": MAC, "arch": arch, "label": ["product=X=1", "a=b"]})
        assert told.json()["bundle"] == "rescue", told.text
    assert (await served.viewer.get("/explain", params={"mac": MAC, "arch": "0"})).json()["bundle"] == ""
    assert (await served.viewer.get(f"/devices/{MAC}")).json()["learned"] == {}


async def test_who_is_not_registered_is_explained_too(served: Served) -> None:
    told = (await served.viewer.get("/explain", params={"mac": MAC})).json()
    assert (told["verdict"], told["device"]) == ("silent", None)
    assert (await served.viewer.get("/devices")).json() == [], "nothing changes by asking"
    await served.operator.post(f"/devices/{MAC}/deny")
    assert "denied" in (await served.viewer.get("/explain", params={"mac": MAC})).json()["refused"]


@pytest.mark.parametrize(
    "query",
    [{}, {"mac": "x"}, {"uuid": "x"}, {"mac": MAC, "arch": "Z80"}, {"mac": MAC, "arch": "99999999999"},
     {"mac": MAC, "label": "x"}, {"mac": MAC, "label": "X=1"}, {"mac": MAC, "label": "x=\0"}, {"mac": MAC, "arch": "²"},
     {"mac": MAC, "label": ["x=1"] * 65}],
)  # fmt: skip
async def test_what_cannot_be_is_refused(served: Served, query: dict[str, str]) -> None:
    assert (await served.viewer.get("/explain", params=query)).status_code == 422


async def test_a_stopped_policy_explains_nothing(served: Served) -> None:
    await served.policy.stop()
    answer = await served.viewer.get("/explain", params={"mac": MAC})
    assert (answer.status_code, "pbserv start policy" in answer.json()["error"]) == (503, True)
    await served.make("/groups/g")
    await served.device(MAC, groups=["g"])
    assert (await served.admin.delete("/groups/g")).status_code == 409, "the registry is always there"
    joined = await served.operator.post("/groups/g/members", json={"remove": [MAC]})
    assert joined.json()["removed"] == [MAC]
