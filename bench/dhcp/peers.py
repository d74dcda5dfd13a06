"""The servers that are compared: how each one is started for the load, and its version.

One rule: each logs as it does by default, to a file, and gives the same files to the same machines.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bench.dhcp import serve
from bench.dhcp.wires import SERVER_DEVICE
from bench.dhcp.work import LOADERS, NETWORK, SERVER, Kind
from bench.tftp import peers as tftp

VERSIONS = {peer.name: peer.version for peer in tftp.EVERYBODY}


@dataclass(frozen=True, slots=True)
class Place:
    """Where a server keeps its own things, the loaders, the registry to begin with, and the compiled reflector."""

    scratch: Path
    files: Path
    known: Path
    reflector: Path


@dataclass(frozen=True, slots=True)
class Peer:
    """``command`` is run inside the server's namespace."""

    name: str
    command: Callable[[Place, Kind], list[str]]

    def version(self) -> str:
        return VERSIONS[self.name]()


def _pbserv(place: Place, kind: Kind) -> list[str]:
    return serve.command(place.scratch, kind, place.files, place.known)


def _dnsmasq(place: Place, kind: Kind) -> list[str]:
    """Like a server of a subnet with a DHCP server of its own; with TFTP for those who go on to fetch their loader."""
    served = ["--enable-tftp", f"--tftp-root={place.files}", "--tftp-max=4000"] if kind == "replay" else []
    return [
        "dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--pid-file=", "--user=root", "--port=0",
        f"--interface={SERVER_DEVICE}", "--bind-interfaces", f"--dhcp-range={NETWORK},proxy,255.255.0.0",
        f"--dhcp-leasefile={place.scratch / 'leases'}", f"--log-facility={place.scratch / 'dnsmasq.log'}",
        f"--pxe-service=x86PC,Boot,{LOADERS[0]}", f"--pxe-service=x86-64_EFI,Boot,{LOADERS[1]}",
        f"--pxe-service=BC_EFI,Boot,{LOADERS[1]}", *served,
    ]  # fmt: skip


PBSERV = Peer("pbserv", _pbserv)
DNSMASQ = Peer("dnsmasq", _dnsmasq)
REFLECTOR = Peer("reflector", lambda place, kind: [str(place.reflector), SERVER_DEVICE, SERVER, LOADERS[0]])
EVERYBODY = (PBSERV, DNSMASQ)
