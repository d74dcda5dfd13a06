"""iPXE: priority, the last of equals, two seconds, port 4011, menu and boot servers (reference 3.3; ipxe dhcp.c)."""

from __future__ import annotations

import dataclasses

import pytest

from pbserv.proxydhcp import packet as dhcp
from pbserv.proxydhcp.models import NOBODY, Ask, Boot, Fails, Heard, Identity, Ipxe, LocalDisk, Operator
from pbserv.proxydhcp.packet import decode
from pbserv.types import ClientArch
from tests.proxydhcp.models.offers import DHCP_SERVER, JUST_BOOT, OTHER, PROXY, asked, dhcp_offer, heard, menu

IPXE = Ipxe()
PLAIN = dhcp_offer(at_s=0.5)
SELF = ((0x8000, "this server"),)
LISTED = [(0x8000, [PROXY])]


def proxy(server: str = PROXY, priority: int | None = None, **values: object) -> Heard:
    more = {"siaddr": server, "file": f"{server}.ipxe"} | values
    if priority is not None:
        more["o175"] = b"\x01\x01" + priority.to_bytes(1, "big", signed=True)
    return heard(server, **more)  # type: ignore[arg-type]


def server_of(*offers: Heard) -> str:
    choice = IPXE.choose(sorted(offers, key=lambda offer: offer.at_s))
    assert isinstance(choice, Boot), choice
    return choice.server


def test_of_equal_priority_the_last_arrival_wins() -> None:
    assert server_of(proxy(), proxy(OTHER, at_s=0.1), PLAIN) == OTHER
    assert server_of(proxy(OTHER), proxy(at_s=0.1), PLAIN) == PROXY


@pytest.mark.parametrize(
    ("ours", "theirs", "winner"), [(1, None, PROXY), (1, 1, OTHER), (None, -1, PROXY), (1, 2, OTHER)]
)
def test_priority_175_1_is_signed(ours: int | None, theirs: int | None, winner: str) -> None:
    assert server_of(proxy(priority=ours), proxy(OTHER, theirs, at_s=0.1), PLAIN) == winner


def test_discovery_ends_with_one_of_each() -> None:
    """Whoever comes after a DHCP offer and a proxy offer are in hand is not heard, whatever its priority."""
    early = dhcp_offer()
    assert server_of(early, proxy(OTHER, at_s=0.1), proxy(priority=9, at_s=0.2)) == OTHER


@pytest.mark.parametrize(("late_s", "heard_it"), [(1.9, True), (2.1, False)])
def test_a_proxy_has_two_seconds_after_the_dhcp_offer(late_s: float, heard_it: bool) -> None:
    """DHCP_DISC_PROXY_TIMEOUT_SEC."""
    choice = IPXE.choose([dhcp_offer(), proxy(at_s=late_s)])
    assert isinstance(choice, Boot) is heard_it


def test_a_dhcp_offer_counts_from_port_67_only() -> None:
    choice = IPXE.choose([dhcp_offer(source_port=1067), proxy()])
    assert isinstance(choice, Fails)
    assert choice.again


def test_a_dhcp_server_with_pxeclient_is_its_own_proxy() -> None:
    """yiaddr is not looked at; DISCOVER ends with that one packet, and a slower proxy comes too late."""
    own = dhcp_offer(vendor_class=b"PXEClient", siaddr=DHCP_SERVER, file="own")
    assert server_of(own, proxy(at_s=0.1)) == DHCP_SERVER
    silent = dhcp_offer(vendor_class=b"PXEClient")
    assert asked(IPXE.choose([silent, proxy(at_s=0.1)])) == (DHCP_SERVER, 4011, 68)
    assert server_of(proxy(priority=1), dhcp_offer(vendor_class=b"PXEClient", at_s=0.1)) == PROXY


def test_no_pxedhcp_in_the_dhcp_offer() -> None:
    """175.176 counts only in the selected DHCP offer."""
    choice = IPXE.choose([proxy(), dhcp_offer(o175=b"\xb0\x01\x01", at_s=0.5)])
    assert isinstance(choice, Fails)
    assert server_of(proxy(o175=b"\xb0\x01\x01"), PLAIN) == PROXY


def test_the_file_of_the_dhcp_server_wins_against_a_proxy_of_equal_priority() -> None:
    """Settings blocks stand by priority, and equals in the order of registration (settings.c)."""
    names_file = dhcp_offer(siaddr=DHCP_SERVER, file="theirs", at_s=0.5)
    assert server_of(proxy(), names_file) == DHCP_SERVER
    assert server_of(proxy(priority=1), names_file) == PROXY


def test_siaddr_is_needed_even_for_a_url() -> None:
    """dhcp_has_pxeopts: without siaddr port 4011 is asked, although a file is named."""
    url = "http://10.1.0.5/boot.ipxe"
    choice = IPXE.choose([proxy(file=url), PLAIN])
    assert isinstance(choice, Boot)
    assert (choice.protocol, choice.server, choice.file) == ("http", PROXY, url)
    assert asked(IPXE.choose([proxy(file=url, siaddr=""), PLAIN])) == (PROXY, 4011, 68)


def test_the_second_leg() -> None:
    """From 68, with 54 = the proxy, plain class; the answer must come from 4011 with the same identity."""
    first = IPXE.choose([heard(siaddr=PROXY), PLAIN])
    assert asked(first) == (PROXY, 4011, 68)
    assert isinstance(first, Ask)
    sent = decode(first.sent.data)
    assert sent.options[54] == bytes((10, 1, 0, 5))
    assert (sent.options[60], sent.flags, first.waits_s) == (b"PXEClient", 0x8000, 2.0)
    good = heard(kind=dhcp.ACK, siaddr=PROXY, file="x.ipxe", source_port=4011)
    assert isinstance(first.after([good]), Boot)
    assert isinstance(first.after([dataclasses.replace(good, source_port=40110)]), Fails)
    assert isinstance(first.after([dataclasses.replace(good, port=4011)]), Fails)
    for wrong in (
        heard(OTHER, kind=dhcp.ACK, siaddr=PROXY, file="x.ipxe", source_port=4011),
        heard(kind=dhcp.ACK, file="x.ipxe", source_port=4011),
        heard(kind=dhcp.INFORM, siaddr=PROXY, file="x.ipxe", source_port=4011),
    ):
        assert isinstance(first.after([wrong]), Fails)
    assert isinstance(first.after([heard(siaddr=PROXY, file="x.ipxe", source_port=4011)]), Boot)  # an OFFER will do


def test_without_an_answer_it_boots_what_the_dhcp_server_names() -> None:
    names_file = dhcp_offer(siaddr=DHCP_SERVER, file="theirs", at_s=0.5)
    first = IPXE.choose([heard(siaddr=PROXY), names_file])
    assert isinstance(first, Ask)
    last = first.after([])
    assert isinstance(last, Boot)
    assert last.server == DHCP_SERVER


def test_who_an_offer_is_from() -> None:
    """Option 54, else siaddr, else the source address."""
    for offer, server in (
        (heard(identified=False, siaddr=OTHER), OTHER),
        (heard(identified=False), PROXY),
    ):
        assert asked(IPXE.choose([offer, PLAIN]))[0] == server


@pytest.mark.parametrize(
    ("option43", "vendor_class", "file", "menu_wanted"),
    [
        (menu(*SELF, servers=LISTED), b"PXEClient", "x", True),
        (menu(*SELF, servers=LISTED), b"PXEClient\0", "x", True),
        (menu(*SELF, servers=LISTED), b"PXEClient:Arch", "x", False),  # option 60 must be the word alone
        (menu(*SELF, control=15, servers=LISTED), b"PXEClient", "x", False),  # bit 3 and a file
        (menu(*SELF, control=15, servers=LISTED), b"PXEClient", "", True),
        (JUST_BOOT, b"PXEClient", "x", False),
    ],
)
def test_when_there_is_a_menu(option43: bytes, vendor_class: bytes, file: str, menu_wanted: bool) -> None:
    choice = IPXE.choose([heard(siaddr=PROXY, file=file, option43=option43, vendor_class=vendor_class), PLAIN])
    assert isinstance(choice, Ask if menu_wanted else Boot)


TWO = ((0x8000, "first"), (0x8001, "second"))
BOTH = [(0x8000, [PROXY]), (0x8001, [OTHER])]
F8 = Operator(presses_menu_key=True, picks=1)


@pytest.mark.parametrize(
    ("timeout_s", "operator", "server"),
    [(0, F8, PROXY), (5, F8, OTHER), (5, NOBODY, PROXY), (255, F8, OTHER), (None, F8, OTHER), (None, NOBODY, "")],
)
def test_the_prompt(timeout_s: int | None, operator: Operator, server: str) -> None:
    """pxemenu.c: without a prompt the menu is shown and waits, unlike in EDK2."""
    choice = IPXE.choose([heard(option43=menu(*TWO, timeout_s=timeout_s, servers=BOTH)), PLAIN], Identity(), operator)
    if server:
        assert asked(choice)[0] == server
    else:
        assert isinstance(choice, Fails)


def test_type_0_is_the_local_disk() -> None:
    assert isinstance(IPXE.choose([heard(option43=menu((0, "disk"))), PLAIN]), LocalDisk)


def test_a_chain_loaded_one_gives_up_at_a_prompt() -> None:
    """Measured in QEMU with snponly.efi of 2019: "Booting from PXE menu", "No more network devices"."""
    chained = Ipxe(arch=ClientArch.EFI_X64, itself="snponly.efi")
    prompt, at_once = (heard(option43=menu(*SELF, timeout_s=time, servers=LISTED)) for time in (3, 0))
    assert isinstance(chained.choose([prompt, PLAIN]), Fails)
    assert isinstance(chained.choose([at_once, PLAIN]), Ask)
    assert isinstance(IPXE.choose([prompt, PLAIN]), Ask)


@pytest.mark.parametrize(
    ("option43", "servers"),
    [
        (menu(*SELF, control=7, servers=LISTED), [PROXY]),
        (menu(*SELF, control=3, servers=LISTED), [PROXY]),
        (menu(*SELF, control=0, servers=LISTED, multicast="224.0.1.2"), ["224.0.1.2", "255.255.255.255", PROXY]),
        (menu(*SELF, control=0, servers=LISTED), ["255.255.255.255", PROXY]),  # multicast needs 43.7
        (menu(*SELF, control=7), []),
    ],
)
def test_boot_servers_are_asked_in_this_order(option43: bytes, servers: list[str]) -> None:
    """start_pxebs: multicast, broadcast (to port 67), the list; three seconds for each."""
    choice = IPXE.choose([heard(option43=option43), PLAIN])
    for server in servers:
        assert asked(choice) == (server, 67 if server == "255.255.255.255" else 4011, 68)
        assert isinstance(choice, Ask)
        assert choice.waits_s == 3.0
        choice = choice.after([])
    assert isinstance(choice, Fails)


def test_the_boot_servers_answer() -> None:
    """dhcp_pxebs_rx: an ACK that echoes the type, from 67 or 4011, of a listed server when 43.6 says so."""
    strict = IPXE.choose([heard(option43=menu(*SELF, servers=LISTED)), PLAIN])
    loose = IPXE.choose([heard(option43=menu(*SELF, control=3, servers=LISTED)), PLAIN])
    assert isinstance(strict, Ask)
    assert isinstance(loose, Ask)
    echo, another = bytes.fromhex("470480000000ff"), bytes.fromhex("470480010000ff")

    def answer(server: str = PROXY, kind: int = dhcp.ACK, option43: bytes | None = echo, port: int = 4011) -> Heard:
        return heard(server, kind=kind, siaddr=server, file="x", option43=option43, source_port=port)

    for good in (answer(), answer(port=67)):
        got = strict.after([good])
        assert isinstance(got, Boot)
        assert (got.server, got.file) == (PROXY, "x")
    for bad in (
        answer(kind=dhcp.OFFER),
        answer(option43=another),
        answer(option43=None),
        answer(port=53),
        answer(OTHER),
    ):
        assert isinstance(strict.after([bad]), Fails)
    assert isinstance(loose.after([answer(OTHER)]), Boot)


def test_a_loop_is_named() -> None:
    """ipxe#908: handed itself, it loads itself and asks again."""
    chained = Ipxe(itself="undionly.kpxe")
    choice = chained.choose([proxy(file="boot/undionly.kpxe"), PLAIN])
    assert isinstance(choice, Fails)
    assert "loop" in choice.why
    assert isinstance(chained.choose([proxy(file="boot.ipxe"), PLAIN]), Boot)
    assert isinstance(IPXE.choose([proxy(file="boot/undionly.kpxe"), PLAIN]), Boot)  # a ROM may chain once


def test_nothing_named() -> None:
    choice = IPXE.choose([PLAIN])
    assert isinstance(choice, Fails)
    assert not choice.again
    assert choice.lease is PLAIN
