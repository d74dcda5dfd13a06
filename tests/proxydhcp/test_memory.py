"""What is remembered of a device, for how long, and that it is bounded."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pbserv.proxydhcp.memory import BURST_GAP_S, LOOP_WINDOW_S, MOST_DEVICES, Boots, Devices, Quiet
from pbserv.types import Instant

LADDER = ("hybrid", "direct", "binl", "discovery")
ZERO = bytes(4)


def at(seconds: float) -> Instant:
    return Instant(seconds)


def handed(xid: int, ipxe: bool, seconds: float) -> Boots:
    boots = Boots()
    boots.handed("undionly.kpxe", xid, ipxe, at(seconds))
    return boots


# The loader that asks by itself --------------------------------------------------------------------------------------


def test_a_new_xid_within_two_minutes_is_the_loader_asking() -> None:
    assert not Boots().chained(1, at(0))
    boots = handed(1, True, 0)
    assert not boots.chained(1, at(1))  # a retransmission
    assert boots.chained(2, at(1))
    assert boots.chained(2, at(120))  # its retransmission too
    assert not boots.chained(2, at(120.1))
    assert not boots.chained(0, at(1))  # a boot item request of the ROM


def test_after_firmware_any_ipxe_is_the_loader() -> None:
    boots = handed(1, False, 0)
    assert boots.chained(1, at(1))
    assert boots.chained(0, at(1))
    assert not boots.chained(1, at(121))


# Strategies ----------------------------------------------------------------------------------------------------------


def attempt(boots: Boots, begins: float, secs: tuple[int, ...] = (0, 4, 12), xid: int = 1) -> list[bool]:
    """One attempt of firmware that stops after our offers: DISCOVERs at ``begins`` + secs. What each said."""
    said = []
    for one in secs:
        said.append(boots.discovers(one, xid, at(begins + one)))
        boots.offered()
    return said


def test_two_attempts_that_stop_after_the_offer_bring_the_next_strategy() -> None:
    boots = Boots()
    assert boots.strategy == ""
    assert attempt(boots, 0) == [False] * 3
    assert attempt(boots, 30) == [False] * 3
    assert attempt(boots, 60) == [True, False, False]
    assert boots.escalate(LADDER) == "direct"
    assert boots.strategy == "direct"
    assert attempt(boots, 90) == [False] * 3
    assert attempt(boots, 120) == [True, False, False]
    assert boots.escalate(LADDER) == "binl"


def test_it_goes_round_and_round() -> None:
    boots, tried, begins = Boots(), [], 0.0
    attempt(boots, begins)
    while len(tried) < 9:
        begins += 30
        if attempt(boots, begins)[0]:
            tried.append(boots.escalate(LADDER))
    assert tried == ["direct", "binl", "discovery", "hybrid"] * 2 + ["direct"]


@pytest.mark.parametrize(
    ("secs", "xid", "gap", "fresh"),
    [
        (0, 1, 5, True),  # secs begin again
        (8, 1, 5, True),
        (12, 1, 5, False),  # the same DISCOVER once more
        (12, 2, 5, True),  # another attempt that happens to have the same secs
        (12, 2, 3, False),  # ROMs count their attempts in the xid: U-Boot sends three within a second
        (20, 1, 5, False),  # a retry
        (20, 2, 5, False),  # BIOS ROMs change the xid with each retry
        (20, 1, BURST_GAP_S, False),
        (20, 1, BURST_GAP_S + 1, True),  # nothing waits that long between two tries
    ],
)
def test_where_a_new_attempt_begins(secs: int, xid: int, gap: float, fresh: bool) -> None:
    boots = Boots()
    attempt(boots, 0)
    attempt(boots, 30)
    assert boots.discovers(secs, xid, at(42 + gap)) is fresh


def test_attempts_of_one_discover_each_count_too() -> None:
    boots = Boots()
    found = [attempt(boots, 20.0 * number, (0,), xid=number)[0] for number in range(7)]
    assert found == [False, False, True, False, True, False, True]


def test_what_was_long_ago_does_not_count() -> None:
    boots = Boots()
    attempt(boots, 0)
    attempt(boots, 30)
    assert not boots.discovers(0, 1, at(42 + 2 * LOOP_WINDOW_S + 1))


def test_an_attempt_that_was_not_offered_anything_does_not_count() -> None:
    boots = Boots()
    for begins in (0, 30, 60, 90):
        assert not boots.discovers(0, 1, at(begins))


def test_who_gets_further_is_not_stuck() -> None:
    boots = Boots()
    for begins in range(0, 600, 30):
        assert attempt(boots, begins) == [False] * 3
        assert boots.reached() is None


def test_an_attempt_that_got_further_starts_the_count_again() -> None:
    boots = Boots()
    attempt(boots, 0)
    attempt(boots, 30)
    boots.reached()
    assert attempt(boots, 60) == [False] * 3  # this begins after one that reached
    assert attempt(boots, 90) == [False] * 3
    assert attempt(boots, 120) == [True, False, False]


def escalated(steps: int = 1, learned: str = "") -> Boots:
    boots, begins = Boots(learned), 0.0
    attempt(boots, begins)
    while steps:
        begins += 30
        if attempt(boots, begins)[0]:
            boots.escalate(LADDER)
            steps -= 1
    return boots


def test_the_strategy_that_works_is_learned_once() -> None:
    boots = escalated(2)
    assert boots.strategy == "binl"
    assert boots.reached() == "binl"
    assert (boots.learned, boots.strategy) == ("binl", "binl")
    assert boots.reached() is None


def test_the_usual_strategy_that_works_again_is_learned_as_nothing() -> None:
    boots = escalated(4, "discovery")
    assert boots.strategy == "hybrid"
    assert boots.reached() == ""
    assert (boots.learned, boots.strategy) == ("", "")
    fresh = escalated(4)
    assert fresh.reached() is None  # nothing was learned before, so there is nothing to forget


def test_what_is_known_already_is_no_news() -> None:
    boots = escalated(1, "direct")
    assert boots.reached() is None
    assert boots.strategy == "direct"


def test_a_learned_strategy_that_fails_gives_way() -> None:
    boots = Boots("discovery")
    assert boots.strategy == "discovery"
    boots = escalated(1, "discovery")
    assert boots.strategy == "direct"
    assert boots.reached() == "direct"


def test_without_a_ladder_there_is_nothing_to_try() -> None:
    boots = Boots("binl")
    for begins in (0, 30, 60):
        attempt(boots, begins)
    assert boots.escalate(()) == "binl"
    assert boots.reached() is None


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(0, 2), st.floats(0, 400), st.booleans(), st.booleans())))
def test_whatever_comes_a_strategy_of_the_ladder_follows(
    events: list[tuple[int, int, float, bool, bool]],
) -> None:
    boots, now = Boots(), 0.0
    for secs, xid, gap, offers, reaches in events:
        now += gap
        if boots.discovers(secs, xid, at(now)):
            assert boots.escalate(LADDER) in LADDER
        if offers:
            boots.offered()
        if reaches:
            assert boots.reached() in (None, "", *LADDER[1:])
        assert boots.strategy in ("", *LADDER)


# Loops ---------------------------------------------------------------------------------------------------------------


def fetch(boots: Boots, name: str, now: Instant) -> None:
    """It is told the loader and has it."""
    boots.handed(name, 1, False, now)
    boots.fetched_loader(name, now)


def test_a_loader_counts_once_each_time_that_it_was_told() -> None:
    boots = Boots()
    boots.fetched_loader("undionly.kpxe", at(0))
    assert boots.fetches == 0, "nobody told it to"
    for _ in range(3):
        fetch(boots, "undionly.kpxe", at(1))
        boots.fetched_loader("undionly.kpxe", at(2))
    assert boots.fetches == 3


def test_the_same_loader_again_and_again_is_a_loop() -> None:
    boots = Boots()
    for number in range(5):
        assert not boots.loops(5, at(number))
        fetch(boots, "undionly.kpxe", at(number))
    assert boots.loops(5, at(5))
    assert boots.loops(5, at(LOOP_WINDOW_S))
    assert not boots.loops(5, at(LOOP_WINDOW_S + 1))
    assert not boots.loops(6, at(5))
    assert not boots.loops(0, at(5))  # no limit


def test_a_loop_is_over_with_another_file_or_any_progress_or_after_ten_minutes() -> None:
    def looping() -> Boots:
        boots = Boots()
        for number in range(5):
            fetch(boots, "undionly.kpxe", at(number))
        return boots

    boots = looping()
    boots.progressed()
    assert not boots.loops(5, at(5))
    boots = looping()
    fetch(boots, "snponly.efi", at(5))
    assert (boots.fetches, boots.loops(5, at(5))) == (1, False)
    boots = looping()
    fetch(boots, "undionly.kpxe", at(LOOP_WINDOW_S + 1))
    assert (boots.fetches, boots.loops(5, at(LOOP_WINDOW_S + 2))) == (1, False)


# How often -----------------------------------------------------------------------------------------------------------


def test_a_device_is_heard_a_number_of_times_per_second() -> None:
    boots = Boots()
    assert [boots.too_many(3, at(10 + number / 10)) for number in range(5)] == [False] * 3 + [True] * 2
    assert [boots.too_many(3, at(11)) for _ in range(4)] == [False] * 3 + [True]
    assert not any(boots.too_many(0, at(12)) for _ in range(1000))


def test_the_very_same_packet_is_heard_once_per_half_second() -> None:
    boots, packet = Boots(), (2, 1, 0, ZERO, 3)
    assert [boots.repeated(packet, at(10 + seconds)) for seconds in (0, 0.1, 0.49, 0.5, 0.6)] == [
        False, True, True, False, True,
    ]  # fmt: skip
    for other in ((5, 1, 0, ZERO, 3), (2, 2, 0, ZERO, 3), (2, 1, 1, ZERO, 3), (2, 1, 0, b"\1\2\3\4", 3),
                  (2, 1, 0, ZERO, 4)):  # fmt: skip
        boots = Boots()
        assert not boots.repeated(packet, at(10))
        assert not boots.repeated(other, at(10))
        assert not boots.repeated(packet, at(10))


# All devices ---------------------------------------------------------------------------------------------------------


def test_devices_are_bounded_and_the_oldest_are_forgotten_but_for_what_they_taught() -> None:
    devices = Devices()
    first = devices.of(b"\0" * 6)
    first.learned = "binl"
    devices.of(b"\0\0\0\0\0\1").fetches = 7
    for number in range(2, MOST_DEVICES + 50):
        devices.of(number.to_bytes(6, "big"))
    assert len(devices) <= MOST_DEVICES
    assert devices.known(b"\0" * 6) is None
    assert devices.known((MOST_DEVICES + 49).to_bytes(6, "big")) is not None
    again = devices.of(b"\0" * 6)
    assert again is not first
    assert again.strategy == "binl"
    assert devices.of(b"\0\0\0\0\0\1").fetches == 0
    assert len(list(devices)) == len(devices)


def test_what_was_found_before_this_process_began_counts() -> None:
    devices = Devices()
    devices.remember({b"RT\0\1\2\3": "two-item"})
    assert devices.known(b"RT\0\1\2\3") is None
    assert devices.of(b"RT\0\1\2\3").strategy == "two-item"
    assert devices.of(b"RT\0\1\2\4").strategy == ""


def test_a_complaint_comes_once_per_interval() -> None:
    quiet = Quiet(60)
    assert [quiet.allows("x", at(second)) for second in (0, 1, 59.9, 60, 61)] == [True, False, False, True, False]


def test_complaints_are_bounded() -> None:
    quiet = Quiet(60, most=16)
    for number in range(100):
        quiet.allows(number, at(0))
    assert quiet.allows(0, at(1))  # forgotten
    assert not quiet.allows(99, at(1))
