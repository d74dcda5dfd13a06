"""Ethernet, IPv4 and UDP around a DHCP message (RFC 894, RFC 791, RFC 768). Pure.

One rule: a frame that is not a whole UDP datagram is None, whatever its bytes. UDP checksums are not looked at, since
network cards fill them in after we have seen the frame.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

from pbserv.proxydhcp.packet import dotted, undotted

BROADCAST_MAC: Final = b"\xff" * 6
ETHERTYPE_IP: Final = 0x0800
UDP: Final = 17
_ETHERNET: Final = struct.Struct("!6s6sH")
_IP: Final = struct.Struct("!BBHHHBBH4s4s")
_UDP: Final = struct.Struct("!HHHH")
_TTL: Final = 64


@dataclass(frozen=True, slots=True)
class Framed:
    """A UDP datagram with all its addresses."""

    data: bytes
    source_mac: bytes
    destination_mac: bytes
    source: str
    destination: str
    source_port: int
    port: int


def parse(frame: bytes) -> Framed | None:
    """The datagram in an Ethernet frame; None when it holds none, or only a piece of one."""
    if len(frame) < _ETHERNET.size + _IP.size + _UDP.size:
        return None
    destination_mac, source_mac, kind = _ETHERNET.unpack_from(frame)
    version, _tos, total, _id, fragment, _ttl, protocol, _sum, source, destination = _IP.unpack_from(frame, 14)
    head = (version & 15) * 4
    if kind != ETHERTYPE_IP or version >> 4 != 4 or head < _IP.size or protocol != UDP or fragment & 0x3FFF:
        return None
    start, end = 14 + head, 14 + total
    if end > len(frame) or start + _UDP.size > end:
        return None
    source_port, port, length, _checksum = _UDP.unpack_from(frame, start)
    if length < _UDP.size or start + length > end:
        return None
    data = frame[start + _UDP.size : start + length]
    return Framed(data, source_mac, destination_mac, dotted(source), dotted(destination), source_port, port)


def build(framed: Framed) -> bytes:
    """The Ethernet frame of a datagram."""
    return _ETHERNET.pack(framed.destination_mac, framed.source_mac, ETHERTYPE_IP) + ip_packet(framed)


def ip_packet(framed: Framed) -> bytes:
    """The IPv4 packet of a datagram, with both checksums."""
    source, destination = undotted(framed.source), undotted(framed.destination)
    length = _UDP.size + len(framed.data)
    pseudo = source + destination + struct.pack("!HH", UDP, length)
    bare = _UDP.pack(framed.source_port, framed.port, length, 0) + framed.data
    udp = _UDP.pack(framed.source_port, framed.port, length, checksum(pseudo + bare) or 0xFFFF) + framed.data
    fields = (0x45, 0, _IP.size + length, 0, 0, _TTL, UDP)
    return _IP.pack(*fields, checksum(_IP.pack(*fields, 0, source, destination)), source, destination) + udp


def checksum(data: bytes) -> int:
    """RFC 1071."""
    padded = data + b"\0" * (len(data) % 2)
    total: int = sum(struct.unpack(f"!{len(padded) // 2}H", padded))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
