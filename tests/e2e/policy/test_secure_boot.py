"""Secure Boot: the firmware has Microsoft's keys and refuses what nobody signed; shim, GRUB and kernel are Debian's."""

from __future__ import annotations

from tests.e2e.conftest import note
from tests.e2e.marks import MARKS
from tests.e2e.policy.site import NOTHING_BOOTS, Site, linux, runs_linux
from tests.support.qemu import powered
from tests.support.signpost import efi_disk

pytestmark = MARKS
ENABLED = "secureboot: Secure boot enabled"
REFUSED = "Access Denied"


def test_shim_grub_and_kernel_of_debian_boot_the_bundle(site: Site) -> None:
    """Kernel and initramfs come over HTTP, and GRUB has shim verify the kernel all the same."""
    machine = site.machine("secure", "uefi", secure_boot=True)
    files = f"{site.url}/files"
    bundle = linux("sign=secure", kernel=f"{files}/vmlinuz", initrd=[f"{files}/initrd.img"])
    site.device(machine, bundle, loader="shimx64.efi")
    with powered(machine) as console:
        text = runs_linux(console, "sign=secure")
    assert ENABLED in text
    assert "locked down from EFI Secure Boot" in text
    assert "Fetching Netboot Image grubx64.efi" in text
    assert site.sent(machine, "grubx64.efi")
    assert site.sent(machine, "/grub/grub.cfg")
    assert not site.sent(machine, "vmlinuz")


def test_menu_that_says_local_disk_starts_what_is_signed_there(site: Site) -> None:
    """The disk's loader is Debian's kernel itself: it is a signed program of UEFI that says that it runs."""
    disk = efi_disk(site.directory / "secure-local.img", {"EFI/BOOT/BOOTX64.EFI": site.server.tftp / "vmlinuz"})
    machine = site.machine("secure-local", "uefi", secure_boot=True, disks=[disk])
    menu = {"items": [{"name": "local", "title": "Local disk", "action": "local"}], "timeout_s": 1}
    site.apply({
        "menu": {"secure leaves": menu},
        "device": {machine.mac: {"state": "known", "loader": "shimx64.efi", "menu": "secure leaves"}},
    })  # fmt: skip
    with powered(machine) as console:
        console.wait_for("EFI stub: UEFI Secure Boot is enabled", timeout_s=60, never=NOTHING_BOOTS)
        assert 'starting Boot0001 "UEFI Misc' not in console.text
    assert not site.sent(machine, "vmlinuz")


def test_imaging_client_runs_under_secure_boot(site: Site) -> None:
    machine = site.machine("secure-client", "uefi", secure_boot=True)
    site.device(machine, {"kind": "maintenance"}, loader="shimx64.efi")
    with powered(machine) as console:
        note("Secure Boot: power-on to the imaging client's first line, s",
             console.wait_for("pbclient: ", timeout_s=120))  # fmt: skip
        assert "UEFI Secure Boot is enabled" in console.text
    assert site.sent(machine, "client/vmlinuz")


def test_unsigned_loader_is_refused(site: Site) -> None:
    machine = site.machine("unsigned", "uefi", secure_boot=True)
    site.device(machine, linux("sign=unsigned"), loader="snponly.efi")
    with powered(machine) as console:
        console.wait_for(REFUSED, timeout_s=60)
        text = console.text
    assert "NBP filename is snponly.efi" in text
    assert "iPXE" not in text


def test_unsigned_kernel_is_refused_by_grub(site: Site) -> None:
    kernel = bytearray((site.server.tftp / "vmlinuz").read_bytes())
    kernel[len(kernel) // 2] ^= 1  # the signature no longer fits
    (site.server.tftp / "tampered").write_bytes(kernel)
    machine = site.machine("tampered", "uefi", secure_boot=True)
    site.device(machine, linux("sign=tampered", kernel="tampered"), loader="shimx64.efi")
    with powered(machine) as console:
        console.wait_for("bad shim signature", timeout_s=60, never=("SIGNPOST linux",))
