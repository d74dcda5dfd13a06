"""The composition root: configuration -> directories, pid lock, privileges -> registry -> loop -> services."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import uvloop

from pbserv import __version__
from pbserv.conf.load import ConfigError
from pbserv.daemon.control import CONTROL_SOCKET_NAME, ControlServer, JsonValue, Request, Response
from pbserv.daemon.detach import Readiness
from pbserv.daemon.directories import prepare_directories
from pbserv.daemon.notify import Notifier
from pbserv.daemon.pidfile import PID_FILE_NAME, PidFile
from pbserv.daemon.privileges import Account, drop_privileges, find_account
from pbserv.errors import PbservError, StartError
from pbserv.journal.history import History
from pbserv.registry.access import Access
from pbserv.registry.migrate import migrate
from pbserv.registry.registry import Registry
from pbserv.registry.tokens import ADMIN_ROLE, WorkTokens, digest, load_secret, new_token, write_private
from pbserv.service import ServiceStatus
from pbserv.services import Logs, Parts, settings_of, wire
from pbserv.settings import SERVICE_NAMES, Settings, host_warnings, load_settings
from pbserv.supervisor import Supervisor

RESTART_KEYS = ("state_directory", "user")
WANTED_FILES = 65_536


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
    own_files(settings, account)
    drop_privileges(settings.pbserv.user)
    os.umask(0o027)
    with PidFile.acquire(settings.run_directory / PID_FILE_NAME):
        _raise_file_limit()
        state = settings.pbserv.state_directory
        migrate(state / "registry.db")
        tokens = WorkTokens(load_secret(state / "secret.key"))
        process = Process(settings, tokens, ready, overrides)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(process.run())


def own_files(settings: Settings, account: Account | None) -> None:
    """Files that root made in an earlier run (another ``User``) would lock the service user out: hand them over."""
    if account is None:
        return
    for name in ("registry.db", "registry.db-wal", "registry.db-shm", "secret.key", "admin.token"):
        path = settings.pbserv.state_directory / name
        if path.is_file() and not path.is_symlink() and path.stat().st_uid == 0:
            os.chown(path, account.uid, account.gid, follow_symlinks=False)


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
        self._started = time.monotonic()

    async def run(self) -> int:
        self._stop = asyncio.Event()
        self._logs.configure(self._settings)
        for warning in (*self._settings.warnings, *host_warnings(self._settings)):
            self._logs.pbserv.warning("configuration", problem=str(warning))
            self._ready.line(f"warning: {warning}")
        registry = Registry.open(self._settings.pbserv.state_directory / "registry.db")
        try:
            return await self._run(registry)
        finally:
            await registry.close()

    async def _run(self, registry: Registry) -> int:
        access = Access(await self._admin_tokens(registry), self._tokens)
        history = History(registry)
        # The supervisor owns tasks before it knows the services; they need its spawn().
        self._supervisor = Supervisor((), self._logs.pbserv)
        self._parts = wire(self._settings, self._logs, registry, access, self._tokens, history, self._supervisor.spawn)
        self._supervisor.adopt(self._parts.services)
        self._supervisor.spawn_forever("history", history.run)
        self._supervisor.spawn_forever("sightings", self._parts.policy.run)
        control = ControlServer(
            self._settings.run_directory / CONTROL_SOCKET_NAME, self._on_control, on_bug=self._on_bug
        )
        try:
            self._handle_signals()
            await control.start()
            code = await self._start_all()
            if code is None:
                return 1
            await self._stop.wait()
            return 0
        finally:
            self._notifier.stopping()
            await self._supervisor.stop(self._supervisor.names)
            await self._parts.web.stop()
            await history.flush()
            await control.close()
            await self._supervisor.close()
            self._logs.pbserv.critical("stopped")
            self._ready.done(1)

    async def _start_all(self) -> int | None:
        """Start web and the wanted services and report; None when nothing could be started."""
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
        if len(failed) == len(statuses):
            self._ready.done(1)
            return None
        self._logs.pbserv.critical("started", version=__version__, services=",".join(names))
        self._notifier.ready(self._summary())
        self._ready.done(1 if failed else 0)
        return 1 if failed else 0

    async def _start_web(self) -> None:
        try:
            await self._parts.web.start(settings_of(self._settings)["web"])
        except StartError as fault:
            self._parts.web.fault = f"HTTP server: {fault}"
            self._logs.pbserv.critical("not started", part="web", reason=str(fault))

    async def _admin_tokens(self, registry: Registry) -> dict[str, str]:
        """The digests of administrators' tokens; the first start makes one and prints it once."""
        digests = await registry.token_digests()
        if digests:
            return digests
        token = new_token()
        path = self._settings.pbserv.state_directory / "admin.token"
        write_private(path, token.encode() + b"\n")
        await registry.add_token("first", ADMIN_ROLE, digest(token))
        self._ready.line(f"administrator's token (shown once; the local command line reads {path}): {token}")
        return {digest(token): ADMIN_ROLE}

    def _handle_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        loop.add_signal_handler(signal.SIGHUP, lambda: self._supervisor.spawn("reload", self._on_hangup()))

    async def _on_hangup(self) -> None:
        for error in (await self._reload()).errors:
            self._logs.pbserv.critical("reload refused", reason=error)

    def _on_bug(self, fault: Exception) -> None:
        self._logs.pbserv.critical("control request failed", exc_info=fault)

    # the control socket

    async def _on_control(self, request: Request) -> Response:
        match request.verb:
            case "status":
                return self._status(request.names)
            case "start":
                return await self._start(request.names)
            case "stop":
                return await self._stop_services(request.names)
            case "reload":
                return await self._reload()
            case "statistics":
                return Response(True, data=self._parts.imaging.figures())
            case _:
                return Response(False, errors=(f"unknown request {request.verb}",))

    def _wanted(self) -> tuple[str, ...]:
        """The services that should run: those of the configuration and those started by hand."""
        configured = set() if self._overrides.services else set(self._settings.pbserv.services)
        return _in_order((configured - self._stopped_by_hand) | self._by_hand)

    _stopped_by_hand: frozenset[str] = frozenset()

    def _status(self, names: Sequence[str]) -> Response:
        statuses = self._supervisor.status(_in_order(names or self._settings.pbserv.services))
        return Response(
            all(status.running for status in statuses),
            data={
                "pid": os.getpid(),
                "uptime_s": round(time.monotonic() - self._started, 1),
                "version": __version__,
                "url": self._console_url(),
                "listeners": list(self._parts.web.listeners),
                "services": [_status_data(status) for status in statuses],
            },
        )

    async def _start(self, names: Sequence[str]) -> Response:
        names = _in_order(names or self._settings.pbserv.services)
        if not self._parts.web.running:
            await self._start_web()
        before = {name for name in names if self._supervisor.running(name)}
        statuses = await self._supervisor.start(names, settings_of(self._settings))
        self._by_hand.update(names)
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
        if not any(status.running for status in self._supervisor.status()):
            self._stop.set()
        return Response(True, tuple(f"{status.title} stopped" for status in statuses))

    async def _reload(self) -> Response:
        """Everything or nothing: a reload that cannot succeed changes nothing."""
        self._notifier.reloading()
        try:
            settings = load_settings(self._settings.directory)
        except ConfigError as fault:
            self._notifier.ready()
            return Response(False, errors=(*(str(p) for p in fault.problems), "nothing was changed"))
        warnings = [str(problem) for problem in settings.warnings]
        settings = self._keep_until_restart(settings, warnings)
        errors = await self._prepare_and_swap(settings)
        if errors:
            self._notifier.ready()
            return Response(False, errors=(*errors, "nothing was changed"))
        self._settings = settings
        self._logs.configure(settings)
        errors = await self._follow_services()
        self._logs.pbserv.critical("reloaded", services=",".join(self._wanted()))
        self._notifier.ready(self._summary())
        return Response(not errors, ("configuration reloaded", *(f"warning: {w}" for w in warnings)), tuple(errors))

    def _keep_until_restart(self, settings: Settings, warnings: list[str]) -> Settings:
        """Keys that a running process cannot change keep their old value, and the answer says so."""
        kept: dict[str, Any] = {}
        for key in RESTART_KEYS:
            old, new = getattr(self._settings.pbserv, key), getattr(settings.pbserv, key)
            if old != new:
                kept[key] = old
                warnings.append(f"pbserv.conf: {key} = {new} takes effect at the next restart")
        return replace(settings, pbserv=settings.pbserv.model_copy(update=kept)) if kept else settings

    async def _prepare_and_swap(self, settings: Settings) -> list[str]:
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

    async def _follow_services(self) -> list[str]:
        """After a reload start what the Services key added and stop what it no longer names."""
        wanted = self._wanted()
        extra = [name for name in self._supervisor.names if self._supervisor.running(name) and name not in wanted]
        await self._supervisor.stop(extra)
        statuses = await self._supervisor.start(wanted, settings_of(self._settings))
        return [f"{status.name}: not started: {status.reason}" for status in statuses if not status.running]

    def _console_url(self) -> str:
        conf = self._settings.pbserv
        return f"http://{conf.http_address or conf.ip_address or '127.0.0.1'}:{conf.http_port}/"

    def _listening_lines(self) -> list[str]:
        lines = []
        for status in self._supervisor.status():
            if status.running:
                where = ", ".join(status.listeners or self._parts.web.listeners)
                lines.append(f"{status.title}: {where}")
        if self._parts.web.running:
            lines.append(f"console: {self._console_url()}")
        return lines

    def _summary(self) -> str:
        return "running: " + ", ".join(s.name for s in self._supervisor.status() if s.running)


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
