"""DHCP messages (RFC 2131, RFC 2132), both ways. Pure.

One rule: what comes in is read generously where the RFCs allow it (overload, joined and repeated options, missing
END), what goes out is written as the weakest firmware wants it: no overload, no splitting, option 67 last.
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from pbserv.errors import WireError

BOOTREQUEST: Final = 1
BOOTREPLY: Final = 2

DISCOVER: Final = 1
OFFER: Final = 2
REQUEST: Final = 3
ACK: Final = 5
INFORM: Final = 8
MESSAGE_NAMES: Final[Mapping[int, str]] = {
    1: "DISCOVER", 2: "OFFER", 3: "REQUEST", 4: "DECLINE", 5: "ACK", 6: "NAK", 7: "RELEASE", 8: "INFORM",
}  # fmt: skip

PAD: Final = 0
VENDOR_SPECIFIC: Final = 43
WANTED_ADDRESS: Final = 50
OVERLOAD: Final = 52
MESSAGE_TYPE: Final = 53
SERVER_ID: Final = 54
MAX_SIZE: Final = 57
VENDOR_CLASS: Final = 60
CLIENT_ID: Final = 61
TFTP_SERVER: Final = 66
BOOT_FILE: Final = 67
USER_CLASS: Final = 77
RELAY_INFO: Final = 82
ARCHITECTURE: Final = 93
CLIENT_UUID: Final = 97
IPXE: Final = 175
END: Final = 255

BROADCAST_FLAG: Final = 0x8000
COOKIE: Final = b"\x63\x82\x53\x63"
LEAST_BYTES: Final = 300  # RFC 1542 2.1: "a BOOTP message of 300 octets" is what old relays and ROMs expect
MOST_BYTES: Final = 1472  # EDK2 drops anything longer; also what fits an Ethernet frame
LEAST_LIMIT: Final = 576  # RFC 2132 9.10: "The minimum legal value is 576 octets"
MAX_INPUT: Final = 4096  # no client sends more than one frame; bounds the work that one datagram can cause

_HEADER = struct.Struct("!BBBBIHH4s4s4s4s16s64s128s4s")
_FIRST_OPTION: Final = 240
_SNAME_AT: Final = 44
_FILE_AT: Final = 108
_ORDER: Final = (MESSAGE_TYPE, SERVER_ID, VENDOR_CLASS, CLIENT_UUID, VENDOR_SPECIFIC, IPXE, TFTP_SERVER, RELAY_INFO)
_RANK: Final = [_ORDER.index(tag) if tag in _ORDER else 512 if tag == BOOT_FILE else 256 + tag for tag in range(256)]
_rank: Final = _RANK.__getitem__  # 53 first, 67 last, the rest as in _ORDER and then by number
ZERO: Final = b"\0\0\0\0"


class Head(NamedTuple):
    """The fixed fields of a message, without its names."""

    op: int
    htype: int
    hlen: int
    hops: int
    xid: int
    secs: int
    flags: int
    ciaddr: bytes
    yiaddr: bytes
    siaddr: bytes
    giaddr: bytes
    chaddr: bytes


_FIXED = struct.Struct("!BBBBIHH4s4s4s4s16s")


def check(data: bytes) -> None:
    """Raises WireError as :func:`decode` does for what is no DHCP message."""
    if len(data) < _FIRST_OPTION:
        raise WireError(len(data), "header", f"a DHCP message has at least {_FIRST_OPTION} bytes")
    if len(data) > MAX_INPUT:
        raise WireError(MAX_INPUT, "message", f"longer than {MAX_INPUT} bytes")
    if data[236:240] != COOKIE:
        raise WireError(236, "magic cookie", f"{data[236:240].hex()} instead of {COOKIE.hex()}")
    if data[2] > 16:
        raise WireError(2, "hlen", f"{data[2]} bytes do not fit into chaddr")


def head_of(data: bytes) -> Head:
    """The fixed fields; raises WireError, see :func:`check`."""
    check(data)
    return Head._make(_FIXED.unpack_from(data))


@dataclass(frozen=True, slots=True)
class Packet:
    """One message. Addresses are four bytes (see :func:`dotted`); ``sname`` and ``file`` end before their NUL.

    ``options`` never holds PAD, END or option 52: those frame the message and say nothing in themselves.
    """

    op: int
    xid: int
    chaddr: bytes
    htype: int = 1
    hlen: int = 6
    hops: int = 0
    secs: int = 0
    flags: int = 0
    ciaddr: bytes = ZERO
    yiaddr: bytes = ZERO
    siaddr: bytes = ZERO
    giaddr: bytes = ZERO
    sname: bytes = b""
    file: bytes = b""
    options: Mapping[int, bytes] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if len(self.chaddr) != 16 or self.hlen > 16:
            raise ValueError("chaddr has 16 bytes, of which hlen count")
        if len(self.sname) > 64 or len(self.file) > 128 or b"\0" in self.sname or b"\0" in self.file:
            raise ValueError("sname holds 64 bytes and file 128, without NUL")
        if PAD in self.options or END in self.options or OVERLOAD in self.options:
            raise ValueError("options 0, 52 and 255 are framing")

    @property
    def message_type(self) -> int | None:
        """Option 53; None for plain BOOTP and for a value that is not one byte."""
        value = self.options.get(MESSAGE_TYPE)
        return value[0] if value is not None and len(value) == 1 else None

    @property
    def limit(self) -> int:
        """The longest reply that this client takes, in bytes of UDP payload."""
        value = self.options.get(MAX_SIZE, b"")
        wanted = int.from_bytes(value, "big") if len(value) == 2 else LEAST_LIMIT
        return min(max(wanted, LEAST_LIMIT), MOST_BYTES)


def dotted(address: bytes) -> str:
    """Four bytes as ``192.0.2.1``."""
    return ".".join(map(str, address))


@functools.lru_cache(maxsize=1024)
def undotted(address: str) -> bytes:
    """``192.0.2.1`` as four bytes; raises ValueError."""
    octets = bytes(map(int, address.split(".")))
    if len(octets) != 4:
        raise ValueError(f"{address!r} is not an IPv4 address")
    return octets


def decode(data: bytes) -> Packet:
    """The message in a UDP payload; raises WireError."""
    size = len(data)
    if size < _FIRST_OPTION:
        raise WireError(size, "header", f"a DHCP message has at least {_FIRST_OPTION} bytes")
    if size > MAX_INPUT:
        raise WireError(MAX_INPUT, "message", f"longer than {MAX_INPUT} bytes")
    (op, htype, hlen, hops, xid, secs, flags, ciaddr, yiaddr, siaddr, giaddr, chaddr, sname, file, cookie) = (
        _HEADER.unpack_from(data)
    )
    if cookie != COOKIE:
        raise WireError(236, "magic cookie", f"{cookie.hex()} instead of {COOKIE.hex()}")
    if hlen > 16:
        raise WireError(2, "hlen", f"{hlen} bytes do not fit into chaddr")
    options: dict[int, bytes] = {}
    _scan(data, _FIRST_OPTION, size, options)
    overload = options.pop(OVERLOAD, None)
    if overload is not None:
        used = _overloaded(data, overload, options)
        sname, file = (b"" if used & 2 else sname), (b"" if used & 1 else file)
    return Packet(
        op, xid, chaddr, htype, hlen, hops, secs, flags, ciaddr, yiaddr, siaddr, giaddr,
        sname.partition(b"\0")[0], file.partition(b"\0")[0], options,
    )  # fmt: skip


def _overloaded(data: bytes, value: bytes, options: dict[int, bytes]) -> int:
    """Read the options that stand in ``file`` (1), ``sname`` (2) or both (3)."""
    if len(value) != 1 or not 1 <= value[0] <= 3:
        raise WireError(_FIRST_OPTION, "option 52", f"{value.hex() or 'nothing'} is not 1, 2 or 3")
    if value[0] & 1:  # RFC 3396 5: options, then file, then sname, in this order
        _scan(data, _FILE_AT, _FILE_AT + 128, options)
    if value[0] & 2:
        _scan(data, _SNAME_AT, _SNAME_AT + 64, options)
    options.pop(OVERLOAD, None)
    return value[0]


def _scan(data: bytes, position: int, end: int, found: dict[int, bytes]) -> None:
    """Read options up to END or the end of the field; a tag that comes again is joined (RFC 3396)."""
    while position < end:
        tag = data[position]
        if tag == PAD:
            position += 1
            continue
        if tag == END:
            return
        if position + 1 >= end:
            raise WireError(position, f"option {tag}", "ends before its length")
        stop = position + 2 + data[position + 1]
        if stop > end:
            raise WireError(
                position, f"option {tag}", f"claims {data[position + 1]} bytes, {end - position - 2} are left"
            )
        piece = data[position + 2 : stop]
        found[tag] = found[tag] + piece if tag in found else piece
        position = stop


def places(data: bytes) -> dict[int, int]:
    """Where each option of the main field begins -> where its value begins; call it after :func:`decode`."""
    found: dict[int, int] = {}
    position = _FIRST_OPTION
    while position < len(data) and data[position] != END:
        if data[position] == PAD:
            position += 1
            continue
        found[position] = position + 2
        position += 2 + data[position + 1]
    return found


def is_overloaded(data: bytes, begins: Mapping[int, int]) -> bool:
    """Whether some options stand in the header's fields for names."""
    return any(data[at] == OVERLOAD for at in begins)


def encode(packet: Packet, limit: int = MOST_BYTES) -> bytes:
    """The message in the fixed order of options, padded to 300 bytes.

    Raises WireError when an option does not fit one instance (EDK2 and iPXE read the first only) or when the whole
    is longer than ``limit``.
    """
    head = _HEADER.pack(
        packet.op, packet.htype, packet.hlen, packet.hops, packet.xid, packet.secs, packet.flags,
        packet.ciaddr, packet.yiaddr, packet.siaddr, packet.giaddr, packet.chaddr, packet.sname, packet.file, COOKIE,
    )  # fmt: skip
    parts = [head]
    for tag in sorted(packet.options, key=_rank):
        value = packet.options[tag]
        if tag == BOOT_FILE and not value.endswith(b"\0"):
            # EDK2 writes a NUL behind an option 67 that lacks one: over the tag that follows.
            value += b"\0"
        if len(value) > 255:
            raise WireError(_FIRST_OPTION, f"option {tag}", f"{len(value)} bytes do not fit into one option")
        parts.append(bytes((tag, len(value))))
        parts.append(value)
    parts.append(b"\xff")
    data = b"".join(parts)
    if len(data) > limit:
        raise WireError(limit, "message", f"{len(data)} bytes, but the client takes {limit}")
    return data.ljust(LEAST_BYTES, b"\0")


def suboptions(data: bytes) -> dict[int, bytes]:
    """The encapsulated options of option 43 or 175; raises WireError with offsets inside that option."""
    found: dict[int, bytes] = {}
    _scan(data, 0, len(data), found)
    return found


def encapsulate(parts: Mapping[int, bytes]) -> bytes:
    """The opposite of :func:`suboptions`, without END; raises WireError when one is longer than its length can say."""
    for tag, value in parts.items():
        if len(value) > 255:
            raise WireError(0, f"sub-option {tag}", f"{len(value)} bytes do not fit")
    return b"".join(bytes((tag, len(value))) + value for tag, value in parts.items())


def describe(packet: Packet) -> str:
    """One line for the log at level 4: every header field that says something and every option."""
    kind = packet.message_type
    fields = [
        MESSAGE_NAMES.get(kind, f"type {kind}") if kind is not None else "BOOTP",
        f"op={packet.op} htype={packet.htype} hlen={packet.hlen} xid={packet.xid:08x} secs={packet.secs}",
        f"flags={packet.flags:04x} chaddr={packet.chaddr[: packet.hlen].hex(':')}",
    ]
    for name in ("ciaddr", "yiaddr", "siaddr", "giaddr"):
        address: bytes = getattr(packet, name)
        if address != ZERO:
            fields.append(f"{name}={dotted(address)}")
    fields += [f"{name}={text!r}" for name, text in (("sname", packet.sname), ("file", packet.file)) if text]
    fields += [f"{tag}={_readable(value)}" for tag, value in packet.options.items()]
    return " ".join(fields)


def _readable(value: bytes) -> str:
    text = value.rstrip(b"\0")
    if len(text) > 3 and all(32 < octet < 127 for octet in text):
        return text.decode("ascii")
    return value.hex() or "-"
