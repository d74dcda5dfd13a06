"""Counters of the TFTP service: plain numbers that any exporter can read.

One rule: counting costs an addition. What it means to Prometheus or on a terminal is decided where it is shown.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol

RTT_BOUNDS_S: Final = (0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0)
DURATION_BOUNDS_S: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)


class Histogram:
    """How often a value fell between two bounds; the last count is of everything above them."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def add(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1  # a bound belongs to its bucket: "less than or equal"
        self.total += value

    @property
    def count(self) -> int:
        return sum(self.counts)

    def quantile(self, share: float) -> float | None:
        """The upper bound of the bucket that holds this share; None when empty, infinite above the last bound."""
        if not self.count:
            return None
        wanted, seen = share * self.count, 0
        for bound, count in zip(self.bounds, self.counts, strict=False):
            seen += count
            if seen >= wanted:
                return bound
        return float("inf")


class Cache(Protocol):
    """What the content store knows of itself."""

    @property
    def hits(self) -> int: ...
    @property
    def misses(self) -> int: ...
    @property
    def streams(self) -> int: ...
    @property
    def held_bytes(self) -> int: ...


@dataclass(slots=True)
class TftpMetrics:
    """``ended`` by ("sent" or "received", word of Outcome); ``refused`` by ERROR code; ``ignored`` by reason.

    ``requests`` are datagrams of any kind on the request port, ``asked`` the well-formed among them, by "read" and
    "write"; ``strays`` came to a transfer's port from somebody else. ``bytes_discarded`` were received for uploads
    that broke.
    """

    requests: int = 0
    asked: Counter[str] = field(default_factory=Counter)
    ended: Counter[tuple[str, str]] = field(default_factory=Counter)
    refused: Counter[int] = field(default_factory=Counter)
    ignored: Counter[str] = field(default_factory=Counter)
    transfers: int = 0
    members: int = 0
    bytes_sent: int = 0
    bytes_received: int = 0
    bytes_discarded: int = 0
    blocks_sent: int = 0
    blocks_received: int = 0
    retransmissions: int = 0
    stale_acks: int = 0
    strays: int = 0
    bugs: int = 0
    rtt: Histogram = field(default_factory=lambda: Histogram(RTT_BOUNDS_S))
    durations: Mapping[str, Histogram] = field(
        default_factory=lambda: {kind: Histogram(DURATION_BOUNDS_S) for kind in ("sent", "received")}
    )
    cache: Cache | None = None
    """Of the running service."""

    @property
    def active(self) -> int:
        """Transfers that run now, members of multicast groups among them."""
        return self.transfers + self.members

    @property
    def outcomes(self) -> Counter[str]:
        """Of both directions together."""
        both: Counter[str] = Counter()
        for (_, outcome), count in self.ended.items():
            both[outcome] += count
        return both
