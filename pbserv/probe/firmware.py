"""The kinds of firmware that a probe can be. Pure.

One rule: what is sent is what the client models send, byte for byte as captures of the real thing show it, since
servers tell clients by that; only the hardware address, the UUID and the transaction id are made up.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from pbserv.errors import UsageError
from pbserv.proxydhcp.models import MODELS, Identity, Sent
from pbserv.types import MacAddress


@dataclass(frozen=True, slots=True)
class Firmware:
    """One kind. ``model`` is its name among the client models; ``limit`` the longest message that it takes, by
    option 57; ``patience_s`` how long it waits for a proxy's offer."""

    kind: str
    title: str
    model: str
    arch: int
    undi: tuple[int, int] | None
    limit: int = 1472
    patience_s: float = 4.0
    oui: bytes = b""

    @property
    def http(self) -> bool:
        """Of the class HTTPClient."""
        return self.model == "http"


_ALL: Final = (
    Firmware("bios", "BIOS with Intel's boot ROM", "bios", 0, (2, 1), limit=1260),
    # EDK2 collects offers for 4 s; the UNDI version is that of OVMF in the captures of edk2 BZ 387 and 880.
    Firmware("uefi", "UEFI x64", "edk2", 7, (3, 1)),
    Firmware("uefi-ia32", "UEFI IA32", "edk2", 6, (3, 1)),
    Firmware("uefi-arm64", "UEFI ARM64", "edk2", 11, (3, 1)),
    Firmware("http", "UEFI x64 HTTP Boot", "http", 16, (3, 1)),
    # DHCP_DISC_PROXY_TIMEOUT_SEC of iPXE's config/dhcp.h is 2, from the DHCP server's offer on.
    Firmware("ipxe", "iPXE on BIOS", "ipxe", 0, (2, 1), patience_s=2.0),
    # Servers know a Raspberry Pi by the vendor part of its address.
    Firmware("pi", "Raspberry Pi 3", "raspberrypi", 0, None, patience_s=5.0, oui=b"\xb8\x27\xeb"),
    Firmware("uboot", "U-Boot on ARM64", "uboot", 22, None, limit=576),
)
FIRMWARE: Final[Mapping[str, Firmware]] = {firmware.kind: firmware for firmware in _ALL}


def firmware_of(kind: str) -> Firmware:
    """The kind by its name; raises UsageError that lists them."""
    found = FIRMWARE.get(kind)
    if found is None:
        raise UsageError(f"no firmware is called {kind!r}; there are {', '.join(FIRMWARE)}, and all")
    return found


def made_up_mac(host: bytes, firmware: Firmware) -> MacAddress:
    """The address of a probe: the same for a host and a kind, so that registries know it again.

    It is locally administered, but for the Raspberry Pi.
    """
    digest = hashlib.sha256(host + b"\0" + firmware.kind.encode()).digest()
    return MacAddress(firmware.oui + digest[:3] if firmware.oui else b"\x02" + digest[:5])


def made_up_identity(host: bytes, firmware: Firmware, mac: MacAddress | None, xid: int) -> Identity:
    """``host`` is anything that names this host and stays the same; ``mac`` is used as it is where given."""
    digest = hashlib.sha256(b"uuid\0" + host + b"\0" + firmware.kind.encode()).digest()
    uuid = None if firmware.model == "raspberrypi" else digest[:16]  # a Pi makes it from its address
    return Identity(mac or made_up_mac(host, firmware), uuid, firmware.arch, firmware.undi, xid)


def discover(firmware: Firmware, who: Identity, attempt: int = 0) -> Sent:
    """The message that the firmware broadcasts at the ``attempt``-th try of its boot, counted from 0."""
    return MODELS[firmware.model].discover(who, attempt)
