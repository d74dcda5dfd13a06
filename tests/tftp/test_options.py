from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pbserv.tftp.options import Limits, Terms, negotiate
from pbserv.tftp.packet import encode_oack

LIMITS = Limits(block_size=1428, window=32, mtu_bytes=1500, timeout_s=1.0)


def agreed(*asked: tuple[bytes, bytes], size: int | None = 1000, limits: Limits = LIMITS) -> tuple:
    return negotiate(asked, size, limits).accepted


def test_nothing_asked_is_rfc_1350() -> None:
    assert negotiate((), 1000, LIMITS) == Terms(512, 1, 1.0, False, ())


def test_order_and_spelling_are_the_clients() -> None:
    asked = ((b"TSize", b"0"), (b"unknown", b"7"), (b"WINDOWSIZE", b"4"), (b"blkSize", b"1024"))
    terms = negotiate(asked, 77, LIMITS)
    assert terms.accepted == ((b"TSize", b"77"), (b"WINDOWSIZE", b"4"), (b"blkSize", b"1024"))
    assert encode_oack(terms.accepted) == b"\0\6TSize\x0077\0WINDOWSIZE\x004\0blkSize\x001024\0"
    assert (terms.block_size, terms.window) == (1024, 4)


@pytest.mark.parametrize(
    ("asked", "answer"),
    [
        (b"8", b"8"), (b"512", b"512"), (b"1428", b"1428"), (b"1429", b"1428"), (b"65464", b"1428"),
        (b"7", None), (b"0", None), (b"65465", None), (b"-1", None), (b"", None), (b"1e3", None), (b" 512", None),
        (b"9" * 21, None), (b"512\n", None), ("٣".encode(), None),
    ],
)  # fmt: skip
def test_blksize(asked: bytes, answer: bytes | None) -> None:
    assert agreed((b"blksize", asked)) == (() if answer is None else ((b"blksize", answer),))


def test_blksize_fits_the_route() -> None:
    assert agreed((b"blksize", b"4428"), limits=Limits(4428, 1, 1500, 1.0)) == ((b"blksize", b"1468"),)
    assert agreed((b"blksize", b"4428"), limits=Limits(4428, 1, 65536, 1.0)) == ((b"blksize", b"4428"),)


@pytest.mark.parametrize(("asked", "echoed"), [(b"1", True), (b"255", True), (b"0", False), (b"256", False)])
def test_timeout_is_equal_or_left_out(asked: bytes, echoed: bool) -> None:
    assert agreed((b"timeout", asked)) == (((b"timeout", asked),) if echoed else ())


def test_timeout_of_the_client_wins() -> None:
    terms = negotiate(((b"timeout", b"5"),), 0, LIMITS)
    assert (terms.timeout_s, terms.fixed_timeout) == (5.0, True)


def test_tsize_is_64_bits_wide_and_zero_is_a_size() -> None:
    assert agreed((b"tsize", b"0"), size=5 << 30) == ((b"tsize", b"5368709120"),)
    assert agreed((b"tsize", b"0"), size=0) == ((b"tsize", b"0"),)


def test_windowsize_is_capped() -> None:
    assert agreed((b"windowsize", b"64")) == ((b"windowsize", b"32"),)
    assert agreed((b"windowsize", b"1")) == ((b"windowsize", b"1"),)
    assert agreed((b"windowsize", b"0")) == ()
    assert agreed((b"msftwindow", b"31416")) == ()


WORD = st.binary(max_size=12)


@given(st.lists(st.tuples(st.sampled_from([b"blksize", b"tsize", b"timeout", b"windowsize", b"x"]) | WORD, WORD)))
def test_only_what_was_asked(asked: list[tuple[bytes, bytes]]) -> None:
    terms = negotiate(tuple(asked), 1, LIMITS)
    assert {name for name, _ in terms.accepted} <= {name for name, _ in asked}
    assert 8 <= terms.block_size <= 1428
    assert 1 <= terms.window <= 32
