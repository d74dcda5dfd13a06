"""What a start does with what it finds: the store and the registry agree afterwards. Pure.

One rule: nothing that was committed is touched; of the rest only what somebody can go on with is kept.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from pbserv.imaging.session_file import SessionFacts

SESSION_AGE: Final = timedelta(hours=48)
"""An upload over the API that nobody went on with for so long is given up; it counts from the last bytes that came."""


@dataclass(frozen=True, slots=True)
class Found:
    """Something below ``.incoming``; ``session`` None: it is no upload that could go on. ``touched``: when something of
    it arrived for the last time; None: nothing did, or nobody knows."""

    name: str
    session: SessionFacts | None
    touched: datetime | None = None


@dataclass(frozen=True, slots=True)
class Keep:
    """Go on with this upload."""

    name: str


@dataclass(frozen=True, slots=True)
class Remove:
    """Remove this; ``why`` is for the log."""

    name: str
    why: str


@dataclass(frozen=True, slots=True)
class Tell:
    """The registry does not know that this job made this version: the power went between the two."""

    job: int
    image: str
    version: int


Action = Keep | Remove | Tell


def plan(
    found: Sequence[Found], made: Mapping[int, tuple[str, int]], jobs: Mapping[int, int | None], now: datetime
) -> tuple[Action, ...]:
    """``made``: job -> image and version, as the disk tells; ``jobs``: running job -> version that the registry knows.

    Of two uploads of one image the younger one goes on: a name has one upload at a time.
    """
    actions: list[Action] = []
    taken: set[str] = set()
    for one in sorted(found, key=lambda one: _age(one, now)):
        why = _lost(one, made, jobs, now)
        if not why and one.session is not None and one.session.image in taken:
            why = f"a younger upload of image {one.session.image} goes on"
        if not why and one.session is not None:
            taken.add(one.session.image)
        actions.append(Remove(one.name, why) if why else Keep(one.name))
    actions += [Tell(job, *made[job]) for job, version in sorted(jobs.items()) if version is None and job in made]
    return tuple(actions)


def _age(one: Found, now: datetime) -> tuple[float, str]:
    return (now - one.session.created).total_seconds() if one.session is not None else 0.0, one.name


def _lost(one: Found, made: Mapping[int, tuple[str, int]], jobs: Mapping[int, int | None], now: datetime) -> str:
    """Why nobody goes on with it; empty: somebody may."""
    if one.session is None:
        return "a crash left it"
    kind, _, number = one.session.creator.partition(":")
    if kind == "job":
        job = int(number) if number.isascii() and number.isdigit() else -1
        if job in made:
            return f"job {job} committed its image"
        return "" if job in jobs else f"job {number[:20]} does not run any more"
    touched = max(one.session.created, one.touched or one.session.created)
    return "" if now - touched < SESSION_AGE else "nobody went on with it for two days"
