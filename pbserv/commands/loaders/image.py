"""What a boot file says of itself: whom it runs on, its version, whether it is signed. Pure.

One rule: nothing is guessed from the file's name.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from pbserv.doctor.loaders import NAMES, machine_of

_SIGNATURES: Final = 4  # index of the certificate table in a PE image's data directories
# SBAT (section .sbat of signed loaders): component,generation,vendor,package,version,url
_SBAT = re.compile(rb"^(shim|grub|ipxe)(\.[a-z0-9]+)?,\d+,[^,\n]*,[^,\n]*,([^,\n]{1,60}),", re.M)
_NAMES: Final = {b"shim": "shim", b"grub": "GRUB", b"ipxe": "iPXE"}
_WORDS: Final = (
    (re.compile(rb"(L?PXELINUX \d[\w. ]{1,20}?) *\d{8}"), b""),
    (re.compile(rb"(Memtest86\+ v\d[\w.]{1,12})"), b""),
    (re.compile(rb"(MEMDISK \d[\w.]{1,12})"), b""),
    (re.compile(rb"wimboot (v?\d[\w.+-]{1,24})"), b"wimboot "),
)
# iPXE has its version as a string of its own; only looked for in what says iPXE.
_IPXE = re.compile(rb"\0(\d+\.\d+\.\d+[\w.+~-]{0,60}) ?\0")


@dataclass(frozen=True, slots=True)
class Image:
    """``machine`` is empty for what is no UEFI image; ``version`` is empty where none was found.

    ``autoexec``: an iPXE that asks for autoexec.ipxe. ``proxy``: False for a GRUB that never reads a proxy's offer,
    and so does not find this server unless the DHCP server names it.
    """

    machine: str
    version: str
    signed: bool
    autoexec: bool
    proxy: bool


def inspect(data: bytes) -> Image:
    """Read a boot file; any bytes will do."""
    machine = machine_of(data[:4096])
    version = _version(data)
    grub = b"grub_efi_net_config" in data or b"net_default_server" in data
    return Image(
        machine=NAMES.get(machine, f"0x{machine:04x}") if machine is not None else "",
        version=version,
        signed=_signed(data),
        autoexec=b"autoexec.ipxe" in data,
        proxy=not grub or b"values from proxy offer" in data,
    )


def _version(data: bytes) -> str:
    said = [*_SBAT.finditer(data)]
    if said:
        line = next((match for match in said if match[2]), said[0])  # of the packager, where there is one
        return f"{_NAMES[line[1]]} {_text(line[3])}"
    for pattern, before in _WORDS:
        if match := pattern.search(data):
            return _text(before + match[1])
    match = _IPXE.search(data) if b"iPXE" in data else None
    return f"iPXE {_text(match[1])}" if match else ""


def _text(data: bytes) -> str:
    return data.decode("ascii", "replace").strip()


def _signed(data: bytes) -> bool:
    """Whether a PE image has a certificate table (PE/COFF specification, optional header)."""
    if machine_of(data[:4096]) is None:
        return False
    optional = int.from_bytes(data[0x3C:0x40], "little") + 24
    magic = int.from_bytes(data[optional : optional + 2], "little")
    directories = optional + (112 if magic == 0x20B else 96)
    entry = directories + 8 * _SIGNATURES
    return int.from_bytes(data[entry + 4 : entry + 8], "little") > 0
