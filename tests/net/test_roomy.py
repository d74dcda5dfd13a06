"""Receive buffers beyond the limit of the kernel, tried out in processes that give up their rights."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from pbserv.net import roomy
from tests.daemon.programs import report_of

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root rights to go beyond the limit")

STORM = """
import json, os, socket, sys
from pbserv.daemon.privileges import drop_privileges
from pbserv.net import roomy

size, count = int(sys.argv[1]), int(sys.argv[2])
made = roomy.reserve(2, size)
drop_privileges("nobody")
late = roomy.reserve(1, size)
listener, second, third = roomy.take(), roomy.take(), roomy.take()
listener.bind(("127.0.0.77", 67))
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
    for number in range(count):
        client.sendto(number.to_bytes(4, "big") * 137, ("127.0.0.77", 67))
heard = []
while True:
    try:
        heard.append(int.from_bytes(listener.recv(600)[:4], "big"))
    except BlockingIOError:
        break
ordinary = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
print(json.dumps(dict(
    made=made, late=late, third=third is None, heard=heard == list(range(count)),
    sizes=[raw.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) for raw in (listener, second)],
    forced=roomy.force_room(ordinary, size),
)))
for raw in (listener, second, ordinary):
    raw.close()
"""


@pytest.fixture(autouse=True)
def _nothing_is_left() -> Iterator[None]:
    yield
    roomy.release()


def limit_bytes() -> int:
    return int(Path("/proc/sys/net/core/rmem_max").read_text())


@pytest.mark.root
@needs_root
def test_sockets_keep_their_room_when_the_rights_are_gone() -> None:
    size = limit_bytes() + (1 << 20)
    facts = report_of(STORM, str(size), "2000")
    assert facts["made"] == 2
    assert facts["sizes"] == [2 * size, 2 * size]  # socket(7): the kernel doubles it
    assert facts["heard"] is True, "2000 DHCP packets waited"
    assert facts["late"] == 0, "without CAP_NET_ADMIN none is made"
    assert facts["forced"] is False
    assert facts["third"] is True


def test_an_empty_pool_gives_none_and_the_caller_opens_its_own() -> None:
    assert roomy.take() is None
    made = roomy.reserve(1, 4096)  # within the limit, so every user gets it
    assert made == 1
    first = roomy.take()
    second = roomy.take() or socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    assert first is not None
    with first, second:
        for raw in (first, second):
            raw.bind(("127.0.0.1", 0))
        assert not first.getblocking()
        assert not first.get_inheritable()


def test_what_nobody_took_is_closed() -> None:
    roomy.reserve(3, 4096)
    roomy.release()
    assert roomy.take() is None
