from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pbserv.tftp.options import Terms
from pbserv.tftp.packet import encode_ack, encode_error
from pbserv.tftp.transfer import OPENING_SENDS, Outcome, Transfer
from tests.tftp.link import BadLine, Link, Receiver, chaos, losing, overtaking, steady, terms


def run(size: int, fate, *, window: int = 1, oack: bool = True, **client) -> Link:
    transfer = Transfer(size, terms(window, oack=oack))
    link = Link(transfer, Receiver(transfer.last, window, **client), fate)
    link.run()
    if transfer.outcome in (Outcome.COMPLETED, Outcome.UNACKNOWLEDGED):
        assert link.receiver.got == list(range(1, transfer.last + 1))
    return link


@pytest.mark.parametrize("size", [0, 1, 511, 512, 513, 512 * 40])
@pytest.mark.parametrize("window", [1, 4, 16])
def test_a_clean_link_carries_each_block_once(size: int, window: int) -> None:
    link = run(size, steady(0.0005), window=window)
    assert link.transfer.outcome is Outcome.COMPLETED
    assert link.sent_blocks == list(range(1, size // 512 + 2))
    assert link.transfer.retransmissions == 0


def test_block_numbers_roll_over_to_zero() -> None:
    for window in (1, 16):
        link = run(512 * 140_000, steady(0.0002), window=window)
        assert link.transfer.outcome is Outcome.COMPLETED
        assert len(link.sent_blocks) == 140_001


@pytest.mark.parametrize("lost", [("oack", 0), ("ack", 0), ("data", 1), ("ack", 1), ("data", 7), ("ack", 7)])
def test_lock_step_one_loss_costs_one_packet(lost: tuple[str, int]) -> None:
    link = run(512 * 20, losing(lost))
    assert link.transfer.outcome is Outcome.COMPLETED
    assert link.transfer.retransmissions == 1


@pytest.mark.parametrize("nacks", ["each", "once", "none"])
@pytest.mark.parametrize("lost", [17, 18, 24, 31, 32])
def test_window_one_loss_costs_at_most_one_flight(nacks: str, lost: int) -> None:
    link = run(512 * 200, losing(("data", lost)), window=16, nacks=nacks)
    assert link.transfer.outcome is Outcome.COMPLETED
    assert link.transfer.retransmissions <= 16


def test_a_lost_first_block_of_a_window_is_repaired_by_nacks_before_the_timer() -> None:
    link = run(512 * 200, losing(("data", 17)), window=16)
    assert link.now - 100 < 0.1


def test_a_lost_window_ack_costs_at_most_one_flight() -> None:
    link = run(512 * 200, losing(("ack", 64)), window=16)
    assert link.transfer.outcome is Outcome.COMPLETED
    assert link.transfer.retransmissions <= 16


def test_sorcerers_apprentice() -> None:
    """Every ACK arrives twice: not one block more than on a clean link."""
    link = run(512 * 100, lambda kind, number, nth: (0.0005, 0.0006) if kind == "ack" else (0.0005,))
    assert link.sent_blocks == list(range(1, 102))


def test_every_packet_twice_does_not_multiply() -> None:
    link = run(512 * 100, lambda kind, number, nth: (0.0005, 0.0006))
    assert link.sent_blocks == list(range(1, 102))


def test_doubled_acks_do_not_double_a_windowed_transfer() -> None:
    link = run(512 * 1000, lambda kind, number, nth: (0.0005, 0.0006) if kind == "ack" else (0.0005,), window=16)
    assert len(link.sent_blocks) <= 1001 * 1.1


def test_a_client_that_acknowledges_every_block_of_a_window() -> None:
    link = run(512 * 1000, steady(0.0005), window=16, every_block=True)
    assert link.transfer.outcome is Outcome.COMPLETED
    assert len(link.sent_blocks) <= 2 * 1001 + 32


@pytest.mark.parametrize("nacks", ["each", "once"])
def test_reordering_does_not_resend_on_each_partial_ack(nacks: str) -> None:
    """Two of a hundred packets are overtaken by the rest of their flight."""
    link = run(512 * 2000, overtaking(7, 0.02), window=16, nacks=nacks)
    assert link.transfer.outcome is Outcome.COMPLETED
    assert len(link.sent_blocks) <= 1.5 * 2001


@pytest.mark.parametrize("window", [1, 4, 16, 32])
@pytest.mark.parametrize("loss", [0.001, 0.01, 0.05])
def test_loss_is_survived_and_bounded(window: int, loss: float) -> None:
    for seed in range(30):
        link = run(512 * 500, chaos(seed, loss, 0.0, 0.0), window=window)
        assert link.transfer.outcome in (Outcome.COMPLETED, Outcome.UNACKNOWLEDGED)
        lost = 501 * loss * 2 + 12
        assert link.transfer.retransmissions <= lost * (window + 1) * 1.5


@pytest.mark.parametrize("window", [1, 4, 16])
@pytest.mark.parametrize(("nacks", "patience"), [("each", 1), ("once", 5), ("none", 5)])
@pytest.mark.parametrize("mixed", [False, True])
def test_thousands_of_bad_lines(window: int, nacks: str, patience: int, mixed: bool) -> None:
    """Every file arrives whole, and a packet that is lost, late or doubled costs at most one flight.

    ``patience``: a client that says nothing about a gap is silent for 4 s, in which the timer fires that often
    (0.2, 0.4, 0.8, 1.6 s, and once more when it has grown before).
    """
    for seed in range(3000):
        line = BadLine(seed, 0.06, 0.06 * mixed, 0.06 * mixed)
        size = 512 * (seed % 60) + seed % 513
        link = run(size, line, window=window, nacks=nacks)
        assert link.transfer.outcome is Outcome.COMPLETED, seed
        assert link.transfer.retransmissions <= line.disturbed * window * patience, seed
        assert len(link.sent_blocks) <= size // 512 + 1 + line.disturbed * window * patience, seed
        if not line.disturbed:
            assert link.sent_blocks == list(range(1, size // 512 + 2)), seed


@pytest.mark.parametrize("window", [1, 4, 16])
def test_thousands_of_awful_lines_never_count_a_block_that_did_not_arrive(window: int) -> None:
    ends = {Outcome.COMPLETED, Outcome.UNACKNOWLEDGED, Outcome.UNANSWERED, Outcome.TIMED_OUT}
    for seed in range(1500):
        transfer = Transfer(512 * (seed % 40), terms(window))
        receiver = Receiver(transfer.last, window, ("each", "once", "none")[seed % 3])
        Link(transfer, receiver, BadLine(seed, 0.35, 0.3, 0.3)).run()
        arrived = len(receiver.got)
        assert transfer.outcome in ends, seed
        assert receiver.got == list(range(1, arrived + 1)), seed
        assert transfer.acknowledged <= arrived, seed
        assert arrived == transfer.last or transfer.outcome is not Outcome.COMPLETED, seed
        # Nobody knows which packets of the last flight were lost when its ACK does not come (RFC 1350 section 6).
        assert arrived >= transfer.last - window or transfer.outcome is not Outcome.UNACKNOWLEDGED, seed


@given(st.integers(0, 2**32), st.floats(0, 0.15), st.floats(0, 0.3), st.floats(0, 0.02), st.sampled_from([1, 3, 16]))
def test_any_link_gets_the_file_or_an_outcome(
    seed: int, loss: float, double: float, jitter: float, window: int
) -> None:
    link = run(512 * 60, chaos(seed, loss, double, jitter), window=window)
    assert link.transfer.outcome in (
        Outcome.COMPLETED, Outcome.UNACKNOWLEDGED, Outcome.UNANSWERED, Outcome.TIMED_OUT,
    )  # fmt: skip


@given(st.lists(st.tuples(st.binary(max_size=8) | st.integers(0, 70000).map(encode_ack), st.floats(0, 3))))
def test_any_datagrams_keep_the_invariants(datagrams: list[tuple[bytes, float]]) -> None:
    transfer = Transfer(512 * 9, terms(4))
    now = 0.0
    transfer.start(now)
    for datagram, pause in datagrams:
        now += pause
        for action in (transfer.receive(datagram, now), transfer.on_deadline(now)):
            if isinstance(action, tuple):
                assert 1 <= action[0] <= action[0] + action[1] - 1 <= transfer.last
                assert action[1] <= (4 if transfer.answered else 1)


# -- the opening -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("oack", [True, False])
def test_before_an_answer_one_packet_at_most_four_times(oack: bool) -> None:
    link = run(512 * 20, lambda kind, number, nth: (), window=1, oack=oack)
    assert link.transfer.outcome is Outcome.UNANSWERED
    assert link.sent_controls + len(link.sent_blocks) == OPENING_SENDS
    assert set(link.sent_blocks) <= {1}


def test_no_timeout_option_makes_an_unanswered_request_hold_its_place_for_minutes() -> None:
    transfer = Transfer(100, terms(timeout_s=255.0))
    transfer.start(0.0)
    while transfer.outcome is None:
        last = transfer.deadline
        transfer.on_deadline(transfer.deadline)
    assert last <= 32.0


def test_opening_intervals_start_with_the_timeout_and_double() -> None:
    transfer = Transfer(100, terms(timeout_s=1.0))
    transfer.start(0.0)
    times = []
    while transfer.outcome is None:
        times.append(transfer.deadline)
        transfer.on_deadline(transfer.deadline)
    assert times == [1.0, 3.0, 7.0, 15.0]


def test_a_repeated_request_gets_the_same_packet_and_counts() -> None:
    transfer = Transfer(100, terms())
    first = transfer.start(0.0)
    assert transfer.on_request_again(0.1) is None  # still under way
    assert [transfer.on_request_again(0.3 * n) for n in range(1, 6)] == [first, first, first, None, None]
    assert not transfer.abandoned_for(1.5)


def test_a_repeated_request_after_progress_is_a_restarted_client() -> None:
    transfer = Transfer(10_000, terms())
    transfer.start(0.0)
    transfer.receive(encode_ack(0), 0.01)
    assert not transfer.abandoned_for(0.05)  # a late duplicate
    assert transfer.abandoned_for(0.5)
    assert transfer.on_request_again(0.5) is None


def test_ack_0_counts_only_while_the_oack_is_outstanding() -> None:
    transfer = Transfer(10_000, terms())
    transfer.start(0.0)
    assert transfer.receive(encode_ack(0), 0.01) == (1, 1)
    assert transfer.receive(encode_ack(0), 0.5) is None
    assert transfer.receive(encode_ack(1), 0.5) == (2, 1)
    assert transfer.receive(encode_ack(0), 0.6) is None


def test_data_starts_without_oack_when_nothing_was_agreed() -> None:
    assert Transfer(10_000, Terms()).start(0.0) == (1, 1)


# -- the end -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("window", [1, 8])
def test_a_missing_last_ack_is_a_completed_transfer(window: int) -> None:
    link = run(512 * 20, steady(0.0005), window=window, final_ack=False)
    assert link.transfer.outcome is Outcome.UNACKNOWLEDGED
    assert link.transfer.outcome.delivered
    assert link.transfer.retransmissions <= 5 * window


def test_a_closed_port_at_the_end_is_a_satisfied_client() -> None:
    transfer = Transfer(512, terms())
    transfer.start(0.0)
    transfer.receive(encode_ack(0), 0.1)
    transfer.receive(encode_ack(1), 0.2)
    transfer.on_unreachable()
    assert transfer.outcome is Outcome.UNACKNOWLEDGED


def test_a_closed_port_before_that_is_a_failure() -> None:
    transfer = Transfer(5120, terms())
    transfer.start(0.0)
    transfer.receive(encode_ack(0), 0.1)
    transfer.on_unreachable()
    assert transfer.outcome is Outcome.UNREACHABLE


def test_a_dead_client_is_given_up_after_half_a_minute() -> None:
    link = run(512 * 20, lambda kind, number, nth: (0.001,) if nth < 10 else ())
    assert link.transfer.outcome is Outcome.TIMED_OUT
    assert 30 <= link.now - 100 < 60
    assert link.transfer.retransmissions <= 12


@pytest.mark.parametrize("code", [0, 8])
def test_the_size_probe_is_no_failure(code: int) -> None:
    transfer = Transfer(5120, terms())
    transfer.start(0.0)
    assert transfer.receive(encode_error(code, "User aborted the transfer"), 0.1) is None
    assert transfer.outcome is Outcome.PROBE


def test_errors_in_the_middle() -> None:
    for code, outcome in ((0, Outcome.CLOSED), (8, Outcome.CLIENT_ERROR), (3, Outcome.CLIENT_ERROR)):
        transfer = Transfer(5120, terms())
        transfer.start(0.0)
        transfer.receive(encode_ack(0), 0.1)
        transfer.receive(encode_error(code, "x"), 0.2)
        assert transfer.outcome is outcome
        assert transfer.receive(encode_ack(1), 0.3) is None  # an ACK to what is over
        assert transfer.on_deadline(99.0) is None


# -- the timer ---------------------------------------------------------------------------------------------------------


def acknowledge(transfer: Transfer, blocks: int, rtt_s: float) -> float:
    now = 0.0
    transfer.start(now)
    for block in range(blocks):
        now += rtt_s
        transfer.receive(encode_ack(block), now)
    return now


def test_the_timeout_follows_the_round_trip_down_to_its_floor_and_up() -> None:
    fast = Transfer(1 << 20, terms(timeout_s=5.0))
    acknowledge(fast, 50, 0.001)
    assert fast.rto_s == 0.2
    slow = Transfer(1 << 20, terms(timeout_s=1.0))
    acknowledge(slow, 50, 0.9)
    assert 0.9 < slow.rto_s < 1.0
    slower = Transfer(1 << 20, terms(timeout_s=1.0))
    acknowledge(slower, 10, 1.5)
    assert slower.rto_s > 1.5


def test_ack_0_is_not_measured() -> None:
    transfer = Transfer(1 << 20, terms())
    transfer.start(0.0)
    transfer.receive(encode_ack(0), 0.9)  # PXELINUX waits for its user
    assert transfer.rtt_s == 0


def test_karn_a_repeated_block_is_not_measured() -> None:
    transfer = Transfer(1 << 20, terms())
    now = acknowledge(transfer, 10, 0.001)
    before = transfer.rtt_s
    transfer.on_deadline(transfer.deadline)
    transfer.receive(encode_ack(10), now + 0.25)
    assert transfer.rtt_s == before
    assert transfer.rto_s == 0.4  # backed off until a clean sample


def test_the_clients_timeout_is_kept() -> None:
    transfer = Transfer(1 << 20, Terms(512, 1, 3.0, True, ((b"timeout", b"3"),)))
    now = acknowledge(transfer, 20, 0.001)
    assert transfer.rto_s == 3.0
    assert transfer.deadline == pytest.approx(now + 3.0)


def test_of_a_burst_only_the_highest_ack_counts() -> None:
    transfer = Transfer(1 << 20, terms(16))
    transfer.start(0.0)
    transfer.receive(encode_ack(0), 0.01)
    assert transfer.receive_burst([encode_ack(n) for n in (3, 9, 5, 60000)], 0.02) == (10, 16)
    assert transfer.receive_burst([b"rubbish", encode_ack(9)], 0.021) is None


def test_no_room_in_the_kernel_is_tried_again_soon() -> None:
    transfer = Transfer(1 << 20, terms())
    now = acknowledge(transfer, 3, 0.001)
    transfer.on_unsent(now)
    assert transfer.deadline == pytest.approx(now + 0.005)
    assert transfer.on_deadline(now + 0.006) == (3, 1)
