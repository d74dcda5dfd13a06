"""THE list of services and the wiring of their ports. A new service is one folder, one entry here, one sample."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pbserv.conf.load import Loaded, Problem, load
from pbserv.conf.model import ConfFile
from pbserv.imaging.config import FILE as PBSERV_CONF
from pbserv.imaging.config import PbservConf
from pbserv.imaging.service import ImagingService, ImagingSettings
from pbserv.journal.history import History
from pbserv.log import ServiceLog
from pbserv.net.interfaces import address_on_host
from pbserv.policy import api_routes, boot_routes
from pbserv.policy.config import FILE as POLICY_CONF
from pbserv.policy.config import PolicyConf
from pbserv.policy.service import PolicyService, PolicySettings
from pbserv.proxydhcp.config import FILE as PROXYDHCP_CONF
from pbserv.proxydhcp.config import ProxyDhcpConf
from pbserv.proxydhcp.service import ProxyDhcpService
from pbserv.registry.access import Access
from pbserv.registry.registry import Registry
from pbserv.registry.tokens import WorkTokens
from pbserv.service import Service
from pbserv.tftp.config import FILE as TFTP_CONF
from pbserv.tftp.config import TftpConf
from pbserv.tftp.service import TftpService
from pbserv.web.app import CLIENT_FILES, create_app
from pbserv.web.server import WebServer, WebSettings

# Boot files that migrated configurations name and nobody has any more -> the loader of ours that takes their place.
LOADER_ALIASES = {"nvlnbp.sys": "undionly.kpxe", "nvlnbpx64.efi": "ipxe.efi"}
CONF_FILES: tuple[ConfFile[Any], ...] = (PBSERV_CONF, PROXYDHCP_CONF, TFTP_CONF, POLICY_CONF)
SERVICE_NAMES = ("imaging", "policy", "tftp", "proxydhcp")
VIRTUAL_FILES = ("boot.ipxe", "autoexec.ipxe")
TITLES = {service.name: service.title for service in (ImagingService, PolicyService, TftpService, ProxyDhcpService)}

Spawn = Callable[[str, Coroutine[Any, Any, None]], "asyncio.Task[None]"]


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


@dataclass(frozen=True, slots=True)
class Logs:
    """One log per service; ``pbserv`` is the log of the process and of imaging."""

    pbserv: ServiceLog
    proxydhcp: ServiceLog
    tftp: ServiceLog
    policy: ServiceLog

    @classmethod
    def create(cls) -> Logs:
        return cls(ServiceLog("pbserv"), ServiceLog("proxydhcp"), ServiceLog("tftp"), ServiceLog("policy"))

    def configure(self, settings: Settings) -> None:
        """Levels and files as the settings say; called at start and after each reload."""
        directory, form = settings.log_directory, settings.pbserv.log_format
        pairs: tuple[tuple[ServiceLog, PbservConf | ProxyDhcpConf | TftpConf | PolicyConf], ...] = (
            (self.pbserv, settings.pbserv),
            (self.proxydhcp, settings.proxydhcp),
            (self.tftp, settings.tftp),
            (self.policy, settings.policy),
        )
        for log, conf in pairs:
            log.configure(conf.log_level, conf.log_path(directory), conf.log_file_size_mb, form)


@dataclass(frozen=True, slots=True)
class Parts:
    """The process, wired."""

    web: WebServer
    policy: PolicyService
    imaging: ImagingService
    services: tuple[Service[Any], ...]


def wire(
    settings: Settings,
    logs: Logs,
    registry: Registry,
    access: Access,
    tokens: WorkTokens,
    history: History,
    spawn: Spawn,
) -> Parts:
    """Create every service and give each the ports that it declared."""
    policy = PolicyService(logs.policy, registry, history, tokens)
    web_is_up: Callable[[], str] = lambda: "" if web.running else web_fault()  # noqa: E731
    imaging = ImagingService(logs.pbserv, registry, access, history, web_is_up, settings.client_directory)
    tftp = TftpService(logs.tftp, policy, policy, LOADER_ALIASES)
    proxydhcp = ProxyDhcpService(logs.proxydhcp, policy)
    services: tuple[Service[Any], ...] = (imaging, policy, tftp, proxydhcp)
    running = {service.name: service for service in services}
    app = create_app(
        [
            ("policy", boot_routes.router(policy)),
            ("imaging", imaging.router()),
            ("policy", api_routes.router(registry, policy, access, imaging)),
        ],
        running=lambda name: running[name].running,
        client_directory=settings.client_directory,
        log=logs.pbserv,
    )
    web = WebServer(logs.pbserv, app, spawn)

    def web_fault() -> str:
        return web.fault or "the HTTP server is not running"

    return Parts(web, policy, imaging, services)


def settings_of(settings: Settings) -> Mapping[str, Any]:
    """The settings value of each service by its name."""
    conf = settings.pbserv
    return {
        "web": web_settings(settings),
        "imaging": ImagingSettings(conf),
        "policy": PolicySettings(settings.policy, conf.ip_address, conf.http_port),
        "tftp": settings.tftp,
        "proxydhcp": settings.proxydhcp,
    }


def web_settings(settings: Settings) -> WebSettings:
    """IPAddress is what imaging binds; HTTPAddress overrides the bind alone."""
    return WebSettings(settings.pbserv.http_address or settings.pbserv.ip_address or "", settings.pbserv.http_port)


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
