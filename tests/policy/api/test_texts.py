"""A bundle whose text cannot be rendered is refused when it is stored, not when a device boots."""

from __future__ import annotations

from tests.policy.api.conftest import Served


async def test_a_broken_text_is_not_stored(served: Served) -> None:
    broken = {"kind": "ipxe", "script": "#!ipxe\n{{ mac | nothing }}\n"}
    refused = await served.admin.put("/bundles/b", json=broken)
    assert (refused.status_code, "line 2" in refused.json()["error"]) == (422, True)
    applied = await served.admin.post("/apply", json={"objects": {"bundle": {"b": broken}}, "dry_run": True})
    assert (applied.status_code, "bundle 'b'" in applied.json()["error"]) == (422, True)
    assert (await served.viewer.get("/bundles/b")).status_code == 404
