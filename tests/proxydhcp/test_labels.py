"""What DHCP tells of a device, as labels."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pbserv.proxydhcp.asked import Asked
from pbserv.proxydhcp.client import Client, ClientKind
from pbserv.proxydhcp.labels import MAX_CHARACTERS, labels_of
from pbserv.types import ClientArch

CLIENT = Client(ClientKind.BIOS, ClientArch(0), b"PXEClient", b"PXEClient:Arch:00000:UNDI:002001\0")


def asked(relay: bytes | None = None) -> Asked:
    return Asked(1, CLIENT, None, None, 1472, relay, b"", b"", 0)


def test_a_device_on_the_link() -> None:
    assert dict(labels_of(CLIENT, asked(), "br0", "")) == {
        "client_kind": "bios", "vendor_class": "PXEClient:Arch:00000:UNDI:002001", "interface": "br0"
    }  # fmt: skip


def test_a_device_behind_a_relay_that_says_where() -> None:
    found = dict(labels_of(CLIENT, asked(b"\x01\x04gi/7\x02\x03\x00\x01\xff"), "br0", "10.2.0.1"))
    assert (found["relay"], found["circuit_id"], found["remote_id"]) == ("10.2.0.1", "gi/7", "0001ff")


def test_a_part_that_is_cut_short_is_none() -> None:
    assert "circuit_id" not in dict(labels_of(CLIENT, asked(b"\x01\x09gi"), "br0", ""))


@given(st.binary(max_size=300), st.binary(max_size=300))
def test_any_bytes_become_printable_lines(text: bytes, relay: bytes) -> None:
    client = Client(ClientKind.BIOS, ClientArch(0), b"PXEClient", text)
    for _name, value in labels_of(client, asked(relay), "br0", ""):
        assert value.isprintable()
        assert len(value) <= MAX_CHARACTERS
