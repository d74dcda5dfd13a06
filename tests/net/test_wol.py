"""Magic packets: their content, and by which interfaces they leave, seen on the wire of a network namespace."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pbserv.net.interfaces import InterfaceAddress
from pbserv.net.wol import _directed, magic_packet
from pbserv.types import MacAddress

MAC = "52:54:00:12:34:56"
ON_THE_WIRE = """
import json, socket, struct, subprocess, sys
from pbserv.net import wol
from pbserv.types import MacAddress

def ip(*words): subprocess.run(["ip", *words], check=True)

ip("link", "set", "lo", "up")
wires = {}
for number, name in enumerate(("one", "two"), 1):
    ip("link", "add", name, "type", "veth", "peer", "name", name + "-end")
    ip("addr", "add", f"10.99.{number}.1/24", "brd", "+", "dev", name)
    ip("link", "set", name, "up")
    ip("link", "set", name + "-end", "up")
    wires[name] = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0800))
    wires[name].bind((name + "-end", 0x0800))
    wires[name].settimeout(20)
sent = wol.wake([MacAddress.parse(mac) for mac in sys.argv[1].split(",")], sys.argv[2])
found = {}
for name, wire in wires.items():
    frames = found[name] = []
    while len(frames) < 2 * len(sys.argv[1].split(",")):
        frame = wire.recv(2048)
        if frame[23] != 17:
            continue
        source, target = socket.inet_ntoa(frame[26:30]), socket.inet_ntoa(frame[30:34])
        port, = struct.unpack("!H", frame[36:38])
        frames.append([frame[:6].hex(), source, target, port, frame[42:].hex()])
print(json.dumps({"to": sent.to, "faults": sent.faults, "frames": found}))
"""


@given(st.binary(min_size=6, max_size=6))
def test_the_packet_is_six_of_all_ones_and_the_address_sixteen_times(octets: bytes) -> None:
    packet = magic_packet(MacAddress(octets))
    assert (len(packet), packet[:6], packet[6:]) == (102, b"\xff" * 6, octets * 16)


@pytest.mark.parametrize(
    ("seen", "target"),
    [("10.0.0.7", ""), ("10.0.5.7", "10.0.5.255"), ("", ""), ("127.0.0.1", ""), ("fe80::1", ""), ("0.0.0.0", "")],
)
def test_a_subnet_behind_a_router_has_its_own_broadcast(seen: str, target: str) -> None:
    assert _directed(seen, [InterfaceAddress(2, "eth0", "10.0.0.1", 24, "10.0.0.255")]) == target


@pytest.mark.root
def test_they_leave_by_every_interface() -> None:
    other = "52:54:00:12:34:57"
    done = subprocess.run(
        ["unshare", "--net", sys.executable, "-c", ON_THE_WIRE, f"{MAC},{other}", "10.88.0.9"],
        capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    packets = {magic_packet(MacAddress.parse(mac)).hex() for mac in (MAC, other)}
    for number, name in enumerate(("one", "two"), 1):
        frames = seen["frames"][name]
        assert {(frame[0], frame[1], frame[3]) for frame in frames} == {("f" * 12, f"10.99.{number}.1", 9)}
        assert {frame[2] for frame in frames} == {f"10.99.{number}.255", "255.255.255.255"}
        assert {frame[4] for frame in frames} == packets
    assert set(seen["to"]) == {"10.99.1.255", "10.99.2.255", "255.255.255.255"}
    assert [fault for fault in seen["faults"] if "by route" in fault], "there is no router in this namespace"


def test_a_host_without_a_network_says_so() -> None:
    code = (
        f"from pbserv.net import wol; from pbserv.types import MacAddress; print(wol.wake([MacAddress.parse('{MAC}')]))"
    )
    done = subprocess.run(
        ["unshare", "--net", "--map-root-user", sys.executable, "-c", code], capture_output=True, text=True, timeout=60,
        check=True,
    )  # fmt: skip
    assert done.stdout.strip() == "Woken(to=(), faults=())"
