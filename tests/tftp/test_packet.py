from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pbserv.errors import WireError
from pbserv.tftp.packet import (
    MAX_ERROR_TEXT,
    Ack,
    Data,
    Error,
    Opcode,
    OptionAck,
    Request,
    decode,
    encode_ack,
    encode_error,
    encode_oack,
    encode_request,
)
from tests.tftp.vectors import firmware_requests


@given(st.binary(max_size=600))
def test_any_bytes_decode_or_raise_wire_error(data: bytes) -> None:
    with suppress(WireError):
        decode(data)


@given(st.integers(0, 8), st.binary(max_size=120))
def test_any_bytes_behind_any_opcode(opcode: int, rest: bytes) -> None:
    with suppress(WireError):
        decode(opcode.to_bytes(2, "big") + rest)


WORD = st.binary(min_size=1, max_size=20).filter(lambda text: b"\0" not in text)


@given(WORD, st.lists(st.tuples(WORD, WORD), unique_by=lambda pair: pair[0].lower()))
def test_requests_survive_the_wire(name: bytes, options: list[tuple[bytes, bytes]]) -> None:
    request = Request(Opcode.RRQ, name, "octet", tuple(options))
    assert decode(encode_request(request)) == request


@pytest.mark.parametrize("vector", firmware_requests(), ids=lambda vector: f"{vector.client}-{vector.file}")
def test_firmware_requests(vector) -> None:
    request = decode(vector.data)
    assert isinstance(request, Request)
    assert request.name.decode() == vector.file
    assert request.mode == vector.mode.lower()
    assert {name.decode(): value.decode() for name, value in request.options} == vector.options


def test_other_packets() -> None:
    assert decode(encode_ack(65537)) == Ack(1)
    assert decode(b"\0\3\1\2abc") == Data(258, b"abc")
    assert decode(b"\0\5\0\x08") == Error(8, "")
    assert decode(encode_oack(((b"blksize", b"8"),))) == OptionAck(((b"blksize", b"8"),))


@pytest.mark.parametrize(
    ("data", "name", "mode", "options"),
    [
        (b"\0\1f\0octet", b"f", "octet", ()),  # no last NUL
        (b"\0\1f\0OCTET\0blksize\x001024", b"f", "octet", ((b"blksize", b"1024"),)),
        (b"\0\1f\0octet\0" + b"\0" * 505, b"f", "octet", ()),  # PA-RISC: padded to 516 bytes
        (b"\0\1f\0octet\0tsize\0", b"f", "octet", ((b"tsize", b""),)),
        (b"\0\1f\0octet\0tsize", b"f", "octet", ()),  # a name without a value
        (b"\0\1f\0octet\0a\x001\0A\x002\0", b"f", "octet", ((b"a", b"1"),)),  # the first one wins
        (b"\0\1f\0oct\xff\0", b"f", "oct\\xff", ()),
    ],
)
def test_tolerance(data: bytes, name: bytes, mode: str, options: tuple) -> None:
    assert decode(data) == Request(1, name, mode, options)


@pytest.mark.parametrize(
    "data", [b"", b"\0", b"\0\0", b"\0\7x", b"\0\1", b"\0\1\0octet\0", b"\0\1f", b"\0\1f\0", b"\0\1f\0\0", b"\0\4\1"]
)
def test_malformed(data: bytes) -> None:
    with pytest.raises(WireError):
        decode(data)


def test_error_text_is_short_and_plain() -> None:
    packet = encode_error(1, "x\n\x1b\u20ac" + "y" * 600)
    assert len(packet) <= 5 + MAX_ERROR_TEXT
    assert packet[4:].startswith(b"x???y")
    assert packet[-1] == 0
