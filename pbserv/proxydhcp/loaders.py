"""Which boot file a client is told: by the policy's verdict, its architecture and the rule that fits it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import quote

from pbserv.proxydhcp.client import HTTP_BOOT, Client
from pbserv.proxydhcp.outcome import ClientKind, Ignore, Reason
from pbserv.proxydhcp.strategy import Menu
from pbserv.proxydhcp.table import Rule, Table
from pbserv.types import ClientArch, Verdict

DEFAULT_SCRIPT: Final = "boot.ipxe"


@dataclass(frozen=True, slots=True)
class Loader:
    """The boot file of an architecture and the configuration key that sets it; an empty file is not served."""

    key: str
    file: str


@dataclass(frozen=True, slots=True)
class Settings:
    """What decides besides the packet; equal settings give equal answers.

    ``ipxe`` empty: iPXE gets the loader of its architecture like any other client. ``menu`` None: none is configured.
    ``advertised`` is the address to tell instead of our own, by our own. ``http_port`` is where boot files are given
    out by HTTP.
    """

    loaders: Mapping[int, Loader]
    table: Table
    ipxe: str = DEFAULT_SCRIPT
    menu: Menu | None = None
    http_port: int = 0
    local_interface: str | None = None
    advertised: Mapping[str, str] = field(default_factory=dict)
    escalation: bool = True
    loop_limit: int = 0
    minimum_secs: int = 0
    reply_delay_s: float = 0.0
    per_device: int = 0
    per_interface: int = 0


@dataclass(frozen=True, slots=True)
class BootFile:
    """The chosen file, and whether it is the loader of the architecture."""

    name: str
    is_loader: bool = True


def boot_file(
    client: Client, verdict: Verdict, settings: Settings, rule: Rule, chained: bool, own: str = ""
) -> BootFile | Ignore:
    """The file to name. ``chained``: the client is the iPXE that this device was handed a moment ago. ``own``: the
    device's own boot file, for its firmware.

    LOCAL, MENU and BOOT all lead to a loader: its boot script then says what the verdict was.
    """
    if client.kind is ClientKind.RASPBERRY_PI:
        return BootFile(rule.loader)  # finds its files by its serial number
    if client.kind is ClientKind.IPXE:
        if chained:
            return BootFile(settings.ipxe or DEFAULT_SCRIPT, is_loader=False)
        if settings.ipxe and verdict is not Verdict.LOADER:
            return BootFile(settings.ipxe, is_loader=False)
    elif own:
        return BootFile(own)
    return BootFile(rule.loader) if rule.loader else _loader(client, settings)


def _loader(client: Client, settings: Settings) -> BootFile | Ignore:
    loader = settings.loaders.get(client.arch)
    # A class and an architecture that contradict each other (PXEClient with an HTTP code) are served by nobody.
    if loader is None or (client.arch in HTTP_BOOT) != (client.kind is ClientKind.HTTP):
        return Ignore(Reason.ARCH_NOT_SERVED, f"no key names a boot file for {client.arch} ({client.kind.value})")
    if not loader.file:
        return Ignore(Reason.ARCH_NOT_SERVED, f"no boot file for {client.arch}", f"set {loader.key} in proxydhcp.conf")
    return BootFile(loader.file)


def url_of(name: str, server: str, port: int) -> str:
    """Where HTTP Boot finds a boot file; edk2 wants an address in it, because a proxy names no DNS server."""
    return name if "://" in name else f"http://{server}:{port}/files/{quote(name.lstrip('/'))}"


def loaders_of(files: Mapping[str, str]) -> dict[int, Loader]:
    """Loaders by architecture; ``files`` by key."""
    keys = {
        ClientArch.BIOS: "NBPx86", ClientArch.EFI_ITANIUM: "NBPItanium", ClientArch.EFI_IA32: "NBPIA32",
        # RFC 4578 gave 7 and 9 the wrong way round at first: clients use both
        ClientArch.EFI_X64: "NBPx64", ClientArch.EFI_EBC: "NBPx64",
        ClientArch.EFI_ARM32: "NBPARM32", ClientArch.EFI_ARM64: "NBPARM64",
        ClientArch.EFI_RISCV32: "NBPRISCV32", ClientArch.EFI_RISCV64: "NBPRISCV64",
        ClientArch.EFI_RISCV128: "NBPRISCV128", ClientArch.EFI_LOONGARCH32: "NBPLoongArch32",
        ClientArch.EFI_LOONGARCH64: "NBPLoongArch64",
        ClientArch.HTTP_IA32: "NBPHTTPIA32", ClientArch.HTTP_X64: "NBPHTTPx64", ClientArch.HTTP_EBC: "NBPHTTPx64",
        ClientArch.HTTP_ARM32: "NBPHTTPARM32", ClientArch.HTTP_ARM64: "NBPHTTPARM64",
        ClientArch.HTTP_BIOS: "NBPHTTPx86", ClientArch.HTTP_RISCV32: "NBPHTTPRISCV32",
        ClientArch.HTTP_RISCV64: "NBPHTTPRISCV64", ClientArch.HTTP_RISCV128: "NBPHTTPRISCV128",
        ClientArch.HTTP_LOONGARCH32: "NBPHTTPLoongArch32", ClientArch.HTTP_LOONGARCH64: "NBPHTTPLoongArch64",
    }  # fmt: skip
    return {int(arch): Loader(key, files[key]) for arch, key in keys.items()}
