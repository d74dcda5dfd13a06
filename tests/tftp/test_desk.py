from __future__ import annotations

import pytest

from pbserv.net.udp import Datagram
from pbserv.tftp.desk import _not_for_us


@pytest.mark.parametrize(
    ("destination", "port", "data", "reason"),
    [
        ("10.0.0.1", 1024, b"\0\1", ""),
        ("255.255.255.255", 1024, b"\0\1", "sent to a broadcast address"),
        ("10.0.0.255", 1024, b"\0\1", "sent to a broadcast address"),
        ("10.0.0.1", 0, b"\0\1", "no source port"),
        ("10.0.0.1", 1024, b"\0", "shorter than an opcode"),
    ],
)
def test_what_is_not_for_us(destination: str, port: int, data: bytes, reason: str) -> None:
    assert _not_for_us(Datagram(data, "10.0.0.9", port, "10.0.0.1", destination, 2)) == reason
