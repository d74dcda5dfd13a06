"""shim and GRUB: which of the firmware's packets they read (reference 3.6, 18)."""

from __future__ import annotations

import pytest

from pbserv.proxydhcp import packet as dhcp
from pbserv.proxydhcp.models import Ask, Boot, Choice, Fails, Grub, Heard, Identity, Shim
from tests.proxydhcp.models.offers import (
    DHCP_SERVER,
    JUST_BOOT,
    OTHER,
    PROXY,
    dhcp_offer,
    heard,
    menu,
)

PLAIN = dhcp_offer()
DIRECT = heard(option43=JUST_BOOT, siaddr=PROXY, file="EFI/shimx64.efi")
ACK = heard(kind=dhcp.ACK, siaddr=PROXY, file="EFI/shimx64.efi", port=4011, source_port=4011)


def booted(choice: Choice) -> tuple[str, str]:
    assert isinstance(choice, Boot), choice
    return choice.server, choice.file


def test_shim_reads_the_proxys_answer() -> None:
    assert booted(Shim().choose([PLAIN, DIRECT])) == (PROXY, "EFI/grubx64.efi")
    asks = Shim().choose([PLAIN, heard(siaddr=PROXY)])
    assert isinstance(asks, Ask)
    last = asks.after([ACK])
    assert booted(last) == (PROXY, "EFI/grubx64.efi")
    assert isinstance(last, Boot)
    assert last.first == (PROXY, "EFI/shimx64.efi")
    assert isinstance(asks.after([]), Fails)


def test_a_dhcp_server_with_a_file_hijacks_shim() -> None:
    """shim#165: the ACK's file counts although the firmware booted the proxy's."""
    lease = dhcp_offer(siaddr=DHCP_SERVER, file="pxelinux.0")
    assert booted(Shim().choose([lease, DIRECT])) == (DHCP_SERVER, "grubx64.efi")


def test_an_answer_with_option_67_alone_leaves_shim_without_a_folder() -> None:
    """It reads the header fields only: siaddr is right, and the folder is lost."""
    offer = heard(option43=JUST_BOOT, siaddr=PROXY, o67=b"EFI/shimx64.efi\0")
    assert booted(Shim().choose([PLAIN, offer])) == (PROXY, "grubx64.efi")
    no_server = heard(option43=JUST_BOOT, o67=b"EFI/shimx64.efi\0")
    assert isinstance(Shim().choose([PLAIN, no_server]), Fails)


def test_after_a_menu_the_boot_servers_answer_is_read() -> None:
    offer = heard(option43=menu((0x8000, "it"), servers=[(0x8000, [PROXY])]))
    asks = Shim().choose([PLAIN, offer])
    assert isinstance(asks, Ask)
    assert booted(asks.after([ACK])) == (PROXY, "EFI/grubx64.efi")


@pytest.mark.parametrize(
    ("arch", "name"), [(7, "grubx64.efi"), (9, "grubx64.efi"), (11, "grubaa64.efi"), (6, "grubia32.efi")]
)
def test_the_second_stage_by_architecture(arch: int, name: str) -> None:
    """Reference 8."""
    assert booted(Shim().choose([PLAIN, DIRECT], Identity(arch=arch))) == (PROXY, f"EFI/{name}")


@pytest.mark.parametrize(
    ("lease", "server"), [(dhcp_offer(siaddr=DHCP_SERVER), DHCP_SERVER), (dhcp_offer(siaddr=OTHER), OTHER), (PLAIN, "")]
)
def test_grub_reads_the_dhcp_servers_ack_only(lease: Heard, server: str) -> None:
    """Measured with grub-mknetdir: never the proxy's, unless the server is in its prefix."""
    choice = Grub().choose([lease, DIRECT])
    if server:
        assert booted(choice) == (server, "grub.cfg")
    else:
        assert isinstance(choice, Fails)
    assert booted(Grub(prefix_server=PROXY).choose([lease, DIRECT])) == (PROXY, "grub.cfg")


def test_what_the_firmware_does_not_boot_loads_nothing_further() -> None:
    assert isinstance(Grub().choose([]), Fails)
    assert isinstance(Shim().choose([PLAIN]), Fails)
    assert isinstance(Grub().choose([PLAIN, heard(siaddr=PROXY)]), Ask)
