"""What is remembered, for how long, and that it is bounded."""

from __future__ import annotations

from pbserv.proxydhcp.memory import MOST_DEVICES, HandedLoaders, Quiet
from pbserv.types import Instant, MacAddress

MAC = MacAddress.parse("52:54:00:1a:c3:19")


def at(seconds: float) -> Instant:
    return Instant(seconds)


def test_a_new_xid_within_two_minutes_is_the_loader_asking() -> None:
    handed = HandedLoaders()
    assert not handed.chained(MAC, 1, at(0))
    handed.record(MAC, 1, True, at(0))
    assert not handed.chained(MAC, 1, at(1))  # a retransmission
    assert handed.chained(MAC, 2, at(1))
    assert handed.chained(MAC, 2, at(120))  # its retransmission too
    assert not handed.chained(MAC, 2, at(120.1))
    assert not handed.chained(MAC, 0, at(1))  # a boot item request of the ROM
    assert not handed.chained(MacAddress.parse("52:54:00:00:00:01"), 2, at(1))


def test_after_firmware_any_ipxe_is_the_loader() -> None:
    handed = HandedLoaders()
    handed.record(MAC, 1, False, at(0))
    assert handed.chained(MAC, 1, at(1))


def test_both_memories_are_bounded() -> None:
    handed, quiet = HandedLoaders(), Quiet(60, most=16)
    for number in range(MOST_DEVICES + 50):
        handed.record(MacAddress(number.to_bytes(6, "big")), 1, True, at(number / 1000))
        quiet.allows(number, at(0))
    assert len(handed) == MOST_DEVICES
    assert quiet.allows(0, at(1))  # forgotten
    assert not quiet.allows(MOST_DEVICES + 49, at(1))


def test_a_complaint_comes_once_per_interval() -> None:
    quiet = Quiet(60)
    assert [quiet.allows("x", at(second)) for second in (0, 1, 59.9, 60, 61)] == [True, False, False, True, False]
