"""What rendering needs besides the ruling, and how values are written in each loader's language. Pure.

One rule: a value is cleaned for the language it goes into, at the place where it is put into it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from pbserv.types import ClientArch

_WORD: Final = re.compile(r'(?:"[^"]*"|[^\s"]|")+')
_GRUB_SIGNS: Final = dict.fromkeys(map(ord, "'\"\\$`;|&<>{}#"))
_PLAIN_GRUB: Final = re.compile(r"[A-Za-z0-9_./:,=@%+-]+")
_NO_EFI: Final = frozenset((0, 1, 3, 4, 5, 12, 13, 14, 20, 21, 22, 23, 24, 31, 32, 33, 34, 35, 36, 41))
"""Architecture codes of firmware that is not UEFI (BIOS, U-Boot, Open Firmware, ...)."""


@dataclass(frozen=True, slots=True)
class BootFacts:
    """``mac``: the address that boots, ``aa:bb:cc:dd:ee:ff``. ``url``: of the server that has the files and the work,
    without a slash at its end. ``server``: the address over which TFTP answers this device. ``session``: the token of
    this boot, put into each path; empty: none. ``token``: the work's own, empty without work. ``arguments``: the
    imaging client's kernel arguments of the configuration."""

    mac: str
    name: str = ""
    uuid: str = ""
    serial: str = ""
    asset: str = ""
    arch: ClientArch | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    url: str = ""
    server: str = ""
    session: str = ""
    token: str = ""
    arguments: str = ""

    @property
    def hyphens(self) -> str:
        """``aa-bb-cc-dd-ee-ff``, as file names have it."""
        return self.mac.replace(":", "-")


def one_line(text: str) -> str:
    """Without line ends and other characters that do not show; runs of spaces are one."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def ipxe_text(text: str) -> str:
    """For a line of an iPXE script, which expands ``${...}``, ends a command at the words ``||``, ``&&`` and ``;``, and
    takes a word that begins with ``#`` for a comment. Within a word these signs mean nothing: URLs have some."""
    words = (word.lstrip("#") for word in one_line(text.replace("$", "")).split(" "))
    return " ".join(word for word in words if word.strip(";|&"))


def ipxe_name(text: str) -> str:
    """A single word of an iPXE script."""
    return ipxe_text(text).replace(" ", "_")


def grub_text(text: str) -> str:
    """For single quotes and for comments of a GRUB script: without what means anything to GRUB."""
    return one_line(text.translate(_GRUB_SIGNS))


def grub_quoted(text: str) -> str:
    """One word of a GRUB script: in single quotes, where GRUB expands nothing."""
    return "'" + one_line(text).replace("'", "'\\''") + "'"


def grub_words(text: str) -> str:
    """Kernel arguments as words of a GRUB script. What stands in double quotes stays one word; GRUB quotes it anew."""
    words = (word.replace('"', "") if " " in word else word for word in words_of(text))
    return " ".join(word if _PLAIN_GRUB.fullmatch(word) else grub_quoted(word) for word in words)


def words_of(text: str) -> list[str]:
    """Kernel arguments one by one; spaces inside of double quotes separate nothing."""
    return [found[0] for found in _WORD.finditer(one_line(text))]


def is_efi(arch: ClientArch | None) -> bool:
    """Whether the device's firmware is UEFI; BIOS when nothing is known."""
    return arch is not None and int(arch) not in _NO_EFI
