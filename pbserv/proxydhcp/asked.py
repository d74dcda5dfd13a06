"""What a packet's options say, read once per kind of packet: machines of one model differ in UUID and MAC only. Pure.

One rule: what is remembered under a key depends on nothing but that key. The bytes that are left out of it are values
of options whose place was proven when the key was made: with the same bytes around them at the same places, in a packet
of the same length, they are the values of the same options.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from pbserv.errors import WireError
from pbserv.proxydhcp import packet as dhcp
from pbserv.proxydhcp.client import PI_VENDORS, BootItem, Client, boot_item, classify
from pbserv.proxydhcp.outcome import Ignore, Reason
from pbserv.proxydhcp.table import Vendor

KEPT: Final = 2048
_FIRST: Final = 240
_UUID: Final = b"\x61\x11\x00"  # option 97, 17 bytes, type 0
_CLIENT_ID: Final = b"\x3d\x07\x01"  # option 61, 7 bytes, Ethernet


@dataclass(frozen=True, slots=True, eq=False)
class Asked:
    """``client`` is None when ``ignored`` says why this is no boot client's packet.

    ``item`` is option 43.71; ``relay`` option 82, to be echoed; ``server`` option 54 and ``wanted`` option 50, four
    bytes or none; ``uuid_at`` is where the 17 bytes of option 97 begin in the packet, 0 when they are to be ignored.
    """

    message_type: int | None
    client: Client | None
    ignored: Ignore | None
    item: BootItem | None
    limit: int
    relay: bytes | None
    server: bytes
    wanted: bytes
    uuid_at: int


class AskedOf:
    """Reads packets and remembers what it read, for at most KEPT kinds of packets."""

    def __init__(self, vendors: Sequence[Vendor] = ()) -> None:
        self._vendors = tuple(vendors)
        self._known: dict[tuple[int, int, int, bytes, bytes], Asked] = {}

    def read(self, data: bytes) -> Asked:
        """``data`` has at least 240 bytes; raises WireError."""
        uuid_at = data.find(_UUID, _FIRST)
        key = data[_FIRST:] if uuid_at < 0 else data[_FIRST : uuid_at + 3] + data[uuid_at + 19 :]
        id_at = key.find(_CLIENT_ID)
        if id_at >= 0:
            key = key[: id_at + 3] + key[id_at + 9 :]
        vendor = data[28:31] if data[28:31] in PI_VENDORS else b""  # a Pi says that it is a BIOS
        # Without the places and the length, a packet that ends inside its UUID looks like one that ends behind it.
        named = (len(data), uuid_at, id_at, vendor, key)
        asked = self._known.get(named)
        if asked is not None:
            return asked
        asked, sure = self._read(data, uuid_at, _place(id_at, uuid_at))
        if sure:
            if len(self._known) >= KEPT:
                self._known.clear()
            self._known[named] = asked
        return asked

    def _read(self, data: bytes, uuid_at: int, id_at: int) -> tuple[Asked, bool]:
        """Also whether the left-out bytes are the values of the options that they seem to be."""
        packet = dhcp.decode(data)
        options = packet.options
        places = dhcp.places(data)
        sure = all(at < 0 or at in places for at in (uuid_at, id_at)) and not dhcp.is_overloaded(data, places)
        client: Client | Ignore = classify(options, packet.chaddr[:6], self._vendors)
        item = None
        if isinstance(client, Client):
            try:
                item = boot_item(options)
            except WireError as fault:
                client = Ignore(Reason.BAD_PACKET, str(fault))
        asked = Asked(
            packet.message_type,
            client if isinstance(client, Client) else None,
            client if isinstance(client, Ignore) else None,
            item,
            packet.limit,
            options.get(dhcp.RELAY_INFO),
            _address(options.get(dhcp.SERVER_ID)),
            _address(options.get(dhcp.WANTED_ADDRESS)),
            _uuid_place(data, places) if len(options.get(dhcp.CLIENT_UUID, b"")) == 17 else 0,
        )
        return asked, sure


def _uuid_place(data: bytes, places: Mapping[int, int]) -> int:
    """Where the value of a whole option 97 begins; 0 when it stands in the header or in pieces."""
    return next((value for at, value in places.items() if data[at] == dhcp.CLIENT_UUID and data[at + 1] == 17), 0)


def _place(id_at: int, uuid_at: int) -> int:
    """Where option 61 begins in the packet, from its place in the key."""
    if id_at < 0:
        return -1
    at = id_at + _FIRST
    return at if uuid_at < 0 or at < uuid_at else at + 16


def _address(value: bytes | None) -> bytes:
    return value if value is not None and len(value) == 4 else b""
