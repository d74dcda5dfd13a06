"""The proxyDHCP counters as the figures that `pbserv statistics` prints: a value for the control socket."""

from __future__ import annotations

from collections.abc import Mapping

from pbserv.proxydhcp.outcome import Reason

Figure = int | Mapping[str, int]


def figures(counters: Mapping[str, int]) -> Mapping[str, Figure]:
    """Since the process started; ``ignored`` has the reasons that occurred, ``waited`` the packets
    that were answered once another server had decided, ``internal_errors`` our own faults."""
    return {
        "offers": counters.get("offer", 0),
        "acknowledgements": counters.get("ack", 0),
        "ignored": {reason.value: counters[reason.value] for reason in Reason if counters.get(reason.value)},
        "send_failed": counters.get("send_failed", 0),
        "waited": counters.get("waited", 0),
        "loops": counters.get("loops", 0),
        "internal_errors": counters.get("fault", 0),
    }
