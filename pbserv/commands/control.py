"""Service control: the arguments of the original's scripts (manual, table D-17) with LSB exit codes."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pbserv.conf.load import ConfigError
from pbserv.daemon.control import CONTROL_SOCKET_NAME, Request, Response, ask
from pbserv.daemon.detach import ReadyPipe, TerminalReady, daemonize
from pbserv.daemon.pidfile import PID_FILE_NAME, ServerStatus, read_state
from pbserv.daemon.process import stop_server
from pbserv.errors import ControlError, PbservError
from pbserv.settings import SERVICE_NAMES, TITLES, Settings, host_warnings, load_settings

NOT_RUNNING = 3
USAGE = 2


def start(conf: Path, names: Sequence[str]) -> int:
    """Start the process, or services inside the one that runs."""
    _check_names(names)
    settings = _settings(conf)
    state = read_state(_pid_file(settings))
    if state.running:
        if names:
            return _print(_ask(settings, "start", names))
        return _start_missing(settings, state.pid)
    _require_start_rights(settings)

    def serve(ready: ReadyPipe) -> int:
        from pbserv.app import Overrides
        from pbserv.app import serve as run_server

        return run_server(conf, ready, Overrides(tuple(names) or None))

    report = daemonize(serve)
    for line in report.lines:
        print(line, file=sys.stderr if report.exit_code and not line.startswith("administrator") else sys.stdout)
    if report.exit_code == 0:
        print(f"pbserv started, process {report.pid}")
    return report.exit_code


def _start_missing(settings: Settings, pid: int | None) -> int:
    """A second start: nothing to do when all run, else start those that do not."""
    status = _ask(settings, "status", ())
    stopped = [s["name"] for s in _services(status) if not s["running"]]
    if not stopped:
        print(f"pbserv is running already, process {pid}")
        return 0
    print(f"pbserv is running already, process {pid}; starting {', '.join(stopped)}")
    return _print(_ask(settings, "start", stopped))


def stop(conf: Path, names: Sequence[str]) -> int:
    """Stop services, or without names the process; returns when it is gone."""
    _check_names(names)
    settings = _settings(conf)
    if names:
        if not read_state(_pid_file(settings)).running:
            print("pbserv is not running")
            return 0
        return _print(_ask(settings, "stop", names))
    pid = stop_server(_pid_file(settings), timeout_s=30, kill=True)
    print("pbserv is not running" if pid is None else f"pbserv stopped, process {pid}")
    return 0


def restart(conf: Path, names: Sequence[str]) -> int:
    """A configuration that cannot be read leaves the old process running."""
    _check_names(names)
    settings = _settings(conf)
    if not read_state(_pid_file(settings)).running:
        return start(conf, names)
    code = stop(conf, names)
    return code or start(conf, names)


def force_reload(conf: Path, names: Sequence[str]) -> int:
    """One transaction: any error leaves the old configuration running."""
    _check_names(names)
    settings = _load_or_none(conf)
    state_directory = settings.pbserv.state_directory if settings else _running_state_directory(conf)
    if state_directory is None:
        _settings(conf)
        return 1
    path = state_directory / "run" / CONTROL_SOCKET_NAME
    return _print(ask(path, Request("reload")))


def status(conf: Path, names: Sequence[str], as_json: bool) -> int:
    """One line per service in the manual's form, then process, uptime and listeners."""
    _check_names(names)
    settings = _settings(conf)
    state = read_state(_pid_file(settings))
    wanted = _ordered(names or settings.pbserv.services)
    if state.running:
        return _status_of_running(settings, names, as_json)
    if as_json:
        rows: list[dict[str, Any]] = [{"name": name, "title": TITLES[name], "running": False} for name in wanted]
        print(json.dumps({"services": rows, "reason": state.reason}))
    else:
        for name in wanted:
            print(f"{TITLES[name]} not running")
    match state.status:
        case ServerStatus.DEAD:
            print(f"process {state.pid} is dead; its pid file {_pid_file(settings)} was left behind", file=sys.stderr)
        case ServerStatus.UNKNOWN:
            print(f"pbserv: {state.reason}", file=sys.stderr)
    return int(state.status)


def _status_of_running(settings: Settings, names: Sequence[str], as_json: bool) -> int:
    try:
        answer = _ask(settings, "status", names)
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
        listeners = data["listeners"]
        if isinstance(listeners, list) and {"imaging", "policy"} & set(shown):
            for listener in listeners:
                print(f"  http: {listener}  {data['url']}")
    return 0 if answer.ok else NOT_RUNNING


def showpid(conf: Path, names: Sequence[str]) -> int:
    """The process id alone, for scripts."""
    _check_names(names)
    state = read_state(_pid_file(_settings(conf)))
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
    _settings(conf)
    return serve(conf, TerminalReady(), Overrides(tuple(names) or None, banner))


def check(conf: Path) -> int:
    """Everything that is wrong, then everything that deserves a look."""
    try:
        settings = load_settings(conf)
    except ConfigError as fault:
        for problem in fault.problems:
            print(problem, file=sys.stderr)
        return 1
    for warning in (*settings.warnings, *host_warnings(settings)):
        print(f"warning: {warning}")
    print(f"configuration in {conf} is valid" if conf.is_dir() else f"{conf} does not exist: all defaults")
    return 0


def _settings(conf: Path) -> Settings:
    return load_settings(conf)


def _load_or_none(conf: Path) -> Settings | None:
    try:
        return load_settings(conf)
    except ConfigError:
        return None


def _running_state_directory(conf: Path) -> Path | None:
    """The files are broken now: find the server by the StateDirectory line alone, else by its default."""
    from pbserv.conf import grammar
    from pbserv.imaging.config import FILE, PbservConf

    for name in FILE.names:
        try:
            entries = grammar.parse(grammar.decode((conf / name).read_bytes())).entries
        except OSError:
            continue
        for entry in entries:
            if entry.key.lower() == "statedirectory" and entry.value.startswith("/"):
                return Path(entry.value)
    directory: Path = PbservConf().state_directory
    return directory


def _pid_file(settings: Settings) -> Path:
    return settings.run_directory / PID_FILE_NAME


def _ask(settings: Settings, verb: str, names: Sequence[str]) -> Response:
    return ask(settings.run_directory / CONTROL_SOCKET_NAME, Request(verb, tuple(names)))


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
        if name == "setjustimagedflag":
            raise PbservError("start setjustimagedflag: image-safe data is not supported by this version")
        if name not in SERVICE_NAMES:
            raise PbservError(f"there is no service {name}; the names are {', '.join(SERVICE_NAMES)}")


def _require_start_rights(settings: Settings) -> None:
    """Not root: say plainly what would fail, before a daemon is forked."""
    from pbserv.daemon.privileges import can_bind

    if os.geteuid() == 0:
        return
    wanted = {"tftp": settings.tftp.port, "proxydhcp": settings.proxydhcp.proxydhcp_port}
    low = [
        f"{name} port {port}"
        for name, port in wanted.items()
        if name in settings.pbserv.services and not can_bind(port)
    ]
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
