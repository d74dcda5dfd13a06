"""Stores of images as the configuration makes them, in a whole server: reload, restart, files that are dropped."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from tests.imaging.making import partclone
from tests.support.process import Installed
from tests.web.test_jobs import MAC, P1, TABLE, client_of, manifest, queue

BODY = b"x" * 100_000


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Installed]:
    installed = Installed(tmp_path / "server")
    places = f"main={tmp_path}/main keep:2; fast={tmp_path}/fast quota:150K"
    installed.set("pbserv.conf", AllowImageOverwrite="YES", ImageStores=places)
    installed.ok("start")
    yield installed
    installed.finish()


@pytest.fixture
def admin(server: Installed) -> Iterator[httpx.Client]:
    headers = {"Authorization": f"Bearer {server.token}"}
    with httpx.Client(base_url=server.url + "/api/v1", headers=headers, trust_env=False) as client:
        yield client


def until(condition: Callable[[], bool], timeout_s: float = 60.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def put(admin: httpx.Client, name: str, overwrite: int = 0) -> int:
    return admin.put(f"/images/{name}", params={"overwrite": overwrite}, content=BODY).status_code


def stores(admin: httpx.Client) -> list[str]:
    return [store["name"] for store in admin.get("/stores").json()["stores"]]


def test_stores_of_the_configuration(server: Installed, admin: httpx.Client, tmp_path: Path) -> None:
    assert stores(admin) == ["main", "fast"]
    for _ in range(3):
        assert put(admin, "win", 1) == 201
    image = admin.get("/images/win").json()
    assert (image["version"], image["store"], image["state"]) == (3, "main", "enabled")
    assert not (tmp_path / "main/win/1/session").exists()

    server.set("pbserv.conf", UploadDirectories=f"{tmp_path}/fast", RetiredDays="1")
    server.ok("force-reload")
    assert put(admin, "lab") == 201
    assert (tmp_path / "fast/lab/1/file").read_bytes() == BODY
    assert put(admin, "more") == 507
    assert put(admin, "win", 1) == 403

    server.set("pbserv.conf", ImageStores=f"main={tmp_path}/main", UploadDirectories=str(tmp_path))
    server.ok("force-reload")
    assert stores(admin) == ["main"]
    assert admin.get("/images/lab").status_code == 404
    server.set("pbserv.conf", ImageStores=f"main={tmp_path}/main; fast={tmp_path}/fast")
    server.ok("restart")
    assert admin.get("/images/lab").json()["store"] == "fast"


def test_an_image_that_work_needs_is_not_purged(server: Installed, admin: httpx.Client) -> None:
    mac = "52:54:00:00:cc:01"
    server.ok("device", "add", mac)
    assert put(admin, "win") == 201
    server.ok("work", "capture", mac, "win", "--overwrite")
    work = str(server.json("work", "list")[0]["id"])
    assert "retire" in admin.delete("/images/win").json()["error"]
    refused = admin.post("/images/win/versions/1/retire")
    assert (refused.status_code, f"work {work} of {mac}" in refused.json()["error"]) == (409, True)
    server.ok("work", "cancel", work)
    assert admin.post("/images/win/versions/1/retire").status_code == 200
    assert admin.delete("/images/win").status_code == 204
    assert admin.get("/images/win").status_code == 404


def test_a_dropped_file_becomes_an_image(server: Installed, admin: httpx.Client, tmp_path: Path) -> None:
    (tmp_path / "main/part").write_bytes(partclone(range(8), 16).stream)
    (tmp_path / "main/part").rename(tmp_path / "main/dropped.img")
    until(lambda: admin.get("/images/dropped").status_code == 200)
    until((tmp_path / "main/dropped.img.full.sum").exists)


def test_a_scrub_is_a_task(server: Installed, admin: httpx.Client, tmp_path: Path) -> None:
    assert put(admin, "win") == 201
    (tmp_path / "main/win/1/file").write_bytes(BODY[1:] + b"y")
    begun = admin.post("/stores/main/scrub", json={})
    assert begun.status_code == 202
    until(lambda: admin.get(f"/tasks/{begun.json()['task']}").json()["state"] != "running")
    assert "image win version 1 item file: piece 0 at byte 0" in server.log()
    image = admin.get("/images/win").json()
    assert image["served"] is None


def test_a_capture_goes_on_after_the_server_was_killed(server: Installed, tmp_path: Path) -> None:
    server.ok("device", "accept", MAC)
    client = client_of(server, queue(server, "capture", "killed"))
    client.begin()
    client.call("PUT", "items/table", content=TABLE)
    client.call("PUT", "items/p1", content=P1)
    for step in ("commit", "again"):
        os.kill(server.pid, signal.SIGKILL)
        until(lambda: server.call("showpid").returncode != 0)
        server.ok("start")
        assert client.call("POST", "commit", content=manifest(table=TABLE, p1=P1)).text == "COMMITTED\n", step
    assert client.call("POST", "result", data={"ok": "1"}).text == "OK\n"
    assert (tmp_path / "main/killed/1/p1").read_bytes() == P1
    assert list((tmp_path / "main/.incoming").iterdir()) == []
    client.http.close()
