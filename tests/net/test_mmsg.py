from __future__ import annotations

import socket
import sys

import pytest

from pbserv.net.mmsg import BATCH, Endpoint, Inbox, Outbox, address_of, source_control, unreachable_peers
from pbserv.net.sockets import open_listener, open_transfer_socket

HOSTS = ["127.0.0.1", "::1"]


def pair(host: str) -> tuple[socket.socket, socket.socket]:
    one, other = open_transfer_socket(host), open_transfer_socket(host)
    other.settimeout(2)
    return one, other


@pytest.mark.parametrize("host", HOSTS)
def test_a_batch_comes_in(host: str) -> None:
    one, other = pair(host)
    inbox = Inbox(one.family, 2048, packet_info=False)
    assert inbox.receive(one.fileno()) == 0
    sent = [bytes([n]) * (n * 30) for n in range(BATCH + 3)]
    for data in sent:
        other.sendto(data, one.getsockname())
    assert inbox.receive(one.fileno()) == BATCH
    assert [inbox.datagram(n) for n in range(BATCH)] == sent[:BATCH]
    assert {inbox.key(n) for n in range(BATCH)} == {Endpoint(other.getsockname()).key}
    assert inbox.sender(5) == other.getsockname()[:2]
    _, key, head, length = list(inbox.summaries(BATCH))[7]
    assert (key, head, length) == (inbox.key(7), int.from_bytes(bytes([7] * 4), sys.byteorder), 210)
    assert inbox.receive(one.fileno()) == 3
    assert inbox.datagram(0) == sent[BATCH]
    one.close()
    other.close()


def test_what_is_too_long_is_cut() -> None:
    one, other = pair("127.0.0.1")
    inbox = Inbox(one.family, 100, packet_info=False)
    other.sendto(b"x" * 5000, one.getsockname())
    assert inbox.receive(one.fileno()) == 1
    assert inbox.datagram(0) == b"x" * inbox.stride
    one.close()
    other.close()


@pytest.mark.parametrize("host", HOSTS)
def test_packet_info_survives_many_batches(host: str) -> None:
    listener = open_listener("::" if ":" in host else "0.0.0.0", 0)
    other = open_transfer_socket(host)
    inbox = Inbox(listener.family, 2048, packet_info=True)
    for _ in range(3):
        for _ in range(2):
            other.sendto(b"x", (host, listener.getsockname()[1]))
        assert inbox.receive(listener.fileno()) == 2
        assert inbox.destination(1) == (host, host, 1)
    listener.close()
    other.close()


@pytest.mark.parametrize("host", HOSTS)
def test_an_outbox_sends_datagrams_and_flights(host: str) -> None:
    one, other = pair(host)
    to = Endpoint(other.getsockname())
    to.segment(500)
    data = bytearray(n & 255 for n in range(5000))
    start, box = address_of(data), Outbox(one.family, lambda: None)
    box.put(to, start, 10)
    box.put_flight(to, start + 10, 1700)
    box.put(to, start, 1400)
    assert [box.is_flight(n) for n in range(3)] == [False, True, False]
    assert box.copy(1) == data[10:1710]
    assert box.send(one.fileno(), 0) == (3, 0)
    box.clear()
    got = [other.recv(2000) for _ in range(6)]
    assert got == [data[:10], data[10:510], data[510:1010], data[1010:1510], data[1510:1710], data[:1400]]
    one.close()
    other.close()


def test_the_source_can_be_chosen() -> None:
    listener = open_listener("0.0.0.0", 0)
    other = open_transfer_socket("127.0.0.1")
    other.settimeout(2)
    to = Endpoint(other.getsockname(), source_control("127.0.0.77"))
    data, box = bytearray(b"hello"), Outbox(socket.AF_INET, lambda: None)
    box.put(to, address_of(data), 5)
    assert box.send(listener.fileno(), 0) == (1, 0)
    assert other.recvfrom(10) == (b"hello", ("127.0.0.77", listener.getsockname()[1]))
    listener.close()
    other.close()


@pytest.mark.parametrize("host", HOSTS)
def test_a_closed_port_is_named(host: str) -> None:
    one, other = pair(host)
    gone = other.getsockname()
    other.close()
    one.sendto(b"x", gone)
    assert Inbox(one.family, 2048, packet_info=False).receive(one.fileno()) == -1
    assert [Endpoint(peer).key for peer in unreachable_peers(one)] == [Endpoint(gone).key]
    assert unreachable_peers(one) == []
    one.close()
