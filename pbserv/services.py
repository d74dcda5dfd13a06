"""THE list of services and the wiring of their ports. A new service is one folder, one entry here, one sample."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from prometheus_client.registry import Collector

from pbserv.imaging import ranges, statistics_routes
from pbserv.imaging.config import PbservConf
from pbserv.imaging.exposition import ImagingCollector
from pbserv.imaging.service import ImagingService, ImagingSettings
from pbserv.journal.journal import Journal
from pbserv.log import Later, ServiceLog
from pbserv.policy import boot_routes, pixiecore_routes, resolve_routes
from pbserv.policy.api import routes as api_routes
from pbserv.policy.config import PolicyConf
from pbserv.policy.exposition import PolicyCollector
from pbserv.policy.machines import Machines
from pbserv.policy.service import PolicyService, PolicySettings
from pbserv.policy.virtual import VirtualFiles
from pbserv.proxydhcp.config import ProxyDhcpConf
from pbserv.proxydhcp.exposition import ProxyDhcpCollector
from pbserv.proxydhcp.reading import spell
from pbserv.proxydhcp.service import ProxyDhcpService
from pbserv.proxydhcp.settings import ProxyDhcpSettings
from pbserv.registry.access import Access
from pbserv.registry.registry import Registry
from pbserv.registry.tokens import WorkTokens
from pbserv.service import Service, ServiceStatus
from pbserv.settings import CLIENT_FILES, LOADER_ALIASES, Settings
from pbserv.tftp.config import TftpConf
from pbserv.tftp.exposition import TftpCollector
from pbserv.tftp.service import TftpService
from pbserv.web import boot_files_routes, health_routes, journal_routes, metrics_routes, token_routes
from pbserv.web.app import create_app
from pbserv.web.requests_counted import Requests
from pbserv.web.server import WebServer, WebSettings
from pbserv.web.shortcut import Shortcut
from pbserv.web.tls import TlsSettings

Spawn = Callable[[str, Coroutine[Any, Any, None]], "asyncio.Task[None]"]


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

    def defer(self, later: Later | None) -> None:
        """See :meth:`ServiceLog.defer`."""
        for log in (self.pbserv, self.proxydhcp, self.tftp, self.policy):
            log.defer(later)


@dataclass(frozen=True, slots=True)
class Parts:
    """The process, wired."""

    web: WebServer
    policy: PolicyService
    imaging: ImagingService
    tftp: TftpService
    proxydhcp: ProxyDhcpService
    services: tuple[Service[Any], ...]


def wire(
    settings: Settings,
    logs: Logs,
    registry: Registry,
    access: Access,
    tokens: WorkTokens,
    journal: Journal,
    spawn: Spawn,
    wanted: Callable[[], Iterable[ServiceStatus]],
) -> Parts:
    """Create every service and give each the ports that it declared. ``wanted``: the services that are to run."""
    client_directory = settings.client_directory
    policy = PolicyService(logs.policy, registry, journal, tokens, spawn=spawn)
    web_is_up: Callable[[], str] = lambda: "" if web.running else web_fault()  # noqa: E731
    imaging = ImagingService(
        logs.pbserv, registry, access, journal, web_is_up, [settings.client_directory / name for name in CLIENT_FILES],
        Machines(policy), tokens,
    )  # fmt: skip
    virtual = VirtualFiles(policy)
    placed = {f"client/{name}": client_directory / name for name in CLIENT_FILES}
    tftp = TftpService(logs.tftp, virtual, policy, LOADER_ALIASES, [policy], policy, placed)
    proxydhcp = ProxyDhcpService(logs.proxydhcp, policy, journal)
    policy.watch(proxydhcp)
    services: tuple[Service[Any], ...] = (imaging, policy, tftp, proxydhcp)
    running = {service.name: service for service in services}
    figures, requests = PolicyCollector(policy, registry), Requests()
    collectors = (*_counted(tftp, proxydhcp, imaging), figures, requests)
    is_running: Callable[[str], bool] = lambda name: not name or running[name].running  # noqa: E731
    tftp_runs: Callable[[], bool] = lambda: tftp.running  # noqa: E731
    shortcut = Shortcut(tftp, policy, ranges.plan, logs.pbserv, tftp_runs, requests, virtual.path_of)
    app = create_app(
        [
            ("policy", boot_routes.router(policy, registry, tokens)),
            ("policy", resolve_routes.router(policy, access, tokens)),
            ("policy", pixiecore_routes.router(policy, access)),
            ("tftp", boot_files_routes.files_router(tftp, policy, ranges.plan, logs.pbserv)),
            ("", boot_files_routes.client_router(client_directory, CLIENT_FILES, policy, ranges.plan, logs.pbserv)),
            ("imaging", imaging.router()),
            ("", statistics_routes.router(lambda: imaging.statistics.counters, access)),
            ("", api_routes.router(registry, policy, access, imaging)),
            ("", journal_routes.router(journal, access, spell)),
            ("", token_routes.router(registry, access, logs.pbserv)),
            ("", metrics_routes.router(collectors, tuple(running), is_running, figures.refresh)),
            ("", health_routes.router(registry.token_digests, wanted)),
        ],
        running=is_running,
        log=logs.pbserv,
        path_of=virtual.path_of,
        tls_required=lambda: web.tls_required,
        requests=requests,
    )
    web = WebServer(app, spawn, lambda: imaging.busy, shortcut)

    def web_fault() -> str:
        return web.fault or "the HTTP server is not running"

    return Parts(web, policy, imaging, tftp, proxydhcp, services)


def _counted(tftp: TftpService, proxydhcp: ProxyDhcpService, imaging: ImagingService) -> tuple[Collector, ...]:
    """What the services count, for Prometheus."""
    return TftpCollector(tftp.metrics), ProxyDhcpCollector(proxydhcp.counters), ImagingCollector(imaging.statistics)


def settings_of(settings: Settings) -> Mapping[str, Any]:
    """The settings value of each service by its name."""
    conf = settings.pbserv
    return {
        "web": web_settings(settings),
        "imaging": ImagingSettings(conf),
        "policy": PolicySettings(
            settings.policy, conf.ip_address, conf.http_port, settings.proxydhcp.policy_engine, conf.state_directory
        ),
        "tftp": settings.tftp,
        "proxydhcp": ProxyDhcpSettings(settings.proxydhcp, conf.http_port, settings.directory),
    }


def web_settings(settings: Settings) -> WebSettings:
    """IPAddress is what imaging binds; HTTPAddress overrides the bind alone."""
    conf = settings.pbserv
    tls = None
    if conf.https_port is not None:
        tls = TlsSettings(conf.https_port, conf.tls_certificate, conf.tls_key, conf.state_directory / "tls")
    return WebSettings(conf.http_address or conf.ip_address or "", conf.http_port, tls, conf.require_tls)
