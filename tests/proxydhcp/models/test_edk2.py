"""EDK2: classification, order of preference, port 4011, menu and discovery (reference 3.1; edk2 UefiPxeBcDxe)."""

from __future__ import annotations

import pytest

from pbserv.proxydhcp import packet as dhcp
from pbserv.proxydhcp.models import NOBODY, Ask, Boot, Edk2, Fails, Heard, Identity, LocalDisk, Operator
from pbserv.proxydhcp.models.edk2 import OfferKind, classify
from pbserv.proxydhcp.packet import decode, encapsulate
from tests.proxydhcp.models.offers import (
    DHCP_SERVER,
    JUST_BOOT,
    LEASE,
    OTHER,
    PROXY,
    asked,
    dhcp_offer,
    heard,
    menu,
    recorded,
)

EDK2 = Edk2()
PLAIN = dhcp_offer()
SELF = ((0x8000, "this server"),)
LISTED = [(0x8000, [PROXY])]


@pytest.mark.parametrize(
    ("offer", "kind"),
    [
        (PLAIN, OfferKind.DHCP_ONLY),
        (dhcp_offer(file="x"), OfferKind.DHCP_ONLY),
        (dhcp_offer(vendor_class=b"HTTPClient"), OfferKind.DHCP_ONLY),
        (dhcp_offer(vendor_class=b"PXEClient"), OfferKind.DHCP_BINL),
        (dhcp_offer(vendor_class=b"PXEClient\0"), OfferKind.DHCP_BINL),  # nine bytes are compared
        (dhcp_offer(vendor_class=b"PXEClient", option43=JUST_BOOT), OfferKind.DHCP_PXE10),
        (dhcp_offer(option43=JUST_BOOT), OfferKind.DHCP_ONLY),  # 43 counts with the class only
        (heard(), OfferKind.PROXY_BINL),
        (heard(file="x"), OfferKind.PROXY_BINL),
        (heard(option43=b"\xff"), OfferKind.PROXY_BINL),
        (heard(option43=b"\x06\x09\x08"), OfferKind.PROXY_BINL),  # no list of options
        (heard(option43=JUST_BOOT), OfferKind.PROXY_PXE10),
        *((heard(option43=encapsulate({tag: b"\0" * 4})), OfferKind.PROXY_PXE10) for tag in range(6, 11)),
        (heard(option43=encapsulate({71: b"\0" * 4})), OfferKind.PROXY_BINL),
        (heard(option43=encapsulate({tag: b"\0" for tag in range(1, 6)})), OfferKind.DISCARDED),  # WfM 1.1a
        (heard(option43=encapsulate({tag: b"\0" for tag in range(1, 5)})), OfferKind.PROXY_BINL),
        (heard(vendor_class=None), OfferKind.DISCARDED),
        (heard(identified=False), OfferKind.DISCARDED),  # reference 2.3: offers without option 54 are dropped
        (dhcp_offer(kind=None, file="x"), OfferKind.BOOTP),
        (dhcp_offer(kind=None), OfferKind.DISCARDED),
    ],
)
def test_classification(offer: Heard, kind: OfferKind) -> None:
    assert classify(offer.packet) is kind


DIRECT = heard(option43=JUST_BOOT, siaddr=PROXY, file="direct.efi")
BINL = heard(siaddr=PROXY)
OWN_PXE10 = dhcp_offer(vendor_class=b"PXEClient", option43=JUST_BOOT, siaddr=DHCP_SERVER, file="own.efi")
OWN_BINL = dhcp_offer(vendor_class=b"PXEClient", siaddr=DHCP_SERVER)
NAMES_FILE = dhcp_offer(siaddr=DHCP_SERVER, file="plain.efi")
BOOTP = dhcp_offer(server="10.1.0.2", kind=None, siaddr="10.1.0.2", file="bootp.efi")


def taken(*offers: Heard) -> str:
    """The file that is booted, or the address that is asked on port 4011."""
    choice = EDK2.choose(offers)
    assert isinstance(choice, Boot | Ask), choice
    return choice.file if isinstance(choice, Boot) else choice.sent.destination


def test_order_of_preference() -> None:
    """DhcpPxe10, DhcpOnly + ProxyPxe10, DhcpBinl, DhcpOnly + ProxyBinl, DhcpOnly with a file, BOOTP."""
    everything = [BOOTP, NAMES_FILE, BINL, OWN_BINL, DIRECT, OWN_PXE10]
    for first in ("own.efi", "direct.efi", DHCP_SERVER, PROXY, "plain.efi", "bootp.efi"):
        assert taken(*everything) == first
        everything.pop()


def test_what_follows_from_it() -> None:
    """Reference 3.1: a proxy needs a DhcpOnly offer beside it to beat a server that sends 60 = PXEClient."""
    assert taken(OWN_BINL, DIRECT) == DHCP_SERVER
    assert taken(OWN_BINL, DIRECT, dhcp_offer(server="10.1.0.2")) == "direct.efi"
    assert taken(OWN_BINL, BINL, PLAIN) == DHCP_SERVER
    assert taken(NAMES_FILE, BINL) == PROXY  # a proxy beats a server that has only 66 and 67
    rival = heard(OTHER, option43=JUST_BOOT, siaddr=OTHER, file="rival.efi")
    assert taken(PLAIN, BINL, rival) == "rival.efi"  # of two proxies the one with discovery options
    assert taken(PLAIN, rival, DIRECT) == "rival.efi"  # and of equals the first
    assert taken(PLAIN, DIRECT, rival) == "direct.efi"


def test_offers_that_are_not_heard() -> None:
    """Dhcp4Impl.c listens to port 67 only; nothing above 1472 bytes is looked at."""
    for deaf in (
        heard(option43=JUST_BOOT, file="x", source_port=4011),
        heard(option43=JUST_BOOT, file="x", size_bytes=1473),
    ):
        choice = EDK2.choose([PLAIN, deaf])
        assert isinstance(choice, Fails)
        assert choice.code == "PXE-E16"
        assert not choice.again
    assert taken(PLAIN, heard(option43=JUST_BOOT, siaddr=PROXY, file="x", size_bytes=1472)) == "x"


def test_nothing_heard_is_asked_again() -> None:
    choice = EDK2.choose([])
    assert isinstance(choice, Fails)
    assert (choice.code, choice.again) == ("PXE-E16", True)
    alone = EDK2.choose([DIRECT])
    assert isinstance(alone, Fails)
    assert (alone.why, alone.again) == ("proxy offers, but no address", False)


def test_bz387_the_offer_means_a_question_to_4011_that_nobody_answers() -> None:
    """The DHCP server sends 60 + 66 + 67 without 43; the boot file in the offer does not help."""
    choice = EDK2.choose([recorded("dhcp-offer-to-ovmf-x64-bz387")])
    assert asked(choice) == ("192.168.122.250", 4011, 4011)
    assert isinstance(choice, Ask)
    last = choice.after([])
    assert isinstance(last, Fails)
    assert last.code == "PXE-E16"  # EFI_NO_RESPONSE; measured: OVMF 2022 shows E16 here


def test_bz880_takes_a_url_for_the_name_of_a_tftp_file() -> None:
    """60 = HTTPClient makes it a DhcpOnly offer with a boot file (frame 23: RRQ "http://...")."""
    choice = EDK2.choose([recorded("dhcp-httpclient-offer-to-pxe-ovmf-bz880")])
    assert isinstance(choice, Fails)
    assert choice.code == "PXE-E23"
    assert "http://192.168.42.1:8080/EFI/BOOT/grubx64.efi" in choice.why


def test_the_4011_server_is_siaddr_else_option_54() -> None:
    assert asked(EDK2.choose([PLAIN, heard(siaddr=OTHER)])) == (OTHER, 4011, 4011)
    assert asked(EDK2.choose([PLAIN, heard()])) == (PROXY, 4011, 4011)


def reply(server: str = PROXY, **values: object) -> Heard:
    more = {"kind": dhcp.ACK, "port": 4011, "source_port": 4011, "siaddr": server} | values
    return heard(server, **more)  # type: ignore[arg-type]


def test_the_answer_on_4011() -> None:
    first = EDK2.choose([PLAIN, heard(siaddr=PROXY)])
    assert isinstance(first, Ask)
    got = first.after([reply(siaddr="10.1.0.8", file="x.efi")])
    assert isinstance(got, Boot)
    assert (got.server, got.file, got.lease) == ("10.1.0.8", "x.efi", PLAIN)
    assert got.cached.proxy_offer is not None
    assert got.cached.proxy_offer.file == b"x.efi"  # what shim and GRUB find
    assert isinstance(first.after([reply(file="x.efi", kind=dhcp.OFFER)]), Boot)  # its type is not looked at
    assert isinstance(first.after([reply(option43=JUST_BOOT, file="y.efi")]), Boot)
    assert isinstance(first.after([reply(vendor_class=None, o67=b"x.efi\0")]), Boot)
    for useless in (reply(), reply(file="x.efi", port=68), reply(file="x.efi", size_bytes=1500)):
        assert isinstance(first.after([useless]), Fails)


def test_binl_proxies_are_tried_in_turn() -> None:
    first = EDK2.choose([PLAIN, heard(OTHER, siaddr=OTHER), heard(siaddr=PROXY)])
    assert asked(first)[0] == OTHER
    assert isinstance(first, Ask)
    second = first.after([])
    assert asked(second)[0] == PROXY
    assert isinstance(second, Ask)
    assert isinstance(second.after([]), Fails)


def test_just_boot() -> None:
    """Bit 3 of 43.6: the first server of 43.8, else siaddr, else option 54; without a file it is an error."""
    listed = encapsulate({6: b"\x08", 8: b"\x80\0\1" + bytes((10, 1, 0, 8))})
    for offer, server in (
        (heard(option43=listed, siaddr=OTHER, file="x"), "10.1.0.8"),
        (heard(option43=JUST_BOOT, siaddr=OTHER, file="x"), OTHER),
        (heard(option43=JUST_BOOT, file="x"), PROXY),
    ):
        choice = EDK2.choose([PLAIN, offer])
        assert isinstance(choice, Boot)
        assert choice.server == server
    missing = EDK2.choose([PLAIN, heard(option43=JUST_BOOT)])
    assert isinstance(missing, Fails)
    assert missing.code == "PXE-E99"  # EFI_PROTOCOL_ERROR
    no_menu = EDK2.choose([PLAIN, heard(option43=encapsulate({6: b"\x07"}), file="x")])
    assert isinstance(no_menu, Fails)
    assert no_menu.code == "PXE-E21"  # EFI_ABORTED


def test_option_67_counts_before_the_header() -> None:
    choice = EDK2.choose([PLAIN, heard(option43=JUST_BOOT, siaddr=PROXY, file="header", o67=b"option\0")])
    assert isinstance(choice, Boot)
    assert choice.file == "option"


TWO = ((0x8000, "first"), (0x8001, "second"))
BOTH = [(0x8000, [PROXY]), (0x8001, [OTHER])]
F8 = Operator(presses_menu_key=True, picks=1)


@pytest.mark.parametrize(
    ("timeout_s", "operator", "server"),
    [
        (None, F8, PROXY),  # without a prompt the first item is taken at once
        (0, F8, PROXY),
        (5, Operator(picks=1), PROXY),
        (5, F8, OTHER),
        (255, Operator(picks=1), OTHER),
        (255, Operator(picks=7), OTHER),
        (5, NOBODY, PROXY),
        (255, NOBODY, ""),  # waits for ever
    ],
)
def test_the_prompt(timeout_s: int | None, operator: Operator, server: str) -> None:
    offer = heard(option43=menu(*TWO, timeout_s=timeout_s, servers=BOTH))
    choice = EDK2.choose([PLAIN, offer], Identity(), operator)
    if server:
        assert asked(choice) == (server, 4011, 4011)
    else:
        assert isinstance(choice, Fails)


def test_type_0_is_the_local_disk_and_shows_as_e21() -> None:
    """booty INV-0001 observation 5: a menu of type 0 makes OVMF cancel the network boot."""
    choice = EDK2.choose([PLAIN, heard(option43=menu((0, "Local boot")))])
    assert isinstance(choice, LocalDisk)
    assert choice.code == "PXE-E21"


@pytest.mark.parametrize(
    ("option43", "where"),
    [
        (menu(*SELF, control=7, servers=LISTED), (PROXY, 4011, 4011)),
        (menu(*SELF, control=3, servers=LISTED), (PROXY, 4011, 4011)),
        (menu(*SELF, control=2, servers=LISTED), ("255.255.255.255", 67, 68)),  # broadcast before the list
        (menu(*SELF, control=0, multicast="224.0.1.2"), ("224.0.1.2", 4011, 4011)),  # multicast before broadcast
        (menu(*SELF, control=6, servers=LISTED), ("255.255.255.255", 67, 68)),
    ],
)
def test_discovery_control(option43: bytes, where: tuple[str, int, int]) -> None:
    """UseMCast = not bit 1, UseBCast = not bit 0, then the list."""
    choice = EDK2.choose([PLAIN, heard(option43=option43)])
    assert asked(choice) == where
    assert isinstance(choice, Ask)
    sent = decode(choice.sent.data)
    assert sent.options[43] == bytes.fromhex("470480000000ff")
    assert sent.flags == (0x8000 if where[1] == 67 else 0)


@pytest.mark.parametrize(
    ("option43", "code"),
    [
        (menu(*SELF, control=1, servers=LISTED), "PXE-E18"),  # multicast allowed and no 43.7: it asks 0.0.0.0
        (menu(*SELF, control=3), "PXE-E99"),  # no way at all
        (menu(*SELF, control=7), "PXE-E99"),  # listed servers only, and no list
        (menu(*SELF, control=7, servers=[(0x8001, [PROXY])]), "PXE-E99"),  # none of this type
    ],
)
def test_discovery_that_cannot_be(option43: bytes, code: str) -> None:
    choice = EDK2.choose([PLAIN, heard(option43=option43)])
    assert isinstance(choice, Fails)
    assert choice.code == code


def test_the_boot_servers_answer() -> None:
    """With bit 2 of 43.6 the answer's siaddr must be in the list; the type need not be echoed."""
    strict = EDK2.choose([PLAIN, heard(option43=menu(*SELF, control=7, servers=LISTED))])
    loose = EDK2.choose([PLAIN, heard(option43=menu(*SELF, control=3, servers=LISTED))])
    assert isinstance(strict, Ask)
    assert isinstance(loose, Ask)
    good, foreign = reply(file="x"), reply(siaddr=OTHER, file="x")
    got = strict.after([good])
    assert isinstance(got, Boot)
    assert (got.server, got.file) == (PROXY, "x")
    assert got.cached.pxe_reply is good.packet
    assert isinstance(loose.after([foreign]), Boot)
    for replies in ([foreign], [reply(file="x", port=68)], []):
        silence = strict.after(replies)
        assert isinstance(silence, Fails)
        assert silence.code == "PXE-E18"
    assert isinstance(strict.after([reply()]), Fails)


def test_pixiecores_menu_is_discovery_by_list() -> None:
    """Capture pixiecore-menu-offer: 43.6 = 3, one server, one item, prompt 0."""
    choice = EDK2.choose([recorded("dhcpd-plain-offer"), recorded("pixiecore-menu-offer")])
    assert asked(choice) == ("192.168.16.10", 4011, 4011)


def test_the_address_comes_from_the_dhcp_server() -> None:
    choice = EDK2.choose([PLAIN, heard(siaddr=PROXY)])
    assert isinstance(choice, Ask)
    assert choice.sent.source == LEASE
    assert decode(choice.sent.data).ciaddr == bytes((10, 1, 0, 77))
