"""Who holds an image or a version right now, in this process. Pure.

One rule: several may read, one alone may change, and a refusal names who holds it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from pbserv.imaging.faults import InUse


@dataclass(frozen=True, slots=True)
class Hold:
    """One holder. ``version`` None is the whole image; ``why`` is a phrase such as ``is being scrubbed``. ``image`` '':
    the store itself, which keeps it from being taken away and meets nobody else."""

    image: str
    version: int | None
    why: str
    alone: bool


class Locks:
    """Used from the event loop only; whoever gets a Hold gives it back with :meth:`release`."""

    def __init__(self) -> None:
        self._holds: list[Hold] = []
        self.closed = ""
        """Why nothing can be held any more; empty: it can."""

    @property
    def holds(self) -> tuple[Hold, ...]:
        return tuple(self._holds)

    def share(self, image: str, version: int | None, why: str) -> Hold:
        """Read it; refused while somebody changes it. Raises InUse."""
        return self._add(Hold(image, version, why, alone=False))

    def take(self, image: str, version: int | None, why: str) -> Hold:
        """Change it; refused while anybody reads or changes it. Raises InUse."""
        return self._add(Hold(image, version, why, alone=True))

    def release(self, hold: Hold) -> None:
        """Give it back; a second time it does nothing."""
        self._holds = [other for other in self._holds if other is not hold]

    def users(self, image: str, version: int | None) -> tuple[str, ...]:
        """Why the image (or its version) is held, in the order of coming."""
        return tuple(hold.why for hold in self._holds if _meet(hold, image, version))

    @contextmanager
    def shared(self, image: str, version: int | None, why: str) -> Iterator[None]:
        """Hold it for reading while the block runs."""
        hold = self.share(image, version, why)
        try:
            yield
        finally:
            self.release(hold)

    @contextmanager
    def taken(self, image: str, version: int | None, why: str) -> Iterator[None]:
        """Hold it alone while the block runs."""
        hold = self.take(image, version, why)
        try:
            yield
        finally:
            self.release(hold)

    def _add(self, wanted: Hold) -> Hold:
        if self.closed:
            raise InUse(f"image {wanted.image}: {self.closed}")
        for hold in self._holds:
            if _meet(hold, wanted.image, wanted.version) and (hold.alone or wanted.alone):
                what = f"image {hold.image}" + (f" version {hold.version}" if hold.version is not None else "")
                raise InUse(f"{what} {hold.why}; try again when that is done")
        self._holds.append(wanted)
        return wanted


def _meet(hold: Hold, image: str, version: int | None) -> bool:
    return hold.image == image and (hold.version is None or version is None or hold.version == version)
