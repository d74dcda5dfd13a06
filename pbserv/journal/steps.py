"""What a boot session consists of: one value per DHCP packet, one per event of any other kind. Pure.

One rule: a step is written down as it came. Whoever shows it decodes it; the packet handlers have no time for that.
"""

from __future__ import annotations

from typing import NamedTuple


class DhcpStep(NamedTuple):
    """One DHCP packet of a boot client, and the reply that it got.

    ``at`` is in seconds since the epoch. ``heard_on`` is the port, 67 or 4011; ``source``, ``source_port`` and
    ``destination`` are those of the packet, ``local`` is this host's address on interface ``ifindex``. ``verdict`` is
    "offer", "ack", "not sent", or the word of the reason why there is no reply; ``reason`` says it in a sentence.
    ``strategy`` and ``file`` are empty and ``reply`` is None without a reply.
    """

    at: float
    heard_on: int
    ifindex: int
    source: str
    source_port: int
    local: str
    destination: str
    data: bytes
    verdict: str
    reason: str
    strategy: str = ""
    file: str = ""
    reply: bytes | None = None
    reply_to: str = ""
    reply_port: int = 0


class Step(NamedTuple):
    """Anything else that happened to the device: ``source`` is tftp, http, policy, imaging, dhcp or registry."""

    at: float
    source: str
    what: str
    detail: str
