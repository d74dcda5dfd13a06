"""TFTP packets (RFC 1350 section 5, RFC 2347). Pure.

One rule: any bytes are decoded or raise WireError; what boot ROMs send besides the RFC is read, not refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from pbserv.errors import WireError
from pbserv.wire import Reader

MAX_ERROR_TEXT = 120
"""Characters of an ERROR message. Small enough that no reply outgrows its request much (no amplification)."""


class Opcode(int):
    """RFC 1350 section 5 and RFC 2347; unknown codes are legal values."""

    RRQ = 1
    WRQ = 2
    DATA = 3
    ACK = 4
    ERROR = 5
    OACK = 6


class ErrorCode(int):
    """RFC 1350 appendix I and RFC 2347; unknown codes are legal values and print as themselves."""

    UNDEFINED = 0
    NOT_FOUND = 1
    ACCESS = 2
    DISK_FULL = 3
    ILLEGAL = 4
    UNKNOWN_TID = 5
    EXISTS = 6
    NO_USER = 7
    OPTION = 8


Option = tuple[bytes, bytes]
"""Name and value as the client wrote them."""


@dataclass(frozen=True, slots=True)
class Request:
    """RRQ or WRQ. ``name`` is raw; ``mode`` is in lower case; ``options`` keep the client's order and spelling."""

    opcode: int
    name: bytes
    mode: str
    options: tuple[Option, ...] = ()


@dataclass(frozen=True, slots=True)
class Ack:
    """``block`` is the 16-bit number on the wire."""

    block: int


@dataclass(frozen=True, slots=True)
class Data:
    """One block of a file."""

    block: int
    payload: bytes


@dataclass(frozen=True, slots=True)
class Error:
    """``text`` is whatever the peer sent, control characters included: escape it before it is shown."""

    code: int
    text: str


@dataclass(frozen=True, slots=True)
class OptionAck:
    """RFC 2347 OACK."""

    options: tuple[Option, ...]


_REQUESTS = (b"\0\1", b"\0\2")

Packet = Request | Ack | Data | Error | OptionAck


def decode(data: bytes) -> Packet:
    """The packet in one datagram; raises WireError and nothing else."""
    if data[:2] in _REQUESTS:
        return _request(data)
    reader = Reader(data)
    opcode = reader.u16("opcode")
    match opcode:
        case Opcode.DATA:
            return Data(reader.u16("block"), reader.take(reader.remaining, "data"))
        case Opcode.ACK:
            return Ack(reader.u16("block"))
        case Opcode.ERROR:
            code = reader.u16("error code")
            text = reader.take(reader.remaining, "error text").partition(b"\0")[0]
            return Error(code, text.decode("utf-8", "backslashreplace"))
        case Opcode.OACK:
            return OptionAck(_options(data[2:].split(b"\0")))
        case _:
            raise WireError(0, "opcode", f"{opcode} is not a TFTP opcode")


@lru_cache(maxsize=256)  # the machines of a room ask for the same files with the same options
def _request(data: bytes) -> Request:
    # Departs: RFC 1350 ends every string with NUL; old ROMs leave out the last one, so the end of the datagram counts.
    name, _, rest = data[2:].partition(b"\0")
    if not name:
        raise WireError(2, "file name", "is empty")
    if not rest:
        raise WireError(2 + len(name), "mode", "is missing")
    mode, _, tail = rest.partition(b"\0")
    if not mode:
        raise WireError(3 + len(name), "mode", "is empty")
    return Request(data[1], name, mode.decode("ascii", "backslashreplace").lower(), _options(tail.split(b"\0")))


def _options(pieces: list[bytes]) -> tuple[Option, ...]:
    """Pairs up to the first malformed one: PA-RISC firmware pads its requests to 516 bytes with NULs."""
    found: dict[bytes, Option] = {}
    for name, value in zip(pieces[::2], pieces[1::2], strict=False):
        if not name:
            break
        # RFC 2347: an option occurs at most once; the first one wins.
        found.setdefault(name.lower(), (name, value))
    return tuple(found.values())


def encode_request(request: Request) -> bytes:
    """RRQ or WRQ bytes (for tests and the load generator)."""
    parts = [request.name, request.mode.encode(), *(text for option in request.options for text in option)]
    return request.opcode.to_bytes(2, "big") + b"".join(part + b"\0" for part in parts)


def encode_ack(block: int) -> bytes:
    return b"\0\4" + (block & 0xFFFF).to_bytes(2, "big")


def encode_oack(options: tuple[Option, ...]) -> bytes:
    return b"\0\6" + b"".join(name + b"\0" + value + b"\0" for name, value in options)


def encode_error(code: int, text: str) -> bytes:
    """ERROR with ``text`` cut to MAX_ERROR_TEXT and freed of everything that is not printable ASCII."""
    plain = "".join(letter if " " <= letter <= "~" else "?" for letter in text[:MAX_ERROR_TEXT])
    return b"\0\5" + code.to_bytes(2, "big") + plain.encode("ascii") + b"\0"
