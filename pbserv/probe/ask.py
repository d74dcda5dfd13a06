"""Asks on a wire as a boot client would, and hears who answers: the shell around the models and the judge.

One rule: a probe takes nothing. It sends DISCOVERs and questions to port 4011 and never a REQUEST to port 67, so what
it was offered lapses by itself, and it is sent and heard as whole frames, so no address of this host is disturbed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import secrets
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pbserv.errors import StartError, UsageError, WireError
from pbserv.net.interfaces import addresses
from pbserv.net.wire_tap import Captured, WireTap, flags_of, has_link
from pbserv.probe.firmware import Firmware, discover, firmware_of, made_up_identity
from pbserv.probe.frame import BROADCAST_MAC, Framed, build, ip_packet, parse
from pbserv.probe.offer import Offer
from pbserv.proxydhcp import packet as dhcp
from pbserv.proxydhcp.models import Sent
from pbserv.proxydhcp.packet import undotted
from pbserv.types import MacAddress

PORTS: Final = (67, 68, 4011)
WAIT_S: Final = 4.0  # EDK2 collects offers this long
_AGAIN_S: Final = 1.0  # the second try of EDK2 on port 4011
_GRACE_S: Final = 0.2  # after the first answer of a boot server, for another one
_MACHINE_ID: Final = Path("/etc/machine-id")
_IFF_UP: Final = 1
_CIADDR: Final = slice(12, 16)

Recorded = tuple[float, bytes]


@dataclass(frozen=True, slots=True)
class Answers:
    """What one kind of firmware got on one interface. ``address`` is this host's own there, "" when it has none."""

    interface: str
    kind: str
    mac: MacAddress
    address: str
    question: bytes
    offers: tuple[Offer, ...]


def ask(interface: str, kind: str, *, mac: MacAddress | None = None, wait_s: float = WAIT_S) -> Answers:
    """Send one DISCOVER and collect the answers for ``wait_s`` seconds (blocking).

    Raises UsageError for an unknown kind and StartError, with the remedy, for an interface that cannot be used or
    without CAP_NET_RAW.
    """
    with contextlib.closing(Probe.open(interface)) as probe:
        return probe.ask([kind], mac, wait_s)[0]


def usable_interfaces() -> list[str]:
    """Ethernet-like interfaces that are up and have an IPv4 address with a broadcast address; StartError when none."""
    names = dict.fromkeys(entry.name.partition(":")[0] for entry in addresses() if entry.broadcast is not None)
    found = [name for name in names if _is_up(name)]
    if not found:
        raise StartError(
            "no interface is up and has an IPv4 address with a broadcast address; name one, or see: ip address"
        )
    return found


def _is_up(name: str) -> bool:
    try:
        return bool(flags_of(name) & _IFF_UP) and has_link(name)
    except OSError:
        return False


class Probe:
    """An open interface. ``recorded`` is every frame that was sent or heard, with its time of day."""

    def __init__(self, tap: WireTap, address: str) -> None:
        self._tap = tap
        self.address = address
        self.recorded: list[Recorded] = []
        self._host = _host_name(tap.mac)

    @classmethod
    def open(cls, interface: str) -> Probe:
        """Raises StartError."""
        tap = WireTap.open(interface, PORTS)
        own = (entry.address for entry in addresses() if entry.name.partition(":")[0] == interface)
        return cls(tap, next(own, ""))

    @property
    def interface(self) -> str:
        return self._tap.name

    def close(self) -> None:
        self._tap.close()

    def mac_of(self, kind: str) -> MacAddress:
        """The address that the probe uses for a kind."""
        return made_up_identity(self._host, firmware_of(kind), None, 0).mac

    def ask(self, kinds: Sequence[str], mac: MacAddress | None = None, wait_s: float = WAIT_S) -> list[Answers]:
        """Send a DISCOVER for each kind at once and collect all answers for ``wait_s`` seconds."""
        if mac is not None and len(kinds) > 1:
            raise UsageError("one MAC address cannot be several machines: name one kind with it")
        questions = [self._question(firmware_of(kind), mac) for kind in kinds]
        begins = time.monotonic()
        for _firmware, sent in questions:
            self._broadcast(sent)
        heard = list(self._hear(begins, begins + wait_s, [sent for _firmware, sent in questions]))
        return [self._answers(firmware, sent, heard) for firmware, sent in questions]

    def ask_server(self, sent: Sent, wait_s: float) -> list[Offer]:
        """Send a boot server request by the host's routes, in the name of this host's own address, and hear answers.

        It ends shortly after the first answer. Without an address of its own the probe cannot ask: an empty list.
        """
        if not self.address:
            return []
        data = bytearray(sent.data)
        data[_CIADDR] = undotted(self.address)
        framed = Framed(
            bytes(data), self._tap.mac, BROADCAST_MAC, self.address, sent.destination, sent.source_port, sent.port
        )
        found: list[Offer] = []
        begins = time.monotonic()
        end = begins + wait_s
        with self._tap.holding(self.address, sent.source_port):
            for again in (begins + _AGAIN_S, end) if wait_s > _AGAIN_S else (end,):
                if found or not self._tap.send_packet(ip_packet(framed), sent.destination):
                    break
                found += self._hear(begins, again, [sent], _GRACE_S)
        return found

    def _question(self, firmware: Firmware, mac: MacAddress | None) -> tuple[Firmware, Sent]:
        who = made_up_identity(self._host, firmware, mac, secrets.randbits(32))
        return firmware, discover(firmware, who)

    def _broadcast(self, sent: Sent) -> None:
        """Once on the wire, as firmware does, and once to this host itself, which does not hear its own frames."""
        mac = sent.data[28:34]
        framed = Framed(sent.data, mac, BROADCAST_MAC, sent.source, sent.destination, sent.source_port, sent.port)
        frame = build(framed)
        self.recorded.append((time.time(), frame))
        self._tap.send_frame(frame)
        if self.address:
            copy = dataclasses.replace(framed, source=self.address, destination=self.address)
            self._tap.send_packet(ip_packet(copy), self.address, self._tap.ifindex)

    def _hear(
        self, begins: float, until: float, questions: Sequence[Sent], grace_s: float | None = None
    ) -> Iterator[Offer]:
        """All answers to these until then; with ``grace_s`` no longer than that after the first."""
        seen: set[tuple[bytes, str, str]] = set()
        while captured := self._tap.hear(until):
            for one in captured:
                self.recorded.append((one.wall, one.frame))
                offer = _offer(one, begins, questions[0].port)
                if offer is None or not any(_answers_to(offer, sent) for sent in questions):
                    continue
                key = offer.data, offer.source, offer.destination
                if key in seen:
                    continue
                seen.add(key)
                if grace_s is not None and len(seen) == 1:
                    until = min(until, time.monotonic() + grace_s)
                yield offer

    def _answers(self, firmware: Firmware, sent: Sent, heard: Sequence[Offer]) -> Answers:
        offers = tuple(offer for offer in heard if _answers_to(offer, sent))
        mac = MacAddress(sent.data[28:34])
        return Answers(self._tap.name, firmware.kind, mac, self.address, sent.data, offers)


def _answers_to(offer: Offer, sent: Sent) -> bool:
    """Same transaction and same hardware address (RFC 2131 4.4.1); the judge looks at the port that it came to."""
    return offer.data[4:8] == sent.data[4:8] and offer.packet.chaddr[:6] == sent.data[28:34]


def _offer(captured: Captured, begins: float, asked: int) -> Offer | None:
    framed = parse(captured.frame)
    if framed is None or framed.port not in (68, 4011):
        return None
    try:
        packet = dhcp.decode(framed.data)
    except WireError:
        return None
    if packet.op != dhcp.BOOTREPLY:
        return None
    return Offer(
        packet, framed.data, framed.source, MacAddress(framed.source_mac), framed.source_port, framed.destination,
        framed.port, max(0.0, captured.at - begins), asked, captured.own or not any(framed.source_mac),
    )  # fmt: skip


def _host_name(mac: bytes) -> bytes:
    """What stays the same for this host: its machine id, or the address of the card."""
    try:
        return _MACHINE_ID.read_bytes().strip() or mac
    except OSError:
        return mac
