"""Disks, an initramfs and an EFI program that only say that they were booted: words on the serial console, the end.

For tests that ask whether and when a machine reaches its own disk, where a whole guest system would only cost time.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from tests.support.disks import MIB, Firmware, blank_disk, packed, partitions
from tests.support.netns import run

_BYTES = 48 * MIB
_PAGE = 4096
_ESP = "label: gpt\nstart=1MiB, size=40MiB, type=U, name=esp\n"
# SeaBIOS loads the sector to 0000:7c00 and jumps there: each byte of the text goes to COM1 as soon as that takes one.
_PRINT_TO_COM1 = bytes.fromhex(
    "fa31c08ed8be227c"  # cli; ds = 0; si = the text behind this code
    "ac84c0741288c4bafd03eca82074fb"  # next byte, 0 ends; wait for an empty transmitter (line status, bit 5)
    "88e0baf803eeebe9"  # send it, go on
    "f4ebfd"  # halt for ever
)
_GRUB_CFG = "serial --unit=0 --speed=115200\nterminal_output serial\necho '{words}'\nhalt\n"
_GRUB_MODULES = ("normal", "serial", "terminal", "echo", "halt", "part_gpt", "fat")
LINUX = "SIGNPOST linux with:"
LINUX_END = "SIGNPOST linux ends"
_INIT = f"""#!/bin/busybox sh
B=/bin/busybox
$B mkdir -p /proc /dev
$B mount -t proc proc /proc; $B mount -t devtmpfs dev /dev
exec >/dev/console 2>&1
$B dmesg | $B grep -iE 'secure boot|locked down'
echo "{LINUX} $($B cat /proc/cmdline)"
echo "{LINUX_END}"
$B poweroff -f
"""


def signpost_initramfs(path: Path, busybox: Path) -> Path:
    """An initramfs at ``path`` that prints what the kernel said of Secure Boot and its arguments, and powers off."""
    tree = path.with_suffix(".tree")
    (tree / "bin").mkdir(parents=True)
    shutil.copy2(busybox, tree / "bin/busybox")
    (tree / "init").write_text(_INIT)
    (tree / "init").chmod(0o755)
    path.write_bytes(packed(tree))
    shutil.rmtree(tree)
    return path


def signpost_disk(path: Path, firmware: Firmware, words: str) -> Path:
    """A disk at ``path`` that prints ``words``, which have no quotes, when ``firmware`` boots it."""
    if firmware == "bios":
        blank_disk(path, _BYTES)
        sector = (_PRINT_TO_COM1 + f"\r\n{words}\r\n\0".encode("ascii")).ljust(510, b"\0") + b"\x55\xaa"
        with path.open("r+b") as disk:
            disk.write(sector)
        return path
    early, loader = path.with_suffix(".cfg"), path.with_suffix(".efi")
    early.write_text(_GRUB_CFG.format(words=words))
    run("grub-mkimage", "-O", "x86_64-efi", "-o", loader, "-p", "/", "-c", early, *_GRUB_MODULES)
    efi_disk(path, {"EFI/BOOT/BOOTX64.EFI": loader})
    for scratch in (early, loader):
        scratch.unlink()
    return path


def efi_disk(path: Path, files: Mapping[str, Path]) -> Path:
    """A disk at ``path`` with an EFI system partition that holds ``files``, by their names on it."""
    blank_disk(path, _BYTES)
    subprocess.run(["sfdisk", "--quiet", str(path)], input=_ESP, text=True, check=True)
    esp = f"{path}@@{partitions(path)[0].start_bytes}"
    run("mformat", "-i", esp, "-T", str(40 * MIB // 512), "-h", "64", "-s", "32", "-F", "::")
    parents = {str(parent) for name in files for parent in Path(name).parents if parent.name}
    for directory in sorted(parents):
        run("mmd", "-i", esp, f"::/{directory}")
    for name, source in files.items():
        run("mcopy", "-i", esp, source, f"::/{name}")
    return path


def unified_kernel(path: Path, stub: Path, **sections: Path) -> Path:
    """A unified kernel image at ``path``: systemd's ``stub`` with the files of ``sections`` (linux, initrd, ...)."""
    found = re.findall(r"^ +\d+ \.\S+ +([0-9a-f]{8}) +([0-9a-f]{16}) ", run("objdump", "-h", stub), re.MULTILINE)
    at = max(int(start, 16) + int(size, 16) for size, start in found)
    words: list[str] = []
    for name, content in sections.items():
        at = (at + _PAGE - 1) // _PAGE * _PAGE
        words += ["--add-section", f".{name}={content}", "--change-section-vma", f".{name}={at:#x}"]
        at += content.stat().st_size
    run("objcopy", *words, stub, path)
    return path
