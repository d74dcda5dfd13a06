"""How an offer is phrased for each kind of client, and the boot file that it names. Data and pure functions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from pbserv.proxydhcp.client import UEFI_HTTP, Client
from pbserv.proxydhcp.outcome import ClientKind, Ignore, Reason
from pbserv.proxydhcp.packet import encapsulate
from pbserv.types import Verdict

DEFAULT_SCRIPT: Final = "boot.ipxe"
_END: Final = b"\xff"

# PXE 2.1 discovery control (43.6): bit 3 "just boot the file", without broadcast or multicast discovery.
_JUST_BOOT: Final = encapsulate({6: b"\x08"})
# The Pi 3 wants this text padded to 20 bytes; without the menu it takes no offer at all.
_PI_MENU: Final = encapsulate({6: b"\x03", 10: b"\0PXE", 9: b"\0\0\x14" + b"Raspberry Pi Boot".ljust(20)})


@dataclass(frozen=True, slots=True)
class Strategy:
    """One way to phrase a reply. ``option43`` is without END; None means that the reply has no option 43."""

    name: str
    option43: bytes | None = None
    option175: bytes | None = None
    names_tftp_server: bool = True

    def vendor_options(self, boot_item: bytes) -> bytes | None:
        """Option 43 of a reply, with the chosen menu entry (71) echoed when the client named one."""
        if boot_item:
            return (self.option43 or b"") + encapsulate({71: boot_item}) + _END
        return None if self.option43 is None else self.option43 + _END


DIRECT: Final = Strategy("direct", option43=_JUST_BOOT)
# "Binl" with the header filled: EDK2 asks 4011 next, and shim and GRUB find a fresh packet in the firmware then.
HYBRID: Final = Strategy("hybrid")
# 175.1: iPXE takes the offer with the highest priority, and of equals the last to arrive.
IPXE: Final = Strategy("ipxe", option175=encapsulate({1: b"\x01"}))
HTTP: Final = Strategy("http", names_tftp_server=False)
RASPBERRY_PI: Final = Strategy("raspberrypi", option43=_PI_MENU)

STRATEGIES: Final[Mapping[ClientKind, Strategy]] = {
    ClientKind.BIOS: DIRECT,
    ClientKind.UEFI: HYBRID,
    ClientKind.IPXE: IPXE,
    ClientKind.HTTP: HTTP,
    ClientKind.RASPBERRY_PI: RASPBERRY_PI,
}


@dataclass(frozen=True, slots=True)
class Loader:
    """The boot file of an architecture and the configuration key that sets it; an empty file is not served."""

    key: str
    file: str


@dataclass(frozen=True, slots=True)
class Settings:
    """What decides besides the packet. ``ipxe`` empty: iPXE gets the loader of its architecture like any other."""

    loaders: Mapping[int, Loader]
    ipxe: str = DEFAULT_SCRIPT
    local_interface: str | None = None


@dataclass(frozen=True, slots=True)
class BootFile:
    """The chosen file and whether it is the loader of the architecture."""

    name: str
    is_loader: bool = True


def boot_file(client: Client, verdict: Verdict, settings: Settings, chained: bool) -> BootFile | Ignore:
    """The file to name. ``chained``: the client is the iPXE that this device was handed a moment ago.

    LOCAL, MENU and BOOT all lead to a loader: its boot script then says what the verdict was.
    """
    if client.kind is ClientKind.RASPBERRY_PI:
        if verdict is Verdict.LOCAL:  # its ROM knows no answer that says so; no answer has the same effect
            return Ignore(Reason.NO_LOCAL_BOOT_ANSWER, "a Raspberry Pi boots by itself when nobody answers")
        return BootFile("")  # finds its files by its serial number
    if client.kind is ClientKind.IPXE:
        if chained:
            return BootFile(settings.ipxe or DEFAULT_SCRIPT, is_loader=False)
        if settings.ipxe and verdict is not Verdict.LOADER:
            return BootFile(settings.ipxe, is_loader=False)
    return _loader(client, settings)


def _loader(client: Client, settings: Settings) -> BootFile | Ignore:
    loader = settings.loaders.get(client.arch)
    # A class and an architecture that contradict each other (PXEClient with an HTTP code) are served by nobody.
    if loader is None or (client.arch in UEFI_HTTP) != (client.kind is ClientKind.HTTP):
        return Ignore(Reason.ARCH_NOT_SERVED, f"no key names a boot file for {client.arch} ({client.kind.value})")
    if not loader.file:
        return Ignore(Reason.ARCH_NOT_SERVED, f"no boot file for {client.arch}", f"set {loader.key} in proxydhcp.conf")
    return BootFile(loader.file)
