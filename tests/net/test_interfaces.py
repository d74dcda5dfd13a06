"""Addresses of this host, as the kernel tells them."""

from __future__ import annotations

import socket

import pytest

from pbserv.net.interfaces import (
    InterfaceTable,
    address_of,
    address_on_host,
    addresses,
    interface_of,
    name_of,
)
from pbserv.types import Instant
from tests.proxydhcp.wires import wires

LOOPBACK = socket.if_nametoindex("lo")


def test_the_loopback_interface() -> None:
    assert ("lo", "127.0.0.1", 8) in [(entry.name, entry.address, entry.prefix_length) for entry in addresses()]
    assert interface_of("127.0.0.1") == LOOPBACK
    assert address_of(LOOPBACK) == "127.0.0.1"
    assert address_on_host("127.0.0.1")
    assert address_on_host("127.1.2.3")  # all of 127.0.0.0/8 can be bound
    assert name_of(LOOPBACK) == "lo"


def test_what_is_not_there() -> None:
    assert not address_on_host("192.0.2.1")
    assert interface_of("192.0.2.1") is None
    assert address_of(1 << 20) is None
    assert name_of(1 << 20) == f"if{1 << 20}"
    assert name_of(0) == "any"


@pytest.mark.root
def test_a_table_sees_changes_when_it_is_old_enough_and_stays_in_its_namespace() -> None:
    with wires(2) as room:
        with room.server():
            table = InterfaceTable(max_age_s=1.0)
            first = interface_of("10.1.0.1")
        try:
            before = table.addresses(Instant(0))
            assert {entry.address for entry in before} == {"127.0.0.1", "10.1.0.1", "10.2.0.1"}
            assert {entry.broadcast for entry in before} == {None, "10.1.0.255", "10.2.0.255"}
            room.run_server("ip", "address", "add", "10.1.0.9/24", "brd", "+", "dev", "s0")
            assert table.addresses(Instant(0.9)) == before
            after = table.addresses(Instant(1.0))
            assert [entry.address for entry in after if entry.ifindex == first] == ["10.1.0.1", "10.1.0.9"]
            room.run_server("ip", "link", "del", "s1")
            assert "10.2.0.1" not in [entry.address for entry in table.addresses(Instant(2.5))]
        finally:
            table.close()
