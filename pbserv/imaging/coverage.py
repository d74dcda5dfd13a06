"""Which bytes of which image were delivered to whom: decides when an image counts as sent. Pure.

One rule: an image is sent once per recipient, when the last byte of all its items was delivered, in whatever order,
with however many requests, ranges and resumes. A job is counted once for ever; an address starts anew after each
complete delivery. Memory is bounded: the deliveries that were not touched for longest are forgotten first.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

MAX_DELIVERIES = 4096
MAX_FINISHED_JOBS = 65536
MAX_INTERVALS = 1024


@dataclass(frozen=True, slots=True)
class Recipient:
    """Who gets the bytes: a job (one device, counted once) or an address (a manual download, counted each time)."""

    kind: Literal["job", "address"]
    key: str

    @classmethod
    def job(cls, number: int) -> Recipient:
        return cls("job", str(number))

    @classmethod
    def address(cls, host: str) -> Recipient:
        return cls("address", host)

    def __str__(self) -> str:
        return f"job {self.key}" if self.kind == "job" else self.key


class Deliverable(Protocol):
    """One version of an image, as far as its delivery is concerned."""

    @property
    def name(self) -> str: ...

    @property
    def version(self) -> int: ...

    @property
    def sizes(self) -> Mapping[str, int]:
        """Stored bytes per item name."""


class IntervalSet:
    """Half-open byte ranges, disjoint and sorted; neighbours are joined."""

    __slots__ = ("_ends", "_limit", "_starts")

    def __init__(self, limit: int = MAX_INTERVALS) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []
        self._limit = limit

    def add(self, start: int, end: int) -> None:
        """Add ``[start, end)``. Beyond the limit the shortest range is forgotten: too little is claimed, never more."""
        if end <= start:
            return
        low = bisect_left(self._ends, start)
        high = bisect_right(self._starts, end)
        if low < high:
            start = min(start, self._starts[low])
            end = max(end, self._ends[high - 1])
        self._starts[low:high] = [start]
        self._ends[low:high] = [end]
        if len(self._starts) > self._limit:
            shortest = min(range(len(self._starts)), key=lambda index: self._ends[index] - self._starts[index])
            del self._starts[shortest], self._ends[shortest]

    def covers(self, size: int) -> bool:
        """True when every byte of ``[0, size)`` is in the set."""
        return size == 0 or (bool(self._starts) and self._starts[0] <= 0 and self._ends[0] >= size)

    def ranges(self) -> list[tuple[int, int]]:
        return list(zip(self._starts, self._ends, strict=True))


_Key = tuple[Recipient, str, int]


class Coverage:
    """The delivered bytes of all recent deliveries."""

    def __init__(self, max_deliveries: int = MAX_DELIVERIES, max_finished: int = MAX_FINISHED_JOBS) -> None:
        self._running: OrderedDict[_Key, dict[str, IntervalSet]] = OrderedDict()
        self._finished: OrderedDict[_Key, None] = OrderedDict()
        self._max_deliveries = max_deliveries
        self._max_finished = max_finished

    def delivered(self, recipient: Recipient, image: Deliverable, item: str, start: int, end: int) -> bool:
        """Note that ``[start, end)`` of ``item`` went out; True exactly when that completed the image.

        Raises ValueError for an item or bytes that the image does not have. Empty items need no delivery.
        """
        sizes = image.sizes
        if item not in sizes or not 0 <= start <= end <= sizes[item]:
            raise ValueError(f"image {image.name} has no bytes {start}-{end} of item {item!r}")
        key = (recipient, image.name, image.version)
        if key in self._finished:
            self._finished.move_to_end(key)
            return False
        items = self._running.setdefault(key, {})
        self._running.move_to_end(key)
        items.setdefault(item, IntervalSet()).add(start, end)
        if not all(size == 0 or (name in items and items[name].covers(size)) for name, size in sizes.items()):
            self._trim()
            return False
        del self._running[key]
        if recipient.kind == "job":
            self._finished[key] = None
            self._trim()
        return True

    def forget(self, name: str) -> None:
        """Drop what is known about an image that was deleted; a new one of that name starts from nothing."""
        for table in (self._running, self._finished):
            for key in [key for key in table if key[1] == name]:
                del table[key]

    def __len__(self) -> int:
        return len(self._running) + len(self._finished)

    def _trim(self) -> None:
        while len(self._running) > self._max_deliveries:
            self._running.popitem(last=False)
        while len(self._finished) > self._max_finished:
            self._finished.popitem(last=False)
