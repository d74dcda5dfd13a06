"""One network with our server in it, machines with real firmware, and what they are to come to.

The sign of success is the boot script: a machine that asks for ``/boot/<mac>.ipxe`` was offered its loader, has fetched
and run it, was recognised as iPXE then, and was told an address of ours that it reaches.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from tests.e2e.marks import PATIENCE_S
from tests.support.disks import Firmware
from tests.support.netns import Room
from tests.support.nvram import order_boot
from tests.support.qemu import Console, Machine, powered
from tests.support.server import Server
from tests.support.signpost import signpost_disk

HTTP_PORT = 8067
OWN_DISK = "SIGNPOST own disk"
UEFI_MAC = "52:54:00:70:62:01"  # all UEFI machines: their boot order is kept by MAC address, and set up only once
# What firmware says when it gives the network up.
DEAD_ENDS = ("No more network devices", "No bootable device", "failed to load Boot")
Network = Literal["PXEv4", "HTTPv4"]


@dataclass(frozen=True)
class Kind:
    """Firmware, network card, and for UEFI which entry of the boot order comes first."""

    name: str
    firmware: Firmware
    card: str = "virtio-net-pci"
    network: Network = "PXEv4"


BIOS = Kind("bios", "bios")
BIOS_E1000 = Kind("bios-e1000", "bios", "e1000")
UEFI = Kind("uefi", "uefi")
UEFI_HTTP = Kind("uefi-http", "uefi", network="HTTPv4")


@dataclass(frozen=True)
class Firmwares:
    """Variable stores of a UEFI machine at work: the network first, its own disk second; and disks to fall back to."""

    stores: dict[Network, Path]
    disks: dict[Firmware, Path]


def set_up(lan: Room, directory: Path) -> Firmwares:
    """Do in the firmware's set-up, once, what the administrator of a room does."""
    disks: dict[Firmware, Path] = {
        "bios": signpost_disk(directory / "bios-own.img", "bios", OWN_DISK),
        "uefi": signpost_disk(directory / "uefi-own.img", "uefi", OWN_DISK),
    }
    machine = Machine("set-up", "uefi", lan, directory, [disks["uefi"]], mac=UEFI_MAC)
    pxe = machine.set_up_firmware()
    http = directory / "http-vars.fd"
    shutil.copyfile(pxe, http)
    order_boot(http, lambda entry: 0 if "HTTPv4" in entry else 1 if "Misc Device" in entry else 2)
    return Firmwares({"PXEv4": pxe, "HTTPv4": http}, disks)


@dataclass
class Site:
    """A network; ``addresses`` are those that our server has in each of its rooms."""

    server: Server
    directory: Path
    firmwares: Firmwares
    rooms: list[Room]
    addresses: list[str]
    _machines: int = field(default=0, init=False)

    def machine(self, kind: Kind, where: int = 0, *, disk: bool = False, keyboard: bool = False) -> Machine:
        """A new machine in a room of the site."""
        self._machines += 1
        disks = [self.firmwares.disks[kind.firmware]] if disk else []
        name = f"{self.directory.name}-{kind.name}-{self._machines}"
        mac = UEFI_MAC if kind.firmware == "uefi" else ""
        return Machine(
            name, kind.firmware, self.rooms[where], self.directory, disks, card=kind.card, mac=mac,
            keyboard=keyboard, variables=self.firmwares.stores[kind.network],
        )  # fmt: skip

    def runs_its_script(self, kind: Kind, where: int = 0) -> tuple[Machine, str]:
        """Power a machine on, wait until it has its own boot script from our address there; its console's text."""
        machine = self.machine(kind, where)
        with powered(machine) as console:
            console.wait_for(self.script_of(machine, where), timeout_s=PATIENCE_S, never=DEAD_ENDS)
            text = console.text
        assert any(what == "asked by http" for what, _detail in self.server.history(machine.mac))
        return machine, text

    def hands_undionly_over(self, where: int = 0) -> Machine:
        """As :meth:`runs_its_script`, for a BIOS machine whose ROM is given undionly.kpxe, which then asks itself."""
        self.configure("proxydhcp.conf", NBPiPXE="")
        try:
            machine, text = self.runs_its_script(BIOS, where)
        finally:
            self.configure("proxydhcp.conf", NBPiPXE=None)
        assert "using undionly on" in text
        assert text.index("undionly.kpxe... ok") < text.index("boot.ipxe... ok")
        return machine

    def script_of(self, machine: Machine, where: int = 0) -> str:
        """What iPXE prints when it has fetched the machine's script from our address in that room."""
        return f"http://{self.addresses[where]}:{HTTP_PORT}/boot/{machine.mac.replace(':', '-')}.ipxe... ok"

    def journal(self, machine: Machine) -> str:
        """What `pbserv journal` says of the machine's newest boot."""
        return self.server.ok("journal", machine.mac)

    def strategies(self, *rules: str) -> None:
        """The administrator's table of strategies, in force at once; each rule is the body of a ``[[rule]]``."""
        text = "".join(f'[[rule]]\n{rule}\nsource = "a test"\n' for rule in rules)
        (self.server.conf / "strategies.toml").write_text(text)
        self.server.ok("force-reload")

    def configure(self, name: str, /, **values: str | None) -> None:
        """Change keys of a configuration file of the running server."""
        self.server.configure(name, **values)
        self.server.ok("force-reload")


def boots_own_disk(console: Console, timeout_s: float = PATIENCE_S) -> float:
    """Seconds from power-on to the first line of the machine's own disk."""
    return console.wait_for(OWN_DISK, timeout_s=timeout_s)
