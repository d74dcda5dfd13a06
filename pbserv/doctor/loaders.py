"""The boot files: are they there, readable, and made for the firmware that will get them? Pure.

What is missing is `hostcheck`'s to say; its problems are findings here.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator, Mapping
from typing import Final

from pbserv.doctor.facts import Facts, Loader
from pbserv.doctor.finding import Finding, error, note, warning
from pbserv.doctor.rights import may

# UEFI specification 2.10, section 2.1.1: the Machine field of a PE image, by the key whose clients load it.
MACHINES: Final[Mapping[str, int]] = {
    "x64": 0x8664, "ia32": 0x014C, "arm32": 0x01C2, "arm64": 0xAA64, "riscv32": 0x5032, "riscv64": 0x5064,
    "riscv128": 0x5128, "loongarch32": 0x6232, "loongarch64": 0x6264, "itanium": 0x0200,
}  # fmt: skip
_EBC: Final = 0x0EBC  # EFI byte code runs on every architecture that has an interpreter
NAMES: Final = {machine: name for name, machine in MACHINES.items()} | {_EBC: "EBC"}
# A BIOS loads its boot file into what is left of the 640 KiB of base memory (PXE-E79 when it does not fit).
BASE_MEMORY_BYTES: Final = 576 << 10


def machine_of(head: bytes) -> int | None:
    """The Machine field of a PE image; None for everything else. ``head``: at least its first kilobyte."""
    if head[:2] != b"MZ" or len(head) < 0x40:
        return None
    start = int.from_bytes(head[0x3C:0x40], "little")
    if head[start : start + 4] != b"PE\0\0" or len(head) < start + 6:
        return None
    return int.from_bytes(head[start + 4 : start + 6], "little")


def broken_loaders(facts: Facts) -> Iterator[Finding]:
    """Empty, unreadable, or for another machine."""
    for loader in facts.loaders:
        if loader.size == 0:
            yield error(f"{loader.key}: {loader.path} is empty", "0 bytes", "pbserv loaders install, or copy it again")
        elif not _readable(facts, loader):
            place = loader.places[-1]
            yield error(
                f"{loader.key}: the user {facts.rights.user} may not read {loader.path}",
                f"mode {stat.S_IMODE(place.mode):04o}, owner {place.uid}:{place.gid}",
                f"chmod o+r {loader.path}",
            )
        elif loader.head is not None:
            yield from _misfits(loader, loader.head)


def _readable(facts: Facts, loader: Loader) -> bool:
    if not loader.places or facts.rights.user_uid is None:
        return True
    return may(loader.places[-1], facts.rights, read=True) is not False


def _misfits(loader: Loader, head: bytes) -> Iterator[Finding]:
    """The wrong kind of program for the firmware that the key names."""
    by_http = loader.key.lower().startswith("nbphttp")
    wanted = loader.key.lower().removeprefix("nbphttp").removeprefix("nbp")
    machine = machine_of(head)
    if wanted == "x86":
        if machine is not None:
            yield _misfit(loader, machine, f"{loader.key} is for BIOS clients, but {loader.name} is a UEFI image")
        elif loader.size > BASE_MEMORY_BYTES and not by_http:
            yield warning(
                f"{loader.key}: {loader.name} may not fit into the base memory of a BIOS (PXE-E79)",
                f"{loader.path}: {loader.size} bytes",
                "load it from a small loader, such as undionly.kpxe",
            )
    elif wanted not in MACHINES:
        return
    elif machine is None:
        if not by_http:  # UEFI HTTP Boot takes disk images too
            yield _misfit(loader, None, f"{loader.key} is for UEFI clients, but {loader.name} is no UEFI image")
    elif machine not in (MACHINES[wanted], _EBC):
        yield _misfit(loader, machine, f"{loader.key}: {loader.name} is for {_name(machine)}, not for {wanted}")


def _misfit(loader: Loader, machine: int | None, what: str) -> Finding:
    evidence = f"{loader.path}: " + (f"UEFI image for {_name(machine)}" if machine is not None else "no UEFI image")
    remedy = f"set {loader.key} to the right file in proxydhcp.conf, then: pbserv force-reload"
    return error(what, evidence, remedy)


def _name(machine: int) -> str:
    return NAMES.get(machine, f"machine {machine:#06x}")


def no_boot_files(facts: Facts) -> Iterator[Finding]:
    """Neither of the two kinds of firmware that nearly all machines have gets anything."""
    conf = facts.settings.proxydhcp
    if facts.wants("proxydhcp") and not conf.nbp_x64 and not conf.nbp_x86:
        yield note("neither BIOS nor UEFI x64 clients have a boot file", "NBPx86 and NBPx64 are empty")
