"""shim and GRUB under UEFI firmware: from which of the firmware's packets they take their server. Pure.

One rule: they see the header fields of the packets that the firmware keeps, and no option.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from pbserv.proxydhcp.models.conversation import UNSPECIFIED, Ask, Boot, Choice, Fails, Heard, Identity, Operator, Sent
from pbserv.proxydhcp.models.edk2 import Edk2
from pbserv.proxydhcp.packet import dotted

_FIRMWARE: Final = Edk2()
_SECOND: Final = {6: "grubia32.efi", 7: "grubx64.efi", 9: "grubx64.efi", 11: "grubaa64.efi", 27: "grubriscv64.efi"}


@dataclass(frozen=True, slots=True)
class Shim:
    """shim (netboot.c parseDhcp4) as the boot file, with its second stage beside it."""

    name: str = "shim"
    firmware: Edk2 = _FIRMWARE

    @property
    def arch(self) -> int:
        return self.firmware.arch

    @property
    def waits_s(self) -> tuple[float, ...]:
        return self.firmware.waits_s

    def discover(self, who: Identity, attempt: int = 0) -> Sent:
        return self.firmware.discover(who, attempt)

    def request(self, lease: Heard, who: Identity) -> Sent:
        return self.firmware.request(lease, who)

    def choose(self, offers: Sequence[Heard], who: Identity = Identity(), operator: Operator = Operator()) -> Choice:
        return self._then(self.firmware.choose(offers, who, operator), who)

    def _then(self, choice: Choice, who: Identity) -> Choice:
        if isinstance(choice, Ask):
            after = choice.after
            return replace(choice, after=lambda replies: self._then(after(replies), who))
        return self._second_stage(choice, who) if isinstance(choice, Boot) else choice

    def _second_stage(self, first: Boot, who: Identity) -> Choice:
        """The DHCP ACK where it names a file, else the proxy's answer, else the boot server's (shim#165)."""
        cached = first.cached
        whose, packet = "DHCP server's ACK", cached.dhcp_ack
        if (packet is None or not packet.file) and cached.proxy_offer is not None:
            whose, packet = "proxy's answer", cached.proxy_offer
        if (packet is None or not packet.file) and cached.pxe_reply is not None and cached.pxe_reply.file:
            whose, packet = "boot server's answer", cached.pxe_reply
        if packet is None or packet.siaddr == bytes(4):
            return Fails("", "shim finds no server in the firmware's packets", first.lease)
        folder = packet.file.decode("ascii", "backslashreplace").rpartition("/")
        arch = self.arch if who.arch is None else who.arch
        name = folder[0] + folder[1] + _SECOND.get(arch, "grubx64.efi")
        why = f"shim's second stage, beside the file in the {whose}"
        return replace(first, server=dotted(packet.siaddr), file=name, why=why, first=(first.server, first.file))


@dataclass(frozen=True, slots=True)
class Grub:
    """UEFI GRUB (grub-mknetdir) as the boot file, fetching its grub.cfg. Measured in QEMU.

    ``prefix_server``: the server that was built into its prefix. Without one it asks the DHCP server of the ACK,
    and never the proxy (rhboot/grub2#87).
    """

    name: str = "grub"
    firmware: Edk2 = _FIRMWARE
    prefix_server: str | None = None

    @property
    def arch(self) -> int:
        return self.firmware.arch

    @property
    def waits_s(self) -> tuple[float, ...]:
        return self.firmware.waits_s

    def discover(self, who: Identity, attempt: int = 0) -> Sent:
        return self.firmware.discover(who, attempt)

    def request(self, lease: Heard, who: Identity) -> Sent:
        return self.firmware.request(lease, who)

    def choose(self, offers: Sequence[Heard], who: Identity = Identity(), operator: Operator = Operator()) -> Choice:
        return self._then(self.firmware.choose(offers, who, operator))

    def _then(self, choice: Choice) -> Choice:
        if isinstance(choice, Ask):
            after = choice.after
            return replace(choice, after=lambda replies: self._then(after(replies)))
        return self._configuration(choice) if isinstance(choice, Boot) else choice

    def _configuration(self, first: Boot) -> Choice:
        server, why = self.prefix_server, "the server in GRUB's prefix"
        if server is None:
            acknowledged = first.cached.dhcp_ack
            server = UNSPECIFIED if acknowledged is None else dotted(acknowledged.siaddr)
            why = "GRUB reads the DHCP server's ACK only"
        if server == UNSPECIFIED:
            return Fails("", f"{why}, and that names no server: build ours into its prefix", first.lease)
        return replace(first, server=server, file="grub.cfg", why=why, first=(first.server, first.file))
