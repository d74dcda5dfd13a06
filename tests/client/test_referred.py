"""Devices whose image belongs to another server: two real servers, curl as the client calls it, the whole client."""

from __future__ import annotations

import hashlib
import os
import random
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest

from tests.client.machine import Fixture, contents, make_file_system
from tests.client.site import MAC, SCRIPT, SHELLS, Site
from tests.client.test_orders import Wire, read
from tests.support.process import Installed

PLAIN = random.Random(20).randbytes(3 * 1024 * 1024)
ITEM = "p1.raw.zst"
OWNERS = {"room": "lab", "near": "near", "other": "other", "apps": "lab"}


@dataclass
class Spy:
    """Passes requests on to ``target`` and keeps their headers; ``cuts`` answers are broken off in their middle."""

    target: str
    seen: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    cuts: int = 0
    port: int = 0


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installed]:
    """The server that has the images."""
    installed = Installed(tmp_path_factory.mktemp("lab"))
    installed.ok("start")
    installed.ok("device", "accept", MAC)
    for name in OWNERS:
        store(installed, name, kind="tree" if name == "apps" else "raw")
    yield installed
    installed.finish()


@pytest.fixture(scope="module")
def spy(lab: Installed) -> Iterator[Spy]:
    found = Spy(lab.url)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found.seen.append((self.path, {name.lower(): value for name, value in self.headers.items()}))
            headers = {"Range": value} if (value := self.headers.get("Range")) else {}
            answer = httpx.get(found.target + self.path, headers=headers, trust_env=False)
            self.send_response(answer.status_code)
            self.send_header("Content-Length", str(len(answer.content)))
            if "content-range" in answer.headers:
                self.send_header("Content-Range", answer.headers["content-range"])
            self.end_headers()
            cut = bool(found.cuts) and "/items/" in self.path
            found.cuts -= cut
            self.wfile.write(answer.content[: len(answer.content) // 2] if cut else answer.content)
            self.close_connection = True

        def log_message(self, *_: object) -> None:
            return

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        found.port = server.server_port
        yield found
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def server(lab: Installed, spy: Spy, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installed]:
    """The one that devices boot from."""
    installed = Installed(tmp_path_factory.mktemp("server"))
    installed.refers_to(lab, f"lab={lab.url}; near=http://127.0.0.1:{spy.port}; other=http://localhost:{spy.port}")
    installed.ok("start")
    installed.ok("device", "accept", MAC)
    for name, owner in OWNERS.items():
        installed.ok("image", "register", name, "--owner", owner)
    yield installed
    installed.finish()


@pytest.fixture
def site(server: Installed, tmp_path: Path) -> Iterator[Site]:
    made = Site(server, tmp_path)
    yield made
    for work in made.api("GET", "/work"):
        made.cancel(work["id"])


def store(server: Installed, name: str, kind: str) -> None:
    """An image of one partition."""
    base, admin = f"{server.url}/api/v1", {"Authorization": f"Bearer {server.token}"}
    with httpx.Client(headers=admin, trust_env=False, timeout=30) as client:
        upload = client.post(f"{base}/images/{name}/uploads", json={}).json()["upload"]
        place = f"{base}/uploads/{upload}"
        sums = {"X-Checksum-SHA256": hashlib.sha256(PLAIN).hexdigest()}
        client.put(
            f"{place}/items/{ITEM}/parts/1", params={"kind": kind}, content=PLAIN, headers=sums
        ).raise_for_status()
        done = client.post(f"{place}/items/{ITEM}/complete", json={"parts": 1, "bytes": len(PLAIN)}).json()
        line = f"item {ITEM} {kind} 1 {done['stored_bytes']} {done['sha256']} {len(PLAIN)}"
        manifest = f"pbserv-image 1\ndisk 8388608 512 dos bios\n{line}\nfact {ITEM} tool dd\n"
        committed = client.post(f"{place}/commit", content=manifest)
        assert committed.status_code == 201, committed.text


def begun(site: Site, image: str, **options: object) -> Wire:
    """A device that restores ``image``."""
    site.api("POST", "/work", {"mac": MAC, "kind": "restore", "image": image, **options})
    wire = Wire(site, site.token)
    answer = wire.begin(client="2")
    assert answer["ACTION"] == "restore", answer
    return wire


def download(site: Site, wire: Wire, size: int, start: int = 0) -> bytes:
    """What the client's own function gets of the item."""
    place = site.place / "work"
    place.mkdir(exist_ok=True)
    (place / "pids").touch()
    (place / "auth").write_text(f"Authorization: Bearer {site.token}\n")
    script = f"""WORK={place} URL={site.server.url} JOB={wire.job} ITEMS=items PART_TRIES=4 RETRY_PAUSE=1
cancelled() {{ return 1; }}
. {SCRIPT.parent}/streams.sh
download {ITEM} {size} {start} || {{ cat "$WORK/download.err" >&2; exit 1; }}"""
    done = subprocess.run([*SHELLS["dash"], "-c", script], capture_output=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def manifest_item(wire: Wire) -> tuple[int, str]:
    """Stored bytes and digest of the item, as the device's server tells them."""
    text = wire.call("GET", f"/jobs/{wire.job}/manifest").text
    [line] = [line.split() for line in text.splitlines() if line.startswith("item ")]
    assert f"fact {ITEM} tool dd" in text
    return int(line[4]), line[5]


def figures(server: Installed) -> tuple[int, int]:
    """Images sent, and requests that were referred."""
    text = httpx.get(f"{server.url}/metrics", headers={"Authorization": f"Bearer {server.token}"}, trust_env=False).text
    lines = dict(line.rsplit(" ", 1) for line in text.splitlines() if line and not line.startswith("#"))
    sent = next(value for name, value in lines.items() if "images_sent" in name)
    referred = next((value for name, value in lines.items() if "referred" in name), "0")
    return int(float(sent)), int(float(referred))


def test_a_device_gets_the_bytes_from_the_server_that_has_them(site: Site, lab: Installed) -> None:
    before, before_lab = figures(site.server), figures(lab)
    wire = begun(site, "room")
    size, digest = manifest_item(wire)
    answer = wire.call("GET", f"/jobs/{wire.job}/items/{ITEM}")
    assert (answer.status_code, answer.content) == (307, b"")
    assert answer.headers["location"].startswith(f"{lab.url}/api/v1/images/room/items/{ITEM}?version=1&ticket=")
    whole = download(site, wire, size)
    assert (len(whole), hashlib.sha256(whole).hexdigest()) == (size, digest)
    assert download(site, wire, size, 1000) == whole[1000:]
    assert wire.call("POST", f"/jobs/{wire.job}/result", data={"ok": "1", "verified": "stream"}).text == "OK\n"
    job = site.newest()["jobs"][0]
    assert (job["state"], job["image"], job["version"]) == ("done", "room", 1)
    assert figures(site.server) == (before[0], before[1] + 1), "referred here"
    end = time.monotonic() + 20
    while figures(lab)[0] != before_lab[0] + 1:
        assert time.monotonic() < end, "sent there"
    assert wire.call("GET", f"/jobs/{wire.job}/items/{ITEM}").status_code == 409, "the job is over"


@pytest.mark.parametrize("image", ["near", "other"])
def test_the_token_of_the_work_stays_here_and_what_broke_off_goes_on(site: Site, spy: Spy, image: str) -> None:
    """``near`` is another port of the same host, ``other`` another host."""
    wire = begun(site, image)
    size, digest = manifest_item(wire)
    spy.seen.clear()
    spy.cuts = 1
    assert hashlib.sha256(download(site, wire, size)).hexdigest() == digest
    assert len(spy.seen) == 2
    assert [("authorization" in headers, headers.get("range")) for _, headers in spy.seen] == [
        (False, None), (False, f"bytes={size // 2}-"),
    ]  # fmt: skip
    assert site.token not in str(spy.seen)


def test_what_could_only_fail_is_refused(site: Site) -> None:
    def order(**body: object) -> str:
        answer = httpx.post(
            f"{site.server.url}/api/v1/work", json={"mac": MAC, **body}, trust_env=False,
            headers={"Authorization": f"Bearer {site.server.token}"},
        )  # fmt: skip
        assert answer.status_code == 409, answer.text
        return str(answer.json()["error"])

    assert "belongs to store lab of another server" in order(kind="capture", image="room", store="main")
    site.api("POST", "/work", {"mac": MAC, "kind": "restore", "image": "room", "partitions": [7]})
    answer = Wire(site, site.token).begin(client="2")
    assert (answer["ACTION"], answer["REASON"]) == ("local", "image room has no partition 7; it has: 1")
    site.api("POST", "/work", {"mac": MAC, "kind": "restore", "image": "room"})
    assert "needs a newer imaging client" in Wire(site, site.token).begin()["REASON"]


def test_an_add_on_of_another_server(site: Site, lab: Installed) -> None:
    wire = begun(site, "room", addons=["apps"])
    assert f"item {ITEM} tree 1" in wire.call("GET", f"/jobs/{wire.job}/addons/apps/manifest").text
    answer = wire.call("GET", f"/jobs/{wire.job}/addons/apps/items/{ITEM}")
    assert answer.status_code == 307
    got = httpx.get(answer.headers["location"], trust_env=False)
    assert (got.status_code, got.content) == (200, PLAIN)
    assert wire.call("GET", f"/jobs/{wire.job}/addons/room/manifest").status_code == 409
    assert wire.call("GET", f"/jobs/{wire.job}/items/manifest").status_code == 400
    wire.call("POST", f"/jobs/{wire.job}/result", data={"ok": "1"})
    site.api("POST", "/work", {"mac": MAC, "kind": "restore", "image": "room", "addons": ["near"]})
    assert "image near is no file tree" in Wire(site, site.token).begin(client="2")["REASON"]


def test_in_maintenance(site: Site, lab: Installed) -> None:
    site.order("at-the-console", kind="maintenance")
    wire = Wire(site, site.token)
    assert wire.begin(client="2")["ACTION"] == "maintenance"
    assert "room  in store lab of another server\n" in wire.call("GET", f"/jobs/{wire.job}/images").text
    assert "room, version 1" in wire.call("GET", f"/jobs/{wire.job}/images/room").text
    refused = wire.order(action="capture", image="room", client="2", follow="1")
    assert (refused.status_code, f"exists in store lab of {lab.url}" in refused.text) == (409, True)
    told = read(wire.order(action="restore", image="room", client="2"))
    assert (told["ACTION"], told["VERSION"], told["KIND"]) == ("restore", "1", "disk")
    answer = wire.call("GET", f"/jobs/{told['JOB']}/items/{ITEM}")
    assert (answer.status_code, answer.headers["location"].startswith(lab.url)) == (307, True)


def test_without_the_token_devices_are_not_referred(spy: Spy, tmp_path: Path) -> None:
    other = Installed(tmp_path / "other")
    other.set("pbserv.conf", RemoteStores=f"lab=http://127.0.0.1:{spy.port}")
    try:
        other.ok("start")
        other.ok("device", "accept", MAC)
        other.ok("image", "register", "room", "--owner", "lab")
        refused = other.call("work", "restore", MAC, "room")
        assert refused.returncode, refused.stdout
        assert "RemoteStoreToken" in refused.stderr
    finally:
        other.finish()


def test_a_server_that_does_not_answer_is_asked_again(site: Site, spy: Spy) -> None:
    site.api("POST", "/work", {"mac": MAC, "kind": "restore", "image": "near"})
    target, spy.target = spy.target, "http://127.0.0.1:1"
    try:
        answer = Wire(site, site.token).call("POST", "/work", data={"mac": MAC, "client": "2"})
        assert (answer.status_code, "asks again" in answer.text) == (503, True)
    finally:
        spy.target = target
    assert Wire(site, site.token).begin(client="2")["ACTION"] == "restore"


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root rights: loop devices")
def test_the_whole_client(site: Site, lab: Installed, loop: Fixture, tmp_path: Path) -> None:
    """Captured at the one server, restored by a device that knows the other one alone."""
    source = loop("source", 40, table="label: dos\nstart=2048, size=32MiB\n")
    files = make_file_system(source, 1, ["mkfs.ext4", "-q"], tmp_path / "m1", 20)
    there = Site(lab, tmp_path)
    there.api("POST", "/work", {"mac": MAC, "kind": "capture", "image": "disk"})
    output = there.run("--disk", source)
    assert output.endswith("exit 0"), output
    site.server.ok("image", "register", "disk", "--owner", "lab")
    site.api("POST", "/work", {"mac": MAC, "kind": "restore", "image": "disk", "verify": "read"})
    target = loop("target", 40)
    output = site.run("--disk", target)
    assert output.endswith("exit 0"), output
    assert contents(target, 1, tmp_path / "m1") == files
    job = site.newest()["jobs"][0]
    assert (job["state"], job["verified"], job["version"]) == ("done", "read", 1)
