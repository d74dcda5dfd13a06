"""Two running servers with the same image: what is damaged at one is fetched from the other by a scrub."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.support.process import Installed

PLAIN = random.Random(6).randbytes(1024 * 1024)
ITEM = "p1.raw.zst"


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[tuple[Installed, Installed]]:
    """Here, and the other one."""
    here, there = Installed(tmp_path / "here"), Installed(tmp_path / "there")
    there.ok("start")
    token = here.place / "images.token"
    token.write_text(there.ok("token", "create", "here", "--role", "images"))
    token.chmod(0o640)
    here.set("pbserv.conf", RemoteStores=f"there={there.url}", RemoteStoreToken=str(token))
    here.ok("start")
    yield here, there
    here.finish()
    there.finish()


def store(server: Installed) -> Path:
    """The same image at each server; the file of its item."""
    base, admin = f"{server.url}/api/v1", {"Authorization": f"Bearer {server.token}"}
    with httpx.Client(headers=admin, trust_env=False, timeout=30) as client:
        place = f"{base}/uploads/{client.post(f'{base}/images/room/uploads', json={}).json()['upload']}"
        sums = {"X-Checksum-SHA256": hashlib.sha256(PLAIN).hexdigest()}
        client.put(f"{place}/items/{ITEM}/parts/1", params={"kind": "raw"}, content=PLAIN, headers=sums)
        done = client.post(f"{place}/items/{ITEM}/complete", json={"parts": 1, "bytes": len(PLAIN)}).json()
        line = f"item {ITEM} raw 1 {done['stored_bytes']} {done['sha256']} {len(PLAIN)}"
        committed = client.post(f"{place}/commit", content=f"pbserv-image 1\ndisk 8388608 512 dos bios\n{line}\n")
        assert committed.status_code == 201, committed.text
    return server.state / "images/room/1" / ITEM


def test_a_damaged_frame_comes_from_the_other_server(servers: tuple[Installed, Installed]) -> None:
    here, there = servers
    file, _ = store(here), store(there)
    before = file.read_bytes()
    file.write_bytes(before[:500_000] + bytes([before[500_000] ^ 1]) + before[500_001:])
    said = here.call("store", "scrub", "main")
    assert (said.returncode, "none damaged, 1 frame repaired" in said.stdout + said.stderr) == (0, True), said
    assert file.read_bytes() == before
    assert f"repaired from image room version 1 item {ITEM} at {there.url}" in here.log()
    there.ok("stop")
    file.write_bytes(before[:500_000] + bytes([before[500_000] ^ 1]) + before[500_001:])
    here.call("store", "scrub", "main")
    assert f"a copy was looked for at {there.url}" in here.log()
    assert "damaged" in here.ok("store", "show", "main")
