from __future__ import annotations

import errno
import socket

import pytest

from pbserv.net.gso import MIN_SEGMENT, ConnectedUdp, OffloadRoutes


@pytest.fixture
def peer():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as raw:
        raw.bind(("127.0.0.1", 0))
        raw.settimeout(2)
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        yield raw


@pytest.fixture
def connect(peer: socket.socket):
    links: list[ConnectedUdp] = []

    def make(routes: OffloadRoutes | None = None) -> ConnectedUdp:
        links.append(ConnectedUdp("127.0.0.1", "127.0.0.1", peer.getsockname()[1], routes or OffloadRoutes()))
        return links[-1]

    yield make
    for link in links:
        link.close()


@pytest.mark.parametrize("segment", [12, 516, 1432, 4432])
@pytest.mark.parametrize("length", [1, 100, 4432, 20_000, 100_001])
def test_a_flight_arrives_as_equal_datagrams(peer: socket.socket, connect, segment: int, length: int) -> None:
    link = connect()
    length = min(length, segment * 100)
    data = bytes(n & 255 for n in range(length))
    link.segment(segment, 100)
    assert link.offload is (segment >= MIN_SEGMENT)
    assert link.send_flight(memoryview(data))
    for start in range(0, length, segment):
        assert peer.recv(65536) == data[start : start + segment]


def test_a_short_packet_is_not_cut(peer: socket.socket, connect) -> None:
    link = connect()
    link.segment(516, 16)
    link.send_datagram(b"\0\5\0\0" + b"x" * 120)
    assert len(peer.recv(65536)) == 124


class Refusing:
    """A kernel that takes no segments, as network cards without checksum offload do (EIO)."""

    def __init__(self, send, segment: int, code: int) -> None:
        self._send, self._segment, self._code = send, segment, code
        self.tries = 0

    def __call__(self, data) -> int:
        if len(data) > self._segment:
            self.tries += 1
            raise OSError(self._code, "refused")
        return self._send(data)


@pytest.mark.parametrize("code", [errno.EIO, errno.EINVAL])
def test_the_fallback_is_for_good(peer: socket.socket, connect, code: int) -> None:
    routes = OffloadRoutes()
    link = connect(routes)
    link.segment(516, 16)
    link.send_one = refusing = Refusing(link.send_one, 516, code)
    data = bytes(2000)
    for _ in range(3):
        assert link.send_flight(memoryview(data))
        assert [len(peer.recv(65536)) for _ in range(4)] == [516, 516, 516, 452]
    assert refusing.tries == 1
    other = connect(routes)
    other.segment(516, 16)
    assert not other.offload


def test_a_full_queue_is_not_an_error(peer: socket.socket, connect) -> None:
    link = connect()
    link.segment(516, 16)
    link.send_one = Refusing(link.send_one, 0, errno.EAGAIN)
    assert link.send_flight(memoryview(bytes(1000))) is False
    assert link.send_datagram(b"x") is False
    assert link.offload


def test_a_closed_port_is_told(peer: socket.socket, connect) -> None:
    link = connect()
    peer.close()
    link.send_datagram(b"x")
    with pytest.raises(ConnectionRefusedError):
        link.recv(100)


def test_the_route_has_an_mtu(peer: socket.socket, connect) -> None:
    link = connect()
    assert 65_000 < link.mtu_bytes <= 65_536
