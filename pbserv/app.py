"""The composition root: configuration -> directories, pid lock, privileges -> registry -> loop -> services."""

from __future__ import annotations

import asyncio
import gc
import os
import resource
import signal
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import uvloop

from pbserv import __version__
from pbserv.conf.load import ConfigError
from pbserv.daemon.control import CONTROL_SOCKET_NAME, ControlServer, JsonValue, Request, Response
from pbserv.daemon.detach import Readiness
from pbserv.daemon.directories import hand_over_files, prepare_directories
from pbserv.daemon.note import leave_note
from pbserv.daemon.notify import Notifier
from pbserv.daemon.pidfile import PID_FILE_NAME, PidFile
from pbserv.daemon.privileges import drop_privileges, find_account
from pbserv.errors import PbservError, StartError
from pbserv.hostcheck import bound_addresses, host_problems
from pbserv.journal.journal import Journal
from pbserv.net.roomy import reserve
from pbserv.net.sockets import RECEIVE_BUFFER_BYTES
from pbserv.policy.expiry import Expiry
from pbserv.policy.strangers import Strangers
from pbserv.proxydhcp.figures import figures as proxydhcp_figures
from pbserv.proxydhcp.reading import text_of
from pbserv.registry.access import Access
from pbserv.registry.migrate import migrate
from pbserv.registry.records import Role
from pbserv.registry.registry import Registry
from pbserv.registry.tokens import WorkTokens, digest, load_secret, new_token, write_private
from pbserv.service import ServiceStatus
from pbserv.services import Logs, Parts, settings_of, wire
from pbserv.settings import SERVICE_NAMES, Settings, load_settings
from pbserv.supervisor import Supervisor
from pbserv.tftp.figures import figures as tftp_figures

RESTART_KEYS = {"StateDirectory": "state_directory", "User": "user", "RegistryURL": "registry_url"}
WANTED_FILES = 65_536
GARBAGE = (20_000, 20, 20)
"""Packets make objects and no rings: looking for rings as often as Python does took a sixth of an offer's time."""
SPARE_SOCKETS = 4
"""With room for a storm: the two ports of proxyDHCP, and two more for a reload that changes them."""


@dataclass(frozen=True, slots=True)
class Overrides:
    """What the command line changes of the files: the services to start; None means those of the configuration."""

    services: tuple[str, ...] | None = None
    banner: tuple[str, ...] = ()


def serve(directory: Path, ready: Readiness, overrides: Overrides) -> int:
    """Run the server until it is told to stop; the exit code. Reports on ``ready`` how the start went."""
    settings = load_settings(directory)
    account = find_account(settings.pbserv.user) if os.geteuid() == 0 else None
    prepare_directories(settings.pbserv.state_directory, account)
    for store in settings.pbserv.outside_stores:
        prepare_directories(store, account, ())
    leave_note(directory, settings.run_directory)
    hand_over_files(settings.pbserv.state_directory, account)
    reserve(SPARE_SOCKETS, RECEIVE_BUFFER_BYTES)
    drop_privileges(settings.pbserv.user)
    os.umask(0o027)
    with PidFile.acquire(settings.run_directory / PID_FILE_NAME):
        _raise_file_limit()
        state = settings.pbserv.state_directory
        migrate(settings.pbserv.registry_place)
        tokens = WorkTokens(load_secret(state / "secret.key"))
        process = Process(settings, tokens, ready, overrides)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(process.run())


def _raise_file_limit() -> None:
    """One descriptor per transfer: take what the hard limit gives."""
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = WANTED_FILES if hard == resource.RLIM_INFINITY else min(hard, WANTED_FILES)
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


class Process:
    """The running server: owns the supervisor, the control socket and the signals."""

    def __init__(self, settings: Settings, tokens: WorkTokens, ready: Readiness, overrides: Overrides) -> None:
        self._settings = settings
        self._tokens = tokens
        self._ready = ready
        self._overrides = overrides
        self._notifier = Notifier.from_environment()
        self._logs = Logs.create()
        self._by_hand: set[str] = set()
        self._stopped_by_hand: frozenset[str] = frozenset()
        self._changing = asyncio.Lock()
        self._started = time.monotonic()

    async def run(self) -> int:
        gc.set_threshold(*GARBAGE)
        self._stop = asyncio.Event()
        self._logs.configure(self._settings)
        self._logs.defer(asyncio.get_running_loop().call_later)
        for warning in (*self._settings.warnings, *host_problems(self._settings)):
            self._logs.pbserv.warning("configuration", problem=str(warning))
            self._ready.line(f"warning: {warning}")
        registry = Registry.open(self._settings.pbserv.registry_place)
        try:
            return await self._run(registry)
        finally:
            await registry.close()
            self._logs.defer(None)

    async def _run(self, registry: Registry) -> int:
        access = await self._known_tokens(registry)
        conf = self._settings.pbserv
        self._journal = Journal(registry, text_of, days=conf.journal_days, packets=conf.journal_packets)
        journal = self._journal
        # The supervisor owns tasks before it knows the services; they need its spawn().
        self._supervisor = Supervisor((), self._logs.pbserv)
        self._parts = wire(
            self._settings, self._logs, registry, access, self._tokens, journal, self._supervisor.spawn,
            lambda: self._supervisor.status(self._wanted()),
        )  # fmt: skip
        self._supervisor.adopt(self._parts.services)
        await registry.close_orphans()
        self._parts.proxydhcp.remember(await registry.strategies())
        self._supervisor.spawn_forever("journal", journal.run)
        self._supervisor.spawn_forever("sightings", self._parts.policy.run)
        self._supervisor.spawn_forever("hooks", self._parts.imaging.hooks.run)
        self._supervisor.spawn_forever("progress of jobs", self._parts.imaging.run)
        self._supervisor.spawn_forever("captures elsewhere", self._parts.imaging.away.run)
        self._supervisor.spawn_forever("tasks on images", self._parts.imaging.tasks.own)
        self._supervisor.spawn_forever("files in stores", self._parts.imaging.watcher.run)
        self._supervisor.spawn_forever("expiry", Expiry(registry, journal, self._logs.policy).run)
        self._supervisor.spawn_forever("strangers", Strangers(registry, self._parts.policy, self._logs.policy).run)
        control = ControlServer(
            self._settings.run_directory / CONTROL_SOCKET_NAME, self._on_control, on_bug=self._on_bug
        )
        try:
            self._handle_signals()
            await control.start()
            if not await self._start_all():
                return 1
            await self._stop.wait()
            return 0
        finally:
            self._notifier.stopping()
            for step in (
                self._stop_all, journal.end_following, self._parts.web.stop, journal.flush, control.close,
                self._supervisor.close,
            ):  # fmt: skip
                await self._guarded(step)
            self._logs.pbserv.critical("stopped", events_lost=journal.dropped or None)
            self._ready.done(1)

    async def _stop_all(self) -> None:
        await self._supervisor.stop(self._supervisor.names)

    async def _guarded(self, step: Callable[[], Awaitable[object]]) -> None:
        """One step of the shutdown; its fault must not keep the others from happening."""
        try:
            await step()
        except Exception as fault:
            self._logs.pbserv.critical("a step of the shutdown failed", exc_info=fault)

    async def _start_all(self) -> bool:
        """Start web and the wanted services and report; False when nothing could be started."""
        await self._start_web()
        names = self._overrides.services or tuple(self._settings.pbserv.services)
        if self._overrides.services:
            self._by_hand.update(names)
        statuses = await self._supervisor.start(_in_order(names), settings_of(self._settings))
        for status in statuses:
            self._ready.service(status.name, status.running, status.reason)
        for line in (*self._overrides.banner, *self._listening_lines()):
            self._ready.line(line)
        failed = [status for status in statuses if not status.running]
        if len(failed) < len(statuses):
            self._logs.pbserv.critical("started", version=__version__, services=",".join(self._running()))
            self._notifier.ready(self._summary())
        gc.freeze()  # what the start made is for good: no transfer has to wait while it is looked through again
        self._ready.done(1 if failed else 0)
        return len(failed) < len(statuses)

    async def _start_web(self) -> None:
        try:
            await self._parts.web.start(settings_of(self._settings)["web"])
        except StartError as fault:
            self._parts.web.fault = f"HTTP server: {fault}"
            self._logs.pbserv.critical("not started", part="web", reason=str(fault))
        if self._parts.web.tls_fault:
            self._logs.pbserv.critical("not started", part="https", reason=self._parts.web.tls_fault)

    async def _known_tokens(self, registry: Registry) -> Access:
        """Who may call. The first start makes an administrator's token; so does a start that misses its file."""
        digests = await registry.token_digests()
        access = Access(digests, self._tokens, await registry.token_names())
        path = self._settings.pbserv.state_directory / "admin.token"
        if digests and path.exists():
            return access
        token = new_token()
        write_private(path, token.encode() + b"\n")
        name = f"made at start, {datetime.now(UTC):%Y-%m-%d %H:%M:%S.%f}"
        await registry.add_token(name, Role.ADMIN, digest(token))
        access.put(digest(token), Role.ADMIN, name)
        # systemd's journal keeps what it hears for ever, and more people read it than the file.
        shown = "in that file" if self._notifier.enabled else token
        self._ready.line(f"administrator's token (shown once; the local command line reads {path}): {shown}")
        return access

    def _handle_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        loop.add_signal_handler(signal.SIGHUP, lambda: self._supervisor.spawn("reload", self._on_hangup()))

    async def _on_hangup(self) -> None:
        async with self._changing:
            answer = await self._reload()
        for error in answer.errors:
            self._logs.pbserv.critical("reload refused", reason=error)

    def _on_bug(self, fault: Exception) -> None:
        self._logs.pbserv.critical("control request failed", exc_info=fault)

    # the control socket

    async def _on_control(self, request: Request) -> Response:
        match request.verb:
            case "status":
                return self._status(request.names)
            case "statistics":
                return Response(True, data=self._statistics())
        async with self._changing:
            if self._stop.is_set():
                return Response(False, errors=("pbserv is stopping",))
            match request.verb:
                case "start":
                    return await self._start(request.names)
                case "stop":
                    return await self._stop_services(request.names)
                case "restart":
                    return await self._restart(request.names)
                case "reload":
                    return await self._reload()
                case _:
                    return Response(False, errors=(f"unknown request {request.verb}",))

    def _statistics(self) -> Mapping[str, Any]:
        parts = self._parts
        return {
            **parts.imaging.figures(),
            "proxydhcp": proxydhcp_figures(parts.proxydhcp.counters),
            "tftp": tftp_figures(parts.tftp.metrics),
        }

    def _wanted(self) -> tuple[str, ...]:
        """The services that should run: those of the configuration and those started by hand."""
        configured = set() if self._overrides.services else set(self._settings.pbserv.services)
        return _in_order((configured - self._stopped_by_hand) | self._by_hand)

    def _status(self, names: Sequence[str]) -> Response:
        shown = names or {*self._settings.pbserv.services, *self._running()}
        statuses = self._supervisor.status(_in_order(shown))
        return Response(
            all(status.running for status in statuses),
            data={
                "pid": os.getpid(),
                "uptime_s": round(time.monotonic() - self._started, 1),
                "version": __version__,
                "url": self._console_url(),
                "listeners": list(self._parts.web.listeners),
                "https": self._https(),
                "services": [_status_data(status) for status in statuses],
            },
        )

    async def _start(self, names: Sequence[str]) -> Response:
        names = _in_order(names or self._settings.pbserv.services)
        if not self._parts.web.running:
            await self._start_web()
        before = {name for name in names if self._supervisor.running(name)}
        statuses = await self._supervisor.start(names, settings_of(self._settings))
        self._by_hand.update(set(names) - set(self._settings.pbserv.services))
        self._stopped_by_hand -= set(names)
        lines = [
            f"{status.title} {'was running already' if status.name in before else 'started'}"
            for status in statuses
            if status.running
        ]
        errors = [f"{status.name}: not started: {status.reason}" for status in statuses if not status.running]
        return Response(not errors, tuple(lines), tuple(errors))

    async def _stop_services(self, names: Sequence[str]) -> Response:
        statuses = await self._supervisor.stop(_in_order(names))
        self._by_hand -= set(names)
        self._stopped_by_hand |= set(names)
        ending = not any(status.running for status in self._supervisor.status())
        if ending:
            self._stop.set()
        return Response(True, tuple(f"{status.title} stopped" for status in statuses), data={"ending": ending})

    async def _restart(self, names: Sequence[str]) -> Response:
        await self._supervisor.stop(_in_order(names))
        return await self._start(names)

    async def _reload(self) -> Response:
        """Everything or nothing: a reload that cannot succeed changes nothing."""
        self._notifier.reloading()
        try:
            return await self._reload_or_refuse()
        finally:
            self._notifier.ready(self._summary())

    async def _reload_or_refuse(self) -> Response:
        try:
            settings = load_settings(self._settings.directory)
        except ConfigError as fault:
            return Response(False, errors=(*(str(p) for p in fault.problems), "nothing was changed"))
        warnings = [str(problem) for problem in settings.warnings]
        settings = self._keep_until_restart(settings, warnings)
        added = tuple(set(settings.pbserv.services) - set(self._settings.pbserv.services) - set(self._running()))
        errors = await self._start_added(added, settings) or await self._prepare_and_swap(settings)
        if errors:
            await self._supervisor.stop(_in_order(added))
            return Response(False, errors=(*errors, "nothing was changed"))
        self._settings = settings
        self._stopped_by_hand -= set(added)
        self._logs.configure(settings)
        self._journal.configure(settings.pbserv.journal_days, settings.pbserv.journal_packets)
        wanted = self._wanted()
        await self._supervisor.stop([name for name in self._running() if name not in wanted])
        for status in await self._supervisor.start(wanted, settings_of(settings)):
            if not status.running:
                warnings.append(f"{status.name}: not started: {status.reason}")
        self._logs.pbserv.critical("reloaded", services=",".join(self._running()))
        return Response(True, ("configuration reloaded", *(f"warning: {w}" for w in warnings)))

    async def _start_added(self, added: Sequence[str], settings: Settings) -> list[str]:
        """A service that Services names newly must start, or the reload is refused."""
        statuses = await self._supervisor.start(_in_order(added), settings_of(settings))
        return [f"{status.name}: not started: {status.reason}" for status in statuses if not status.running]

    def _running(self) -> tuple[str, ...]:
        return tuple(status.name for status in self._supervisor.status() if status.running)

    def _keep_until_restart(self, settings: Settings, warnings: list[str]) -> Settings:
        """Keys that a running process cannot change keep their old value, and the answer says so."""
        kept: dict[str, Any] = {}
        for key, attribute in RESTART_KEYS.items():
            old, new = getattr(self._settings.pbserv, attribute), getattr(settings.pbserv, attribute)
            if old != new:
                kept[attribute] = old
                warnings.append(f"pbserv.conf: {key} = {new or ''} takes effect at the next restart")
        return replace(settings, pbserv=settings.pbserv.model_copy(update=kept)) if kept else settings

    async def _prepare_and_swap(self, settings: Settings) -> list[str]:
        foreign = [str(problem) for problem in bound_addresses(settings, self._running())]
        if foreign:
            return foreign
        values: Mapping[str, Any] = settings_of(settings)
        try:
            web = await self._parts.web.prepare(values["web"])
        except PbservError as fault:
            return [f"web: {fault}"]
        errors = await self._supervisor.reload(values)
        if errors:
            web.abort()
        else:
            web.commit()
        return errors

    def _console_url(self) -> str:
        conf = self._settings.pbserv
        return f"http://{conf.http_address or conf.ip_address or '127.0.0.1'}:{conf.http_port}/"

    def _listening_lines(self) -> list[str]:
        lines = []
        for status in self._supervisor.status():
            if status.running:
                where = (
                    ", ".join(status.listeners or self._parts.web.listeners) or f"no listener: {self._parts.web.fault}"
                )
                lines.append(f"{status.title}: {where}")
        if self._parts.web.running:
            lines.append(f"console: {self._console_url()}")
        lines += self._tls_lines()
        return lines

    def _tls_lines(self) -> list[str]:
        https = self._https()
        if https is None:
            return []
        if https["fault"]:
            return [f"warning: {https['fault']}"]
        return [f"console over TLS: {https['url']}, certificate SHA-256 {https['fingerprint']}"]

    def _https(self) -> Mapping[str, str] | None:
        """Where it is served and with which certificate, or why it is not (``fault``); None: it is not wanted."""
        web, conf = self._parts.web, self._settings.pbserv
        if not web.tls_fault and not web.fingerprint:
            return None
        where = f"https://{conf.http_address or conf.ip_address or '127.0.0.1'}:{conf.https_port}/"
        fingerprint = "" if web.tls_fault else web.fingerprint
        return {"url": where, "fingerprint": fingerprint, "fault": web.tls_fault}

    def _summary(self) -> str:
        return "running: " + ", ".join(self._running())


def _in_order(names: Sequence[str] | set[str]) -> tuple[str, ...]:
    return tuple(name for name in SERVICE_NAMES if name in set(names))


def _status_data(status: ServiceStatus) -> Mapping[str, JsonValue]:
    return {
        "name": status.name,
        "title": status.title,
        "running": status.running,
        "listeners": list(status.listeners),
        "reason": status.reason,
    }


__all__ = ["Overrides", "Parts", "Process", "serve"]
