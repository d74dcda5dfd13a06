from __future__ import annotations

import ipaddress

import pytest

from pbserv.net.udp import Datagram
from pbserv.tftp.desk import Offer, not_for_us

OFFER = Offer(1428, 32, 1.0)


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
    assert not_for_us(Datagram(data, "10.0.0.9", port, "10.0.0.1", destination, 2), OFFER) == reason


def test_what_the_settings_let_in() -> None:
    asked = Datagram(b"\0\1", "10.0.0.9", 1024, "10.0.0.1", "10.0.0.255", 2)
    assert not_for_us(asked, Offer(1428, 32, 1.0, broadcasts=True)) == ""
    here = Datagram(b"\0\1", "fd00::9", 1024, "fd00::1", "fd00::1", 2)
    for network, reason in (("fd00::/8", ""), ("10.0.0.0/8", "not in TFTPAllowedNetworks")):
        assert not_for_us(here, Offer(1428, 32, 1.0, networks=(ipaddress.ip_network(network),))) == reason
