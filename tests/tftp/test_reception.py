from __future__ import annotations

import random
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pbserv.tftp.options import Terms
from pbserv.tftp.packet import ErrorCode, decode, encode_ack, encode_error
from pbserv.tftp.reception import DALLY_S, Reception
from pbserv.tftp.transfer import OPENING_SENDS, PATIENCE_S, RTO_CEILING_S, RTO_FLOOR_S, Outcome
from tests.tftp.link import chaos, losing, overtaking, steady, terms
from tests.tftp.upload_link import Uploader, UploadLink

noise = random.Random(9).randbytes


def data(number: int, payload: bytes = b"x" * 512) -> bytes:
    return b"\0\3" + (number & 0xFFFF).to_bytes(2, "big") + payload


def started(window: int = 1, *, oack: bool = True, now: float = 0.0, **more) -> Reception:
    reception = Reception(terms(window, oack=oack, **more))
    reception.start(now)
    return reception


def upload(size: int, fate, *, window: int = 1, commit_s: float = 0.0, line_s: float = 0.0, **more) -> UploadLink:
    """A whole conversation; what was stored is what was sent, or nothing was committed."""
    content = noise(size)
    reception = Reception(terms(window))
    link = UploadLink(reception, Uploader(content, window=window, **more), fate, commit_s=commit_s, line_s=line_s)
    link.run()
    if reception.outcome is Outcome.COMPLETED:
        assert b"".join(link.file) == content
        assert reception.received_bytes == size
    else:
        assert not reception.complete
    return link


# -- without trouble ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 511, 512, 513, 512 * 8, 512 * 16 - 1, 100_000])
@pytest.mark.parametrize("window", [1, 2, 8, 32])
@pytest.mark.parametrize("line_s", [0.0, 0.00001])
def test_each_block_once_and_one_ack_per_window(size: int, window: int, line_s: float) -> None:
    link = upload(size, steady(0.0005), window=window, line_s=line_s)
    last = size // 512 + 1
    assert link.reception.outcome is Outcome.COMPLETED
    assert link.sent_blocks == list(range(1, last + 1))
    assert [decode(one).block for one in link.acks[1:]] == sorted({*range(window, last, window), last})
    assert link.reception.retransmissions == link.reception.stale == 0
    assert link.reception.blocks == last


def test_a_window_that_came_at_once_is_one_write() -> None:
    link = upload(512 * 64, steady(0.0005), window=16)
    assert link.writes == 5


def test_without_options_the_first_packet_is_ack_0() -> None:
    reception = Reception(Terms())
    assert reception.start(0.0) == encode_ack(0)
    assert reception.receive_all([data(1)], 0.1) == ([b"x" * 512], encode_ack(1))
    assert reception.receive_all([data(2, b"end")], 0.2) == ([b"end"], None)
    assert reception.outcome is None
    assert reception.complete
    assert reception.deadline == float("inf")
    assert reception.committed(0.3) == encode_ack(2)
    assert reception.outcome is Outcome.COMPLETED


@pytest.mark.parametrize("rollover", [0, 1, 7, 1000])
def test_numbers_beyond_65535(rollover: int) -> None:
    reception = Reception(Terms(8, 32, rollover=rollover))
    reception.start(0.0)
    wire = [*range(1, 65536), *range(rollover, 65536), *range(rollover, rollover + 500)]
    answers: list[bytes | None] = []
    now = 0.0
    for place in range(0, len(wire), 32):
        now += 0.001
        batch = [data(number, b"12345678") for number in wire[place : place + 32]]
        late = [data(wire[place - 5], b"12345678")] if place else []
        payloads, action = reception.receive_all([*late, *batch], now)
        assert len(payloads) == len(batch)
        answers.append(action)
        if len(batch) == 32:
            assert action == encode_ack(wire[place + 31])
    assert reception.blocks == len(wire)
    assert reception.retransmissions == 0


@given(st.integers(0, 30_000), st.integers(1, 400_000), st.integers(-300, 300))
def test_a_number_means_the_nearest_block(rollover: int, expected: int, distance: int) -> None:
    reception = Reception(Terms(rollover=rollover))
    reception._expected = expected
    block = max(0, expected + distance)
    assert reception._unbounded(reception._wire(block)) == block


# -- a bad line: counted -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("window", [1, 2, 4, 16])
@pytest.mark.parametrize("line_s", [0.0, 0.00002])
@pytest.mark.parametrize("duplicates", ["resend", "once", "ignore"])
def test_one_lost_block_costs_at_most_one_flight(window: int, line_s: float, duplicates: str) -> None:
    last = 41
    for lost in range(1, last + 1):
        link = upload(512 * 40 + 9, losing(("data", lost)), window=window, line_s=line_s, duplicates=duplicates)
        assert link.reception.outcome is Outcome.COMPLETED
        assert len(link.sent_blocks) <= last + window, lost
        patient = 6 if duplicates == "ignore" else 3  # who ignores us waits for its own timer: 1 s of repeated ACKs
        assert len(link.acks) <= 1 + (last + window - 1) // window + patient, lost


@pytest.mark.parametrize("window", [1, 2, 4, 16])
@pytest.mark.parametrize("duplicates", ["resend", "once", "ignore"])
def test_one_lost_ack_costs_at_most_one_flight(window: int, duplicates: str) -> None:
    last = 41
    for lost in range(0, last + 1):
        link = upload(512 * 40 + 9, losing(("ack", lost)), window=window, duplicates=duplicates)
        assert link.reception.outcome is Outcome.COMPLETED
        assert link.uploader.done
        assert len(link.sent_blocks) <= last + window, lost


@pytest.mark.parametrize("window", [1, 2, 8])
@pytest.mark.parametrize("sorcerer", [False, True])
@pytest.mark.parametrize("later_s", [0.0, 0.00001, 0.0004, 0.003])
def test_a_line_that_doubles_packets_does_not_double_the_traffic(window: int, sorcerer: bool, later_s: float) -> None:
    def doubled(kind: str, number: int, nth: int) -> tuple[float, ...]:
        return (0.0005, 0.0005 + later_s) if kind == "data" else (0.0005,)

    link = upload(512 * 200, doubled, window=window, sorcerer=sorcerer, duplicates="resend", line_s=0.00001)
    assert link.reception.outcome is Outcome.COMPLETED
    assert len(link.sent_blocks) == 201
    assert len(link.acks) <= 1 + (201 + window - 1) // window + 2  # dallying repeats the last one


def test_a_doubled_block_does_not_break_a_window_in_two() -> None:
    reception = started(8)
    assert reception.receive_all([data(1), data(2), data(3)], 0.01)[1] is None
    assert reception.receive_all([data(2), data(3)], 0.0101)[1] is None
    assert reception.receive_all([data(n) for n in range(4, 9)], 0.0102)[1] == encode_ack(8)
    assert reception.retransmissions == 0


@pytest.mark.parametrize("window", [1, 4, 16])
def test_thousands_of_bad_lines(window: int) -> None:
    """A lost packet costs at most one flight, a doubled one nothing, and the bytes are right or not committed."""
    completed = 0
    for seed in range(1500):
        lost, chance = [0], chaos(seed, 0.06, 0.06, 0.0)

        def counted(kind: str, number: int, nth: int, lost=lost, chance=chance) -> tuple[float, ...]:
            delays = chance(kind, number, nth)
            lost[0] += not delays
            return delays if kind == "data" else delays[:1]  # what a client does about doubled ACKs is its own matter

        size = 512 * (seed % 60) + seed % 513
        link = upload(size, counted, window=window, tries=12, line_s=0.00001)
        completed += link.reception.outcome is Outcome.COMPLETED
        assert link.reception.outcome in (Outcome.COMPLETED, Outcome.UNANSWERED)
        assert len(link.sent_blocks) <= size // 512 + 1 + window * (lost[0] + 1), seed
    assert completed >= 1495


@pytest.mark.parametrize("window", [1, 4, 16])
def test_thousands_of_awful_lines_never_store_wrong_bytes(window: int) -> None:
    for seed in range(700):
        duplicates = ("resend", "once", "ignore")[seed % 3]
        more = {"sorcerer": seed % 2 == 0, "duplicates": duplicates, "tries": 5, "commit_s": 0.3 * (seed % 4)}
        upload(512 * (seed % 40), chaos(seed, 0.35, 0.3, 0.05), window=window, **more)


def test_overtaken_packets_cost_less_than_they_delay() -> None:
    for share in (0.01, 0.05):
        sent = 0
        for seed in range(60):
            link = upload(512 * 320, overtaking(seed, share), window=16, line_s=0.00001)
            sent += len(link.sent_blocks)
        assert sent <= 321 * 60 * (1 + share * 20)


# -- gaps, one by one --------------------------------------------------------------------------------------------------


def test_a_gap_is_reported_once() -> None:
    reception = started(8)
    assert reception.receive_all([data(1), data(2), data(4)], 0.01) == ([b"x" * 512] * 2, encode_ack(2))
    assert reception.receive_all([data(5)], 0.0101) == ([], None)
    assert reception.receive_all([data(6), data(7), data(8)], 0.0102) == ([], None)
    assert reception.receive_all([data(n) for n in range(3, 11)], 0.0105)[1] == encode_ack(10)


def test_a_gap_at_the_very_beginning() -> None:
    reception = started(4)
    assert reception.receive_all([data(2)], 0.01) == ([], encode_ack(0))
    assert reception.answered
    assert reception.receive_all([data(3), data(4)], 0.011) == ([], None)


def test_a_repair_that_is_lost_too_is_asked_for_after_the_guard_time() -> None:
    reception = started(4)
    assert reception.receive_all([data(2)], 0.01)[1] == encode_ack(0)
    assert reception.receive_all([data(2)], 0.02)[1] is None
    assert 0.02 < reception.deadline <= 0.12
    assert reception.on_deadline(reception.deadline) == encode_ack(0)
    assert reception.retransmissions == 1


def test_nobody_sends_more_than_a_window_ahead() -> None:
    reception = started(4)
    assert reception.receive_all([data(5), data(40_000), data(0)], 0.01) == ([], None)
    assert not reception.answered


def test_a_lost_ack_is_repeated_when_its_block_comes_again() -> None:
    reception = started()
    assert reception.receive_all([data(1)], 0.01)[1] == encode_ack(1)
    assert reception.receive_all([data(1)], 0.011)[1] is None  # too early: the network doubled it
    due = reception.deadline
    assert due <= 0.12
    assert reception.on_deadline(due) == encode_ack(1)
    assert reception.receive_all([data(1)], 0.9)[1] == encode_ack(1)


# -- time --------------------------------------------------------------------------------------------------------------


def test_the_first_packet_leaves_at_most_so_often() -> None:
    reception, sent = Reception(terms()), 0
    now = 0.0
    sent += reception.start(now) is not None
    while reception.outcome is None:
        now = reception.deadline
        sent += reception.on_deadline(now) is not None
        sent += reception.on_request_again(now + 0.25) is not None
        assert reception.answered is False
    assert sent == OPENING_SENDS
    assert reception.outcome is Outcome.UNANSWERED
    assert reception.over
    assert now < 60


def test_a_repeated_request_is_answered_again_but_not_at_once() -> None:
    reception = started()
    assert reception.on_request_again(0.1) is None
    assert reception.on_request_again(0.3) == reception._first
    reception.receive_all([data(1)], 0.4)
    assert reception.on_request_again(1.0) is None
    assert reception.abandoned_for(1.0)
    reception.receive_all([data(2, b"")], 1.1)
    assert not reception.abandoned_for(1.2)  # being committed: the ACK is under way
    reception.committed(1.3)
    assert reception.abandoned_for(1.4)


def test_a_block_that_its_sender_lost_does_not_make_us_deaf_for_the_next() -> None:
    """What looks like a round trip of a second was the client's own timer; its next repetition is answered at once."""
    reception = started()
    reception.receive_all([data(1)], 0.99)
    assert reception.receive_all([data(1)], 1.99)[1] == encode_ack(1)


def test_silence_is_met_with_the_last_ack_ever_more_rarely() -> None:
    reception = started(4)
    reception.receive_all([data(1), data(2)], 0.001)
    answers, times = [], [0.001]
    while reception.outcome is None:
        times.append(reception.deadline)
        answers.append(reception.on_deadline(reception.deadline))
    waits = [later - sooner for sooner, later in pairwise(times)]
    assert waits[0] == pytest.approx(RTO_FLOOR_S)
    assert all(later >= sooner for sooner, later in pairwise(waits))
    assert max(waits) <= RTO_CEILING_S
    assert set(answers[:-1]) == {encode_ack(2)}
    assert reception.outcome is Outcome.TIMED_OUT
    assert reception.detail == "no DATA after block 2"
    assert PATIENCE_S <= times[-1] <= PATIENCE_S + RTO_CEILING_S


def test_the_timeout_follows_the_round_trip() -> None:
    reception, now = started(), 0.0
    for block in range(1, 30):
        now += 0.4
        reception.receive_all([data(block)], now)
    assert reception.rtt_s == pytest.approx(0.4)
    assert 0.4 < reception.rto_s < 0.5


def test_a_repeated_ack_tells_nothing_about_the_round_trip() -> None:
    reception = started()
    reception.receive_all([data(1)], 0.4)
    rtt = reception.rtt_s
    now = reception.deadline
    assert reception.on_deadline(now) == encode_ack(1)
    reception.receive_all([data(2)], now + 0.001)  # Karn: an answer to which of the two?
    assert reception.rtt_s == rtt


def test_the_timeout_that_the_client_named_is_kept() -> None:
    reception = Reception(Terms(512, 1, 7.0, True, ((b"timeout", b"7"),)))
    reception.start(0.0)
    reception.receive_all([data(1)], 0.01)
    assert reception.rto_s == 7.0
    assert reception.deadline == pytest.approx(7.01)
    reception.receive_all([data(2, b"")], 0.02)
    reception.committed(0.03)
    assert reception.deadline >= 7.03  # RFC 1350 section 6: dally for a timeout


# -- the end -----------------------------------------------------------------------------------------------------------


def finished(now: float = 1.0) -> Reception:
    reception = started()
    reception.receive_all([data(1, b"all")], now)
    assert reception.committed(now) == encode_ack(1)
    return reception


def test_the_last_ack_is_repeated_while_dallying_and_not_after() -> None:
    reception = finished()
    assert not reception.over
    assert reception.receive_all([data(1, b"all")], 1.001) == ([], None)  # doubled by the network
    assert reception.receive_all([data(1, b"all")] * 3, 2.0) == ([], encode_ack(1))
    assert reception.on_deadline(2.0 + DALLY_S) is None
    assert reception.over
    assert reception.outcome is Outcome.COMPLETED
    assert reception.deadline == float("inf")
    assert reception.receive_all([data(1, b"all")], 9.0) == ([], None)


def test_dallying_ends_even_if_the_client_never_does() -> None:
    reception, now, answers = finished(), 1.0, 0
    while not reception.over:
        now += 0.5
        answers += reception.receive_all([data(1, b"all")], now)[1] is not None
        reception.on_deadline(now)
    assert now <= 1.0 + PATIENCE_S + DALLY_S
    assert answers <= 2 * PATIENCE_S


def test_what_comes_while_the_file_is_committed_changes_nothing() -> None:
    reception = started()
    reception.receive_all([data(1, b"all")], 1.0)
    assert reception.receive_all([data(1, b"all"), data(2), b"?"], 4.0) == ([], None)
    reception.on_unreachable()  # it sent everything and went away: the file is whole
    assert reception.on_deadline(100.0) is None
    assert reception.outcome is None
    assert reception.committed(5.0) == encode_ack(1)


def test_a_slow_disk_delays_nothing_but_the_last_ack() -> None:
    link = upload(512 * 8, steady(0.0005), commit_s=3.4)
    assert link.reception.outcome is Outcome.COMPLETED
    assert link.uploader.done
    assert link.committed_with_acks == len(link.acks) - 1


def test_a_client_that_closed_its_port_needs_no_dallying() -> None:
    reception = finished()
    reception.on_unreachable()
    assert reception.over
    assert reception.outcome is Outcome.COMPLETED
    reception = started()
    reception.receive_all([data(1)], 0.1)
    reception.on_unreachable()
    assert reception.outcome is Outcome.UNREACHABLE
    assert reception.over


@pytest.mark.parametrize(
    ("received", "oack", "code", "outcome"),
    [
        (0, True, 8, Outcome.PROBE),
        (0, True, 0, Outcome.PROBE),
        (0, False, 0, Outcome.CLOSED),
        (0, True, 3, Outcome.CLIENT_ERROR),
        (1, True, 0, Outcome.CLOSED),
        (1, True, 8, Outcome.CLIENT_ERROR),
    ],
)
def test_what_an_error_of_the_client_means(received: int, oack: bool, code: int, outcome: Outcome) -> None:
    reception = started(oack=oack)
    reception.receive_all([data(1)] * received, 0.01)
    assert reception.receive_all([encode_error(code, "why")], 0.02) == ([], None)
    assert reception.outcome is outcome
    assert "why" in reception.detail
    assert reception.over


def test_a_block_that_is_larger_than_agreed_ends_it() -> None:
    reception = started()
    payloads, action = reception.receive_all([data(1), data(2, b"x" * 513)], 0.01)
    assert payloads == []
    assert action == encode_error(ErrorCode.ILLEGAL, "block 2 has 513 bytes; 512 were agreed on")
    assert reception.outcome is Outcome.CLIENT_ERROR


def test_a_packet_that_could_not_leave_is_sent_soon() -> None:
    reception = started()
    assert reception.receive_all([data(1)], 0.01)[1] == encode_ack(1)
    reception.on_unsent(0.01)
    assert reception.deadline < 0.02
    assert reception.on_deadline(0.02) == encode_ack(1)
    done = finished()
    done.on_unsent(1.0)
    assert done.on_deadline(done.deadline) == encode_ack(1)
    assert not done.over


@settings(max_examples=300)
@given(st.lists(st.tuples(st.binary(max_size=20) | st.integers(0, 9).map(data), st.floats(0, 2))))
def test_any_bytes_at_any_time(events: list[tuple[bytes, float]]) -> None:
    reception, now = started(3), 0.0
    for datagram, pause_s in events:
        now += pause_s
        reception.on_deadline(now)
        payloads, action = reception.receive_all([datagram, b"", datagram], now)
        assert all(len(one) <= 512 for one in payloads)
        assert action is None or len(action) < 100
        if reception.complete and reception.outcome is None:
            reception.committed(now)
