"""Service control: the arguments of the original's scripts (manual, table D-17) with LSB exit codes."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from pbserv.commands.locate import run_directory
from pbserv.conf.load import ConfigError
from pbserv.daemon.control import CONTROL_SOCKET_NAME, JsonValue, Request, Response, ask
from pbserv.daemon.detach import ReadyPipe, TerminalReady, daemonize
from pbserv.daemon.pidfile import PID_FILE_NAME, ServerStatus, read_state
from pbserv.daemon.process import stop_server
from pbserv.errors import ControlError, PbservError, UsageError
from pbserv.hostcheck import host_problems
from pbserv.settings import SERVICE_NAMES, TITLES, Settings, load_settings

NOT_RUNNING = 3
JUST_IMAGED: Final = "setjustimagedflag"


def start(conf: Path, names: Sequence[str]) -> int:
    """Start the process, or services inside the one that runs; ``setjustimagedflag`` is no service (table D-17)."""
    if names and names[0] == JUST_IMAGED:
        from pbserv.commands import identity

        return identity.set_just_imaged(conf, names[1:])
    _check_names(names)
    settings = load_settings(conf)
    state = read_state(run_directory(conf) / PID_FILE_NAME)
    if state.running:
        if names:
            return _print(_ask(conf, "start", names))
        return _start_missing(conf, state.pid)
    _require_start_rights(settings, names)

    def serve(ready: ReadyPipe) -> int:
        from pbserv.app import Overrides
        from pbserv.app import serve as run_server

        return run_server(conf, ready, Overrides(tuple(names) or None))

    report = daemonize(serve)
    runs = any(service.ready for service in report.services)
    for line in report.lines:
        failure = report.exit_code and (not runs or ": not started: " in line)
        print(line, file=sys.stderr if failure else sys.stdout)
    if runs:
        missing = [service.name for service in report.services if not service.ready]
        print(f"pbserv started, process {report.pid}" + (f", without {', '.join(missing)}" if missing else ""))
    return report.exit_code


def _start_missing(conf: Path, pid: int | None) -> int:
    """A second start: nothing to do when all run, else start those that do not."""
    status = _ask(conf, "status", ())
    stopped = [s["name"] for s in _services(status) if not s["running"]]
    if not stopped:
        print(f"pbserv is running already, process {pid}")
        return 0
    print(f"pbserv is running already, process {pid}; starting {', '.join(stopped)}")
    return _print(_ask(conf, "start", stopped))


def stop(conf: Path, names: Sequence[str]) -> int:
    """Stop services, or without names the process; returns when it is gone."""
    _check_names(names)
    run = run_directory(conf)
    if not names or not read_state(run / PID_FILE_NAME).running:
        return _stop_process(run)
    answer = ask(run / CONTROL_SOCKET_NAME, Request("stop", tuple(names)))
    code = _print(answer)
    return _stop_process(run) if answer.data.get("ending") else code


def _stop_process(run: Path) -> int:
    pid = stop_server(run / PID_FILE_NAME, timeout_s=30, kill=True)
    print("pbserv is not running" if pid is None else f"pbserv stopped, process {pid}")
    return 0


def restart(conf: Path, names: Sequence[str]) -> int:
    """A configuration that cannot be read leaves the old process running."""
    _check_names(names)
    load_settings(conf)
    if not read_state(run_directory(conf) / PID_FILE_NAME).running:
        return start(conf, names)
    if names:
        return _print(_ask(conf, "restart", names))
    return stop(conf, ()) or start(conf, ())


def force_reload(conf: Path, names: Sequence[str]) -> int:
    """One transaction: any error leaves the old configuration running."""
    _check_names(names)
    return _print(ask(run_directory(conf) / CONTROL_SOCKET_NAME, Request("reload")))


def status(conf: Path, names: Sequence[str], as_json: bool) -> int:
    """One line per service in the manual's form, then process, uptime and listeners."""
    try:
        _check_names(names)
    except UsageError as fault:
        print(f"pbserv: {fault}", file=sys.stderr)
        return int(ServerStatus.UNKNOWN)
    run = run_directory(conf)
    state = read_state(run / PID_FILE_NAME)
    wanted = _ordered(names or _configured_services(conf))
    if state.running:
        return _status_of_running(run, names, as_json)
    if as_json:
        rows: list[dict[str, Any]] = [{"name": name, "title": TITLES[name], "running": False} for name in wanted]
        print(json.dumps({"services": rows, "reason": state.reason}))
    else:
        for name in wanted:
            print(f"{TITLES[name]} not running")
    match state.status:
        case ServerStatus.DEAD:
            print(f"process {state.pid} is dead; its pid file {run / PID_FILE_NAME} was left behind", file=sys.stderr)
        case ServerStatus.UNKNOWN:
            print(f"pbserv: {state.reason}", file=sys.stderr)
    return int(state.status)


def _status_of_running(run: Path, names: Sequence[str], as_json: bool) -> int:
    try:
        answer = ask(run / CONTROL_SOCKET_NAME, Request("status", tuple(names)))
    except ControlError as fault:
        print(f"pbserv: {fault}", file=sys.stderr)
        return int(ServerStatus.UNKNOWN)
    data = answer.data
    if as_json:
        print(json.dumps(data))
    else:
        shown = [service["name"] for service in _services(answer)]
        for service in _services(answer):
            reason = f" ({service['reason']})" if service["reason"] else ""
            print(f"{service['title']} {'running' if service['running'] else 'not running'}{reason}")
        print(f"process {data['pid']}, up {_duration(float(str(data['uptime_s'])))}, version {data['version']}")
        for service in _services(answer):
            for listener in service["listeners"]:
                print(f"  {service['name']}: {listener}")
        if {"imaging", "policy"} & set(shown):
            _show_web(data)
    return 0 if answer.ok else NOT_RUNNING


def _show_web(data: Mapping[str, JsonValue]) -> None:
    """Where the HTTP server listens, plain HTTP first, and by what its certificate is known."""
    listeners, https = data["listeners"], data.get("https")
    places = [data["url"]] + ([https["url"]] if isinstance(https, Mapping) else [])
    for listener, url in zip(listeners if isinstance(listeners, list) else [], places, strict=False):
        print(f"  {str(url).partition(':')[0]}: {listener}  {url}")
    if isinstance(https, Mapping):
        print(f"  {https['fault']}" if https["fault"] else f"  certificate: SHA-256 {https['fingerprint']}")


def showpid(conf: Path, names: Sequence[str]) -> int:
    """The process id alone, for scripts."""
    _check_names(names)
    state = read_state(run_directory(conf) / PID_FILE_NAME)
    if not state.running:
        print("pbserv is not running", file=sys.stderr)
        return int(state.status)
    print(state.pid)
    return 0


def run(conf: Path, names: Sequence[str], local: Path | None) -> int:
    """The foreground: what systemd, containers and `make run` use."""
    from pbserv.app import Overrides, serve

    _check_names(names)
    banner: tuple[str, ...] = ()
    if local is not None:
        from pbserv.commands.local import prepare

        conf, banner = prepare(local)
    _require_start_rights(load_settings(conf), names)
    return serve(conf, TerminalReady(), Overrides(tuple(names) or None, banner))


def check(conf: Path) -> int:
    """Everything that is wrong, then everything that deserves a look."""
    try:
        settings = load_settings(conf)
    except ConfigError as fault:
        for problem in fault.problems:
            print(problem, file=sys.stderr)
        return 1
    for warning in (*settings.warnings, *host_problems(settings)):
        print(f"warning: {warning}")
    print(f"configuration in {conf} is valid" if conf.is_dir() else f"{conf} does not exist: all defaults")
    return 0


def _configured_services(conf: Path) -> Sequence[str]:
    """What should run; with broken files nobody can say, so all are named, and the faults are printed."""
    try:
        return load_settings(conf).pbserv.services
    except ConfigError as fault:
        for problem in fault.problems:
            print(problem, file=sys.stderr)
        return SERVICE_NAMES


def _ask(conf: Path, verb: str, names: Sequence[str]) -> Response:
    return ask(run_directory(conf) / CONTROL_SOCKET_NAME, Request(verb, tuple(names)))


def _services(answer: Response) -> list[dict[str, Any]]:
    services = answer.data.get("services", [])
    return [dict(s) for s in services if isinstance(s, dict)] if isinstance(services, list) else []


def _print(answer: Response) -> int:
    for line in answer.lines:
        print(line)
    for line in answer.errors:
        print(line, file=sys.stderr)
    return 0 if answer.ok else 1


def _ordered(names: Sequence[str]) -> list[str]:
    return [name for name in SERVICE_NAMES if name in names]


def _check_names(names: Sequence[str]) -> None:
    for name in names:
        if name == JUST_IMAGED:
            raise UsageError(f"{name} is no service; it stands alone: pbserv start {name} [MAC]...")
        if name not in SERVICE_NAMES:
            raise UsageError(f"there is no service {name}; the names are {', '.join(SERVICE_NAMES)}")


def _require_start_rights(settings: Settings, names: Sequence[str]) -> None:
    """Not root: say plainly what would fail, before a daemon is forked."""
    from pbserv.daemon.privileges import can_bind

    if os.geteuid() == 0:
        return
    ports = {
        "tftp": (settings.tftp.port,),
        "proxydhcp": (settings.proxydhcp.proxydhcp_port, settings.proxydhcp.boot_server_port),
        "imaging": (settings.pbserv.http_port,),
    }
    wanted = names or settings.pbserv.services
    low = [f"{name} port {port}" for name in wanted for port in ports.get(name, ()) if not can_bind(port)]
    state = settings.pbserv.state_directory
    if low or not os.access(state if state.exists() else state.parent, os.W_OK):
        what = ", ".join(low) or f"writing {state}"
        raise PbservError(f"starting needs root rights ({what}): run it as root or with sudo, or try `make run`")


def _duration(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    parts = [(days, "d"), (hours, "h"), (minutes, "min"), (rest, "s")]
    return " ".join(f"{value} {unit}" for value, unit in parts if value) or "0 s"
