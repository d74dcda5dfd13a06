"""UEFI HTTP Boot: class, URL with an address, preference (reference 3.2; edk2 HttpBootDxe)."""

from __future__ import annotations

import pytest

from pbserv.proxydhcp.models import Boot, Fails, Heard, Http
from pbserv.proxydhcp.models.http import OfferKind, classify
from tests.proxydhcp.models.offers import DHCP_SERVER, OTHER, PROXY, dhcp_offer, heard, recorded

HTTP = Http()
CLASS = b"HTTPClient"
DNS = bytes((10, 1, 0, 1))
BY_ADDRESS, BY_NAME = b"http://10.1.0.5/x.efi\0", b"http://boot.example/x.efi\0"


@pytest.mark.parametrize(
    ("offer", "kind"),
    [
        (dhcp_offer(), OfferKind.DHCP_ONLY),
        (dhcp_offer(o6=DNS), OfferKind.DHCP_DNS),
        (dhcp_offer(vendor_class=b"PXEClient"), OfferKind.DHCP_ONLY),
        (dhcp_offer(vendor_class=CLASS, o67=BY_ADDRESS), OfferKind.DHCP_ADDRESS_URL),
        (dhcp_offer(vendor_class=CLASS, o67=BY_ADDRESS, o6=DNS), OfferKind.DHCP_ADDRESS_URL),
        (dhcp_offer(vendor_class=CLASS, o67=BY_NAME), OfferKind.DHCP_NAME_URL),
        (dhcp_offer(vendor_class=CLASS, o67=BY_NAME, o6=DNS), OfferKind.DHCP_NAME_URL_DNS),
        (heard(vendor_class=CLASS, o67=BY_ADDRESS), OfferKind.PROXY_ADDRESS_URL),
        (heard(vendor_class=CLASS, file="http://10.1.0.5/x.efi"), OfferKind.PROXY_ADDRESS_URL),
        (heard(vendor_class=CLASS, o67=b"https://10.1.0.5:8443/x"), OfferKind.PROXY_ADDRESS_URL),
        (heard(vendor_class=CLASS, o67=BY_NAME), OfferKind.PROXY_NAME_URL),
        (heard(vendor_class=CLASS, o67=b"snponly.efi"), OfferKind.DISCARDED),
        (heard(vendor_class=CLASS), OfferKind.DISCARDED),
        (heard(vendor_class=b"PXEClient", o67=BY_ADDRESS), OfferKind.DISCARDED),
        (heard(vendor_class=None, o67=BY_ADDRESS), OfferKind.DISCARDED),
    ],
)
def test_classification(offer: Heard, kind: OfferKind) -> None:
    assert classify(offer.packet) is kind


def taken(*offers: Heard) -> str:
    choice = HTTP.choose(offers)
    assert isinstance(choice, Boot), choice
    assert choice.protocol == "http"
    return choice.server


def test_order_of_preference() -> None:
    address = heard(vendor_class=CLASS, o67=BY_ADDRESS)
    assert taken(dhcp_offer(), address) == PROXY
    assert taken(dhcp_offer(o6=DNS), address) == PROXY  # measured too: with a DNS server the proxy's URL is taken
    assert taken(dhcp_offer(o6=DNS), heard(vendor_class=CLASS, o67=BY_NAME)) == "boot.example"
    own = dhcp_offer(server=OTHER, vendor_class=CLASS, o67=b"http://10.1.0.9/own\0")
    assert taken(address, dhcp_offer(), own) == OTHER


@pytest.mark.parametrize(
    "offers",
    [
        [heard(vendor_class=CLASS, o67=BY_ADDRESS)],  # a proxy alone gives no address
        [dhcp_offer()],
        [dhcp_offer(), heard(o67=BY_ADDRESS)],  # the class is PXEClient
        [dhcp_offer(), heard(vendor_class=CLASS, o67=BY_NAME)],  # no DNS server to ask
        [dhcp_offer(), heard(vendor_class=CLASS, o67=BY_ADDRESS, source_port=4011)],
        [dhcp_offer(), heard(vendor_class=CLASS, o67=BY_ADDRESS, size_bytes=1500)],
        [],
    ],
)
def test_how_it_fails(offers: list[Heard]) -> None:
    choice = HTTP.choose(offers)
    assert isinstance(choice, Fails)
    assert choice.code == "PXE-E16"
    assert choice.again is (not offers)


def test_bz880() -> None:
    """The same DHCP server that misleads PXE clients serves HTTP Boot well."""
    choice = HTTP.choose([recorded("dhcp-httpclient-offer-to-httpboot-ovmf-bz880")])
    assert isinstance(choice, Boot)
    assert (choice.server, choice.file) == ("192.168.42.1", "http://192.168.42.1:8080/EFI/BOOT/grubx64.efi")
    assert choice.server != DHCP_SERVER
