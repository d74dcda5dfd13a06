"""GRUB on UEFI: an image with the server's address in it, which looks for the configuration of its MAC address."""

from __future__ import annotations

from tests.e2e.marks import MARKS
from tests.e2e.policy.site import OWN_DISK, Site, linux, runs_linux
from tests.support.qemu import powered

pytestmark = MARKS


def test_configuration_of_its_mac_boots_the_bundle(site: Site) -> None:
    machine = site.machine("grub", "uefi")
    site.device(machine, linux("sign=grub"), loader="own-grub.efi")
    with powered(machine) as console:
        text = runs_linux(console, "sign=grub")
    assert "NBP filename is own-grub.efi" in text
    asked = f"boot/grub/grub.cfg-01-{machine.mac.replace(':', '-')}"
    assert site.server.log_lines("tftp", asked, "result=completed")


def test_configuration_that_says_local_disk_leaves_to_it(site: Site) -> None:
    machine = site.machine("grub-local", "uefi", disks=[site.disk("grub-local", "uefi")])
    # The offer itself would say so already (ADR 6): here the menu's item does, as a person would choose it.
    menu = {"items": [{"name": "local", "title": "Local disk", "action": "local"}], "timeout_s": 1}
    site.apply({
        "menu": {"leaves": menu},
        "device": {machine.mac: {"state": "known", "loader": "own-grub.efi", "menu": "leaves"}},
    })  # fmt: skip
    machine.set_up_firmware()
    with powered(machine) as console:
        console.wait_for(OWN_DISK, timeout_s=60)
