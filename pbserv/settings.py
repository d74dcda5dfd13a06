"""The four configuration files as one value, and what of them cannot hold on this host. Every command reads it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pbserv.conf.load import Loaded, Problem, load
from pbserv.conf.model import ConfFile
from pbserv.imaging.config import FILE as PBSERV_CONF
from pbserv.imaging.config import PbservConf
from pbserv.net.interfaces import address_on_host
from pbserv.policy.config import FILE as POLICY_CONF
from pbserv.policy.config import PolicyConf
from pbserv.proxydhcp.config import FILE as PROXYDHCP_CONF
from pbserv.proxydhcp.config import ProxyDhcpConf
from pbserv.tftp.config import FILE as TFTP_CONF
from pbserv.tftp.config import TftpConf

# Boot files that migrated configurations name and nobody has any more -> the loader of ours that takes their place.
LOADER_ALIASES = {"nvlnbp.sys": "undionly.kpxe", "nvlnbpx64.efi": "snponly.efi"}
CONF_FILES: tuple[ConfFile[Any], ...] = (PBSERV_CONF, PROXYDHCP_CONF, TFTP_CONF, POLICY_CONF)
SERVICE_NAMES = ("imaging", "policy", "tftp", "proxydhcp")
VIRTUAL_FILES = ("boot.ipxe", "autoexec.ipxe")
TITLES = {
    "imaging": "pbserv imaging service",
    "policy": "pbserv preboot policy service",
    "tftp": "pbserv TFTP service",
    "proxydhcp": "pbserv proxyDHCP service",
}
CLIENT_FILES = ("vmlinuz", "initrd.img")


@dataclass(frozen=True, slots=True)
class Settings:
    """All four files as they were read at one moment; replaced whole by a reload."""

    directory: Path
    pbserv: PbservConf
    proxydhcp: ProxyDhcpConf
    tftp: TftpConf
    policy: PolicyConf
    warnings: tuple[Problem, ...]

    @property
    def log_directory(self) -> Path:
        return self.pbserv.state_directory / "log"

    @property
    def run_directory(self) -> Path:
        return self.pbserv.state_directory / "run"

    @property
    def client_directory(self) -> Path:
        return self.pbserv.state_directory / "client"


def load_settings(directory: Path) -> Settings:
    """Read the configuration; raises ConfigError with every problem of every file."""
    loaded: Loaded = load(directory, CONF_FILES)
    return Settings(
        directory=directory,
        pbserv=loaded.get(PbservConf),
        proxydhcp=loaded.get(ProxyDhcpConf),
        tftp=loaded.get(TftpConf),
        policy=loaded.get(PolicyConf),
        warnings=tuple(loaded.warnings),
    )


def host_warnings(settings: Settings) -> list[str]:
    """What is valid in the files and yet will not work on this host: boot files that are named but missing ..."""
    return [*_missing_boot_files(settings), *_missing_client(settings), *_foreign_addresses(settings)]


def _missing_boot_files(settings: Settings) -> list[str]:
    directory, conf = settings.tftp.directory, settings.proxydhcp
    if not directory.is_dir():
        return [f"TFTPDirectory {directory} does not exist: the TFTP service will not start"]
    names = {
        "NBPx86": conf.nbp_x86, "NBPx64": conf.nbp_x64, "NBPIA32": conf.nbp_ia32, "NBPARM64": conf.nbp_arm64,
        "NBPiPXE": conf.nbp_ipxe,
    }  # fmt: skip
    missing = []
    for key, name in names.items():
        real = LOADER_ALIASES.get(name, name)
        if not name or "://" in name or name in VIRTUAL_FILES:
            continue
        if not any((directory / candidate.lstrip("/")).is_file() for candidate in (name, real)):
            missing.append(f"{key} = {name}: there is no such file in {directory}; see: pbserv loaders install")
    return missing


def _missing_client(settings: Settings) -> list[str]:
    if all((settings.client_directory / name).is_file() for name in CLIENT_FILES):
        return []
    return [f"the imaging client is not in {settings.client_directory}; make it with: pbserv client build"]


def _foreign_addresses(settings: Settings) -> list[str]:
    addresses = {
        "IPAddress": settings.pbserv.ip_address,
        "HTTPAddress": settings.pbserv.http_address,
        "LocalInterface (preboot-policy.conf)": settings.policy.local_interface,
        "LocalInterface (proxydhcp.conf)": settings.proxydhcp.local_interface,
        "TFTPInterface": settings.tftp.interface,
    }
    return [
        f"{key} = {address}: this host does not have that address now"
        for key, address in addresses.items()
        if address and address != "0.0.0.0" and not address_on_host(address)
    ]
