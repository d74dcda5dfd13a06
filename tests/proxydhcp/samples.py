"""Packets to ask with: the recorded ones by name, and ones made from a few values."""

from __future__ import annotations

import json
from pathlib import Path

from pbserv.proxydhcp import packet as dhcp
from pbserv.proxydhcp.facts import Facts
from pbserv.proxydhcp.outcome import Listener
from pbserv.proxydhcp.packet import Packet
from pbserv.proxydhcp.strategy import Loader, Settings

_VECTORS = Path(__file__).parent.parent / "vectors"
RECORDED = {entry["name"]: entry for entry in json.loads((_VECTORS / "pxe-dhcp.json").read_text())}
FIRMWARE = [entry for entry in json.loads((_VECTORS / "firmware-boot.json").read_text()) if entry["proto"] == "dhcp"]

SERVER = "192.168.122.250"
NETWORK = ((0xC0A87A00, 0xFFFFFF00),)
X64 = Loader("NBPx64", "ipxe.efi")
SETTINGS = Settings(
    {
        0: Loader("NBPx86", "undionly.kpxe"), 6: Loader("NBPIA32", ""), 7: X64, 9: X64,
        11: Loader("NBPARM64", ""), 16: Loader("NBPHTTPx64", "http://192.168.122.250:8067/ipxe.efi"),
    }
)  # fmt: skip


def recorded(name: str) -> bytes:
    return bytes.fromhex(RECORDED[name]["hex"])


def facts_for(name: str, server: str = SERVER) -> Facts:
    """The facts as this host would have had them when the recorded packet arrived."""
    entry = RECORDED[name]
    return Facts(
        Listener.BOOT_SERVER if entry["dport"] == 4011 else Listener.DHCP,
        entry["src"], entry["sport"], server, 3, entry["dst"] == server, NETWORK,
    )  # fmt: skip


AT_67 = Facts(Listener.DHCP, "0.0.0.0", 68, SERVER, 3, False, NETWORK)
AT_4011 = Facts(Listener.BOOT_SERVER, "192.168.122.63", 4011, SERVER, 3, True, NETWORK)


def asks(
    kind: int = dhcp.DISCOVER,
    arch: int = 0,
    *,
    vendor_class: bytes = b"PXEClient:Arch:00000:UNDI:002001",
    xid: int = 0x01020304,
    mac: str = "525400aabbcc",
    extra: dict[int, bytes] | None = None,
    **header: bytes | int,
) -> Packet:
    """A PXE client's message."""
    options = {
        dhcp.MESSAGE_TYPE: bytes((kind,)), dhcp.MAX_SIZE: b"\x05\xc0", dhcp.ARCHITECTURE: arch.to_bytes(2, "big"),
        dhcp.VENDOR_CLASS: vendor_class, dhcp.CLIENT_UUID: b"\0" + bytes(range(16)),
    }  # fmt: skip
    chaddr = bytes.fromhex(mac).ljust(16, b"\0")
    return Packet(1, xid, chaddr, options=options | (extra or {}), **header)  # type: ignore[arg-type]


IPXE_OPTIONS = {dhcp.USER_CLASS: b"iPXE", dhcp.IPXE: bytes.fromhex("130101")}
