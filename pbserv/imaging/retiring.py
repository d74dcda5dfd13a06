"""Notices which versions were retired since it looked last, by whomever: a person, or the number that is kept.

One rule: each retirement is told once; what was retired when the store started was told before.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from pbserv.imaging.about import About
from pbserv.imaging.states import VersionState

Tell = Callable[[str, int, str], None]
"""Image, version, and who retired it (``keep``: newer ones took its place)."""


def to_nobody(_image: str, _version: int, _by: str) -> None: ...


class Retirements:
    """Of one store; ``abouts`` is what is said of its images. Used from the event loop only."""

    def __init__(self, abouts: Mapping[str, About]) -> None:
        self._abouts = abouts
        self._known: dict[str, frozenset[int]] = {}
        self.tell: Tell = to_nobody

    def start(self) -> None:
        """Everything that is retired now is known."""
        self._known = {name: frozenset(_retired(about)) for name, about in self._abouts.items()}

    def look(self, name: str) -> None:
        """Something changed about this image."""
        about = self._abouts.get(name)
        if about is None:
            self._known.pop(name, None)
            return
        now, before = _retired(about), self._known.get(name, frozenset())
        self._known[name] = frozenset(now)
        for number in sorted(now.keys() - before):
            self.tell(name, number, now[number])


def _retired(about: About) -> dict[int, str]:
    return {number: one.by for number, one in about.versions.items() if one.state is VersionState.RETIRED}
