"""MAC addresses of neighbours, as the kernel tells them."""

from __future__ import annotations

import socket

import pytest

from pbserv.net.neighbours import NeighbourTable
from pbserv.types import Instant
from tests.proxydhcp.wires import Wires, wires

MAC = "52:54:00:12:34:56"


def test_no_stranger_has_a_mac() -> None:
    table = NeighbourTable()
    try:
        for address in ("127.0.0.1", "203.0.113.77", "::1", "2001:db8::1", "fe80::1%nonesuch"):
            assert table.mac_of(address, Instant(0)) is None
    finally:
        table.close()


def _neighbour(room: Wires, *words: str, change: str = "replace") -> None:
    room.run_server("ip", "neighbour", change, *words)


@pytest.mark.root
def test_neighbours_of_both_families_stay_in_their_namespace() -> None:
    with wires(2) as room:
        with room.server():
            table = NeighbourTable()
            second = socket.if_nametoindex("s1")
        try:
            _neighbour(room, "10.1.0.50", "lladdr", MAC, "dev", "s0")
            _neighbour(room, "2001:db8::7", "lladdr", MAC, "dev", "s0")
            assert table.mac_of("10.1.0.50", Instant(0)) == MAC
            assert table.mac_of("::ffff:10.1.0.50", Instant(0)) == MAC
            assert table.mac_of("2001:db8:0::7", Instant(0)) == MAC
            # fe80::1 on each wire: the zone tells them apart
            _neighbour(room, "fe80::1", "lladdr", "02:00:00:00:00:01", "dev", "s0")
            _neighbour(room, "fe80::1", "lladdr", "02:00:00:00:00:02", "dev", "s1")
            assert table.mac_of(f"fe80::1%{second}", Instant(5)) == "02:00:00:00:00:02"
        finally:
            table.close()


@pytest.mark.root
def test_the_table_is_asked_again_when_it_is_old_or_misses_somebody() -> None:
    with wires(1) as room:
        with room.server():
            table = NeighbourTable(max_age_s=1.0)
        try:
            _neighbour(room, "10.1.0.50", "lladdr", MAC, "dev", "s0")
            assert table.mac_of("10.1.0.50", Instant(0)) == MAC
            _neighbour(room, "10.1.0.50", "lladdr", "02:00:00:00:00:09", "dev", "s0")
            assert table.mac_of("10.1.0.50", Instant(0.9)) == MAC
            assert table.mac_of("10.1.0.50", Instant(1.0)) == "02:00:00:00:00:09"
            assert table.mac_of("10.1.0.51", Instant(1.01)) is None
            _neighbour(room, "10.1.0.51", "lladdr", MAC, "dev", "s0")
            assert table.mac_of("10.1.0.51", Instant(1.02)) is None  # asked a moment ago
            assert table.mac_of("10.1.0.51", Instant(1.07)) == MAC
            _neighbour(room, "10.1.0.51", "dev", "s0", change="del")
            assert table.mac_of("10.1.0.51", Instant(3)) is None
        finally:
            table.close()


@pytest.mark.root
def test_a_client_that_sent_something_is_known() -> None:
    with wires(1) as room:
        with room.server():
            table = NeighbourTable()
            server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            server.bind(("10.1.0.1", 6969))
            server.settimeout(5)
        with room.clients():
            client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            card = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
            card.bind(("c0", 0))
        try:
            client.sendto(b"x", ("10.1.0.1", 6969))
            _, (peer, _) = server.recvfrom(16)
            assert table.mac_of(peer, Instant(0)) == card.getsockname()[4].hex(":")
        finally:
            for one in (client, card, server, table):
                one.close()
