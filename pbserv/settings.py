"""The four configuration files as one value, and the names of the services. Light: every command reads it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pbserv.conf.load import Loaded, Problem, load
from pbserv.conf.model import ConfFile, ConfModel
from pbserv.imaging.config import FILE as PBSERV_CONF
from pbserv.imaging.config import PbservConf
from pbserv.policy.config import FILE as POLICY_CONF
from pbserv.policy.config import PolicyConf
from pbserv.policy.names import parse_name
from pbserv.proxydhcp.config import FILE as PROXYDHCP_CONF
from pbserv.proxydhcp.config import ProxyDhcpConf
from pbserv.tftp.config import FILE as TFTP_CONF
from pbserv.tftp.config import TftpConf

# Boot files that migrated configurations name and nobody has any more -> the loader of ours that takes their place.
LOADER_ALIASES = {"nvlnbp.sys": "undionly.kpxe", "nvlnbpx64.efi": "snponly.efi"}
CONF_FILES: tuple[ConfFile[Any], ...] = (PBSERV_CONF, PROXYDHCP_CONF, TFTP_CONF, POLICY_CONF)
SERVICE_NAMES = ("imaging", "policy", "tftp", "proxydhcp")
VIRTUAL_FILES = ("boot.ipxe", "autoexec.ipxe")
"""The scripts that are the same for everybody; :func:`is_virtual` knows the rest."""
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
    loaded: Loaded

    @property
    def warnings(self) -> tuple[Problem, ...]:
        """What the files themselves deserve a word about: keys without effect, unsupported ones."""
        return self.loaded.warnings

    def problem(self, model: type[ConfModel], key: str, reason: str) -> Problem:
        """A complaint about a value, with the file and line that set it."""
        return self.loaded.problem(model, key, reason)

    @property
    def log_directory(self) -> Path:
        return self.pbserv.state_directory / "log"

    @property
    def run_directory(self) -> Path:
        return self.pbserv.state_directory / "run"

    @property
    def client_directory(self) -> Path:
        return self.pbserv.state_directory / "client"


def is_virtual(name: str) -> bool:
    """Whether a boot file of this name is made when it is asked for: nobody has to put it into TFTPDirectory."""
    return parse_name(name) is not None


def load_settings(directory: Path) -> Settings:
    """Read the configuration; raises ConfigError with every problem of every file."""
    loaded: Loaded = load(directory, CONF_FILES)
    return Settings(
        directory=directory,
        pbserv=loaded.get(PbservConf),
        proxydhcp=loaded.get(ProxyDhcpConf),
        tftp=loaded.get(TftpConf),
        policy=loaded.get(PolicyConf),
        loaded=loaded,
    )
