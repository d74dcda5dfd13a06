from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pbserv.tftp.netascii import NetasciiDecoder, to_netascii

TEXT = st.lists(st.sampled_from([b"\r", b"\n", b"\0", b"a", b"\xff"])).map(b"".join) | st.binary()


def decoded(pieces: Iterable[bytes]) -> bytes:
    decoder = NetasciiDecoder()
    return b"".join([decoder.feed(piece) for piece in pieces]) + decoder.finish()


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    borders = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[start:stop] for start, stop in pairwise(borders)]


def byte_by_byte(data: bytes) -> bytes:
    """The rule, written out."""
    out, position = bytearray(), 0
    while position < len(data):
        pair = data[position : position + 2]
        out += {b"\r\n": b"\n", b"\r\0": b"\r"}.get(pair, data[position : position + 1])
        position += 2 if pair in (b"\r\n", b"\r\0") else 1
    return bytes(out)


@given(TEXT, st.lists(st.integers(min_value=0, max_value=1000)))
def test_what_was_encoded_comes_back_wherever_it_was_cut(data: bytes, cuts: list[int]) -> None:
    assert decoded(pieces(to_netascii(data), cuts)) == data


@given(TEXT, st.lists(st.integers(min_value=0, max_value=1000)))
def test_any_bytes_follow_the_rule(data: bytes, cuts: list[int]) -> None:
    assert decoded(pieces(data, cuts)) == byte_by_byte(data)


@pytest.mark.parametrize(
    ("wire", "text"),
    [
        ([b"foo\r", b"\nbar\r", b"\0baz\r\n"], b"foo\nbar\rbaz\n"),
        ([b"a\r", b"b"], b"a\rb"),
        ([b"a\r", b"\r", b"\n"], b"a\r\n"),
        ([b"a\r"], b"a\r"),
        ([b"\n\0"], b"\n\0"),
        ([b"", b"\r", b"", b"\n"], b"\n"),
    ],
)
def test_borders(wire: list[bytes], text: bytes) -> None:
    assert decoded(wire) == text
