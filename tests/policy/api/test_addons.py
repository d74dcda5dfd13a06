"""Add-ons of a restore over HTTP: those that its work names, for as long as it runs."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from pbserv.imaging.manifest import DiskFacts, Manifest, ManifestItem, parse, print_manifest
from pbserv.imaging.trees import pack_tree
from pbserv.registry.options import WorkOptions
from pbserv.registry.records import BundleKind
from pbserv.registry.registry import WorkOrder
from pbserv.registry.tokens import WorkTokens
from tests.policy.api.conftest import Served

MAC = "52:54:00:00:00:01"


async def restore(served: Served, *addons: str) -> tuple[int, dict[str, str]]:
    order = WorkOrder(MAC, BundleKind.RESTORE, "debian", options=WorkOptions(addons=addons))
    work = await served.registry.add_work(order)
    job = await served.registry.start_job(work.id, "127.0.0.1", 1)
    return job.id, {"Authorization": f"Bearer {WorkTokens(b's' * 32).issue(work.id)}"}


async def capture(served: Served, name: str, data: bytes) -> None:
    """Stored as a capture is, item and manifest."""
    order = WorkOrder(MAC, BundleKind.CAPTURE, name)
    work = await served.registry.add_work(order)
    headers = {"Authorization": f"Bearer {WorkTokens(b's' * 32).issue(work.id)}"}
    asked = await served.nobody.post("http://test/client/v1/work", data={"mac": MAC}, headers=headers)
    job = next(line[4:].strip("'") for line in asked.text.splitlines() if line.startswith("JOB="))
    place = f"http://test/client/v1/jobs/{job}"
    sent = await served.nobody.put(f"{place}/items/tree", content=data, headers=headers)
    assert sent.is_success, sent.text
    size, digest = sent.text.split()
    item = ManifestItem("tree", "tree", 0, int(size), digest, 0)
    text = print_manifest(Manifest(DiskFacts(0, 512, "none", "bios"), (item,)))
    assert (await served.nobody.post(f"{place}/commit", content=text, headers=headers)).text == "COMMITTED\n"
    await served.nobody.post(f"{place}/result", data={"ok": "1"}, headers=headers)


@pytest.fixture
async def packed(served: Served, tmp_path: Path) -> bytes:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "motd").write_text("welcome\n")
    data = b"".join(pack_tree(tmp_path / "tree"))
    await served.device(MAC)
    for name in ("lab", "other"):
        await capture(served, name, data)
    return data


async def ask(served: Served, path: str, method: str = "GET", **more: object) -> httpx.Response:
    return await served.nobody.request(method, f"http://test/client/v1/jobs/{path}", **more)  # type: ignore[arg-type]


async def test_an_add_on_is_fetched_whole_and_in_pieces(served: Served, packed: bytes) -> None:
    job, token = await restore(served, "lab")
    told = await ask(served, f"{job}/addons/lab/manifest", headers=token)
    assert [(item.name, item.kind, item.stored_bytes) for item in parse(told.text).items] == [
        ("tree", "tree", len(packed))
    ]
    assert (await ask(served, f"{job}/addons/lab/items/tree", headers=token)).content == packed
    head = await ask(served, f"{job}/addons/lab/items/tree", "HEAD", headers=token)
    assert (head.status_code, head.headers["Content-Length"]) == (200, str(len(packed)))
    rest = await ask(served, f"{job}/addons/lab/items/tree", headers={**token, "Range": "bytes=7-"})
    assert (rest.status_code, rest.content) == (206, packed[7:])
    assert (await ask(served, f"{job}/addons/lab/items/x", headers=token)).status_code == 404


async def test_a_job_gets_no_other_image(served: Served, packed: bytes) -> None:
    job, token = await restore(served, "lab", "gone")
    for path in ("other/manifest", "other/items/tree", "debian/manifest"):
        refused = await ask(served, f"{job}/addons/{path}", headers=token)
        assert (refused.status_code, "its work names: lab, gone" in refused.text) == (409, True)
    missing = await ask(served, f"{job}/addons/gone/manifest", headers=token)
    assert (missing.status_code, missing.text.startswith("error: ")) == (404, True)
    for headers in ({}, {"Authorization": "Bearer admin"}):
        assert (await ask(served, f"{job}/addons/lab/manifest", headers=headers)).status_code == 401
    await served.registry.finish_job(job, ok=True, reason="")
    over = await ask(served, f"{job}/addons/lab/items/tree", headers=token)
    assert over.status_code == 409


async def test_a_device_for_which_no_name_is_left_keeps_its_disk(served: Served, packed: bytes) -> None:
    """The work fails when the device asks for it, not when its disk is written."""
    await served.device("52:54:00:00:00:02")
    await served.make("/pools/one", pattern="pc{n}", last=1)
    await served.operator.post("/devices/52:54:00:00:00:02/identity/fill")
    work = await served.registry.add_work(WorkOrder(MAC, BundleKind.RESTORE, "lab"))
    headers = {"Authorization": f"Bearer {WorkTokens(b's' * 32).issue(work.id)}"}
    asked = {"data": {"mac": MAC, "client": "2"}, "headers": headers}
    told = await served.nobody.post("http://test/client/v1/work", **asked)  # type: ignore[arg-type]
    assert "ACTION=local" in told.text
    assert "pool" in told.text
    assert "is used up" in (await served.registry.work(work.id)).reason
    await served.make("/pools/one", pattern="pc{n}", last=2)
    await served.operator.post(f"/work/{work.id}/retry")
    told = await served.nobody.post("http://test/client/v1/work", **asked)  # type: ignore[arg-type]
    assert "ACTION=restore" in told.text
    assert "IDENTITY=1" in told.text
    assert (await served.viewer.get(f"/devices/{MAC}/identity")).json()["hostname"] == "pc2"
