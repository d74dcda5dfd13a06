"""Sockets and their owners, from /proc."""

from __future__ import annotations

import os
import socket
import sys

import pytest

from pbserv.doctor.holders import bound_sockets, parse, program_of, programs_here

HEAD = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref"
UDP = (
    "  171: 00000000:0043 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 41234 2 0 0\n"
    "  172: 0100000A:0FAB 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 41235 2 0 0"
)
TCP = (
    "   0: 0100007F:1F83 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 5 1 0 100 0 0 10 0\n"
    "   1: 0100007F:1F83 0100007F:9999 01 00000000:00000000 00:00000000 00000000     0        0 6 1 0 100 0 0 10 0"
)
UDP6 = (
    "  1: 00000000000000000000000000000000:0045 00000000000000000000000000000000:0000 07"
    " 00000000:00000000 00:00000000 00000000 0 0 77 2 0 0"
)

little = pytest.mark.skipif(sys.byteorder != "little", reason="the samples come from a little-endian machine")


@little
def test_addresses_and_ports() -> None:
    assert [tuple(found) for found in parse(f"{HEAD}\n{UDP}", listening=False)] == [
        ("0.0.0.0", 67, "41234"),
        ("10.0.0.1", 4011, "41235"),
    ]
    assert [tuple(found) for found in parse(f"{HEAD}\n{TCP}", listening=True)] == [("127.0.0.1", 8067, "5")]
    assert [tuple(found) for found in parse(f"{HEAD}\n{UDP6}", listening=False)] == [("::", 69, "77")]


def test_lines_that_say_nothing() -> None:
    assert list(parse("", listening=False)) == []
    assert list(parse(f"{HEAD}\nx\n1: 00:zz 2 3 4 5 6 7 8 9 10", listening=False)) == []


def test_our_own_sockets() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp, socket.socket() as tcp:
        udp.bind(("127.0.0.1", 0))
        tcp.bind(("127.0.0.1", 0))
        tcp.listen()
        ports = {udp.getsockname()[1]: "udp", tcp.getsockname()[1]: "tcp"}
        found = {bound.port: bound for bound in bound_sockets(list(ports)) if bound.pid == os.getpid()}
        assert {port: bound.protocol for port, bound in found.items()} == ports
        assert all(bound.address == "127.0.0.1" for bound in found.values())
        assert all(bound.program == program_of(os.getpid()) for bound in found.values())
    assert not [bound for bound in bound_sockets(list(ports)) if bound.pid == os.getpid()]


def test_programs() -> None:
    ours = program_of(os.getpid())
    assert programs_here((ours, "no-such-program")) == (ours,)
    assert program_of(2**22 + 1) == ""
