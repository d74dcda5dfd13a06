"""One decision for DHCP, TFTP and HTTP: the real server in a namespace, asked in all three ways by one machine.

The machine never tells its address over DHCP: over TFTP and HTTP it is known by the kernel's neighbour table.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.netns import Host, room
from tests.support.server import Server, running

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root: network namespaces")]

# Runs inside the machine's namespace: one line of JSON with what it got.
ASK = """
import json, socket, sys, urllib.error, urllib.request
server, mac = sys.argv[1:]
chaddr = bytes.fromhex(mac.replace(":", ""))

def dhcp():
    options = bytes([53, 1, 1, 93, 2, 0, 0, 94, 3, 1, 2, 1, 60, 9]) + b"PXEClient" + b"\\xff"
    head = bytes([1, 1, 6, 0]) + b"\\x12\\x34\\x56\\x78" + bytes([0, 4, 0x80, 0]) + bytes(16) + chaddr.ljust(16, b"\\0")
    packet = (head + bytes(192) + b"\\x63\\x82\\x53\\x63" + options).ljust(300, b"\\0")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as card:
        card.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        card.bind(("0.0.0.0", 68))
        card.settimeout(2)
        card.sendto(packet, ("255.255.255.255", 67))
        try:
            return card.recv(2048)[108:236].rstrip(b"\\0").decode()
        except TimeoutError:
            return "no answer"

def tftp(name):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(5)
        client.sendto(b"\\0\\1" + name.encode() + b"\\0octet\\0", (server, 69))
        data, peer = client.recvfrom(2048)
        if data[1] == 3:
            client.sendto(b"\\0\\4" + data[2:4], peer)
            return "given"
        return f"error {data[3]}"

def http(path):
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"http://{server}:8067{path}", timeout=5) as answer:
            answer.read()
            return answer.status
    except urllib.error.HTTPError as fault:
        return fault.code

names = ("/files/f", "/boot.ipxe", "/boot/" + mac + ".ipxe", "/boot/52-54-00-00-00-99.ipxe", "/client/vmlinuz")
print(json.dumps({
    "dhcp": dhcp(), "tftp": [tftp(name) for name in ("f", "boot.ipxe", "boot/" + mac + ".ipxe")],
    "http": [http(name) for name in names],
}))
"""


class Machine:
    def __init__(self, host: Host, server: Server) -> None:
        self._host = host
        self._server = server
        self.mac = host.run("cat", "/sys/class/net/eth0/address").strip()

    def asks(self) -> dict[str, object]:
        found: dict[str, object] = json.loads(
            self._host.run(sys.executable, "-c", ASK, self._server.host.address, self.mac)
        )
        return found


@pytest.fixture(scope="module")
def site() -> Iterator[tuple[Server, Machine]]:
    with tempfile.TemporaryDirectory(prefix="pbserv-one-", dir="/var/tmp") as place, room() as net:
        os.chmod(place, 0o755)
        server = Server(net.host("server", 2), Path(place))
        (server.tftp / "f").write_bytes(b"1")
        (server.tftp / "undionly.kpxe").write_bytes(b"2")
        with running(server):
            server.ok("device", "accept", "52:54:00:00:00:99")
            yield server, Machine(net.host("machine", 50), server)


NOTHING = {"dhcp": "no answer", "tftp": ["error 2"] * 3, "http": [403] * 5}


def test_a_new_device_is_pending_and_gets_nothing(site: tuple[Server, Machine]) -> None:
    server, machine = site
    assert machine.asks() == NOTHING
    told = server.history(machine.mac)
    assert ("registered", "pending by dhcp") in told
    assert ("tftp", f"f: refused, device is pending; accept it with: pbserv device accept {machine.mac}") in told
    assert ("http", f"f: refused, device is pending; accept it with: pbserv device accept {machine.mac}") in told


def test_an_accepted_device_gets_everything(site: tuple[Server, Machine]) -> None:
    server, machine = site
    server.ok("device", "accept", machine.mac)
    got = machine.asks()
    assert got["tftp"] == ["given"] * 3
    assert got["http"] == [200, 200, 200, 403, 404]  # not the script of another; the imaging client was not built
    assert ("http", "f: completed, 1 bytes") in server.history(machine.mac)


def test_a_device_with_the_loader_as_its_default_is_offered_it(site: tuple[Server, Machine]) -> None:
    server, machine = site
    server.configure("preboot-policy.conf", ZoneDefault="loader")
    server.ok("force-reload")
    assert machine.asks()["dhcp"] == "undionly.kpxe"


def test_a_denied_device_gets_nothing(site: tuple[Server, Machine]) -> None:
    server, machine = site
    server.ok("device", "deny", machine.mac)
    assert machine.asks() == NOTHING
    told = server.history(machine.mac)
    assert ("tftp", "f: refused, device is denied") in told
    assert ("http", "f: refused, device is denied") in told
    assert server.logged("tftp", "refused", "file=f", "device is denied")


def test_another_servers_policy_engine(site: tuple[Server, Machine]) -> None:
    server, machine = site
    server.configure("proxydhcp.conf", NovellPolicyEngine="203.0.113.9:8067")
    server.ok("force-reload")
    assert machine.asks() == NOTHING, "denied here"
    server.ok("device", "forget", machine.mac)
    assert machine.asks()["dhcp"] == "undionly.kpxe"
    assert server.call("device", "show", machine.mac).returncode != 0, "nobody is registered here"
