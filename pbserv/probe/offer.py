"""One answer that a probe heard, with all that its packet does not say itself: who sent it, how, and when. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from pbserv.errors import WireError
from pbserv.proxydhcp import packet as dhcp
from pbserv.proxydhcp.client import HTTP_CLASS, PXE_CLASS
from pbserv.proxydhcp.packet import Packet, dotted, suboptions
from pbserv.types import MacAddress

_FIRST_OPTION: Final = 240
DISCOVERY_CONTROL: Final = 6
BOOT_SERVERS: Final = 8
BOOT_MENU: Final = 9
MENU_PROMPT: Final = 10
BOOT_ITEM: Final = 71
JUST_FILE: Final = 0x08  # bit 3 of 43.6
NO_MULTICAST: Final = 0x02  # bit 1


@dataclass(frozen=True, slots=True)
class Offer:
    """An answer to a probe. ``port`` is where it came to (68, or 4011 for EDK2's second leg), ``seconds`` after the
    question; ``destination`` is the IP address that it was sent to."""

    packet: Packet
    data: bytes
    source: str
    source_mac: MacAddress
    source_port: int
    destination: str
    port: int
    seconds: float
    asked: int = 67
    """The port that the question went to: 67, or 4011 for a boot server's answer."""
    own: bool = False
    """Sent by this host."""

    @property
    def is_proxy(self) -> bool:
        """An answer about booting: without an address, or of a boot client's class (EDK2 and iPXE each ask one)."""
        return self.packet.yiaddr[0] == 0 or self.boot_class is not None

    @property
    def is_dhcp(self) -> bool:
        """An answer that offers an address."""
        return self.packet.yiaddr[0] != 0

    @property
    def boot_class(self) -> bytes | None:
        """``PXEClient`` or ``HTTPClient`` when option 60 begins so."""
        value = self.packet.options.get(dhcp.VENDOR_CLASS, b"")
        return next((name for name in (PXE_CLASS, HTTP_CLASS) if value.startswith(name)), None)

    @property
    def server(self) -> str:
        """Option 54, else the sender."""
        value = self.packet.options.get(dhcp.SERVER_ID, b"")
        return dotted(value) if len(value) == 4 and any(value) else self.source

    @property
    def file(self) -> str:
        """The boot file that it names: option 67, else the header."""
        value = self.packet.options.get(dhcp.BOOT_FILE, b"").partition(b"\0")[0] or self.packet.file
        return value.decode("ascii", "backslashreplace")

    @property
    def vendor(self) -> dict[int, bytes] | None:
        """The sub-options of option 43; None when there is no such option, or one that cannot be read."""
        value = self.packet.options.get(dhcp.VENDOR_SPECIFIC)
        if value is None:
            return None
        try:
            return suboptions(value)
        except WireError:
            return None


def raw_options(data: bytes) -> list[tuple[int, bytes]]:
    """The options as they stand behind the header, in their order, pieces apart; ends where they make no sense."""
    found: list[tuple[int, bytes]] = []
    at = _FIRST_OPTION
    while at + 1 < len(data) and data[at] != dhcp.END:
        if data[at] == dhcp.PAD:
            at += 1
            continue
        stop = at + 2 + data[at + 1]
        if stop > len(data):
            break
        found.append((data[at], data[at + 2 : stop]))
        at = stop
    return found
