"""Counters of the TFTP service: plain numbers that any exporter can read."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


@dataclass(slots=True)
class TftpMetrics:
    """``outcomes`` by the words of Outcome; ``refused`` by ERROR code; ``ignored`` by reason."""

    requests: int = 0
    active: int = 0
    bytes_sent: int = 0
    blocks_sent: int = 0
    retransmissions: int = 0
    stale_acks: int = 0
    bugs: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    refused: Counter[int] = field(default_factory=Counter)
    ignored: Counter[str] = field(default_factory=Counter)
