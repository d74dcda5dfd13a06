"""What the journal reads in packets, of real clients and of anybody."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.dhcp import BOOTP, DHCPTypes

from pbserv.proxydhcp.packet import COOKIE
from pbserv.proxydhcp.reading import spell, text_of
from tests.journal.samples import RECORDED, asks


@pytest.mark.parametrize(
    ("name", "client", "arch"),
    [
        ("asrock-bios-intel-discover", "bios", "BIOS"),
        ("ovmf-x64-discover-bz387", "uefi", "UEFI x64"),
        ("ovmf-x64-httpboot-discover-bz880", "http", "UEFI x64 HTTP"),
        ("rpi3-rom-discover", "raspberrypi", "BIOS"),
        ("armv8-uboot-request", "", "ARM64 U-Boot"),
        ("riscv64-uboot-discover", "", ""),
        ("plain-host-relayed-request", "", ""),
    ],
)
def test_clients(name: str, client: str, arch: str) -> None:
    found = text_of(RECORDED[name])
    assert (found.client, found.arch) == (client, arch)


def test_ipxe_is_known_by_its_options() -> None:
    assert text_of(asks(ipxe=True)).client == "ipxe"


@pytest.mark.parametrize("name", RECORDED)
def test_header_and_type_agree_with_scapy(name: str) -> None:
    seen = BOOTP(RECORDED[name])
    found = text_of(RECORDED[name])
    kind = dict(option[:2] for option in seen.payload.options if isinstance(option, tuple))["message-type"]
    assert (found.xid, found.secs, found.kind.lower()) == (seen.xid, seen.secs, DHCPTypes[kind])
    assert spell(RECORDED[name])[0].startswith(f"xid {seen.xid:08x}, secs {seen.secs}, ")


@given(st.binary(max_size=400))
def test_any_bytes(data: bytes) -> None:
    text_of(data)
    assert spell(data)


@given(st.binary(max_size=200))
def test_any_options(options: bytes) -> None:
    data = asks()[:236] + COOKIE + options
    text_of(data)
    assert all(line.isprintable() for line in spell(data))


@given(st.binary(max_size=255), st.sampled_from([43, 93, 50, 60, 175, 57]))
def test_any_value(value: bytes, tag: int) -> None:
    data = asks()[:236] + COOKIE + bytes((tag, len(value))) + value + b"\xff"
    assert all(line.isprintable() for line in spell(data))
