"""A desk under a clock of the test, with all that is around it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from pbserv.log import ServiceLog
from pbserv.net.dhcp_port import Unsent, Way
from pbserv.net.interfaces import InterfaceAddress
from pbserv.net.udp import Datagram
from pbserv.proxydhcp import packet as dhcp
from pbserv.proxydhcp.desk import Desk
from pbserv.proxydhcp.loaders import Settings
from pbserv.proxydhcp.memory import Devices
from pbserv.proxydhcp.outcome import Listener
from pbserv.proxydhcp.packet import Packet, decode, encode
from pbserv.types import Decision, Instant, Sighting, Verdict
from tests.proxydhcp.samples import SETTINGS, Book, asks

HOST = (
    InterfaceAddress(2, "eth0", "10.1.0.1", 24, "10.1.0.255"),
    InterfaceAddress(3, "eth1", "10.2.0.1", 24, "10.2.0.255"),
)
MAC = "52:54:00:aa:bb:cc"
OWN = dhcp.undotted("10.1.0.50")


class Out:
    """The port: what was queued, and what the kernel refuses."""

    def __init__(self) -> None:
        self.sent: list[tuple[Packet, str, int, str, int]] = []
        self.refused: list[Unsent] = []
        self.flushes = 0
        self.name = ("0.0.0.0", 67)

    def fileno(self) -> int:
        return -1

    def receive(self) -> Sequence[Datagram]:
        return ()

    def queue(self, data: bytes | bytearray, way: Way) -> None:
        self.sent.append((decode(bytes(data)), way.peer, way.port, way.source_address, way.ifindex))

    def flush(self) -> Sequence[Unsent]:
        self.flushes += 1
        refused, self.refused = self.refused, []
        return refused

    def close(self) -> None: ...


class Served:
    """A desk, and all that is around it."""

    def __init__(self, given: Settings = SETTINGS, log: ServiceLog | None = None) -> None:
        self.out, self.book, self.devices = Out(), Book(), Devices()
        self.counters: Counter[str] = Counter()
        self.verdict: Verdict | Exception = Verdict.BOOT
        self.asked: list[Sighting] = []
        self.delayed: list[tuple[float, Callable[[], None]]] = []
        self.log = log or ServiceLog("proxydhcp")
        self.now = 1000.0
        self.desk = self.reload(given)

    def reload(self, given: Settings) -> Desk:
        self.desk = Desk(given, self.devices, self.counters, self, self.book, self.log, self.later)
        return self.desk

    def decide(self, sighting: Sighting) -> Decision:
        self.asked.append(sighting)
        if isinstance(self.verdict, Exception):
            raise self.verdict
        return Decision(self.verdict, "because")

    def later(self, seconds: float, call: Callable[[], None]) -> None:
        self.delayed.append((seconds, call))

    def take(
        self, *packets: Packet | bytes, after: float = 1.0, listener: Listener = Listener.DHCP, ifindex: int = 2,
        peer: str = "0.0.0.0", port: int = 68, to: str = "255.255.255.255",
    ) -> list[Packet]:  # fmt: skip
        """The replies to one batch, which comes ``after`` so many seconds."""
        self.now += after
        before = len(self.out.sent)
        local = {2: "10.1.0.1", 3: "10.2.0.1"}.get(ifindex, "10.1.0.1")
        datas = [packet if isinstance(packet, bytes) else encode(packet) for packet in packets]
        batch = [Datagram(data, peer, port, local, to, ifindex) for data in datas]
        self.desk.take(listener, self.out, batch, HOST, Instant(self.now))
        return [one[0] for one in self.out.sent[before:]]

    def request(self, packet: Packet, after: float = 1.0) -> list[Packet]:
        """On port 4011, from the client's own address."""
        return self.take(packet, after=after, listener=Listener.BOOT_SERVER, peer="10.1.0.50", port=4011, to="10.1.0.1")

    def attempt(self, secs: tuple[int, ...] = (0, 4, 12), after: float = 30.0, arch: int = 7, **how: Any) -> list[str]:
        """The strategies of the offers to a client that stops after each."""
        before = len(self.book.steps)
        last = 0
        for number, one in enumerate(secs):
            self.take(asks(arch=arch, secs=one, **how), after=after if not number else one - last)
            last = one
        return [step.strategy for _mac, step in self.book.steps[before:]]


REQUEST = asks(dhcp.REQUEST, 7, ciaddr=OWN)
