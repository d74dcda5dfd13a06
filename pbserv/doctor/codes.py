"""What the error codes on a machine's screen mean, what usually causes them, and how to find out which. Pure.

Sources: for BIOS ROMs the list that Intel's boot agent documents (republished by Broadcom, KB 152549, and others); for
UEFI the messages of EDK2, PxeBcBoot.c; for iPXE the layout of its error numbers, errno.h. Firmware of other makers
reuses the numbers, so a code may have two meanings: both are told.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from pbserv.doctor import ipxe_codes
from pbserv.doctor.code_values import Cause, Code
from pbserv.doctor.rom_codes import ROM_CODES
from pbserv.doctor.uefi_codes import UEFI_CODES

CODES: Final[tuple[Code, ...]] = (*UEFI_CODES, *ROM_CODES)
_SPELLING: Final = re.compile(r"(?:PXE)?[-_ ]?([EMT])?[-_ ]?([0-9A-F]{1,2})", re.IGNORECASE)
_IPXE: Final = re.compile(r"(?:https?://)?(?:ipxe\.org/)?(?:err/)?([0-9a-f]{8})", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Explanation:
    """One meaning of a code, ready to be shown."""

    title: str
    meaning: str
    causes: tuple[Cause, ...]


def explain(text: str) -> tuple[Explanation, ...]:
    """Every meaning of a code in any spelling (``PXE-E18``, ``e18``, ``18``, ``ipxe.org/2d0c618e``); or ()."""
    wanted = text.strip().rstrip(":.")
    if number := _IPXE.fullmatch(wanted):
        found = ipxe_codes.explain(int(number[1], 16))
        return (Explanation(f"iPXE error {number[1].lower()}: {found.says}", found.meaning, found.causes),)
    code = canonical(wanted)
    return tuple(
        Explanation(f"PXE-{entry.code} ({entry.firmware}): {entry.says}", entry.meaning, entry.causes)
        for entry in CODES
        if entry.code == code
    )


def canonical(text: str) -> str:
    """``E18`` for every spelling of it; empty for what is no code. EA0 and EC1 are hexadecimal like the others."""
    spelt = _SPELLING.fullmatch(text.strip())
    if spelt is None:
        return ""
    letter, digits = (spelt[1] or "E").upper(), spelt[2].upper().rjust(2, "0")
    return letter + digits


def known() -> Iterator[tuple[str, str]]:
    """Every code with its message, for the list."""
    for entry in sorted(CODES, key=lambda entry: (entry.code[0], entry.code)):
        yield f"PXE-{entry.code}", f"{entry.says} ({entry.firmware})"
    for number, kind in ipxe_codes.KINDS.items():
        yield f"iPXE {number:02x}......", kind.says
