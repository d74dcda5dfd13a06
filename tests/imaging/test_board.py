"""How far jobs are: rates, remaining times, and what is written when; by a clock that the test turns."""

from __future__ import annotations

import time

from hypothesis import given
from hypothesis import strategies as st

from pbserv.imaging.board import FLUSH_S, SILENT_S, Board
from pbserv.registry.orders import Progress
from pbserv.types import Instant

GIB = 1 << 30


def at(seconds: float) -> Instant:
    return Instant(seconds)


def told(done: int, stage: str = "write", total: int = 10 * GIB, item: str = "p1", rate: int = 0) -> Progress:
    return Progress(stage, item, done, total, rate)


def test_rate_and_remaining_time_settle() -> None:
    board = Board()
    for second in range(0, 62, 2):
        board.report(7, told(second * 100_000_000), at(second), waited_ms=second)
    sight = board.seen(7)
    assert sight is not None
    assert abs(sight.rate - 100_000_000) < 2_000_000
    assert sight.eta_s is not None
    assert abs(sight.eta_s - (10 * GIB - 6_000_000_000) / 100_000_000) < 3
    assert (sight.waited_ms, sight.progress.bytes_done) == (60, 6_000_000_000)
    for second in range(62, 122, 2):  # nothing comes any more
        board.report(7, told(6_000_000_000), at(second))
    stalled = board.seen(7)
    assert stalled is not None
    assert stalled.rate < 1_000_000


def test_a_stage_begins_to_count_anew() -> None:
    board = Board()
    board.report(1, told(5 * GIB), at(0))
    board.report(1, told(6 * GIB), at(2))
    board.report(1, told(0, "verify", rate=3), at(4))
    sight = board.seen(1)
    assert sight is not None
    assert (sight.rate, sight.progress.stage) == (3, "verify")


def test_what_cannot_be_known_is_not_said() -> None:
    board = Board()
    assert board.seen(1) is None
    board.report(1, told(0, total=0, rate=5), at(0))
    board.report(2, told(0, rate=0), at(0))
    board.report(3, told(5, total=4, rate=9), at(0))
    for job in (1, 2, 3):
        sight = board.seen(job)
        assert sight is not None
        assert sight.eta_s is None


def test_the_registry_is_told_of_stages_at_once_and_of_the_rest_now_and_then() -> None:
    board = Board()
    board.report(1, told(0), at(0))
    board.report(2, told(0), at(0))
    assert set(board.due(at(1))) == {1, 2}
    board.report(1, told(1), at(2))
    assert board.due(at(2)) == {}
    board.report(2, told(1, "verify"), at(3))
    assert set(board.due(at(3))) == {2}
    assert board.due(at(1 + FLUSH_S)) == {1: told(1)}
    assert board.due(at(2 + 2 * FLUSH_S)) == {}


def test_what_could_not_be_written_is_due_again() -> None:
    board = Board()
    board.report(1, told(9), at(0))
    lost = board.due(at(0))
    board.unwritten(lost)
    assert board.due(at(1)) == {}
    assert board.due(at(FLUSH_S)) == {1: told(9)}


def test_jobs_that_fell_silent_or_ended_are_forgotten() -> None:
    board = Board()
    board.report(1, told(1), at(0))
    board.report(2, told(1), at(0))
    board.end(2)
    board.end(3)
    assert board.seen(2) is None
    board.due(at(SILENT_S + 1))
    assert len(board) == 0


def test_a_thousand_devices_cost_almost_nothing() -> None:
    """A report every two seconds: 500 a second are to take a small part of it."""
    board = Board()
    began = time.process_time()
    for second in range(0, 20, 2):
        for job in range(1000):
            board.report(job, told(second * 1000 + job), at(second))
        board.due(at(second))
    spent = time.process_time() - began
    assert spent < 5.0, f"20 seconds of 1,000 devices took {spent:.2f} s"


@given(
    st.lists(
        st.tuples(
            st.integers(1, 3), st.integers(0, 2**63 - 1), st.integers(0, 2**63 - 1), st.integers(0, 2**63 - 1),
            st.sampled_from(["a", "b"]), st.floats(0, 1e6),
        )
    )
)  # fmt: skip
def test_any_reports_can_be_shown(reports: list[tuple[int, int, int, int, str, float]]) -> None:
    board, now = Board(), 0.0
    for job, done, total, rate, stage, passed in reports:
        now += passed
        board.report(job, Progress(stage, "", done, total, rate), at(now))
        sight = board.seen(job)
        assert sight is not None
        assert sight.rate >= 0
        assert sight.eta_s is None or sight.eta_s >= 0
        assert set(board.due(at(now))) <= {1, 2, 3}
