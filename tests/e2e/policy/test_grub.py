"""GRUB on UEFI: an image with the server's address in it, which looks for the configuration of its MAC address."""

from __future__ import annotations

from tests.e2e.marks import MARKS, PATIENCE_S
from tests.e2e.policy.site import DISK_BY_FIRMWARE, NOTHING_BOOTS, OWN_DISK, Site, linux, runs_linux
from tests.support.qemu import powered

pytestmark = MARKS


def test_configuration_of_its_mac_boots_the_bundle_and_reports_that_the_work_is_done(site: Site) -> None:
    machine = site.machine("grub", "uefi")
    site.order(machine, linux("sign=grub"), loader="own-grub.efi")
    with powered(machine) as console:
        text = runs_linux(console, "sign=grub")
    assert "NBP filename is own-grub.efi" in text
    assert "Initramfs unpacking failed" not in text  # the report is fetched as one of its files
    assert site.sent(machine, f"boot/grub/grub.cfg-01-{machine.mac.replace(':', '-')}")
    assert site.work_ended(machine)


def test_menu_counts_down_and_boots_its_item(site: Site) -> None:
    """Kernel and initramfs come over HTTP: GRUB reads it too."""
    machine = site.machine("grub-menu", "uefi")
    files = f"{site.url}/files"
    bundle = linux("sign=menu", kernel=f"{files}/vmlinuz", initrd=[f"{files}/initrd.img"])
    items = [{"name": "local", "title": "Local disk", "action": "local"},
             {"name": "tiny", "title": "A small Linux", "bundle": "grub linux", "arguments": "sign=item"}]  # fmt: skip
    site.apply({
        "bundle": {"grub linux": bundle},
        "menu": {"of grub": {"items": items, "timeout_s": 2, "default": "tiny"}},
        "device": {machine.mac: {"state": "known", "menu": "of grub", "loader": "own-grub.efi"}},
    })  # fmt: skip
    with powered(machine) as console:
        text = runs_linux(console, "sign=menu sign=item")
    assert "A small Linux" in text
    assert "Local disk" in text
    assert site.never_sent(machine, "vmlinuz")


def test_item_that_needs_work_waits_until_it_is_made(site: Site) -> None:
    machine = site.machine("grub-waits", "uefi")
    items = [{"name": "shell", "title": "A shell", "action": "maintenance"}]
    site.apply({
        "menu": {"grub waits": {"items": items, "timeout_s": 1, "default": "shell"}},
        "device": {machine.mac: {"state": "known", "menu": "grub waits", "loader": "own-grub.efi"}},
    })  # fmt: skip
    with powered(machine) as console:
        console.wait_for("pbserv: work ", timeout_s=PATIENCE_S, never=NOTHING_BOOTS)
        assert "pbserv: the work is being made" in console.text


def test_menu_that_says_local_disk_starts_the_disks_own_loader(site: Site) -> None:
    machine = site.machine("grub-local", "uefi", disks=[site.disk("grub-local", "uefi")])
    # The offer itself would say so already (ADR 6): here the menu's item does, as a person would choose it.
    menu = {"items": [{"name": "local", "title": "Local disk", "action": "local"}], "timeout_s": 1}
    site.apply({
        "menu": {"leaves": menu},
        "device": {machine.mac: {"state": "known", "loader": "own-grub.efi", "menu": "leaves"}},
    })  # fmt: skip
    with powered(machine) as console:
        console.wait_for(OWN_DISK, timeout_s=PATIENCE_S, never=("grub>",))
        assert not DISK_BY_FIRMWARE.search(console.text)


def test_item_that_does_nothing_goes_on_to_the_disk(site: Site) -> None:
    """GRUB cannot tell this firmware that it failed: the firmware would open its boot manager and wait there."""
    machine = site.machine("grub-nothing", "uefi", disks=[site.disk("grub-nothing", "uefi")])
    items = [{"name": "no", "title": "Nothing", "bundle": "nothing at all"}]
    site.apply({
        "bundle": {"nothing at all": {"kind": "nothing"}},
        "menu": {"nothing": {"items": items, "timeout_s": 1}},
        "device": {machine.mac: {"state": "known", "loader": "own-grub.efi", "menu": "nothing"}},
    })  # fmt: skip
    with powered(machine) as console:
        console.wait_for(OWN_DISK, timeout_s=PATIENCE_S, never=("grub>", "UiApp"))


def test_memory_test(site: Site) -> None:
    machine = site.machine("grub-memtest", "uefi", screen=True)
    site.device(machine, {"kind": "memtest", "arguments": "console=ttyS0,115200"}, loader="own-grub.efi")
    with powered(machine) as console:
        console.wait_for("Memtest86+", timeout_s=PATIENCE_S, never=NOTHING_BOOTS)
    assert site.sent(machine, "memtest86+x64.efi")


def test_what_it_cannot_do_is_left_to_ipxe(site: Site) -> None:
    """By Debian 13's GRUB 2.12, which lets the card go: after Debian 12's 2.06, iPXE finds none."""
    machine = site.machine("grub-ipxe", "uefi")
    script = "echo SIGNPOST script of {{ mac }}\nsleep 30\n"
    site.device(machine, {"kind": "ipxe", "script": script}, loader="shimx64.efi")
    with powered(machine) as console:
        console.wait_for(f"SIGNPOST script of {machine.mac}", timeout_s=PATIENCE_S, never=NOTHING_BOOTS)
    assert site.sent(machine, "snponly.efi")
