"""The boot loaders that `loaders install` knows: file, Debian package, whom it serves. Pure data.

One rule: what a loader needs beside itself stands here, so that a set is never half there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Loader:
    """A file in TFTPDirectory and where it comes from.

    ``path`` lies in the package (``new name | old name``), ``architecture`` is Debian's word for the package's own.
    ``needs``: files that it asks for by name. ``suite``: the oldest release of Debian whose package has the file;
    empty is any.
    """

    name: str
    package: str
    path: str
    serves: str
    role: str
    architecture: str = "amd64"
    needs: tuple[str, ...] = ()
    suite: str = ""


_BIOS, _X64, _IA32, _ARM64 = "BIOS", "UEFI x64", "UEFI IA32", "UEFI arm64"
_IPXE = "usr/lib/ipxe/"
_MODULES = "usr/lib/syslinux/modules/bios/"


def _module(name: str, role: str, *needs: str) -> Loader:
    return Loader(name, "syslinux-common", _MODULES + name, _BIOS, role, needs=needs)


# The name of a set installs all of it.
SETS: Final[dict[str, tuple[Loader, ...]]] = {
    "ipxe": (
        Loader("undionly.kpxe", "ipxe", _IPXE + "undionly.kpxe", _BIOS, "iPXE over the card's own driver"),
        Loader("snponly.efi", "ipxe", _IPXE + "snponly.efi", _X64, "iPXE over the firmware's driver"),
        Loader("ipxe.efi", "ipxe", _IPXE + "ipxe.efi", _X64, "iPXE with drivers of its own, where snponly.efi fails"),
    ),
    "ipxe-arm64": (
        Loader("ipxe-arm64.efi", "ipxe", _IPXE + "ipxe-arm64.efi", _ARM64, "iPXE", suite="trixie"),
    ),
    "ipxe-kernel": (
        Loader("ipxe.lkrn", "ipxe", _IPXE + "ipxe.lkrn", _BIOS, "iPXE as a kernel, which GRUB on BIOS starts"),
    ),
    "pxelinux": (
        Loader("pxelinux.0", "pxelinux", "usr/lib/PXELINUX/pxelinux.0", _BIOS, "PXELINUX, files by TFTP",
               needs=("ldlinux.c32",)),
        Loader("lpxelinux.0", "pxelinux", "usr/lib/PXELINUX/lpxelinux.0", _BIOS, "PXELINUX, by TFTP and HTTP",
               needs=("ldlinux.c32",)),
        _module("ldlinux.c32", "PXELINUX itself"),
        _module("libcom32.c32", "PXELINUX library"),
        _module("libutil.c32", "PXELINUX library"),
        _module("menu.c32", "PXELINUX text menu", "libutil.c32"),
        _module("vesamenu.c32", "PXELINUX graphic menu", "libcom32.c32", "libutil.c32"),
        _module("chain.c32", "boots a disk or a partition", "libcom32.c32", "libutil.c32"),
        _module("mboot.c32", "boots Multiboot kernels", "libcom32.c32"),
        _module("pxechn.c32", "chains to another boot file", "libcom32.c32"),
        _module("reboot.c32", "restarts", "libcom32.c32"),
        _module("poweroff.c32", "powers off"),
        Loader("memdisk", "syslinux-common", "usr/lib/syslinux/memdisk", _BIOS, "boots a disk image from memory"),
    ),
    "shim": (
        Loader("shimx64.efi", "shim-signed", "usr/lib/shim/shimx64.efi.signed", _X64,
               "Secure Boot: signed by Microsoft, loads grubx64.efi", needs=("grubx64.efi",)),
        Loader("grubx64.efi", "grub-efi-amd64-signed", "usr/lib/grub/x86_64-efi-signed/grubnetx64.efi.signed", _X64,
               "GRUB, signed by Debian; asks for /grub/grub.cfg"),
        Loader("mmx64.efi", "shim-helpers-amd64-signed", "usr/lib/shim/mmx64.efi.signed", _X64,
               "enrolls keys of your own (MokManager)"),
    ),
    "shim-arm64": (
        Loader("shimaa64.efi", "shim-signed", "usr/lib/shim/shimaa64.efi.signed", _ARM64,
               "Secure Boot: signed by Microsoft, loads grubaa64.efi", "arm64", ("grubaa64.efi",)),
        Loader("grubaa64.efi", "grub-efi-arm64-signed", "usr/lib/grub/arm64-efi-signed/grubnetaa64.efi.signed",
               _ARM64, "GRUB, signed by Debian; asks for /grub/grub.cfg", "arm64"),
        Loader("mmaa64.efi", "shim-helpers-arm64-signed", "usr/lib/shim/mmaa64.efi.signed", _ARM64,
               "enrolls keys of your own (MokManager)", "arm64"),
    ),
    "grub-ia32": (
        Loader("grubia32.efi", "grub-efi-ia32-unsigned | grub-efi-ia32-bin",
               "usr/lib/grub/i386-efi/monolithic/grubnetia32.efi", _IA32, "GRUB; asks for /grub/grub.cfg"),
    ),
    "memtest": (
        Loader("memtest86+x64.bin", "memtest86+", "boot/memtest86+x64.bin", _BIOS, "memory test, as a Linux kernel"),
        Loader("memtest86+x64.efi", "memtest86+", "boot/memtest86+x64.efi", _X64, "memory test"),
        Loader("memtest86+ia32.efi", "memtest86+", "boot/memtest86+ia32.efi", _IA32, "memory test"),
    ),
}  # fmt: skip
DEFAULT: Final = ("ipxe",)
BY_NAME: Final = {loader.name: loader for members in SETS.values() for loader in members}
# Not in any Debian package that can be named: from a file with `--from`.
ELSEWHERE: Final = {
    "wimboot": "UEFI and BIOS: boots WinPE images; github.com/ipxe/wimboot/releases",
    "snponly-shim.efi": "UEFI x64: Microsoft's signature for the iPXE beside it; ipxeboot.tar.gz of iPXE 2",
}


class UnknownLoader(ValueError):
    """No set and no loader of that name; the message lists what there is."""


def wanted(names: Sequence[str]) -> list[Loader]:
    """The loaders of sets and names, each once, in the table's order; with nothing named, the default set.

    A named loader brings along what it needs. Raises UnknownLoader.
    """
    chosen: set[str] = set()
    for name in names or DEFAULT:
        if name == "all":
            chosen |= BY_NAME.keys()
        elif name in SETS:
            chosen |= {loader.name for loader in SETS[name]}
        elif name in BY_NAME:
            chosen |= _with_needs(name)
        else:
            hint = f": {ELSEWHERE[name]}; install it with --from" if name in ELSEWHERE else ""
            raise UnknownLoader(f"{name}: no package of Debian is known for it{hint or f'; known: {_known()}'}")
    return [loader for name, loader in BY_NAME.items() if name in chosen]


def _with_needs(name: str) -> set[str]:
    return {name}.union(*(_with_needs(other) for other in BY_NAME[name].needs))


def _known() -> str:
    return ", ".join(("all", *SETS, *BY_NAME))
