"""The whole life of work over HTTP, as the imaging client lives it: capture, restore, cancel, fail; and the figures."""

from __future__ import annotations

import hashlib
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from pbserv.registry.tokens import WorkTokens
from tests.support.process import Installed, command

MAC = "52:54:00:00:bb:01"
P1 = b"first partition " * 5000
TABLE = b"label: dos\n"
_opened: list[httpx.Client] = []


@dataclass
class Client:
    """Speaks like the imaging client."""

    http: httpx.Client
    job: str = ""

    def begin(self, mac: str = MAC) -> dict[str, str]:
        answer = self.http.post("/client/v1/work", data={"mac": mac, "firmware": "bios"})
        assert answer.status_code == 200, answer.text
        told = dict(shlex.split(line)[0].split("=", 1) for line in answer.text.splitlines())
        self.job = told.get("JOB", "")
        return told

    def call(self, method: str, path: str, **arguments: object) -> httpx.Response:
        return self.http.request(method, f"/client/v1/jobs/{self.job}/{path}", **arguments)  # type: ignore[arg-type]


def manifest(**items: bytes) -> str:
    lines = ["pbserv-image 1", "disk 1048576 512 dos bios"]
    for number, (name, data) in enumerate(items.items()):
        kind = "sfdisk" if name == "table" else "raw"
        lines.append(f"item {name} {kind} {number} {len(data)} {hashlib.sha256(data).hexdigest()} {len(data)}")
    return "\n".join(lines) + "\n"


@pytest.fixture
def device(server: Installed) -> Iterator[str]:
    server.ok("device", "accept", MAC)
    yield MAC
    for work in server.json("work", "list"):
        server.ok("work", "cancel", str(work["id"]))
    while _opened:
        _opened.pop().close()


def client_of(server: Installed, work: str) -> Client:
    """A client with the token that the boot script hands out for ``work``."""
    script = httpx.get(f"{server.url}/boot/{MAC.replace(':', '-')}.ipxe", trust_env=False).text
    found = re.search(r"pb\.token=(\S+)", script)
    assert found, script
    assert found[1].startswith(f"{work}.")
    http = httpx.Client(base_url=server.url, headers={"Authorization": f"Bearer {found[1]}"}, trust_env=False)
    _opened.append(http)
    return Client(http)


def queue(server: Installed, kind: str, image: str, *more: str) -> str:
    done = server.call("work", kind, MAC, image, *more)
    assert done.returncode == 0, done.stderr
    assert "pbserv client build" in done.stderr, "the client is not built here, and the command says so"
    found = re.match(r"work (\d+):", done.stdout)
    assert found
    return found[1]


def figures(server: Installed) -> list[int]:
    done = command([str(server.program.with_name("zmgmcast")), "-status", "--conf", str(server.conf)])
    rows = [line.rsplit(None, 1) for line in done.splitlines()[1:]]
    assert [row[0].strip() for row in rows] == ["PXE Requests", "Images Sent", "Images Received"]
    return [int(row[1]) for row in rows]


def capture(server: Installed, image: str) -> Client:
    client = client_of(server, queue(server, "capture", image))
    assert client.begin()["ACTION"] == "capture"
    for name, data in (("table", TABLE), ("p1", P1)):
        stored = client.call("PUT", f"items/{name}", content=iter([data[:100], data[100:]]))
        assert stored.text == f"{len(data)} {hashlib.sha256(data).hexdigest()}\n"
    assert client.call("POST", "commit", content=manifest(table=TABLE, p1=P1)).text == "COMMITTED\n"
    assert client.call("POST", "commit", content=manifest(table=TABLE, p1=P1)).text == "COMMITTED\n"
    assert client.call("POST", "result", data={"ok": "1", "seconds": "3"}).text == "OK\n"
    return client


def test_capture_then_restore(server: Installed, device: str) -> None:
    requests, sent, received = figures(server)
    capture(server, "life")
    assert figures(server) == [requests + 1, sent, received + 1]
    assert [(i["name"], i["version"]) for i in server.json("image", "list") if i["name"] == "life"] == [("life", 1)]
    assert server.json("work", "list") == []

    client = client_of(server, queue(server, "restore", "life", "--disk", "serial:QM 00001"))
    told = client.begin()
    assert (told["ACTION"], told["IMAGE"], told["TARGET_DISK"], told["FINISH"]) == (
        "restore", "life", "serial:QM 00001", "reboot",
    )  # fmt: skip
    assert client.call("GET", "manifest").text == manifest(table=TABLE, p1=P1)
    assert client.call("GET", "items/table").content == TABLE
    progress = {"stage": "restore", "item": "p1", "bytes": "10", "total": "20", "rate": "5"}
    assert client.call("POST", "progress", data=progress).text == "CONTINUE\n"
    half = client.call("GET", "items/p1", headers={"Range": "bytes=0-39999"})
    assert figures(server)[1] == sent, "not sent before its last byte"
    rest = client.call("GET", "items/p1", headers={"Range": "bytes=40000-"})
    assert half.content + rest.content == P1
    assert figures(server) == [requests + 2, sent + 1, received + 1]
    running = server.json("work", "list")[0]
    assert (running["state"], running["job"]["stage"], running["job"]["bytes_total"]) == ("running", "restore", 20)
    assert client.call("POST", "result", data={"ok": "1"}).text == "OK\n"
    history = [f"{e['what']}: {e['detail']}" for e in server.json("device", "show", MAC)["history"]]
    assert any("restore life done" in line for line in history)
    assert any("life version 1 committed" in line for line in history)
    assert "local" in httpx.get(f"{server.url}/boot/{MAC}.ipxe", trust_env=False).text
    log = server.log()
    assert re.search(rf"imaging request source={MAC} type=restore .*result=started", log)
    assert re.search(rf"job device={MAC} .*kind=restore image=life result=done", log)


def test_work_is_cleared_by_its_report_and_not_by_the_first_question(server: Installed, device: str) -> None:
    capture(server, "twice")
    work = queue(server, "restore", "twice")
    first = client_of(server, work)
    first.begin()
    second = client_of(server, work)
    assert second.begin()["ACTION"] == "restore"
    assert first.call("GET", "manifest").status_code == 409, "the first run is over"
    assert second.call("POST", "result", data={"ok": "0", "reason": "disk too small"}).text == "OK\n"
    failed = next(w for w in server.json("work", "list", "--all") if str(w["id"]) == work)
    assert (failed["state"], failed["reason"]) == ("held", "disk too small")
    assert second.call("POST", "result", data={"ok": "1"}).text == "OK\n", "a repeated report changes nothing"
    assert second.begin()["ACTION"] == "local"
    assert next(w for w in server.json("work", "list", "--all") if str(w["id"]) == work)["state"] == "held"


def test_a_cancelled_job_is_told_and_leaves_nothing(server: Installed, device: str) -> None:
    work = queue(server, "capture", "unwanted")
    client = client_of(server, work)
    client.begin()
    client.call("PUT", "items/p1", content=P1)
    server.ok("work", "cancel", work)
    assert client.call("POST", "progress", data={"stage": "capture"}).text == "CANCEL\n"
    assert client.call("POST", "commit", content=manifest(p1=P1)).status_code == 409
    assert client.call("POST", "result", data={"ok": "0", "reason": "cancelled"}).text == "OK\n"
    assert "unwanted" not in [i["name"] for i in server.json("image", "list")]
    incoming = Path(server.state) / "images" / ".incoming"
    assert list(incoming.iterdir()) == []


def test_a_wrong_checksum_is_never_committed(server: Installed, device: str) -> None:
    client = client_of(server, queue(server, "capture", "damaged"))
    client.begin()
    client.call("PUT", "items/p1", content=P1)
    refused = client.call("POST", "commit", content=manifest(p1=P1[::-1]))
    assert refused.status_code == 422
    assert refused.text.startswith("error: ")
    assert "p1" in refused.text
    assert "damaged" not in [i["name"] for i in server.json("image", "list")]


def test_an_existing_image_is_refused_before_a_device_boots(server: Installed, device: str) -> None:
    capture(server, "taken")
    refused = server.call("work", "capture", MAC, "taken")
    assert refused.returncode == 1
    assert "exists" in refused.stderr
    missing = server.call("work", "restore", MAC, "no-such-image")
    assert missing.returncode == 1
    assert "pbserv image list" in missing.stderr


def test_an_image_that_is_not_served_any_more_fails_the_job_with_its_reason(server: Installed, device: str) -> None:
    capture(server, "gone")
    work = queue(server, "restore", "gone")
    server.ok("image", "disable", "gone")
    assert client_of(server, work).begin()["ACTION"] == "local"
    failed = next(w for w in server.json("work", "list", "--all") if str(w["id"]) == work)
    assert failed["state"] == "held"
    assert "gone" in failed["reason"]


def test_a_token_opens_its_own_work_only(server: Installed, device: str) -> None:
    capture(server, "own")
    client = client_of(server, queue(server, "restore", "own"))
    client.begin()
    stranger = Client(client.http, job="1")
    assert stranger.call("GET", "manifest").status_code == 409
    assert client.http.get("/api/v1/devices").status_code == 403
    assert client.http.get("/api/v1/images").status_code == 403
    forged = WorkTokens(b"x" * 32).issue(1)
    assert client.http.post("/client/v1/work", headers={"Authorization": f"Bearer {forged}"}).status_code == 401
    wrong_device = client.begin("52:54:00:00:bb:99")
    assert wrong_device["ACTION"] == "local"
    assert "belongs to" in wrong_device["REASON"]


def test_success_without_an_image_is_not_believed(server: Installed, device: str) -> None:
    work = queue(server, "capture", "nothing")
    client = client_of(server, work)
    client.begin()
    assert client.call("POST", "result", data={"ok": "1"}).text == "OK\n"
    failed = next(w for w in server.json("work", "list", "--all") if str(w["id"]) == work)
    assert (failed["state"], failed["reason"]) == (
        "held", "the device reported success, but no image was committed",
    )  # fmt: skip


def test_a_capture_goes_on_after_a_restart_of_imaging(server: Installed, device: str) -> None:
    client = client_of(server, queue(server, "capture", "interrupted"))
    client.begin()
    client.call("PUT", "items/table", content=TABLE)
    server.ok("restart", "imaging")
    assert client.call("PUT", "items/p1", content=P1).status_code == 200
    server.ok("restart", "imaging")
    assert client.call("POST", "commit", content=manifest(table=TABLE, p1=P1)).text == "COMMITTED\n"
    server.ok("restart", "imaging")
    assert client.call("POST", "commit", content=manifest(table=TABLE, p1=P1)).text == "COMMITTED\n"


def test_a_capture_of_which_nothing_had_arrived_goes_on_after_a_restart(server: Installed, device: str) -> None:
    """Its script before may take long, and has done its work."""
    client = client_of(server, queue(server, "capture", "early"))
    client.begin()
    server.ok("restart", "imaging")
    assert client.call("PUT", "items/p1", content=P1).status_code == 200
    assert client.call("PUT", "items/table", content=TABLE).status_code == 200
    assert client.call("POST", "commit", content=manifest(table=TABLE, p1=P1)).text == "COMMITTED\n"


def test_a_cancel_while_the_commit_arrives_frees_the_name(server: Installed, device: str) -> None:
    work = queue(server, "capture", "crossing")
    client = client_of(server, work)
    client.begin()
    client.call("PUT", "items/p1", content=P1)
    text = manifest(p1=P1)

    def slowly() -> Iterator[bytes]:
        yield text[:20].encode()
        server.ok("work", "cancel", work)
        yield text[20:].encode()

    assert client.call("POST", "commit", content=slowly()).status_code == 409
    admin = {"Authorization": f"Bearer {server.token}"}
    uploaded = httpx.put(f"{server.url}/api/v1/images/crossing", content=b"x", headers=admin, trust_env=False)
    assert uploaded.status_code == 201


def test_a_body_without_end_is_refused(server: Installed) -> None:
    large = httpx.post(f"{server.url}/api/v1/work", content=b"{" * 1_000_000, trust_env=False)
    assert large.status_code == 413
    with httpx.Client(trust_env=False, timeout=10) as http:
        endless = http.post(f"{server.url}/api/v1/work", content=(b"{" * 65536 for _ in range(8)))
    assert endless.status_code in (400, 401, 413)


def test_numbers_that_no_database_holds_are_refused(server: Installed) -> None:
    admin = {"Authorization": f"Bearer {server.token}"}
    for path in ("api/v1/work/99999999999999999999/cancel", "api/v1/work/0/cancel"):
        assert httpx.post(f"{server.url}/{path}", headers=admin, trust_env=False).status_code == 422


def test_a_denied_device_is_silent_and_has_no_work(server: Installed) -> None:
    mac = "52:54:00:00:bb:02"
    server.ok("device", "accept", mac)
    server.ok("device", "deny", mac)
    refused = server.call("work", "restore", mac, "x")
    assert refused.returncode == 1
    assert [d["state"] for d in server.json("device", "list") if d["mac"] == mac] == ["denied"]


def test_the_figures_start_from_nought_with_the_server(server: Installed) -> None:
    server.ok("restart")
    assert figures(server) == [0, 0, 0]
