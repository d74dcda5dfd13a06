"""When an assignment or rule is in effect. Pure.

One rule: a schedule is asked for the occurrence that is in effect at an instant, and answers with where it began.

Texts, in any case: ``once`` · ``at 2026-12-24 18:00`` · ``cron 0 2 * * sun`` · ``window mon-fri 22:00-06:00`` ·
``window daily 08:00-12:00`` · ``window sat,sun 00:00-24:00``; each may end with `` until 2027-01-31``, through the end
of that day. ``once`` and ``at`` are in effect from then on; ``cron`` from one of its times to the next, which is the
next occurrence. A window over midnight belongs to the day on which it begins.

When clocks change: ``window`` follows the wall clock, so the one over that night is an hour shorter or longer, one that
lies within the hour that is left out does not occur, and one within the hour that comes twice is in effect twice.
``at``: an instant that clocks leave out is an hour later, of one that comes twice the first. ``cron``: as Debian's cron
does it; what falls into the hour that is left out happens right after it, what comes twice happens once.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from functools import lru_cache
from typing import Final

from cronsim import CronSim, CronSimError

MAX_SCHEDULE: Final = 200
"""Characters of a schedule."""
ONCE_BEGAN: Final = datetime(1970, 1, 1, tzinfo=UTC)
"""The start of the one occurrence of ``once``."""
_YEARS: Final = range(2000, 9000)
_DAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_UNTIL: Final = re.compile(r"(?P<rest>.*?)\s+until\s+(?P<day>\S+)")
_AT: Final = re.compile(r"(\d{4}-\d\d-\d\d)[ t](\d\d):(\d\d)", re.ASCII)
_WINDOW: Final = re.compile(r"(?P<days>\S+) (\d\d):(\d\d)-(\d\d):(\d\d)", re.ASCII)
_HOW: Final = (
    "write once, at 2026-12-24 18:00, cron 0 2 * * sun, window mon-fri 22:00-06:00 or window daily 08:00-12:00,"
    " each with until 2027-01-31 behind it if it is to end"
)

_Began = Callable[[datetime], datetime | None]


class ScheduleError(ValueError):
    """What is wrong with a schedule, and how one is written."""


class Schedule:
    """``once``: each occurrence is for once per device; a window only says when something is allowed."""

    __slots__ = ("_began", "_memo", "_until", "once", "text")

    def __init__(self, text: str, began: _Began, *, once: bool, until: date | None) -> None:
        self.text = text
        self.once = once
        self._began = began
        self._until = until
        self._memo: tuple[int, tzinfo | None, datetime | None] = (-1, None, None)

    def occurrence(self, now: datetime) -> datetime | None:
        """Where the occurrence that is in effect began, in UTC; None: none is. ``now`` is aware, in the site's zone.

        The answer of a minute is kept: nothing that a schedule can say is finer.
        """
        minute = int(now.timestamp() // 60)
        memo = self._memo
        if memo[0] == minute and memo[1] is now.tzinfo:
            return memo[2]
        ended = self._until is not None and now.date() > self._until
        began = None if ended else self._began(now.replace(second=0, microsecond=0))
        self._memo = (minute, now.tzinfo, began)
        return began

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Schedule) and self.text == other.text

    def __hash__(self) -> int:
        return hash(self.text)

    def __repr__(self) -> str:
        return f"Schedule({self.text!r})"


@lru_cache(maxsize=2_048)
def parse_schedule(text: str) -> Schedule | None:
    """None for an empty text: from now on. Raises ScheduleError."""
    if len(text) > MAX_SCHEDULE:
        raise ScheduleError(f"a schedule has at most {MAX_SCHEDULE} characters")
    plain = " ".join(text.lower().split())
    if not plain:
        return None
    ending = _UNTIL.fullmatch(plain)
    until = _date(ending["day"]) if ending else None
    kind, _, rest = (ending["rest"] if ending else plain).partition(" ")
    if kind == "once" and not rest:
        return Schedule(plain, lambda now: ONCE_BEGAN, once=True, until=until)
    read = {"at": _at, "cron": _cron, "window": _window}.get(kind)
    if read is None or not rest:
        raise ScheduleError(f"{text!r} is no schedule: {_HOW}")
    return Schedule(plain, read(rest), once=kind != "window", until=until)


def _date(text: str) -> date:
    try:
        day = date.fromisoformat(text)
    except ValueError:
        raise ScheduleError(f"{text!r} is no day: write it as 2027-01-31") from None
    if day.year not in _YEARS:
        raise ScheduleError(f"{text!r}: the year is {_YEARS.start} to {_YEARS.stop - 1}")
    return day


def _time(hour: str, minute: str) -> time:
    try:
        return time(int(hour), int(minute))
    except ValueError:
        raise ScheduleError(f"{hour}:{minute} is no time of day: 00:00 to 23:59") from None


def _at(text: str) -> _Began:
    found = _AT.fullmatch(text)
    if found is None:
        raise ScheduleError(f"at {text!r}: write at 2026-12-24 18:00")
    wall = datetime.combine(_date(found[1]), _time(found[2], found[3]))

    def began(now: datetime) -> datetime | None:
        start = wall.replace(tzinfo=now.tzinfo).astimezone(UTC)
        return start if start <= now else None

    return began


def _cron(text: str) -> _Began:
    if len(text.split()) != 5:
        raise ScheduleError(f"cron {text!r}: write minute, hour, day, month and weekday, such as cron 0 2 * * sun")
    try:
        CronSim(text, datetime(2026, 1, 1))
    except (CronSimError, ValueError) as fault:
        raise ScheduleError(f"cron {text!r}: {fault}; such as cron 0 2 * * sun") from None

    def began(now: datetime) -> datetime | None:
        # Backwards, an instant with microseconds counts its own second too.
        found = next(CronSim(text, now.replace(microsecond=1), reverse=True), None)
        return found.astimezone(UTC) if found is not None else None

    return began


def _window(text: str) -> _Began:
    found = _WINDOW.fullmatch(text)
    if found is None:
        raise ScheduleError(f"window {text!r}: write window mon-fri 22:00-06:00 or window daily 08:00-12:00")
    days = _days(found["days"])
    first = _time(found[2], found[3])
    last = time(0) if (found[4], found[5]) == ("24", "00") else _time(found[4], found[5])
    over = last <= first
    if last == first and (found[4], found[5]) != ("24", "00"):
        raise ScheduleError(f"window {text!r} begins when it ends; a whole day is 00:00-24:00")

    def began(now: datetime) -> datetime | None:
        today, clock = now.date(), now.time()
        if first <= clock and (over or clock < last) and today.weekday() in days:
            return datetime.combine(today, first, now.tzinfo).astimezone(UTC)
        before = today - timedelta(days=1)
        if over and clock < last and before.weekday() in days:
            return datetime.combine(before, first, now.tzinfo).astimezone(UTC)
        return None

    return began


def _days(text: str) -> frozenset[int]:
    """``daily``, ``mon-fri``, ``sat,sun``, ``fri-mon,wed``; Monday is 0."""
    if text == "daily":
        return frozenset(range(7))
    found: set[int] = set()
    for part in text.split(","):
        first, dash, last = part.partition("-")
        if first not in _DAYS or (dash and last not in _DAYS):
            raise ScheduleError(f"{text!r} are no days: daily, mon-fri, or sat,sun")
        start = _DAYS.index(first)
        count = (_DAYS.index(last) - start) % 7 if dash else 0
        found.update((start + step) % 7 for step in range(count + 1))
    return frozenset(found)
