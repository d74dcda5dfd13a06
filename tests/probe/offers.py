"""Answers to judge, made from a good one by changes."""

from __future__ import annotations

from typing import Any

from pbserv.probe.offer import Offer
from pbserv.proxydhcp import packet as dhcp
from pbserv.proxydhcp.packet import Packet, decode, encode
from pbserv.types import MacAddress

SERVER = bytes((10, 0, 0, 9))
ADDRESS = bytes((10, 0, 0, 77))
CLIENT = bytes.fromhex("020000000001").ljust(16, b"\0")
JUST_BOOT = b"\x06\x01\x08\xff"
MENU = bytes.fromhex("06010308078000010a0000090907800004626f6f740a0400505845ff")
Options = dict[int, bytes]

PROXY: Options = {53: b"\2", 54: SERVER, 60: b"PXEClient", 97: bytes(17), 43: JUST_BOOT}
DHCP: Options = {53: b"\2", 54: SERVER, 51: b"\0\0\x0e\x10", 1: b"\xff\xff\xff\0"}


def offer(options: Options, **changes: Any) -> Offer:
    """An answer with these options; None for one takes it away. ``data`` replaces the bytes; header fields by name."""
    ours = {"source_port", "destination", "port", "seconds", "asked", "source", "data"}
    header = {name: value for name, value in changes.items() if name not in ours}
    packet = Packet(dhcp.BOOTREPLY, 7, CLIENT, flags=0x8000, options=options, **header)
    data: bytes = changes.get("data") or encode(packet, dhcp.MAX_INPUT)
    return Offer(
        decode(data), data, changes.get("source", "10.0.0.9"), MacAddress(b"\2\0\0\0\0\2"),
        changes.get("source_port", 67), changes.get("destination", "255.255.255.255"), changes.get("port", 68),
        changes.get("seconds", 0.01), changes.get("asked", 67),
    )  # fmt: skip


def proxy(change: Options | None = None, *without: int, **changes: Any) -> Offer:
    """A proxy offer that every PXE client takes, changed."""
    options = {tag: value for tag, value in (PROXY | (change or {})).items() if tag not in without}
    return offer(options, **{"siaddr": SERVER, "sname": b"10.0.0.9", "file": b"boot.efi"} | changes)


def dhcp_offer(change: Options | None = None, *without: int, **changes: Any) -> Offer:
    """A plain DHCP offer, changed."""
    options = {tag: value for tag, value in (DHCP | (change or {})).items() if tag not in without}
    return offer(options, **{"yiaddr": ADDRESS} | changes)


def http(
    change: Options | None = None, *without: int, uri: bytes = b"http://10.0.0.9/boot.efi", **changes: Any
) -> Offer:
    """A proxy offer for UEFI HTTP Boot, changed."""
    return proxy({60: b"HTTPClient", 67: uri} | (change or {}), 43, *without, **{"file": uri} | changes)


def with_raw(answer: Offer, *raw: tuple[int, bytes]) -> bytes:
    """The answer's bytes with these options before END, as they are."""
    data = answer.data[: answer.data.index(b"\xff", 240 + _length(answer))]
    return (data + b"".join(bytes((tag, len(value))) + value for tag, value in raw) + b"\xff").ljust(300, b"\0")


def _length(answer: Offer) -> int:
    """How many bytes the options take before END."""
    at = 240
    while answer.data[at] != dhcp.END:
        at += 2 + answer.data[at + 1]
    return at - 240
