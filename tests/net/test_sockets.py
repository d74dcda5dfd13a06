from __future__ import annotations

import socket

import pytest

from pbserv.errors import StartError
from pbserv.net.sockets import RouteMtus, family_of, open_listener, open_transfer_socket, sockaddr_of


def test_an_overlapping_address_for_us_and_nobody_else() -> None:
    old = open_listener("0.0.0.0", 0)
    port = old.getsockname()[1]
    new = open_listener("127.0.0.1", port, [old.fileno()])
    try:
        for address in ("0.0.0.0", "127.0.0.1", "127.0.0.2"):
            with pytest.raises(StartError, match="in use"):
                open_listener(address, port)
        old.sendto(b"x", ("127.0.0.1", port))
        assert new.recv(10) == b"x"
        with pytest.raises(BlockingIOError):
            old.recv(10)
    finally:
        old.close()
        new.close()


def test_both_families_have_the_same_port() -> None:
    four = open_listener("0.0.0.0", 0)
    six = open_listener("::", four.getsockname()[1])
    four.close()
    six.close()


@pytest.mark.parametrize("address", ["192.0.2.1", "2001:db8::1"])
def test_an_address_that_is_not_here(address: str) -> None:
    with pytest.raises(StartError, match="no address"):
        open_listener(address, 0)


def test_ports_of_a_range() -> None:
    found = [open_transfer_socket("127.0.0.1", (45_000, 45_002)) for _ in range(3)]
    assert {raw.getsockname()[1] for raw in found} == {45_000, 45_001, 45_002}
    with pytest.raises(OSError, match="no port from 45000 to 45002 is free"):
        open_transfer_socket("127.0.0.1", (45_000, 45_002))
    for raw in found:
        raw.close()


def test_addresses() -> None:
    assert sockaddr_of("10.0.0.1", 69) == ("10.0.0.1", 69)
    assert sockaddr_of("::1", 69) == ("::1", 69, 0, 0)
    assert sockaddr_of("fe80::1%lo", 69) == ("fe80::1", 69, 0, 1)
    with pytest.raises(OSError, match="interface"):
        sockaddr_of("fe80::1%gone", 69)
    assert (family_of("::1"), family_of("127.0.0.1")) == (socket.AF_INET6, socket.AF_INET)


def test_the_mtu_of_a_way() -> None:
    mtus = RouteMtus()
    assert mtus.of("127.0.0.1", "127.0.0.1") >= 65_535
    assert mtus.of("::1", "::1") == 65_536
    with pytest.raises(OSError, match="address"):
        mtus.of("192.0.2.1", "127.0.0.1")
