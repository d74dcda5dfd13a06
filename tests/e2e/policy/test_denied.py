"""A denied device that another DHCP server sends to this one gets nothing: no offer, no file, no script."""

from __future__ import annotations

import os

from tests.e2e.marks import MARKS, PATIENCE_S
from tests.e2e.policy.site import SENT, Site, linux, runs_linux
from tests.support.dhcp import address_of
from tests.support.disks import Firmware
from tests.support.qemu import Machine, powered

pytestmark = MARKS
# What firmware prints of a server that refuses a file.
_REFUSED = {"bios": "Operation not permitted", "uefi": "PXE-E23"}


def sent_here(site: Site, name: str, firmware: Firmware) -> Machine:
    """A machine that the DHCP server itself names a boot file of ours."""
    return site.machine(name, firmware, mac=f"{SENT}:{os.urandom(2).hex(':')}")


def gets_nothing(site: Site, machine: Machine) -> str:
    """It asks, is refused, and goes on without having got a byte; its console's text."""
    site.device(machine, linux("sign=denied"))
    site.server.ok("device", "deny", machine.mac)
    with powered(machine) as console:
        console.wait_for(_REFUSED[machine.firmware], timeout_s=PATIENCE_S, never=("SIGNPOST",))
        text = console.text
    address = address_of(site.directory, machine.mac)
    assert address is not None
    assert "refused, device is denied" in site.told(machine)
    assert not site.server.log_lines("tftp", f"client={address}:", "result=completed")
    assert not site.server.log_lines("proxydhcp", machine.mac, "boot file")
    return text


def test_rom_is_refused_its_script(site: Site) -> None:
    machine = sent_here(site, "denied-rom", "bios")
    text = gets_nothing(site, machine)
    assert f"{site.url}/boot.ipxe" in text
    # The way there is a good one: accepted, the same machine finds its bundle on it.
    site.server.ok("device", "accept", machine.mac)
    with powered(machine) as console:
        runs_linux(console, "sign=denied")


def test_firmware_is_refused_its_loader(site: Site) -> None:
    text = gets_nothing(site, sent_here(site, "denied-uefi", "uefi"))
    assert "NBP filename is snponly.efi" in text
    assert "iPXE" not in text
