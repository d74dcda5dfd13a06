"""Captures into a store of another server: two real servers, killed and started again."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from pbserv.imaging.referral import Scope, sign
from pbserv.registry.tokens import digest
from tests.client.machine import Fixture, contents, make_file_system
from tests.client.site import MAC, SHELLS, Site, until
from tests.client.test_orders import Wire, read
from tests.support.process import Installed

PARTS = [random.Random(number).randbytes(65536) for number in range(3)]
ITEM = "p1.raw.zst"


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installed]:
    """The server that keeps the images."""
    installed = Installed(tmp_path_factory.mktemp("lab"))
    installed.set("pbserv.conf", ImageStores=f"lab={installed.state}/images", AllowImageOverwrite="YES")
    installed.ok("start")
    yield installed
    installed.finish()


@pytest.fixture(scope="module")
def server(lab: Installed, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installed]:
    """The one that devices boot from."""
    installed = Installed(tmp_path_factory.mktemp("server"))
    installed.refers_to(lab, f"lab={lab.url}")
    installed.set("pbserv.conf", AllowImageOverwrite="YES")
    installed.ok("start")
    installed.ok("device", "accept", MAC)
    yield installed
    installed.finish()


@pytest.fixture
def site(server: Installed, tmp_path: Path) -> Iterator[Site]:
    made = Site(server, tmp_path)
    yield made
    for work in made.api("GET", "/work"):
        made.cancel(work["id"])


@dataclass
class Capturing:
    """A device that captures one partition in three parts."""

    site: Site
    image: str
    more: dict[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.site.api("POST", "/work", {"mac": MAC, "kind": "capture", "image": self.image, **self.more})
        self.wire = Wire(self.site, self.site.token)
        self.told = self.wire.begin(client="2", follow="1")

    @property
    def place(self) -> str:
        return f"/jobs/{self.wire.job}"

    def referred(self, number: int) -> httpx.Response:
        return self.wire.call("PUT", f"{self.place}/items/{ITEM}/parts/{number}?kind=raw")

    def part(self, number: int) -> str:
        """Sent where the server says; the answer there."""
        answer = self.referred(number)
        assert (answer.status_code, answer.content) == (307, b""), answer.text
        sums = {"X-Checksum-SHA256": hashlib.sha256(PARTS[number - 1]).hexdigest()}
        sent = httpx.put(answer.headers["location"], content=PARTS[number - 1], headers=sums, trust_env=False)
        assert sent.status_code == 200, sent.text
        return sent.text

    manifest: str = ""

    def commit(self) -> httpx.Response:
        """What was complete stays so: the commit alone is repeated."""
        self.manifest = self.manifest or self.completed()
        return self.wire.call("POST", f"{self.place}/commit", content=self.manifest, timeout=60)

    def completed(self) -> str:
        plain = sum(map(len, PARTS))
        done = self.wire.call("POST", f"{self.place}/items/{ITEM}/complete", data={"parts": "3", "bytes": str(plain)})
        assert done.status_code == 200, done.text
        stored, digest = done.text.split()
        return f"pbserv-image 1\ndisk 8388608 512 dos bios\nitem {ITEM} raw 1 {stored} {digest} {plain}\n"

    def result(self, **told: str) -> None:
        assert self.wire.call("POST", f"{self.place}/result", data=told).text == "OK\n"


def names(server: Installed) -> list[str]:
    return [image["name"] for image in server.json("image", "list")]


def uploads(server: Installed) -> list[str]:
    return [each["image"] for each in server.json("image", "uploads")]


def killed(server: Installed) -> None:
    """As by a power cut, and up again."""
    down(server)
    server.ok("start")


def down(server: Installed) -> None:
    number = server.pid
    os.kill(number, signal.SIGKILL)
    until(lambda: not Path(f"/proc/{number}/stat").exists() or ") Z " in Path(f"/proc/{number}/stat").read_text())


def test_the_bytes_go_to_the_server_of_the_store_and_the_job_stays_here(site: Site, lab: Installed) -> None:
    site.server.ok("image", "register", "room", "--owner", "lab", "--title", "Class room")
    before = site.server.json("statistics")
    going = Capturing(site, "room")
    assert (going.told["ACTION"], going.told["FOLLOW"], going.told["PART_BYTES"]) == ("capture", "1", "67108864")
    assert going.wire.call("PUT", f"{going.place}/items/manifest").status_code == 400
    where = httpx.URL(going.referred(1).headers["location"])
    assert str(where).startswith(f"{lab.url}/client/v1/uploads/")
    assert [going.part(number).split()[0] for number in (1, 1, 2)] == ["2", "2", "3"]
    ticket = {"ticket": where.params["ticket"]}
    upload = where.path.split("/")[4]
    for method, path in (
        ("POST", f"/api/v1/uploads/{upload}/commit"), ("DELETE", f"/api/v1/uploads/{upload}"),
        ("POST", "/api/v1/images/room/uploads"), ("GET", "/api/v1/images/room"),
        ("PUT", f"/client/v1/uploads/0123456789abcdef/items/{ITEM}"),
    ):  # fmt: skip
        answer = httpx.request(method, lab.url + path, params=ticket, trust_env=False)
        assert answer.status_code == 401, (method, path, answer.text)
    assert httpx.put(f"{lab.url}/client/v1/uploads/{upload}/items/x", content=b"x", trust_env=False).status_code == 401
    going.part(3)
    assert names(lab) == [], "not before the commit"
    assert [going.commit().text, going.commit().text] == ["COMMITTED\n"] * 2
    going.result(ok="1")
    job = site.newest()["jobs"][0]
    assert (job["state"], job["image"], job["version"]) == ("done", "room", 1)
    assert "image: room version 1 committed" in site.history()
    kept = lab.json("image", "show", "room")
    assert (kept["title"], kept["versions"], kept["uncompressed_bytes"]) == ("Class room", [1], 3 * 65536)
    after = site.server.json("statistics")
    assert after["imaging_results"]["referred"] == before["imaging_results"].get("referred", 0) + 1
    assert after["images_received"] == before["images_received"]
    assert lab.json("statistics")["images_received"] == 1
    assert uploads(lab) == []


def test_either_server_may_be_killed_in_the_middle(site: Site, lab: Installed) -> None:
    """The store is named in the order; this server knows the image from then on."""
    going = Capturing(site, "cut", {"store": "lab"})
    assert going.part(1).startswith("2 ")
    killed(lab)
    assert going.part(2).startswith("3 ")
    killed(site.server)
    assert going.part(2).startswith("3 "), "its answer was lost"
    down(lab)
    try:
        away = going.wire.call("POST", f"{going.place}/items/{ITEM}/complete", data={"parts": "3", "bytes": "1"})
        assert (away.status_code, "does not answer" in away.text) == (503, True)
    finally:
        lab.ok("start")
    going.part(3)
    assert going.commit().text == "COMMITTED\n"
    killed(site.server)
    going.result(ok="1")
    assert site.newest()["jobs"][0]["version"] == 1
    assert lab.json("image", "show", "cut")["versions"] == [1]
    assert site.server.json("image", "show", "cut")["owner"] == "lab"


def test_a_commit_whose_answer_was_lost_is_found_again(site: Site, lab: Installed) -> None:
    """The other server committed; this one was killed before it wrote that down, and the other one forgot the call."""
    going = Capturing(site, "lost", {"store": "lab"})
    for number in (1, 2, 3):
        going.part(number)
    number = site.newest()["jobs"][0]["id"]
    [upload] = [each for each in lab.json("image", "uploads") if each["image"] == "lost"]
    assert upload["owner"].startswith("referred:")
    done = api(lab, "POST", f"/uploads/{upload['upload']}/items/{ITEM}/complete", json={"parts": 3, "bytes": 3 * 65536})
    line = f"item {ITEM} raw 1 {done['stored_bytes']} {done['sha256']} {3 * 65536}"
    manifest = f"pbserv-image 1\ndisk 8388608 512 dos bios\n{line}\n"
    api(lab, "POST", f"/uploads/{upload['upload']}/commit", content=manifest)
    killed(lab)
    killed(site.server)
    assert going.wire.call("POST", f"{going.place}/commit", content=manifest).text == "COMMITTED\n"
    going.result(ok="1")
    job = site.newest()["jobs"][0]
    assert (job["id"], job["state"], job["version"]) == (number, "done", 1)


def api(server: Installed, method: str, path: str, **more: Any) -> Any:
    answer = httpx.request(
        method,
        f"{server.url}/api/v1{path}",
        headers={"Authorization": f"Bearer {server.token}"},
        trust_env=False,
        **more,
    )
    assert answer.is_success, answer.text
    return answer.json()


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_device_that_is_cut_off_after_the_commit_captures_nothing_again(
    site: Site, lab: Installed, overwrite: bool
) -> None:
    image = f"whole-{overwrite}"
    going = Capturing(site, image, {"store": "lab", "overwrite": overwrite})
    for number in (1, 2, 3):
        going.part(number)
    assert going.commit().text == "COMMITTED\n"
    killed(site.server)
    told = going.wire.begin(client="2", follow="1")
    assert (told["ACTION"], "the image was committed" in told["REASON"]) == ("local", True), told
    work = site.newest()
    assert (work["state"], [(job["state"], job["version"]) for job in work["jobs"]]) == ("done", [("done", 1)])
    assert lab.json("image", "show", image)["versions"] == [1]
    assert uploads(lab) == []


@pytest.mark.parametrize("how", ["cancelled", "failed", "begun anew"])
def test_what_is_not_wanted_any_more_is_given_up_there(site: Site, lab: Installed, how: str) -> None:
    going = Capturing(site, "gone", {"store": "lab"})
    going.part(1)
    assert "gone" in uploads(lab)
    if how == "cancelled":
        site.cancel(site.newest()["id"])
        assert going.wire.call("POST", f"{going.place}/progress", data={"stage": "x"}).text == "CANCEL\n"
        assert going.referred(2).status_code == 409
    elif how == "failed":
        going.result(ok="0", reason="disk broken")
        assert site.newest()["jobs"][0]["reason"] == "disk broken"
    else:
        told = going.wire.begin(client="2", follow="1")
        assert told["ACTION"] == "capture"
        assert going.part(1).startswith("2 "), "the device began anew, with an upload of its own"
        going.result(ok="0")
    until(lambda: "gone" not in uploads(lab))
    assert "gone" not in names(lab)


def test_what_could_only_fail_is_refused_with_its_reason(site: Site, lab: Installed) -> None:
    taken = {"store": "lab"}
    lab.ok("image", "register", "taken")
    source = site.place / "disk"
    source.write_bytes(b"x" * 1000)
    lab.ok("image", "upload", "taken", str(source), "--overwrite")
    going = Capturing(site, "taken", taken)
    assert going.told["ACTION"] == "local"
    assert "image taken exists in store lab" in going.told["REASON"]
    again = Capturing(site, "taken", taken | {"overwrite": True})
    large = httpx.put(
        f"{site.server.url}/client/v1{again.place}/items/x", trust_env=False,
        headers={"Authorization": f"Bearer {site.token}", "X-Expected-Bytes": str(2**59)},
    )  # fmt: skip
    assert (large.status_code, "answers 507" in large.text) == (507, True), "no room there"
    for number in (1, 2, 3):
        again.part(number)
    assert again.commit().text == "COMMITTED\n"
    again.result(ok="1")
    assert site.newest()["jobs"][0]["version"] == 2
    site.api("POST", "/work", {"mac": MAC, "kind": "capture", "image": "other", "store": "lab"})
    assert "needs a newer imaging client" in Wire(site, site.token).begin(client="2")["REASON"]
    site.server.ok("image", "register", "theirs", "--owner", "lab")
    site.server.ok("image", "upload", "ours", str(source))
    for image, store in (("theirs", "main"), ("ours", "lab")):
        refused = site.server.call("work", "capture", MAC, image, "--store", store, "--overwrite")
        assert (refused.returncode, "another" in refused.stderr) == (1, True), refused.stderr


def test_a_ticket_opens_no_upload_that_was_begun_otherwise(site: Site, lab: Installed) -> None:
    """The token signs what it likes; uploads of the other server's own jobs and callers stay theirs."""
    api = f"{lab.url}/api/v1"
    begun = httpx.post(
        f"{api}/images/own/uploads", json={}, trust_env=False, headers={"Authorization": f"Bearer {lab.token}"}
    ).json()
    token = (site.server.place / "site.token").read_text().strip()
    sums = {"X-Checksum-SHA256": hashlib.sha256(PARTS[0]).hexdigest()}

    def sent(image: str, upload: str) -> int:
        ticket = sign(Scope("send", image, upload=upload), digest(token), int(time.time()) + 600)
        return httpx.put(
            f"{lab.url}/client/v1/uploads/{upload}/items/{ITEM}/parts/1", content=PARTS[0], headers=sums,
            params={"ticket": ticket, "kind": "raw"}, trust_env=False,
        ).status_code  # fmt: skip

    assert (begun["owner"].partition(":")[0], sent("own", begun["upload"])) == ("token", 401)
    going = Capturing(site, "sent", {"store": "lab"})
    going.referred(1)
    [upload] = [each["upload"] for each in lab.json("image", "uploads") if each["image"] == "sent"]
    assert sent("sent", upload) == 200
    going.result(ok="0")


def test_a_server_that_is_away_is_waited_for(site: Site, lab: Installed) -> None:
    site.api("POST", "/work", {"mac": MAC, "kind": "capture", "image": "late", "store": "lab"})
    wire = Wire(site, site.token)
    down(lab)
    try:
        answer = wire.call("POST", "/work", data={"mac": MAC, "client": "2", "follow": "1"})
        assert (answer.status_code, "asks again" in answer.text) == (503, True)
        assert site.newest()["jobs"] == []
    finally:
        lab.ok("start")
    assert wire.begin(client="2", follow="1")["ACTION"] == "capture"


def test_in_maintenance(site: Site, lab: Installed) -> None:
    site.order("console", kind="maintenance")
    site.server.ok("image", "register", "by-hand", "--owner", "lab")
    wire = Wire(site, site.token)
    assert wire.begin(client="2", follow="1")["ACTION"] == "maintenance"
    refused = wire.order(action="capture", image="by-hand", client="2")
    assert (refused.status_code, "newer imaging client" in refused.text) == (409, True)
    told = read(wire.order(action="capture", image="by-hand", client="2", follow="1"))
    assert (told["ACTION"], told["FOLLOW"]) == ("capture", "1")
    assert wire.call("PUT", f"/jobs/{told['JOB']}/items/table.sfdisk").status_code == 307


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root rights: loop devices")
@pytest.mark.parametrize("shell", SHELLS)
def test_the_whole_client(site: Site, lab: Installed, loop: Fixture, tmp_path: Path, shell: str) -> None:
    """Captured by a device that knows the one server alone, while the other one is killed; restored from there."""
    image = f"disk-{shell}"
    site.shell = SHELLS[shell]
    source = loop("source", 40, table="label: dos\nstart=2048, size=32MiB\n")
    files = make_file_system(source, 1, ["mkfs.ext4", "-q"], tmp_path / "m1", 20)
    site.api("POST", "/work", {"mac": MAC, "kind": "capture", "image": image, "store": "lab"})
    running = site.start("--disk", source)
    until(lambda: image in uploads(lab) or running.poll() is not None, 60)
    killed(lab)
    output, _ = running.communicate(timeout=200)
    assert running.returncode == 0, output
    job = site.newest()["jobs"][0]
    assert (job["state"], job["version"]) == ("done", 1), job
    site.api("POST", "/work", {"mac": MAC, "kind": "restore", "image": image, "verify": "read"})
    target = loop("target", 40)
    output = site.run("--disk", target)
    assert output.endswith("exit 0"), output
    assert contents(target, 1, tmp_path / "m1") == files
