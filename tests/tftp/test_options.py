from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pbserv.tftp.options import LARGEST_WINDOW_BYTES, Limits, Terms, negotiate, negotiate_write
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


def test_windowsize_is_held_by_bytes_too() -> None:
    large = Limits(65464, 256, 1 << 20, 1.0)
    terms = negotiate(((b"windowsize", b"256"), (b"blksize", b"65464")), 1, large)
    assert terms.accepted == ((b"windowsize", b"64"), (b"blksize", b"65464"))
    assert terms.window * terms.block_size <= LARGEST_WINDOW_BYTES
    assert negotiate(((b"windowsize", b"256"),), 1, large).window == 256


def test_blksize_leaves_room_for_ipv6_headers() -> None:
    limits = Limits(4428, 1, 1500, 1.0, overhead=52)
    assert agreed((b"blksize", b"4428"), limits=limits) == ((b"blksize", b"1448"),)


@pytest.mark.parametrize(
    ("asked", "answer"),
    [
        (b"8", b"8"), (b"9", b"8"), (b"512", b"512"), (b"1023", b"512"), (b"1024", b"1024"), (b"1428", b"1024"),
        (b"32768", b"1024"), (b"7", None), (b"32769", None), (b"65464", None), (b"", None),
    ],
)  # fmt: skip
def test_blksize2_is_a_power_of_two(asked: bytes, answer: bytes | None) -> None:
    assert agreed((b"BlkSize2", asked)) == (() if answer is None else ((b"BlkSize2", answer),))
    assert negotiate(((b"blksize2", asked),), 1, LIMITS).block_size == int(answer or 512)


def test_of_two_ways_to_ask_the_first_usable_one_counts() -> None:
    assert agreed((b"blksize", b"1000"), (b"blksize2", b"1024")) == ((b"blksize", b"1000"),)
    assert agreed((b"blksize2", b"1024"), (b"blksize", b"1000")) == ((b"blksize2", b"1024"),)
    assert agreed((b"blksize2", b"7"), (b"blksize", b"1000")) == ((b"blksize", b"1000"),)
    assert agreed((b"timeout", b"3"), (b"utimeout", b"500000")) == ((b"timeout", b"3"),)
    assert agreed((b"timeout", b"0"), (b"utimeout", b"500000")) == ((b"utimeout", b"500000"),)


def test_the_first_of_equal_names_counts() -> None:
    assert agreed((b"blksize", b"600"), (b"BLKSIZE", b"700")) == ((b"blksize", b"600"),)
    assert agreed((b"blksize", b"x"), (b"BLKSIZE", b"700")) == ((b"BLKSIZE", b"700"),)


@pytest.mark.parametrize(
    ("asked", "seconds"),
    [(b"10000", 0.01), (b"1500000", 1.5), (b"255000000", 255.0), (b"9999", None), (b"255000001", None)],
)
def test_utimeout(asked: bytes, seconds: float | None) -> None:
    terms = negotiate(((b"utimeout", asked),), 0, LIMITS)
    assert terms.accepted == (() if seconds is None else ((b"utimeout", asked),))
    assert (terms.timeout_s, terms.fixed_timeout) == (seconds or 1.0, seconds is not None)


def test_what_must_be_equal_goes_back_letter_by_letter() -> None:
    asked = ((b"timeout", b"005"), (b"rollover", b"01"))
    terms = negotiate(asked, 1, LIMITS)
    assert (terms.accepted, terms.timeout_s, terms.rollover) == (asked, 5.0, 1)


@pytest.mark.parametrize(
    ("asked", "number"), [(b"0", 0), (b"1", 1), (b"32768", 32768), (b"65535", None), (b"-1", None)]
)
def test_rollover(asked: bytes, number: int | None) -> None:
    terms = negotiate(((b"rollover", asked),), 0, LIMITS)
    assert terms.accepted == (() if number is None else ((b"rollover", asked),))
    assert terms.rollover == (number or 0)


def test_tsize_is_left_out_when_the_size_on_the_wire_is_not_known() -> None:
    assert agreed((b"tsize", b"0"), (b"blksize", b"600"), size=None) == ((b"blksize", b"600"),)


def test_multicast_is_agreed_when_there_is_a_group_for_it() -> None:
    group = LIMITS._replace(multicast=b"239.255.69.0,1758,1")
    terms = negotiate(((b"Multicast", b""), (b"windowsize", b"8"), (b"tsize", b"0")), 9, group)
    assert terms.accepted == ((b"Multicast", b"239.255.69.0,1758,1"), (b"tsize", b"9"))
    assert (terms.multicast, terms.window) == (True, 1)
    assert agreed((b"multicast", b"x"), limits=group) == ()
    assert not negotiate(((b"multicast", b""),), 9, LIMITS).multicast
    assert negotiate_write(((b"multicast", b""),), group).accepted == ()


@pytest.mark.parametrize(
    "name", ["blksize", "blksize2", "multicast", "rollover", "timeout", "tsize", "utimeout", "windowsize"]
)
def test_single_options_can_be_refused(name: str) -> None:
    value = {"multicast": b"", "utimeout": b"500000"}.get(name, b"8")
    limits = LIMITS._replace(multicast=b"239.255.69.0,1758,1")
    assert [one for one, _ in agreed((name.upper().encode(), value), limits=limits)] == [name.upper().encode()]
    assert agreed((name.upper().encode(), value), limits=limits._replace(refused=frozenset({name}))) == ()


def test_a_refused_blksize_leaves_room_for_blksize2() -> None:
    limits = LIMITS._replace(refused=frozenset({"blksize"}))
    assert agreed((b"blksize", b"1000"), (b"blksize2", b"1024"), limits=limits) == ((b"blksize2", b"1024"),)


def test_terms_of_an_upload() -> None:
    asked = ((b"tsize", b"123456789012"), (b"blksize", b"4000"), (b"windowsize", b"64"), (b"utimeout", b"250000"))
    terms = negotiate_write(asked, LIMITS)
    assert terms.accepted == (asked[0], (b"blksize", b"1428"), (b"windowsize", b"32"), asked[3])
    assert terms.tsize == 123456789012
    assert (terms.block_size, terms.window, terms.timeout_s) == (1428, 32, 0.25)
    assert negotiate_write((), LIMITS) == Terms()
    assert negotiate_write(((b"tsize", b"99999999999999999999"),), LIMITS) == Terms()


NAMES = [
    b"blksize",
    b"BLKSIZE2",
    b"tsize",
    b"timeout",
    b"utimeout",
    b"windowsize",
    b"rollover",
    b"multicast",
    b"msftwindow",
]
WORD = st.binary(max_size=12)
VALUE = st.integers(0, 1 << 40).map(lambda number: b"%d" % number) | st.just(b"") | WORD
OPTION = st.tuples(st.sampled_from(NAMES) | WORD, VALUE)
ASKED = st.lists(OPTION, max_size=12, unique_by=lambda option: option[0].lower()).map(tuple)  # packet.decode sees to it


@given(ASKED)
def test_only_what_was_asked(asked: tuple[tuple[bytes, bytes], ...]) -> None:
    limits = LIMITS._replace(multicast=b"239.255.69.0,1758,1")
    for terms in (negotiate(asked, 1, limits), negotiate_write(asked, limits)):
        places = [[name for name, _ in asked].index(name) for name, _ in terms.accepted]
        assert places == sorted(set(places))
        assert len({name.lower() for name, _ in terms.accepted}) == len(terms.accepted)
        assert 8 <= terms.block_size <= 1428
        assert 1 <= terms.window <= 32
        assert 0.01 <= terms.timeout_s <= 255
        for name, value in terms.accepted:
            if name.lower() in (b"blksize", b"blksize2", b"windowsize"):
                assert int(value) <= max(int(text) for one, text in asked if one == name and text.isdigit())
