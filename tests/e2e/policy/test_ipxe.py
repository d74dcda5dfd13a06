"""iPXE: the ROM's old one, and a new one on UEFI that asks for autoexec.ipxe before it asks DHCP."""

from __future__ import annotations

from tests.e2e.marks import MARKS, PATIENCE_S
from tests.e2e.policy.site import CONSOLE, Site, linux, runs_linux
from tests.support.qemu import powered

pytestmark = MARKS


def test_rom_boots_the_bundle_and_reports_that_the_work_is_done(site: Site) -> None:
    machine = site.machine("rom", "bios")
    site.order(machine, linux("sign=rom"))
    with powered(machine) as console:
        text = runs_linux(console, "sign=rom")
    assert f"/boot/{machine.mac.replace(':', '-')}.ipxe... ok" in text
    assert "/files/vmlinuz... ok" in text
    assert f"{site.url}/boot/done/" in text
    assert site.work_ended(machine)


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
    assert "pbserv: chosen in the menu: rom linux" in text


def test_autoexec_is_asked_for_and_leads_to_the_bundle(site: Site) -> None:
    """The loader lies in a folder: this iPXE (1.21.1, Debian 13) asks for the script at the top all the same."""
    machine = site.machine("autoexec", "uefi")
    site.device(machine, linux("sign=autoexec"), loader="in/a/folder/snponly.efi")
    with powered(machine) as console:
        text = runs_linux(console, "sign=autoexec")
    assert "NBP filename is in/a/folder/snponly.efi" in text
    assert "autoexec.ipxe... ok" in text
    assert site.sent(machine, "autoexec.ipxe")
    assert "boot.ipxe" not in text  # which DHCP would have named: iPXE did not have to ask it again


def test_unified_kernel_image_over_http(site: Site) -> None:
    """systemd's stub with Debian's kernel in it. What iPXE hands over takes the place of the image's own arguments,
    even if that is nothing but the file's name."""
    machine = site.machine("uki", "uefi")
    site.device(machine, {"kind": "efi", "file": "rescue.efi", "arguments": f"{CONSOLE} sign=uki"})
    with powered(machine) as console:
        text = runs_linux(console, "sign=uki")
    assert "/files/rescue.efi... ok" in text
    assert "sign=within" not in text


def test_memory_test_of_the_rom(site: Site) -> None:
    machine = site.machine("memtest", "bios", screen=True)
    site.device(machine, {"kind": "memtest", "arguments": "console=ttyS0,115200"})
    with powered(machine) as console:
        console.wait_for("Memtest86+", timeout_s=PATIENCE_S)
        assert "/files/memtest86+x64.bin..." in console.text
