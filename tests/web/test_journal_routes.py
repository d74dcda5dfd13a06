"""The boot journal over HTTP, on the running server: sessions, timelines, packets, live steps."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sqlite3
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import pytest
from scapy.layers.inet import UDP
from scapy.utils import PcapReader

from pbserv.journal.follow import MOST_FOLLOWERS
from tests.journal.samples import asks
from tests.support.process import Installed

BASE = "/api/v1/journal"


def wait_for(look: Callable[[], Any], timeout_s: float = 20) -> Any:
    end = time.monotonic() + timeout_s
    while not (found := look()):
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.05)
    return found


def sessions_in(database: Path) -> list[str]:
    with contextlib.closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as other:
        return [mac for (mac,) in other.execute("SELECT mac FROM boot_session")]


def boots(nobody: httpx.Client, mac: str) -> None:
    """A device asks for its boot script, as iPXE does."""
    assert nobody.get(f"/boot/{mac.replace(':', '-')}.ipxe").status_code in (200, 403)


def discover(server: Installed, mac: str, **packet: int) -> bytes:
    """A DISCOVER to the server's DHCP port."""
    data = asks(mac=bytes.fromhex(mac.replace(":", "")), **packet)
    port = int(server.files["proxydhcp.conf"]["ProxyDHCPPort"])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.sendto(data, ("127.0.0.1", port))
    return data


@pytest.mark.parametrize("path", ["", "/stream", "/52:54:00:00:dd:01", "/52:54:00:00:dd:01/packets.pcap"])
def test_it_is_for_administrators(nobody: httpx.Client, path: str) -> None:
    assert nobody.get(BASE + path).status_code == 401
    assert nobody.get(BASE + path, headers={"Authorization": "Bearer x"}).status_code == 401


def test_sessions_of_all_devices_and_of_one(admin: httpx.Client, nobody: httpx.Client) -> None:
    first, second = "52:54:00:00:dd:01", "52:54:00:00:dd:02"
    for mac in (first, second):
        boots(nobody, mac)
    found = admin.get(BASE).json()
    assert {session["mac"] for session in found} >= {first, second}
    [session] = admin.get(BASE, params={"mac": first.replace(":", "-").upper()}).json()
    assert (session["mac"], session["still"], session["packets"]) == (first, True, 0)
    assert session["result"] == "pending"
    assert session["todo"] == f"pbserv device accept {first}"
    assert len(admin.get(BASE, params={"limit": 1}).json()) == 1


def test_a_timeline_with_packets(server: Installed, admin: httpx.Client) -> None:
    mac = "52:54:00:00:dd:03"
    discover(server, mac, secs=4)
    path = f"{BASE}/{mac}"

    def heard() -> list[dict[str, Any]]:
        return [row for session in admin.get(path).json() for row in session["rows"] if row["source"] == "dhcp"]

    [row] = wait_for(heard)
    assert (row["what"], row["packet"]) == ("DISCOVER", [])
    assert "UEFI x64, PXEClient:Arch:00007:UNDI:003016, secs 4" in row["detail"]
    assert "device is pending" in row["answer"]
    [session] = admin.get(path, params={"packets": True}).json()
    [row] = [row for row in session["rows"] if row["source"] == "dhcp"]
    assert "option 53 message type: DISCOVER" in row["packet"]
    assert (session["result"], session["lost"], session["packets"]) == ("pending", 0, 1)


def test_packets_for_wireshark(server: Installed, admin: httpx.Client) -> None:
    mac = "52:54:00:00:dd:04"
    data = [discover(server, mac, secs=secs) for secs in (0, 4)]
    wait_for(lambda: [s for s in admin.get(BASE, params={"mac": mac}).json() if s["packets"] == 2])
    answer = admin.get(f"{BASE}/{mac}/packets.pcap")
    assert answer.headers["content-type"] == "application/vnd.tcpdump.pcap"
    assert [bytes(frame[UDP].payload) for frame in PcapReader(BytesIO(answer.content))] == data


def test_a_device_of_two_addresses(server: Installed, admin: httpx.Client, nobody: httpx.Client) -> None:
    first, second = "52:54:00:00:dd:0a", "52:54:00:00:dd:0b"
    for mac in (first, second):
        boots(nobody, mac)
        assert admin.post(f"/api/v1/devices/{mac}/accept").status_code == 200
    wait_for(lambda: {first, second} <= set(sessions_in(server.state / "registry.db")))
    assert admin.post(f"/api/v1/devices/{first}/join", json={"mac": second}).status_code == 200
    for mac in (first, second):
        data = {mac: discover(server, mac)}
        wait_for(lambda mac=mac: [s for s in admin.get(BASE, params={"mac": mac}).json() if s["packets"]])
        assert {s["mac"] for s in admin.get(BASE, params={"mac": mac}).json()} == {first, second}
        assert {s["mac"] for s in admin.get(f"{BASE}/{mac}", params={"limit": 5}).json()} == {first, second}
    frames = list(PcapReader(BytesIO(admin.get(f"{BASE}/{first}/packets.pcap").content)))
    senders = {frame.src for frame in frames}
    assert {first, second} <= senders
    assert data[second] in [bytes(frame[UDP].payload) for frame in frames]
    shown = server.ok("device", "show", second)
    assert all(mac in shown for mac in (first, second))
    told = json.loads(server.ok("device", "show", first, "--json"))
    assert {boot["mac"] for boot in told["boots"]} == {first, second} == {event["mac"] for event in told["history"]}


def test_a_reload_changes_how_many_packets_are_kept(server: Installed, admin: httpx.Client) -> None:
    mac = "52:54:00:00:dd:09"

    def kept() -> int:
        return sum(session["packets"] for session in admin.get(BASE, params={"mac": mac}).json())

    for secs in range(4):
        discover(server, mac, secs=secs)
    wait_for(lambda: kept() == 4)
    server.set("pbserv.conf", JournalPackets="2")
    server.ok("force-reload")
    try:
        discover(server, mac, secs=9)
        wait_for(lambda: kept() == 2)
    finally:
        server.set("pbserv.conf", JournalPackets="32")
        server.ok("force-reload")


def test_what_happens_now(server: Installed, admin: httpx.Client, nobody: httpx.Client) -> None:
    mac, other = "52:54:00:00:dd:05", "52:54:00:00:dd:06"
    with admin.stream("GET", f"{BASE}/stream", params={"mac": mac}) as live:
        lines = live.iter_lines()
        assert next(lines) == "", "connected"
        boots(nobody, other)
        boots(nobody, mac)
        discover(server, mac)
        steps = [json.loads(next(filter(None, lines))) for _ in range(3)]
    assert {step["mac"] for step in steps} == {mac}
    assert {"registered", "asked by http"} <= {step["what"] for step in steps}


def test_those_who_watch_are_bounded_and_leave(server: Installed, admin: httpx.Client) -> None:
    headers = {"Authorization": f"Bearer {server.token}"}
    clients = [httpx.Client(base_url=server.url, headers=headers, trust_env=False) for _ in range(MOST_FOLLOWERS)]
    try:
        requests = [client.build_request("GET", f"{BASE}/stream") for client in clients]
        # An iterator that is dropped closes its connection.
        live = [client.send(r, stream=True).iter_lines() for client, r in zip(clients, requests, strict=True)]
        for lines in live:
            assert next(lines) == ""
        refused = admin.get(f"{BASE}/stream")
        assert refused.status_code == 429
        assert "16 watch" in refused.json()["error"]
    finally:
        for client in clients:
            client.close()

    def free() -> bool:
        with admin.stream("GET", f"{BASE}/stream") as live:
            return live.status_code == 200

    wait_for(free)


def test_wrong_questions_are_named(admin: httpx.Client) -> None:
    for path in (f"{BASE}/nonsense", f"{BASE}?mac=nonsense", f"{BASE}/stream?mac=x", f"{BASE}/x/packets.pcap"):
        answer = admin.get(path)
        assert answer.status_code == 422, path
        assert "aa:bb:cc:dd:ee:ff" in answer.json()["error"]
    assert admin.get(BASE, params={"limit": 0}).status_code == 422
    assert admin.get(f"{BASE}/52:54:00:00:dd:99").json() == []


def test_a_forgotten_device_has_no_boots(admin: httpx.Client, nobody: httpx.Client) -> None:
    mac = "52:54:00:00:dd:07"
    boots(nobody, mac)
    assert admin.get(BASE, params={"mac": mac}).json()
    assert admin.delete(f"/api/v1/devices/{mac}").status_code == 204
    assert admin.get(BASE, params={"mac": mac}).json() == []


def test_sessions_outlive_a_kill(tmp_path_factory: pytest.TempPathFactory) -> None:
    installed = Installed(tmp_path_factory.mktemp("killed"))
    installed.ok("start")
    try:
        mac = "52:54:00:00:dd:08"
        with httpx.Client(base_url=installed.url, trust_env=False) as nobody:
            boots(nobody, mac)
        database = installed.state / "registry.db"
        wait_for(lambda: sessions_in(database))
        os.kill(installed.pid, signal.SIGKILL)
        installed.ok("start")
        headers = {"Authorization": f"Bearer {installed.token}"}
        with httpx.Client(base_url=installed.url, headers=headers, trust_env=False) as admin:
            assert [session["mac"] for session in admin.get(BASE).json()] == [mac]
    finally:
        installed.finish()


def test_a_follower_does_not_hold_up_the_stop(tmp_path_factory: pytest.TempPathFactory) -> None:
    installed = Installed(tmp_path_factory.mktemp("stopped"))
    installed.ok("start")
    try:
        headers = {"Authorization": f"Bearer {installed.token}"}
        with (
            ThreadPoolExecutor(1) as pool,
            httpx.Client(base_url=installed.url, headers=headers, trust_env=False) as admin,
            admin.stream("GET", f"{BASE}/stream") as live,
        ):
            lines = live.iter_lines()
            assert next(lines) == ""
            stopping = pool.submit(installed.ok, "stop")
            assert [line for line in lines if line] == [], "the stream ends by itself: one that is cut off raises"
            stopping.result(60)
    finally:
        installed.finish()
