"""Values that every service shares: addresses, architectures, instants and the answer of the policy. Pure."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import NamedTuple, NewType

Instant = NewType("Instant", float)
"""Seconds on the monotonic clock. Cores get it as an argument and never ask for it."""


@dataclass(frozen=True, slots=True, order=True)
class MacAddress:
    """Six bytes; prints as ``aa:bb:cc:dd:ee:ff``."""

    octets: bytes

    def __post_init__(self) -> None:
        if len(self.octets) != 6:
            raise ValueError(f"a MAC address has 6 bytes, not {len(self.octets)}")

    @classmethod
    def parse(cls, text: str) -> MacAddress:
        """Accept ``:``, ``-`` or ``.`` between the digits, or nothing; raises ValueError."""
        digits = text.strip().replace(":", "").replace("-", "").replace(".", "")
        if len(digits) != 12:
            raise ValueError(f"{text!r} is not a MAC address; write it as aa:bb:cc:dd:ee:ff")
        try:
            return cls(bytes.fromhex(digits))
        except ValueError:
            raise ValueError(f"{text!r} is not a MAC address; write it as aa:bb:cc:dd:ee:ff") from None

    def __str__(self) -> str:
        return self.octets.hex(":")


class ClientArch(int):
    """Processor architecture type of DHCP option 93 (IANA registry, RFC 4578 2.1); unknown codes are legal."""

    BIOS = 0
    EFI_ITANIUM = 2
    EFI_IA32 = 6
    EFI_X64 = 7
    EFI_EBC = 9  # RFC 4578 errata of 2016: clients use 7 and 9 both for x64
    EFI_ARM32 = 10
    EFI_ARM64 = 11
    HTTP_IA32 = 15
    HTTP_X64 = 16
    HTTP_EBC = 17
    HTTP_ARM32 = 18
    HTTP_ARM64 = 19
    HTTP_BIOS = 20
    EFI_RISCV32 = 25
    HTTP_RISCV32 = 26
    EFI_RISCV64 = 27
    HTTP_RISCV64 = 28
    EFI_RISCV128 = 29
    HTTP_RISCV128 = 30
    EFI_LOONGARCH32 = 37
    HTTP_LOONGARCH32 = 38
    EFI_LOONGARCH64 = 39
    HTTP_LOONGARCH64 = 40
    RPIBOOT = 41

    def __str__(self) -> str:
        return _ARCH_NAMES.get(int(self), f"arch {int(self)}")

    __repr__ = __str__


_ARCH_NAMES = {
    0: "BIOS", 1: "NEC PC98", 2: "EFI Itanium", 3: "DEC Alpha", 4: "Arc x86", 5: "Intel Lean Client", 6: "UEFI IA32",
    7: "UEFI x64", 8: "Xscale", 9: "UEFI x64 (EBC)", 10: "UEFI ARM32", 11: "UEFI ARM64", 12: "PowerPC Open Firmware",
    13: "PowerPC ePAPR", 14: "POWER OPAL v3", 15: "UEFI IA32 HTTP", 16: "UEFI x64 HTTP", 17: "UEFI x64 (EBC) HTTP",
    18: "UEFI ARM32 HTTP", 19: "UEFI ARM64 HTTP", 20: "BIOS HTTP", 21: "ARM32 U-Boot", 22: "ARM64 U-Boot",
    23: "ARM32 U-Boot HTTP", 24: "ARM64 U-Boot HTTP", 25: "UEFI RISC-V32", 26: "UEFI RISC-V32 HTTP",
    27: "UEFI RISC-V64", 28: "UEFI RISC-V64 HTTP", 29: "UEFI RISC-V128", 30: "UEFI RISC-V128 HTTP",
    31: "s390 basic", 32: "s390 extended", 33: "MIPS32", 34: "MIPS64", 35: "Sunway32", 36: "Sunway64",
    37: "UEFI LoongArch32", 38: "UEFI LoongArch32 HTTP", 39: "UEFI LoongArch64", 40: "UEFI LoongArch64 HTTP",
    41: "Raspberry Pi",
}  # fmt: skip


class Verdict(enum.Enum):
    """What a device gets. ``silent`` and ``local`` differ: silent lets other servers act, local ends the boot."""

    SILENT = "silent"
    LOCAL = "local"
    LOADER = "loader"
    MENU = "menu"
    BOOT = "boot"


@dataclass(frozen=True, slots=True)
class Decision:
    """The policy's answer for one device, with the steps that led to it (newest last).

    ``later``: another server is being asked; the same question has its answer within two seconds. ``file``: the boot
    file that this device gets instead of its architecture's, below TFTPDirectory.
    """

    verdict: Verdict
    reason: str
    steps: tuple[str, ...] = ()
    work: int | None = None
    bundle: str = ""
    file: str = ""
    later: bool = False


class Sighting(NamedTuple):  # one per DHCP packet: a frozen dataclass takes three times as long to make
    """What a preboot client told about itself; only ``mac`` is always known."""

    mac: MacAddress
    uuid: str | None = None
    arch: ClientArch | None = None
    via: str = ""
    address: str = ""
    details: tuple[tuple[str, str], ...] = ()
