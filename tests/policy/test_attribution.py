"""Whose request it is: the kernel's word first, then what was learned."""

from __future__ import annotations

from pbserv.policy.attribution import Attribution
from pbserv.types import Instant


class Link:
    """A neighbour table that is told what the kernel knows."""

    def __init__(self) -> None:
        self.macs: dict[str, str] = {}
        self.asked: list[str] = []
        self.closed = False

    def mac_of(self, address: str, now: Instant) -> str | None:
        if not address:
            raise ValueError("no address")
        self.asked.append(address)
        return self.macs.get(address)

    def close(self) -> None:
        self.closed = True


def test_the_kernel_knows_better_than_what_was_learned() -> None:
    link, learned = Link(), {"10.0.0.7": "old", "10.9.0.7": "routed"}
    whose = Attribution(link, learned.get)
    link.macs["10.0.0.7"] = "new"
    assert whose.mac_of("10.0.0.7", 0.0) == "new"
    assert whose.mac_of("10.9.0.7", 0.0) == "routed"
    assert whose.mac_of("10.0.0.8", 0.0) is None
    assert whose.mac_of("", 0.0) is None
    whose.close()
    assert link.closed


def test_the_kernel_is_not_asked_for_every_request() -> None:
    link = Link()
    whose = Attribution(link, {}.get)
    link.macs["10.0.0.7"] = "a"
    for now in (0.0, 0.5, 0.99):
        assert whose.mac_of("10.0.0.7", now) == "a"
        assert whose.mac_of("10.9.0.7", now) is None
    assert link.asked == ["10.0.0.7", "10.9.0.7"]
    link.macs["10.0.0.7"] = "b"
    assert whose.mac_of("10.0.0.7", 1.0) == "b"
    assert whose.mac_of("10.9.0.7", 9.9) is None
    assert link.asked == ["10.0.0.7", "10.9.0.7", "10.0.0.7"]
    link.macs["10.9.0.7"] = "c"
    assert whose.mac_of("10.9.0.7", 10.0) == "c"


def test_what_was_learned_counts_at_once() -> None:
    link, learned = Link(), dict[str, str]()
    whose = Attribution(link, learned.get)
    assert whose.mac_of("10.9.0.7", 0.0) is None
    learned["10.9.0.7"] = "a"
    assert whose.mac_of("10.9.0.7", 0.1) == "a"


def test_a_scan_of_addresses_leaves_no_more_than_a_bounded_memory() -> None:
    link = Link()
    whose = Attribution(link, {}.get)
    for number in range(40_000):
        whose.mac_of(str(number), 0.0)
    assert len(whose._told) <= 16_384
