"""Steps to tell a boot with: recorded packets by name, and packets made from a few values."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from pbserv.journal.sessions import Session
from pbserv.journal.steps import DhcpStep, Line, Step, source_of, told_of
from pbserv.proxydhcp import packet as dhcp
from pbserv.proxydhcp.packet import Packet, encode
from pbserv.proxydhcp.reading import text_of

_VECTORS = Path(__file__).parents[1] / "vectors" / "pxe-dhcp.json"
RECORDED = {entry["name"]: bytes.fromhex(entry["hex"]) for entry in json.loads(_VECTORS.read_text())}

MAC = bytes.fromhex("525400aabbcc")
SERVER, CLIENT, BROADCAST = "10.0.0.1", "10.0.0.77", "255.255.255.255"
T0 = 1_767_225_600.0
CLASSES = {0: b"PXEClient:Arch:00000:UNDI:002001", 7: b"PXEClient:Arch:00007:UNDI:003016",
           16: b"HTTPClient:Arch:00016:UNDI:003001"}  # fmt: skip


def asks(
    kind: int = dhcp.DISCOVER,
    arch: int = 7,
    *,
    secs: int = 0,
    xid: int = 0x0A0B0C0D,
    ipxe: bool = False,
    mac: bytes = MAC,
) -> bytes:
    """What a boot client sends."""
    options = {
        dhcp.MESSAGE_TYPE: bytes((kind,)), dhcp.VENDOR_CLASS: CLASSES[arch], dhcp.ARCHITECTURE: arch.to_bytes(2, "big"),
        dhcp.CLIENT_UUID: bytes(17),
    }  # fmt: skip
    if ipxe:
        options |= {dhcp.USER_CLASS: b"iPXE", dhcp.IPXE: bytes.fromhex("130101")}
    return encode(Packet(1, xid, mac.ljust(16, b"\0"), secs=secs, options=options))


def answers(data: bytes, kind: int = dhcp.OFFER, file: str = "snponly.efi") -> bytes:
    """A reply to it."""
    query = dhcp.decode(data)
    options = {dhcp.MESSAGE_TYPE: bytes((kind,)), dhcp.SERVER_ID: bytes((10, 0, 0, 1)), dhcp.VENDOR_CLASS: b"PXEClient"}
    return encode(replace(query, op=2, file=file.encode(), options=options))


def offered(at: float = 0.0, strategy: str = "hybrid", file: str = "snponly.efi", **asked: object) -> DhcpStep:
    """A DISCOVER, ``at`` seconds after the beginning, that got an OFFER."""
    data = asks(**asked)  # type: ignore[arg-type]
    return DhcpStep(T0 + at, 67, 2, "0.0.0.0", 68, SERVER, BROADCAST, data, "offer", "nothing assigned", strategy, file,
                    answers(data, file=file), BROADCAST, 68)  # fmt: skip


def acknowledged(at: float = 0.0, file: str = "snponly.efi", **asked: object) -> DhcpStep:
    """A REQUEST on port 4011 that got an ACK."""
    data = asks(dhcp.REQUEST, **asked)  # type: ignore[arg-type]
    return DhcpStep(T0 + at, 4011, 2, CLIENT, 4011, SERVER, SERVER, data, "ack", "nothing assigned", "hybrid", file,
                    answers(data, dhcp.ACK, file), CLIENT, 4011)  # fmt: skip


def refused(verdict: str, reason: str = "", at: float = 0.0, *, port: int = 67, **asked: object) -> DhcpStep:
    """A packet that got no answer."""
    kind = dhcp.REQUEST if port == 4011 or verdict == "ordinary_request_on_67" else dhcp.DISCOVER
    data = asks(kind, **asked)  # type: ignore[arg-type]
    return DhcpStep(T0 + at, port, 2, "0.0.0.0", 68, SERVER, BROADCAST, data, verdict, reason)


def dhcp_request(at: float = 0.0, **asked: object) -> DhcpStep:
    """The client takes an address from its DHCP server."""
    return refused("ordinary_request_on_67", at=at, **asked)


def event(what: str, detail: str, at: float = 0.0) -> Step:
    return Step(T0 + at, source_of(what), what, detail)


def lines(*steps: DhcpStep | Step, packets: int = 32) -> list[Line]:
    """The steps as a session keeps them."""
    session = Session(MAC, steps[0].at)
    for step in steps:
        if isinstance(step, Step):
            session.event(step)
        else:
            session.packet(step.at, told_of(step), step.data)
    session.settle(text_of, lambda ifindex: f"eth{ifindex}", packets)
    return session.lines
