"""The kinds of firmware that a probe can be, and the DISCOVER that each sends. Pure.

One rule: byte for byte what captures of the real thing show, in the real order of options, since servers tell clients
by them; only the hardware address, the UUID and the transaction id are made up.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from pbserv.errors import UsageError
from pbserv.proxydhcp.packet import (
    ARCHITECTURE,
    BROADCAST_FLAG,
    CLIENT_ID,
    CLIENT_UUID,
    COOKIE,
    DISCOVER,
    END,
    IPXE,
    MAX_SIZE,
    MESSAGE_TYPE,
    USER_CLASS,
    VENDOR_CLASS,
)
from pbserv.types import MacAddress

_PARAMETERS: Final = 55
_UNDI: Final = 94
_HEADER: Final = struct.Struct("!BBBBIHH16s16s192s4s")

Options = tuple[tuple[int, bytes], ...]


@dataclass(frozen=True, slots=True)
class Identity:
    """Who the probe says it is. ``uuid`` are the 16 bytes of option 97; ``xid`` is for firmware that takes any."""

    mac: MacAddress
    uuid: bytes
    xid: int


@dataclass(frozen=True, slots=True)
class Firmware:
    """One kind. ``model`` is its name among the client models, ``patience_s`` how long it waits for offers."""

    kind: str
    title: str
    model: str
    arch: int | None
    vendor_class: str
    undi: bytes
    parameters: bytes
    order: tuple[int, ...]
    flags: int = 0
    secs: int = 0
    limit: int = 1472
    patience_s: float = 4.0
    pads_to: int = 0
    oui: bytes = b""
    user_class: bytes = b""
    features: bytes = b""


_EDK2_PARAMETERS: Final = bytes.fromhex("0102030405060c0d0f111216171c28292a2b3233363a3b3c4243618081828384858687")
_EDK2_ORDER: Final = (MESSAGE_TYPE, MAX_SIZE, _PARAMETERS, CLIENT_UUID, _UNDI, ARCHITECTURE, VENDOR_CLASS)


def _edk2(kind: str, title: str, arch: int) -> Firmware:
    # EDK2 UefiPxeBcDxe; captures of edk2 BZ 387 and 880. It collects offers for 4 s, 3.8 s as measured.
    return Firmware(
        kind, title, "edk2", arch, f"PXEClient:Arch:{arch:05}:UNDI:003001", b"\1\3\1", _EDK2_PARAMETERS, _EDK2_ORDER,
        flags=BROADCAST_FLAG, patience_s=3.8,
    )  # fmt: skip


_ALL: Final = (
    # Intel boot agent: capture of an ASRock board, also Hyper-V generation 1 and an HP server ROM.
    Firmware(
        "bios", "BIOS with Intel's boot ROM", "bios", 0, "PXEClient:Arch:00000:UNDI:002001", b"\1\2\1",
        bytes.fromhex("0102030405060b0c0d0f10111216171c28292a2b3233363a3b3c4243808182838485") + b"\x86\x87",
        (MESSAGE_TYPE, _PARAMETERS, MAX_SIZE, CLIENT_UUID, ARCHITECTURE, _UNDI, VENDOR_CLASS),
        flags=BROADCAST_FLAG, secs=4, limit=1260, pads_to=548,
    ),
    _edk2("uefi", "UEFI x64", 7),
    _edk2("uefi-ia32", "UEFI IA32", 6),
    _edk2("uefi-arm64", "UEFI ARM64", 11),
    # EDK2 HttpBootDxe; one byte of its option 55 is not initialised, here 0 as in the capture of BZ 880.
    Firmware(
        "http", "UEFI x64 HTTP Boot", "http", 16, "HTTPClient:Arch:00016:UNDI:003001", b"\1\3\1",
        bytes.fromhex("0102030405060c0d0f111216171c28292a2b3233363a3b3c004361"), _EDK2_ORDER,
        flags=BROADCAST_FLAG, patience_s=3.8,
    ),
    # iPXE as undionly.kpxe sends it first; DHCP_DISC_PROXY_TIMEOUT_SEC is 2 s.
    Firmware(
        "ipxe", "iPXE on BIOS", "ipxe", 0, "PXEClient:Arch:00000:UNDI:002001", b"\1\2\1",
        bytes.fromhex("010306070c0f111a2b3c4243778081828384858687afcb"),
        (MESSAGE_TYPE, MAX_SIZE, ARCHITECTURE, _UNDI, VENDOR_CLASS, USER_CLASS, _PARAMETERS, IPXE, CLIENT_ID,
         CLIENT_UUID),
        secs=4, patience_s=2.0, user_class=b"iPXE",
        features=bytes.fromhex(
            "b1050110222000eb03010000170101220101130101110101270101190101290101100102210101150101180101120101"
        ),
    ),
    # The ROM of a Raspberry Pi 3.
    Firmware(
        "pi", "Raspberry Pi 3", "raspberrypi", 0, "PXEClient:Arch:00000:UNDI:002001", b"\1\2\1",
        bytes.fromhex("2b3c438081828384858687420103"),
        (MESSAGE_TYPE, _PARAMETERS, ARCHITECTURE, _UNDI, CLIENT_UUID, VENDOR_CLASS), oui=b"\xb8\x27\xeb",
    ),
    # U-Boot on ARMv8; the order is that of its captured REQUEST without options 54 and 50.
    Firmware(
        "uboot", "U-Boot on ARM64", "uboot", 22, "U-Boot.armv8", b"\1\0\0", b"\1\3\6\x0c\x11",
        (MESSAGE_TYPE, MAX_SIZE, ARCHITECTURE, _UNDI, VENDOR_CLASS, _PARAMETERS), limit=576, pads_to=300,
    ),
)  # fmt: skip
FIRMWARE: Final[Mapping[str, Firmware]] = {firmware.kind: firmware for firmware in _ALL}
_PI_XID: Final = 0x26F30339  # constant in every Raspberry Pi 3


def firmware_of(kind: str) -> Firmware:
    """The kind by its name; raises UsageError that lists them."""
    found = FIRMWARE.get(kind)
    if found is None:
        raise UsageError(f"no firmware is called {kind!r}; there are {', '.join(FIRMWARE)} and all")
    return found


def made_up_mac(host: bytes, firmware: Firmware) -> MacAddress:
    """The address of a probe: the same for a host and a kind, so that registries know it again.

    It is locally administered, but for the Raspberry Pi, which servers know by the vendor part of its address.
    """
    digest = hashlib.sha256(host + b"\0" + firmware.kind.encode()).digest()
    return MacAddress(firmware.oui + digest[:3] if firmware.oui else b"\x02" + digest[:5])


def made_up_identity(host: bytes, firmware: Firmware, mac: MacAddress | None, xid: int) -> Identity:
    """``host`` is anything that names this host and stays the same; ``mac`` is used as it is where given."""
    digest = hashlib.sha256(b"uuid\0" + host + b"\0" + firmware.kind.encode()).digest()
    return Identity(mac or made_up_mac(host, firmware), digest[:16], xid)


def discover(firmware: Firmware, who: Identity, attempt: int = 1) -> bytes:
    """The message that the firmware broadcasts from port 68 to port 67, the ``attempt``-th of its boot."""
    values = _values(firmware, who)
    chosen = b"".join(bytes((tag, len(values[tag]))) + values[tag] for tag in firmware.order)
    xid, secs = _numbers(firmware, who, attempt)
    head = _HEADER.pack(
        1, 1, 6, 0, xid, secs, firmware.flags, bytes(16), who.mac.octets.ljust(16, b"\0"), bytes(192), COOKIE
    )
    return (head + chosen + bytes((END,))).ljust(firmware.pads_to, b"\0")


def _numbers(firmware: Firmware, who: Identity, attempt: int) -> tuple[int, int]:
    """Transaction id and seconds."""
    tail = int.from_bytes(who.mac.octets[2:], "big")
    match firmware.kind:
        case "bios":  # the last four bytes of the address, the attempt added to the first of them
            return (tail + (attempt << 24)) & 0xFFFFFFFF, firmware.secs * attempt
        case "pi":
            return _PI_XID, 0
        case _:
            return who.xid, firmware.secs


def _values(firmware: Firmware, who: Identity) -> Mapping[int, bytes]:
    return {
        MESSAGE_TYPE: bytes((DISCOVER,)),
        MAX_SIZE: firmware.limit.to_bytes(2, "big"),
        _PARAMETERS: firmware.parameters,
        VENDOR_CLASS: firmware.vendor_class.encode(),
        USER_CLASS: firmware.user_class,
        _UNDI: firmware.undi,
        ARCHITECTURE: (firmware.arch or 0).to_bytes(2, "big"),
        IPXE: firmware.features,
        CLIENT_ID: b"\1" + who.mac.octets,
        CLIENT_UUID: b"\0" + _uuid(firmware, who),
    }


def _uuid(firmware: Firmware, who: Identity) -> bytes:
    # A Pi has no UUID: four times its serial number, whose lower half is in its address.
    return (who.mac.octets[:2:-1] + b"\xbd") * 4 if firmware.kind == "pi" else who.uuid
