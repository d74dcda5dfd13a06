"""A server namespace and a client namespace, joined by several wires (veth pairs s0-c0, s1-c1 ...).

Wire n is the subnet 10.(n+1).0.0/24 with the server at .1 and the clients at .50. A socket that is made inside
``with room.server():`` stays in that namespace, so service and clients live in the one process of the test.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import secrets
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import dpkt
import pytest

_CLONE_NEWNET = 0x40000000
_SO_RCVBUFFORCE = 33
_LIBC = ctypes.CDLL(None, use_errno=True)


class Wires:
    """The room; make it with :func:`wires`."""

    def __init__(self, name: str) -> None:
        self._server = f"{name}-s"
        self._clients = f"{name}-c"

    def build(self, count: int) -> None:
        for namespace in (self._server, self._clients):
            _run("ip", "netns", "add", namespace)
            _run("ip", "-n", namespace, "link", "set", "lo", "up")
        for number in range(count):
            ours, theirs = f"s{number}", f"c{number}"
            _run("ip", "-n", self._server, "link", "add", ours, "type", "veth",
                 "peer", "name", theirs, "netns", self._clients)  # fmt: skip
            for namespace, device, last in ((self._server, ours, 1), (self._clients, theirs, 50)):
                _run("ip", "-n", namespace, "address", "add", f"10.{number + 1}.0.{last}/24", "brd", "+", "dev", device)
                _run("ip", "-n", namespace, "link", "set", device, "up")

    def destroy(self) -> None:
        for namespace in (self._server, self._clients):
            _run("ip", "netns", "del", namespace, check=False)

    def run_server(self, *command: str) -> None:
        _run("ip", "netns", "exec", self._server, *command)

    def server(self) -> contextlib.AbstractContextManager[None]:
        """Make sockets in the server's namespace. Await nothing inside but what does so at once."""
        return _inside(self._server)

    def clients(self) -> contextlib.AbstractContextManager[None]:
        """Make sockets in the clients' namespace."""
        return _inside(self._clients)

    def card(self, number: int) -> Card:
        """The client's end of a wire, for machines that have no address yet."""
        with self.clients():
            return Card(f"c{number}")


class Card:
    """A network card that sends and receives whole frames."""

    def __init__(self, device: str) -> None:
        ethertype = socket.htons(dpkt.ethernet.ETH_TYPE_IP)
        self.raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, ethertype)
        self.raw.bind((device, dpkt.ethernet.ETH_TYPE_IP))
        self.raw.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, 8 << 20)
        self.raw.settimeout(10)

    def broadcast(self, payload: bytes) -> None:
        """Send a DHCP client's broadcast from 0.0.0.0:68."""
        udp = dpkt.udp.UDP(sport=68, dport=67, data=payload, ulen=8 + len(payload))
        ip = dpkt.ip.IP(src=bytes(4), dst=b"\xff" * 4, p=17, ttl=20, data=udp, len=20 + len(udp))
        self.raw.send(bytes(dpkt.ethernet.Ethernet(src=b"\x52\x54\0\0\0\1", dst=b"\xff" * 6, data=ip)))

    def frame(self) -> dpkt.ethernet.Ethernet:
        """The next frame that carries UDP to port 68; blocking, so call it in a thread."""
        while True:
            frame = dpkt.ethernet.Ethernet(self.raw.recv(2048))
            udp = frame.data.data if isinstance(frame.data, dpkt.ip.IP) else None
            if isinstance(udp, dpkt.udp.UDP) and udp.dport == 68:
                return frame

    def close(self) -> None:
        self.raw.close()


@contextlib.contextmanager
def wires(count: int) -> Iterator[Wires]:
    """The room, gone afterwards; skips the test when this process may not make namespaces."""
    if os.geteuid() != 0:
        pytest.skip("needs root rights to make network namespaces")
    room = Wires(f"pbdhcp{os.getpid()}-{secrets.token_hex(3)}")
    try:
        room.build(count)
        yield room
    finally:
        room.destroy()


@contextlib.contextmanager
def _inside(namespace: str) -> Iterator[None]:
    with Path("/proc/thread-self/ns/net").open("rb") as home, Path("/run/netns", namespace).open("rb") as away:
        _setns(away.fileno())
        try:
            yield
        finally:
            _setns(home.fileno())


def _setns(descriptor: int) -> None:
    if _LIBC.setns(descriptor, _CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "setns")


def _run(*command: str, check: bool = True) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    if check and done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}")
