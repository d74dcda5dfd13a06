"""The Intel boot agent (reference 3.4): option 43 with discovery control, F8, port 4011, codes PXE-E5x."""

from __future__ import annotations

import pytest

from pbserv.proxydhcp import packet as dhcp
from pbserv.proxydhcp.models import NOBODY, Ask, Bios, Boot, Fails, Heard, Identity, LocalDisk, Operator
from pbserv.proxydhcp.packet import decode, encapsulate
from tests.proxydhcp.models.offers import (
    DHCP_SERVER,
    JUST_BOOT,
    OTHER,
    PROXY,
    asked,
    dhcp_offer,
    heard,
    menu,
    recorded,
)

BIOS = Bios()
PLAIN = dhcp_offer()
SELF = ((0x8000, "this server"),)
LISTED = [(0x8000, [PROXY])]


def reply(server: str = PROXY, **values: object) -> Heard:
    more = {"kind": dhcp.ACK, "source_port": 4011, "siaddr": server} | values
    return heard(server, **more)  # type: ignore[arg-type]


def test_a_file_with_43_6_bit_3_needs_no_4011() -> None:
    """netboot pixiecore/dhcp.go sends `06 01 08 ff` with sname, siaddr and file."""
    choice = BIOS.choose([heard(option43=JUST_BOOT, siaddr=PROXY, file="x.kpxe"), PLAIN])
    assert isinstance(choice, Boot)
    assert (choice.server, choice.file, choice.lease) == (PROXY, "x.kpxe", PLAIN)


def test_without_discovery_control_4011_is_asked() -> None:
    """staticdhcpd#3: PXE-E55 when nobody answers there."""
    choice = BIOS.choose([heard(siaddr=PROXY, file="x.kpxe"), PLAIN])
    assert asked(choice) == (PROXY, 4011, 68)
    assert isinstance(choice, Ask)
    silence = choice.after([])
    assert isinstance(silence, Fails)
    assert silence.code == "PXE-E55"
    got = choice.after([reply(file="y.kpxe")])
    assert isinstance(got, Boot)
    assert (got.server, got.file) == (PROXY, "y.kpxe")
    for useless in (reply(file="y", kind=dhcp.OFFER), reply(file="y", port=4011)):
        assert isinstance(choice.after([useless]), Fails)
    nothing = choice.after([reply()])
    assert isinstance(nothing, Fails)
    assert nothing.code == "PXE-E53"


def test_the_answer_on_4011_may_have_discovery_control_itself() -> None:
    choice = BIOS.choose([dhcp_offer(vendor_class=b"PXEClient")])
    assert asked(choice)[0] == DHCP_SERVER  # a proxy on the DHCP server's host (reference 7)
    assert isinstance(choice, Ask)
    assert isinstance(choice.after([reply(option43=JUST_BOOT, file="x")]), Boot)
    assert isinstance(choice.after([reply(option43=menu((0, "disk")))]), LocalDisk)


@pytest.mark.parametrize(
    ("offers", "code"),
    [
        ([], "PXE-E51"),
        ([heard(option43=JUST_BOOT, file="x")], "PXE-E52"),
        ([PLAIN], "PXE-E53"),
        ([PLAIN, heard(option43=JUST_BOOT)], "PXE-E53"),
        ([PLAIN, heard(option43=menu(*SELF, control=7))], "PXE-E77"),
        ([dhcp_offer(file="http://10.1.0.1/x")], "PXE-E32"),
        ([PLAIN, heard(vendor_class=b"HTTPClient", file="x")], "PXE-E53"),
        ([PLAIN, heard(option43=JUST_BOOT, file="x", source_port=4011)], "PXE-E53"),
    ],
)
def test_how_it_fails(offers: list[Heard], code: str) -> None:
    choice = BIOS.choose(offers)
    assert isinstance(choice, Fails)
    assert choice.code == code
    assert choice.again is (code in ("PXE-E51", "PXE-E52"))


def test_a_dhcp_server_alone() -> None:
    choice = BIOS.choose([dhcp_offer(siaddr=OTHER, file="pxelinux.0")])
    assert isinstance(choice, Boot)
    assert choice.server == OTHER


def test_a_dhcp_server_with_discovery_options_counts_first() -> None:
    own = dhcp_offer(vendor_class=b"PXEClient", option43=JUST_BOOT, siaddr=DHCP_SERVER, file="own")
    choice = BIOS.choose([heard(option43=JUST_BOOT, siaddr=PROXY, file="x"), PLAIN, own])
    assert isinstance(choice, Boot)
    assert choice.file == "own"


TWO = ((0x8000, "first"), (0x8001, "second"), (0, "disk"))
BOTH = [(0x8000, [PROXY]), (0x8001, [OTHER])]


@pytest.mark.parametrize(
    ("timeout_s", "operator", "server"),
    [
        (0, Operator(True, 1), PROXY),
        (2, Operator(False, 1), PROXY),
        (2, Operator(True, 1), OTHER),
        (2, NOBODY, PROXY),
        (255, Operator(False, 1), OTHER),
    ],
)
def test_f8_and_the_prompts_timeout(timeout_s: int, operator: Operator, server: str) -> None:
    choice = BIOS.choose([PLAIN, heard(option43=menu(*TWO, timeout_s=timeout_s, servers=BOTH))], Identity(), operator)
    assert asked(choice) == (server, 4011, 68)


def test_the_menus_other_ends() -> None:
    shown = heard(option43=menu(*TWO, timeout_s=255, servers=BOTH))
    assert isinstance(BIOS.choose([PLAIN, shown], Identity(), Operator(picks=2)), LocalDisk)
    assert isinstance(BIOS.choose([PLAIN, shown], Identity(), NOBODY), Fails)
    assert isinstance(BIOS.choose([PLAIN, heard(option43=menu((0, "disk")))]), LocalDisk)
    assert isinstance(BIOS.choose([PLAIN, heard(option43=encapsulate({6: b"\7"}), siaddr=PROXY, file="x")]), Boot)


def test_discovery_of_boot_servers() -> None:
    """Multicast (224.0.1.2 where 43.7 names none), broadcast, the list; of bit 2 only the list counts."""
    everything = BIOS.choose([PLAIN, heard(option43=menu(*SELF, control=0, servers=LISTED))])
    for where in (("224.0.1.2", 4011, 68), ("255.255.255.255", 67, 68), (PROXY, 4011, 68)):
        assert asked(everything) == where
        assert isinstance(everything, Ask)
        assert decode(everything.sent.data).options[43] == bytes.fromhex("470480000000ff")
        everything = everything.after([])
    assert isinstance(everything, Fails)
    assert everything.code == "PXE-E78"
    strict = BIOS.choose([PLAIN, heard(option43=menu(*SELF, control=7, servers=LISTED))])
    assert isinstance(strict, Ask)
    assert isinstance(strict.after([reply(OTHER, file="x")]), Fails)
    assert isinstance(strict.after([reply(file="x")]), Boot)


def test_pixiecores_menu() -> None:
    """Captures asrock-bios-intel-discover, dhcpd-plain-offer and pixiecore-menu-offer are one conversation."""
    choice = BIOS.choose([recorded("dhcpd-plain-offer"), recorded("pixiecore-menu-offer")])
    assert asked(choice) == ("192.168.16.10", 4011, 68)
