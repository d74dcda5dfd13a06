"""Secure Boot: the firmware has Microsoft's keys and refuses what nobody signed; shim, GRUB and kernel are Debian's."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.e2e.conftest import CACHE, note
from tests.e2e.marks import MARKS, PATIENCE_S
from tests.e2e.policy.site import DISK_BY_FIRMWARE, NOTHING_BOOTS, OWN_DISK, Site, linux, runs_linux
from tests.support.netns import run
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
    assert site.never_sent(machine, "vmlinuz")


def test_menu_that_says_local_disk_starts_the_signed_system_there(site: Site) -> None:
    """The disk is as Debian's installer leaves it: shim and GRUB in its folder, both signed."""
    disk = debian_disk(site.directory / "secure-local.img", site.server.tftp / "shimx64.efi")
    machine = site.machine("secure-local", "uefi", secure_boot=True, disks=[disk])
    menu = {"items": [{"name": "local", "title": "Local disk", "action": "local"}], "timeout_s": 1}
    site.apply({
        "menu": {"secure leaves": menu},
        "device": {machine.mac: {"state": "known", "loader": "shimx64.efi", "menu": "secure leaves"}},
    })  # fmt: skip
    with powered(machine) as console:
        console.wait_for(OWN_DISK, timeout_s=PATIENCE_S, never=NOTHING_BOOTS)
        assert not DISK_BY_FIRMWARE.search(console.text)


def debian_disk(path: Path, shim: Path) -> Path:
    """A disk at ``path`` that boots as an installed Debian does, as far as its GRUB, which says who it is."""
    cache = CACHE / "signed"
    grub = cache / "usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed"
    if not grub.exists():
        cache.mkdir(parents=True, exist_ok=True)
        words = ["apt-get", "download", "-q", "grub-efi-amd64-signed"]
        subprocess.run(words, cwd=cache, check=True, capture_output=True, timeout=300)
        run("dpkg", "-x", next(cache.glob("*.deb")), cache)
    config = path.with_suffix(".cfg")
    config.write_text(f"echo '{OWN_DISK}'\nsleep 60\n")
    folder = "EFI/debian"
    return efi_disk(path, {f"{folder}/shimx64.efi": shim, f"{folder}/grubx64.efi": grub, f"{folder}/grub.cfg": config})


def test_imaging_client_runs_under_secure_boot(site: Site) -> None:
    machine = site.machine("secure-client", "uefi", secure_boot=True)
    site.device(machine, {"kind": "maintenance"}, loader="shimx64.efi")
    with powered(machine) as console:
        note("Secure Boot: power-on to the imaging client's first line, s",
             console.wait_for("pbclient: ", timeout_s=PATIENCE_S))  # fmt: skip
        assert "UEFI Secure Boot is enabled" in console.text
    assert site.sent(machine, "client/vmlinuz")


def test_unsigned_loader_is_refused(site: Site) -> None:
    machine = site.machine("unsigned", "uefi", secure_boot=True)
    site.device(machine, linux("sign=unsigned"), loader="snponly.efi")
    with powered(machine) as console:
        console.wait_for(REFUSED, timeout_s=PATIENCE_S)
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
        console.wait_for("bad shim signature", timeout_s=PATIENCE_S, never=("SIGNPOST linux",))
