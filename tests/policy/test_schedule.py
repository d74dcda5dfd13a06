"""Schedules: what is in effect when, over midnight, at the ends, and when clocks change."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pbserv.policy.schedule import ONCE_BEGAN, Schedule, ScheduleError, parse_schedule

BERLIN = ZoneInfo("Europe/Berlin")  # forward on 2026-03-29 at 02:00, back on 2026-10-25 at 03:00


def read(text: str) -> Schedule:
    schedule = parse_schedule(text)
    assert schedule is not None
    return schedule


def local(text: str, fold: int = 0) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=BERLIN, fold=fold)


CASES = """
window mon-fri 22:00-06:00 | 2026-11-20 21:59 | -
window mon-fri 22:00-06:00 | 2026-11-20 22:00 | 2026-11-20 22:00
window mon-fri 22:00-06:00 | 2026-11-21 05:59 | 2026-11-20 22:00
window mon-fri 22:00-06:00 | 2026-11-21 06:00 | -
window mon-fri 22:00-06:00 | 2026-11-21 23:00 | -
window mon-fri 22:00-06:00 | 2026-11-23 03:00 | -
window daily 08:00-12:00 | 2026-11-21 08:00 | 2026-11-21 08:00
window daily 08:00-12:00 | 2026-11-21 12:00 | -
window sat,sun 00:00-24:00 | 2026-11-21 00:00 | 2026-11-21 00:00
window sat,sun 00:00-24:00 | 2026-11-22 23:59 | 2026-11-22 00:00
window sat,sun 00:00-24:00 | 2026-11-23 00:00 | -
window fri-mon,wed 10:00-24:00 | 2026-11-25 23:00 | 2026-11-25 10:00
window fri-mon,wed 10:00-24:00 | 2026-11-24 23:00 | -
window fri-mon 10:00-24:00 | 2026-11-23 11:00 | 2026-11-23 10:00
window daily 08:00-12:00 until 2026-11-21 | 2026-11-21 11:00 | 2026-11-21 08:00
window daily 08:00-12:00 until 2026-11-21 | 2026-11-22 11:00 | -
WINDOW  Daily   08:00-12:00 | 2026-11-21 11:00 | 2026-11-21 08:00
at 2026-12-24 18:00 | 2026-12-24 17:59 | -
at 2026-12-24 18:00 | 2026-12-24 18:00 | 2026-12-24 18:00
at 2026-12-24T18:00 | 2027-12-24 18:00 | 2026-12-24 18:00
at 2026-12-24 18:00 until 2026-12-31 | 2026-12-31 23:59 | 2026-12-24 18:00
at 2026-12-24 18:00 until 2026-12-31 | 2027-01-01 00:00 | -
cron 0 2 * * sun | 2026-11-22 01:59 | 2026-11-15 02:00
cron 0 2 * * sun | 2026-11-22 02:00 | 2026-11-22 02:00
cron 0 2 * * sun | 2026-11-25 12:00 | 2026-11-22 02:00
cron */15 * * * * | 2026-11-25 12:17 | 2026-11-25 12:15
cron 0 0 29 2 * | 2026-11-25 12:17 | 2024-02-29 00:00
cron 0 2 * * sun until 2026-11-22 | 2026-11-23 00:00 | -
window daily 02:00-02:30 | 2026-03-29 03:10 | -
window daily 01:00-04:00 | 2026-03-29 03:10 | 2026-03-29 01:00
at 2026-03-29 02:30 | 2026-03-29 03:29 | -
at 2026-03-29 02:30 | 2026-03-29 03:30 | 2026-03-29 03:30
cron 30 2 * * * | 2026-03-29 03:00 | 2026-03-29 03:00
""".strip().splitlines()


@pytest.mark.parametrize("case", CASES)
def test_what_is_in_effect(case: str) -> None:
    text, now, began = (part.strip() for part in case.split("|"))
    found = read(text).occurrence(local(now))
    assert found == (None if began == "-" else local(began))


def test_the_hour_that_comes_twice() -> None:
    window, at = read("window daily 02:00-02:30"), read("at 2026-10-25 02:30")
    for fold in (0, 1):
        assert window.occurrence(local("2026-10-25 02:10", fold)) == local("2026-10-25 02:00").astimezone(UTC)
    assert at.occurrence(local("2026-10-25 02:29")) is None
    assert at.occurrence(local("2026-10-25 02:30")) == local("2026-10-25 02:30").astimezone(UTC)
    assert at.occurrence(local("2026-10-25 02:10", 1)) == local("2026-10-25 02:30").astimezone(
        UTC
    )  # the clock went back, time did not
    assert read("cron 30 2 * * *").occurrence(local("2026-10-25 02:45", 1)) == local("2026-10-25 02:30").astimezone(UTC)


def test_once_has_one_occurrence() -> None:
    once = read("once")
    assert once.once
    assert once.occurrence(local("2026-11-21 12:00")) == ONCE_BEGAN
    assert read("once until 2026-11-20").occurrence(local("2026-11-21 12:00")) is None


def test_empty_is_no_schedule() -> None:
    assert parse_schedule("") is None
    assert parse_schedule("  ") is None


def test_only_a_window_is_not_for_once() -> None:
    assert all(read(text).once for text in ("once", "at 2026-12-24 18:00", "cron 0 2 * * sun"))
    assert not read("window daily 08:00-12:00").once


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("now", "is no schedule"),
        ("once again", "is no schedule"),
        ("at", "is no schedule"),
        ("until 2027-01-01", "is no schedule"),
        ("at 18:00", "write at 2026-12-24 18:00"),
        ("at 2026-02-30 18:00", "is no day"),
        ("at 0001-01-01 00:00", "the year is"),
        ("at 2026-12-24 24:00", "no time of day"),
        ("cron 0 2 * *", "write minute, hour"),
        ("cron 0 0 2 * * sun", "write minute, hour"),
        ("cron 61 2 * * sun", "Bad minute"),
        ("cron 0 0 30 2 *", "Bad day-of-month"),
        ("window 08:00-12:00", "write window"),
        ("window daily 8-12", "write window"),
        ("window day 08:00-12:00", "are no days"),
        ("window mon-day 08:00-12:00", "are no days"),
        ("window daily 08:00-25:00", "no time of day"),
        ("window daily 24:00-06:00", "no time of day"),
        ("window daily 08:00-08:00", "begins when it ends"),
        ("once until tomorrow", "is no day"),
        ("once until 9999-12-31", "the year is"),
        ("cron " + "1," * 200 + "1 * * * *", "at most 200"),
    ],
)
def test_what_is_refused(text: str, said: str) -> None:
    with pytest.raises(ScheduleError, match=said):
        parse_schedule(text)


WORDS = st.sampled_from(["once", "at", "cron", "window", "until", "daily", "mon-fri", "*", "0", "5/2", "1#2", "l", "lw",
    "sun", "2026-12-24", "18:00", "08:00-12:00", "1-5,7", "*/3", "5l", "-", ","])  # fmt: skip


@given(st.text(max_size=40) | st.lists(WORDS, max_size=9).map(" ".join))
@example("cron " + "9" * 150 + " * * * *")
@example("cron l/2 lw/2 5l/1 1#1/2 *#2")
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        schedule = parse_schedule(text)
    except ScheduleError:
        return
    now = local("2026-11-21 12:00")
    began = schedule.occurrence(now) if schedule else None
    assert began is None or began <= now


@given(
    st.sampled_from(["window mon-fri 22:00-06:00", "cron 30 2 * * *", "cron 0 */6 * * *", "at 2026-10-25 02:30"]),
    st.lists(st.integers(0, 400 * 86_400), min_size=1, max_size=20),
    st.sampled_from([BERLIN, UTC, ZoneInfo("Australia/Lord_Howe"), ZoneInfo("America/St_Johns")]),
)
def test_what_is_remembered_is_what_is_asked(text: str, seconds: list[int], zone: ZoneInfo) -> None:
    kept = read(text)
    for each in seconds:
        now = (datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=each)).astimezone(zone)
        fresh = parse_schedule.__wrapped__(text)
        assert fresh is not None
        began = kept.occurrence(now)
        assert began == fresh.occurrence(now)
        assert began is None or (began <= now and began.tzinfo is UTC)
