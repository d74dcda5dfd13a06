"""Ports that hear broadcasts and answer in batches: what comes in, what leaves, and what the kernel refuses."""

from __future__ import annotations

import contextlib
import os
import select
import socket
from collections.abc import Iterator, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pbserv.errors import StartError
from pbserv.net.dhcp_port import BatchPort, SinglePort, Way
from pbserv.net.mmsg import BATCH, COPY_BYTES
from pbserv.net.udp import Datagram
from tests.proxydhcp.wires import wires

HERE = "127.0.0.1"
LOOPBACK = 1


@contextlib.contextmanager
def pair() -> Iterator[tuple[BatchPort, socket.socket, int]]:
    """A port on loopback, a client's socket, and the port's number."""
    port = BatchPort.bind(HERE, 0)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.bind((HERE, 0))
        client.settimeout(10)
        try:
            yield port, client, port.name[1]
        finally:
            port.close()


def heard(port: BatchPort | SinglePort, count: int) -> list[Datagram]:
    found: list[Datagram] = []
    while len(found) < count:
        assert select.select([port.fileno()], [], [], 10)[0], f"only {len(found)} of {count} came"
        found += port.receive()
    return found


def test_what_comes_in_says_from_where_and_for_whom() -> None:
    with pair() as (port, client, number):
        assert port.receive() == []
        client.sendto(b"question", (HERE, number))
        assert heard(port, 1) == [Datagram(b"question", *client.getsockname(), HERE, HERE, LOOPBACK)]
        assert port.receive() == []


def test_a_queued_reply_leaves_with_the_flush() -> None:
    with pair() as (port, client, number):
        port.queue(b"first", Way(HERE, client.getsockname()[1], HERE, LOOPBACK))
        port.queue(bytearray(b"second"), Way(HERE, client.getsockname()[1], HERE, 0))
        client.setblocking(False)
        with pytest.raises(BlockingIOError):
            client.recv(100)
        assert list(port.flush()) == []
        client.settimeout(10)
        assert [client.recvfrom(100) for _ in range(2)] == [(b"first", (HERE, number)), (b"second", (HERE, number))]
        assert list(port.flush()) == []


def test_what_is_queued_is_a_copy() -> None:
    with pair() as (port, client, _):
        data = bytearray(b"as it was")
        port.queue(data, Way(HERE, client.getsockname()[1], HERE, LOOPBACK))
        data[:] = b"something else"
        port.flush()
        assert client.recv(100) == b"as it was"


@pytest.mark.parametrize("count", [1, BATCH - 1, BATCH, BATCH + 1, 3 * BATCH + 5])
def test_more_than_a_batch(count: int) -> None:
    with pair() as (port, client, number):
        for one in range(count):
            client.sendto(one.to_bytes(2, "big"), (HERE, number))
        found = heard(port, count)
        assert [datagram.data for datagram in found] == [one.to_bytes(2, "big") for one in range(count)]
        for datagram in found:
            port.queue(b"re:" + datagram.data, Way(datagram.peer, datagram.port, HERE, LOOPBACK))
        assert list(port.flush()) == []
        assert [client.recv(10)[3:] for _ in range(count)] == [one.data for one in found]


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 1472), min_size=1, max_size=20))
def test_replies_of_all_sizes(sizes: list[int]) -> None:
    with pair() as (port, client, _):
        peer = client.getsockname()[1]
        for size in sizes:
            port.queue(bytes((size & 255,)) * size, Way(HERE, peer, HERE, LOOPBACK))
        assert list(port.flush()) == []
        # A long one does not wait for the short ones.
        assert sorted(len(client.recv(2000)) for _ in sizes) == sorted(sizes)


def test_short_and_long_replies_both_arrive_whole() -> None:
    with pair() as (port, client, _):
        for size in (COPY_BYTES, COPY_BYTES + 1, 1472):
            data = os.urandom(size)
            port.queue(data, Way(HERE, client.getsockname()[1], HERE, LOOPBACK))
            assert list(port.flush()) == []
            assert client.recv(2000) == data


def test_a_packet_longer_than_any_is_not_taken_for_a_shorter_one() -> None:
    with pair() as (port, client, number):
        for size in (4096, 4097, 9000):
            client.sendto(bytes(size), (HERE, number))
        sizes = [len(one.data) for one in heard(port, 3)]
        assert sizes[0] == 4096
        assert all(size > 4096 for size in sizes[1:])


def test_one_refused_reply_stops_no_other() -> None:
    with pair() as (port, client, _):
        peer = client.getsockname()[1]
        for number in range(3):
            port.queue(b"%d" % number, Way(HERE, peer, HERE, LOOPBACK))
            port.queue(b"nowhere", Way(HERE, peer, "192.0.2.77", LOOPBACK))  # not our address
            port.queue(bytes(1000), Way(HERE, peer, "192.0.2.77", LOOPBACK))
        unsent = port.flush()
        assert [client.recv(10) for _ in range(3)] == [b"0", b"1", b"2"]
        assert len(unsent) == 6
        assert {(one.peer, one.port, one.ifindex) for one in unsent} == {(HERE, peer, LOOPBACK)}
        assert all(one.reason for one in unsent)
        assert list(port.flush()) == []


def test_the_error_that_an_earlier_reply_brought_back_costs_no_later_one() -> None:
    with pair() as (port, client, number):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as gone:
            gone.bind((HERE, 0))
            closed = gone.getsockname()[1]
        for _ in range(3):
            port.queue(b"to nobody", Way(HERE, closed, HERE, LOOPBACK))
            port.flush()
            port.queue(b"to you", Way(HERE, client.getsockname()[1], HERE, LOOPBACK))
            assert list(port.flush()) == []
            assert client.recv(100) == b"to you"
        client.sendto(b"still there", (HERE, number))
        assert [one.data for one in heard(port, 1)] == [b"still there"]


def test_a_port_that_is_taken_says_so() -> None:
    with pair() as (_, _, number), pytest.raises(StartError, match=f"{HERE}:{number} is in use"):
        BatchPort.bind(HERE, number)


def test_a_closed_port_refuses_what_was_queued() -> None:
    port = BatchPort.bind(HERE, 0)
    port.close()
    port.queue(b"late", Way(HERE, 9, HERE, LOOPBACK))
    assert len(port.flush()) == 1


class Slow:
    """A listener that sends one at a time and refuses one peer."""

    def __init__(self) -> None:
        self.sent: list[tuple[bytes, str, int, str | None, int]] = []
        self.limit = 0
        self.closed = False

    @property
    def name(self) -> tuple[str, int]:
        return "0.0.0.0", 67

    def fileno(self) -> int:
        return 77

    def receive(self, limit: int = 64) -> Sequence[Datagram]:
        self.limit = limit
        return [Datagram(b"x", "0.0.0.0", 68, HERE, "255.255.255.255", 1)]

    def send(self, data: bytes, peer: str, port: int, *, source: str | None = None, ifindex: int = 0) -> bool:
        self.sent.append((data, peer, port, source, ifindex))
        return peer != "192.0.2.1"

    def close(self) -> None:
        self.closed = True


def test_a_listener_that_sends_one_at_a_time_as_a_port() -> None:
    slow = Slow()
    port = SinglePort(slow)
    assert (port.name, port.fileno(), len(port.receive()), slow.limit) == (("0.0.0.0", 67), 77, 1, BATCH)
    port.queue(bytearray(b"one"), Way("255.255.255.255", 68, HERE, 3))
    port.queue(b"two", Way("192.0.2.1", 67, HERE, 0))
    assert slow.sent == [(b"one", "255.255.255.255", 68, HERE, 3), (b"two", "192.0.2.1", 67, HERE, 0)]
    assert [one[:3] for one in port.flush()] == [("192.0.2.1", 67, 0)]
    assert list(port.flush()) == []
    port.close()
    assert slow.closed


@pytest.mark.root
def test_a_broadcast_leaves_by_the_wire_that_is_named() -> None:
    with wires(2) as room:
        with room.server():
            port = BatchPort.bind("0.0.0.0", 67)
            places = [socket.if_nametoindex(f"s{number}") for number in range(2)]
        cards = [room.card(number) for number in range(2)]
        try:
            for number in (1, 0, 1):
                cards[number].broadcast(b"question")
                (datagram,) = heard(port, 1)
                own = f"10.{number + 1}.0.1"
                assert datagram == Datagram(b"question", "0.0.0.0", 68, own, "255.255.255.255", places[number])
                for turn in range(2):
                    port.queue(f"wire {number} {turn}".encode(), Way("255.255.255.255", 68, own, places[number]))
                assert list(port.flush()) == []
                got = [cards[number].frame().data.data.data for _ in range(2)]
                assert got == [f"wire {number} {turn}".encode() for turn in range(2)]
            port.queue(b"x", Way("255.255.255.255", 68, "10.1.0.1", 1 << 20))  # no such interface
            port.queue(b"to card 0", Way("255.255.255.255", 68, "10.1.0.1", places[0]))
            unsent = port.flush()
            assert [one.ifindex for one in unsent] == [1 << 20]
            assert cards[0].frame().data.data.data == b"to card 0"
        finally:
            port.close()
            for card in cards:
                card.close()
