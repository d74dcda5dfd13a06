"""iPXE: the ROM's old one with a menu, and a new one that asks for autoexec.ipxe before it asks DHCP."""

from __future__ import annotations

from tests.e2e.marks import MARKS
from tests.e2e.policy.site import Site, linux, runs_linux
from tests.support.qemu import powered

pytestmark = MARKS


def test_rom_boots_the_bundle(site: Site) -> None:
    machine = site.machine("rom", "bios")
    site.device(machine, linux("sign=rom"))
    with powered(machine) as console:
        runs_linux(console, "sign=rom")


def test_menu_counts_down_and_boots_its_default(site: Site) -> None:
    machine = site.machine("rom-menu", "bios")
    items = [{"name": "local", "title": "Local disk", "action": "local"},
             {"name": "tiny", "title": "A small Linux", "bundle": "rom linux", "arguments": "sign=item"}]  # fmt: skip
    site.apply({
        "bundle": {"rom linux": linux("sign=menu")},
        "menu": {"of the rom": {"title": "Choose", "items": items, "timeout_s": 2, "default": "tiny"}},
        "device": {machine.mac: {"state": "known", "menu": "of the rom"}},
    })  # fmt: skip
    with powered(machine) as console:
        text = runs_linux(console, "sign=menu sign=item")
    assert "A small Linux" in text
    assert "Local disk" in text


def test_autoexec_is_asked_for_and_leads_to_the_bundle(site: Site) -> None:
    machine = site.machine("autoexec", "uefi")
    site.device(machine, linux("sign=autoexec"))
    with powered(machine) as console:
        text = runs_linux(console, "sign=autoexec")
    assert "autoexec.ipxe... ok" in text
    assert site.server.log_lines("tftp", "autoexec.ipxe", "result=completed")


def test_memory_test_of_the_rom(site: Site) -> None:
    machine = site.machine("memtest", "bios", screen=True)
    site.device(machine, {"kind": "memtest", "arguments": "console=ttyS0,115200"})
    with powered(machine) as console:
        console.wait_for("Memtest86+", timeout_s=60)


def test_efi_binary(site: Site) -> None:
    machine = site.machine("binary", "uefi", screen=True)
    bundle = {"kind": "efi", "file": "memtest86+x64.efi", "arguments": "console=ttyS0,115200"}
    site.device(machine, bundle)
    with powered(machine) as console:
        console.wait_for("Memtest86+", timeout_s=60)
