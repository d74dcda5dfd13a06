"""The packets of boot sessions as a pcap file for Wireshark: Ethernet, IPv4, UDP and the payload as it was. Pure.

One rule: payloads, ports, IPv4 addresses and the device's MAC are those of the wire. What the server does not hear of
is made up visibly: MAC addresses of others are 02:00 and the IPv4 address, a reply has the time of its packet.
"""

from __future__ import annotations

import io
import ipaddress
from collections.abc import Iterable
from typing import Final

import dpkt  # type: ignore[import-untyped]

from pbserv.journal.steps import DhcpLine, DhcpStep, Line

_BROADCAST: Final = "255.255.255.255"
_TTL: Final = 64
_SNAPLEN: Final = 65_535


def pcap_of(steps: Iterable[tuple[bytes, Line]]) -> bytes:
    """All packets that are kept whole, with their replies, in the order of the lines; each with its device's MAC."""
    file = io.BytesIO()
    writer = dpkt.pcap.Writer(file, snaplen=_SNAPLEN, linktype=dpkt.pcap.DLT_EN10MB)
    for mac, line in steps:
        if isinstance(line, DhcpLine) and line.step.data:
            writer.writepkt(_asked(mac, line.step), ts=line.step.at)
            if line.step.reply:
                writer.writepkt(_answered(mac, line.step), ts=line.step.at)
    return file.getvalue()


def _asked(mac: bytes, step: DhcpStep) -> bytes:
    destination = step.destination or _BROADCAST
    relayed = step.source_port == 67  # a relay agent's own packet: RFC 1542 4.1.2
    sender = _neighbour(step.source) if relayed else mac
    return _frame(sender, _hardware(destination), step.source, destination, step.source_port, step.heard_on, step.data)


def _answered(mac: bytes, step: DhcpStep) -> bytes:
    target = step.reply_to or _BROADCAST
    to = _hardware(target) if target == _BROADCAST or step.reply_port == 67 else mac
    return _frame(
        _neighbour(step.local), to, step.local, target, step.heard_on, step.reply_port or 68, step.reply or b""
    )


def _hardware(address: str) -> bytes:
    return b"\xff" * 6 if address == _BROADCAST else _neighbour(address)


def _neighbour(address: str) -> bytes:
    return b"\x02\x00" + ipaddress.IPv4Address(address).packed


def _frame(sender: bytes, to: bytes, source: str, target: str, sport: int, dport: int, payload: bytes) -> bytes:
    """dpkt fills in lengths and checksums where they are 0."""
    udp = dpkt.udp.UDP(sport=sport, dport=dport, ulen=8 + len(payload), data=payload)
    ip = dpkt.ip.IP(
        src=ipaddress.IPv4Address(source).packed, dst=ipaddress.IPv4Address(target).packed,
        p=dpkt.ip.IP_PROTO_UDP, ttl=_TTL, len=28 + len(payload), data=udp,
    )  # fmt: skip
    return bytes(dpkt.ethernet.Ethernet(src=sender, dst=to, type=dpkt.ethernet.ETH_TYPE_IP, data=ip))
