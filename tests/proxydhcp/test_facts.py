"""Which address this host shows, and by which interface it answers."""

from __future__ import annotations

import pytest

from pbserv.net.interfaces import InterfaceAddress
from pbserv.net.udp import Datagram
from pbserv.proxydhcp.facts import Facts, gather
from pbserv.proxydhcp.outcome import Ignore, Listener, Reason

HOST = (
    InterfaceAddress(1, "lo", "127.0.0.1", 8),
    InterfaceAddress(2, "eth0", "10.1.0.1", 24, "10.1.0.255"),
    InterfaceAddress(2, "eth0", "10.1.0.9", 24, "10.1.0.255"),
    InterfaceAddress(3, "eth1", "10.2.0.1", 24, "10.2.0.255"),
)


def came(destination: str, ifindex: int, local: str = "0.0.0.0") -> Datagram:
    return Datagram(b"", "0.0.0.0", 68, local, destination, ifindex)


def local(found: Facts | Ignore) -> str | Reason:
    return found.reason if isinstance(found, Ignore) else found.local


@pytest.mark.parametrize(
    ("arrival", "local_interface", "expected"),
    [
        (came("255.255.255.255", 2, "10.1.0.1"), None, "10.1.0.1"),
        (came("255.255.255.255", 3, "10.2.0.1"), None, "10.2.0.1"),
        (came("255.255.255.255", 2, "10.1.0.9"), None, "10.1.0.9"),
        (came("10.1.0.9", 2, "10.1.0.9"), None, "10.1.0.9"),
        # An interface without an address: the kernel offers another interface's, which the client cannot reach.
        (came("255.255.255.255", 4, "10.1.0.1"), None, Reason.NO_LOCAL_ADDRESS),
        (came("255.255.255.255", 3, "10.1.0.1"), None, "10.2.0.1"),
        (came("255.255.255.255", 2, "10.1.0.1"), "10.1.0.9", "10.1.0.9"),
        (came("255.255.255.255", 3, "10.2.0.1"), "10.1.0.9", Reason.OTHER_INTERFACE),
        (came("10.2.0.1", 3, "10.2.0.1"), "10.1.0.9", Reason.OTHER_INTERFACE),
        (came("10.1.0.9", 3, "10.1.0.9"), "10.1.0.9", "10.1.0.9"),
        (came("10.1.0.1", 2, "10.1.0.1"), "10.1.0.9", "10.1.0.1"),
    ],
)
def test_own_address(arrival: Datagram, local_interface: str | None, expected: str | Reason) -> None:
    assert local(gather(arrival, Listener.DHCP, HOST, local_interface)) == expected


def test_neighbours_are_reached_by_the_arrival_interface_and_others_by_route() -> None:
    facts = gather(came("10.1.0.1", 2), Listener.BOOT_SERVER, HOST, None)
    assert isinstance(facts, Facts)
    assert facts.unicast
    reached = [facts.interface_to(address) for address in ("255.255.255.255", "10.1.0.77", "10.2.0.77", "192.0.2.1")]
    assert reached == [2, 2, 0, 0]
