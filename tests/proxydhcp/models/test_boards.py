"""U-Boot and the Raspberry Pi (reference 3.5, 3.7)."""

from __future__ import annotations

import pytest

from pbserv.proxydhcp.models import Boot, Fails, Heard, RaspberryPi, UBoot
from pbserv.proxydhcp.packet import encapsulate
from tests.proxydhcp.models.offers import DHCP_SERVER, JUST_BOOT, PROXY, dhcp_offer, heard

PROXY_OFFER = heard(siaddr=PROXY, file="boot.scr", option43=JUST_BOOT)


def test_u_boot_takes_no_proxy_offers() -> None:
    """Unless built with CONFIG_SERVERIP_FROM_PROXYDHCP."""
    alone = UBoot().choose([PROXY_OFFER])
    assert isinstance(alone, Fails)
    assert alone.again
    assert isinstance(UBoot().choose([PROXY_OFFER, dhcp_offer()]), Fails)
    theirs = UBoot().choose([PROXY_OFFER, dhcp_offer(siaddr=DHCP_SERVER, file="x")])
    assert isinstance(theirs, Boot)
    assert theirs.server == DHCP_SERVER
    built = UBoot(takes_proxies=True).choose([PROXY_OFFER, dhcp_offer(siaddr=DHCP_SERVER, file="x")])
    assert isinstance(built, Boot)
    assert (built.server, built.file) == (PROXY, "boot.scr")


# Published for the Pi 3: "2b23 0601030a0400505845 0917000014 ..." with the text padded to 20 bytes.
PI_MENU = bytes.fromhex("0601030a04005058450917000014") + b"Raspberry Pi Boot   \xff"


@pytest.mark.parametrize(
    ("offer", "boots"),
    [
        (heard(siaddr=PROXY, option43=PI_MENU), True),
        (dhcp_offer(vendor_class=b"PXEClient", siaddr=DHCP_SERVER, option43=PI_MENU), True),
        (heard(siaddr=PROXY, option43=PI_MENU, vendor_class=None), False),  # 60 = PXEClient is needed
        (heard(siaddr=PROXY, file="x"), False),
        (heard(siaddr=PROXY, option43=JUST_BOOT, file="x"), False),
        (heard(siaddr=PROXY, option43=PI_MENU.replace(b"\x14Raspberry Pi Boot   ", b"\x11Raspberry Pi Boot")), False),
        (heard(siaddr=PROXY, option43=PI_MENU[3:]), False),  # no 43.6
        (heard(siaddr=PROXY, option43=encapsulate({6: b"\3", 9: b"\0\0\x14" + b"Raspberry Pi Boot   "})), False),
    ],
)
def test_a_pi_wants_its_menu(offer: Heard, boots: bool) -> None:
    choice = RaspberryPi().choose([offer, dhcp_offer()])
    assert isinstance(choice, Boot) is boots
    if isinstance(choice, Boot):
        assert choice.file == "<serial>/config.txt"
    else:
        assert isinstance(choice, Fails)
        assert choice.again


def test_a_pi_needs_an_address() -> None:
    choice = RaspberryPi().choose([heard(siaddr=PROXY, option43=PI_MENU)])
    assert isinstance(choice, Fails)
