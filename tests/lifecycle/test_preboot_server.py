"""Two real servers: a branch whose policies headquarters decides, also while headquarters is gone; and a hook."""

from __future__ import annotations

import http.server
import json
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from pbserv.proxydhcp import packet as dhcp
from tests.proxydhcp.samples import asks
from tests.support.process import Installed, free_port

MAC, STRANGER = "52:54:00:00:00:01", "52:54:00:00:00:02"
BUNDLE = {"kind": "linux", "kernel": "live/vmlinuz", "arguments": "quiet"}


def script(server: Installed, mac: str = MAC) -> str:
    answer = httpx.get(f"{server.url}/boot/{mac}.ipxe", trust_env=False, timeout=10)
    return answer.text if answer.status_code == 200 else f"{answer.status_code}: {answer.text}"


def put(server: Installed, path: str, **body: object) -> None:
    headers = {"Authorization": f"Bearer {server.token}"}
    httpx.put(f"{server.url}/api/v1/{path}", json=body, headers=headers, trust_env=False, timeout=10).raise_for_status()


def request(server: Installed, mac: str, xid: int) -> dhcp.Packet | None:
    """What the boot server says to the firmware of a device; None: nothing within two seconds."""
    digits = mac.replace(":", "")
    uuid = b"\0" + bytes.fromhex(digits) + bytes(range(10))
    packet = asks(
        dhcp.REQUEST, 7, ciaddr=dhcp.undotted("127.0.0.1"), mac=digits, xid=xid, extra={dhcp.CLIENT_UUID: uuid}
    )
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.bind(("127.0.0.1", 0))
        client.settimeout(2)
        client.sendto(dhcp.encode(packet), ("127.0.0.1", int(server.files["proxydhcp.conf"]["BootServerPort"])))
        try:
            return dhcp.decode(client.recv(2048))
        except TimeoutError:
            return None


def until(what: Callable[[], object], seconds: float = 15) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end
        time.sleep(0.1)


@pytest.fixture
def headquarters(tmp_path: Path) -> Iterator[Installed]:
    server = Installed(tmp_path / "headquarters")
    server.set("preboot-policy.conf", NewDevices="accept")
    server.ok("start")
    yield server
    server.finish()


@pytest.fixture
def branch(tmp_path: Path, headquarters: Installed) -> Iterator[Installed]:
    server = Installed(tmp_path / "branch")
    token = server.place / "site.token"
    token.write_text(headquarters.json("token", "create", "branch", "--role", "site")["token"])
    token.chmod(0o640)
    server.set(
        "preboot-policy.conf", PrebootServer=f"127.0.0.1:{headquarters.http_port}", PrebootServerToken=str(token)
    )
    server.ok("start")
    yield server
    server.finish()


def test_a_branch_does_what_headquarters_says_and_said(headquarters: Installed, branch: Installed) -> None:
    put(headquarters, "bundles/live", **BUNDLE)
    put(headquarters, "assignments/all", bundle="live", folder="/")

    acknowledged = request(branch, MAC, 1)
    assert acknowledged is not None
    assert acknowledged.message_type == dhcp.ACK
    figures = branch.json("statistics")["proxydhcp"]
    assert (figures["acknowledgements"], figures["waited"]) == (1, 1)
    assert f"{headquarters.url}/files/live/vmlinuz" in script(branch)
    assert [device["mac"] for device in headquarters.json("device", "list")] == [MAC]
    assert branch.json("device", "list") == []

    headquarters.ok("stop")
    branch.ok("stop")
    branch.ok("start")
    assert re.search(rf"{branch.url}/s/\w+/files/live/vmlinuz", script(branch))
    until(lambda: "from the cache of " in branch.log("preboot-policy"))
    assert request(branch, STRANGER, 2) is None
    until(lambda: "never asked about this device before" in branch.log("preboot-policy"))

    headquarters.ok("start")
    put(headquarters, "bundles/live", **{**BUNDLE, "kernel": "live/newer"})
    until(lambda: f"{headquarters.url}/files/live/newer" in script(branch))
    until(lambda: request(branch, STRANGER, 3) is not None)


def test_a_token_that_headquarters_does_not_know(headquarters: Installed, branch: Installed) -> None:
    (branch.place / "site.token").write_text("mistyped")
    branch.ok("stop")
    branch.ok("start")
    assert request(branch, MAC, 1) is None
    until(lambda: "PrebootServerToken" in branch.log("preboot-policy"))


def test_a_token_that_everybody_can_read_is_refused(branch: Installed) -> None:
    (branch.place / "site.token").chmod(0o644)
    branch.ok("stop")
    started = branch.call("start")
    assert "chmod o-r" in started.stdout + started.stderr


def said_of(server: Installed, word: str) -> list[str]:
    """What the doctor says with this word in it."""
    found = json.loads(server.call("doctor", "--quick", "--json").stdout)["findings"]
    return [f"{each['what']}: {each['evidence']}" for each in found if word in each["what"]]


def test_over_tls_the_one_certificate_is_believed(headquarters: Installed, branch: Installed) -> None:
    put(headquarters, "bundles/live", **BUNDLE)
    put(headquarters, "assignments/all", bundle="live", folder="/")
    port = free_port()
    headquarters.set("pbserv.conf", HTTPSPort=str(port), RequireTLS="YES")
    headquarters.ok("force-reload")
    https = headquarters.json("status")["https"]
    other = https["fingerprint"][:-2] + ("00" if https["fingerprint"][-2:] != "00" else "11")
    branch.set("preboot-policy.conf", PrebootServer=https["url"], PrebootServerCA=other)
    branch.ok("force-reload")
    assert f"{headquarters.url}/files" not in script(branch)
    until(lambda: https["fingerprint"] in branch.log("preboot-policy"))
    (wrong,) = said_of(branch, "PrebootServer")
    assert https["fingerprint"] in wrong

    branch.set("preboot-policy.conf", PrebootServerCA=https["fingerprint"])
    branch.ok("force-reload")
    until(lambda: f"{headquarters.url}/files/live/vmlinuz" in script(branch))
    assert said_of(branch, "PrebootServer") == []
    (branch.place / "site.token").write_text("mistyped")
    (refused,) = said_of(branch, "PrebootServer")
    assert "answers 401" in refused


@pytest.fixture
def hook() -> Iterator[tuple[str, list[str]]]:
    """A program that decides: the URL of its server, and what it was asked."""
    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            found = MAC in self.path
            body = json.dumps({"kernel": "/vmlinuz", "cmdline": "hooked"}).encode()
            self.send_response(200 if found else 404)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None: ...

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", asked
        server.shutdown()
        thread.join()


def test_a_hook_decides_and_leaves(tmp_path: Path, hook: tuple[str, list[str]]) -> None:
    url, asked = hook
    server = Installed(tmp_path)
    server.set("preboot-policy.conf", NewDevices="accept", ZoneDefault="loader", PolicyHook=f"{url}/v1/boot/{{mac}}")
    try:
        server.ok("start")
        assert f"{url}/vmlinuz" in script(server)
        assert "hooked" in script(server)
        assert asked == [f"/v1/boot/{MAC}"]
        answer = request(server, STRANGER, 1)
        assert answer is not None
        assert asked[1].startswith(f"/v1/boot/{STRANGER}?arch=7&uuid=")
        assert server.json("statistics")["proxydhcp"]["waited"] == 1
        server.set("preboot-policy.conf", PolicyHook="http://127.0.0.1:9/{mac}", PolicyHookFailure="closed")
        server.ok("force-reload")
        assert request(server, "52:54:00:00:00:03", 2) is None
        until(lambda: "PolicyHookFailure = closed" in server.log("preboot-policy"))
    finally:
        server.finish()
