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


def advertised(arrival: Datagram, told: dict[str, str], host: tuple[InterfaceAddress, ...] = HOST) -> tuple[str, str]:
    found = gather(arrival, Listener.DHCP, host, None, told)
    assert isinstance(found, Facts)
    return found.local, found.advertised


def test_clients_are_told_another_address_by_interface() -> None:
    told = {"eth0": "192.0.2.10", "eth1": "192.0.2.11"}
    assert advertised(came("255.255.255.255", 2, "10.1.0.9"), told) == ("10.1.0.9", "192.0.2.10")
    assert advertised(came("255.255.255.255", 3, "10.2.0.1"), told) == ("10.2.0.1", "192.0.2.11")
    assert advertised(came("10.1.0.1", 2, "10.1.0.1"), told) == ("10.1.0.1", "192.0.2.10")
    assert advertised(came("255.255.255.255", 3, "10.2.0.1"), {"eth0": "192.0.2.10"}) == ("10.2.0.1", "10.2.0.1")
    alias = (InterfaceAddress(5, "eth2:1", "10.3.0.1", 24, "10.3.0.255"),)
    assert advertised(came("255.255.255.255", 5, "10.3.0.1"), {"eth2": "192.0.2.12"}, alias)[1] == "192.0.2.12"


def test_an_interface_without_address_says_what_to_do() -> None:
    found = gather(came("255.255.255.255", 9), Listener.DHCP, HOST, None)
    assert isinstance(found, Ignore)
    assert found.remedy == "give the interface an address"


def test_everything_is_near_on_a_subnet_of_the_interface_only() -> None:
    point_to_point = (InterfaceAddress(7, "ppp0", "10.9.0.1", 32, ""), InterfaceAddress(8, "x", "0.0.0.1", 0, ""))
    facts = gather(came("255.255.255.255", 7), Listener.DHCP, point_to_point, None)
    assert isinstance(facts, Facts)
    assert [facts.interface_to(address) for address in ("10.9.0.1", "10.9.0.2", "255.255.255.255")] == [7, 0, 7]
    anywhere = gather(came("255.255.255.255", 8), Listener.DHCP, point_to_point, None)
    assert isinstance(anywhere, Facts)
    assert anywhere.interface_to("198.51.100.7") == 8
