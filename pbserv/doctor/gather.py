"""Everything that the checks look at, gathered from this host, the running server and the network.

One rule: nothing here judges, and what cannot be learned is left out, so that a broken part never hides the others.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import re
import resource
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from pbserv.daemon.control import CONTROL_SOCKET_NAME, Request, ask
from pbserv.daemon.pidfile import PID_FILE_NAME, read_state
from pbserv.daemon.privileges import capabilities
from pbserv.doctor import adapters, handed_out, holders, reach, rulesets, samehost
from pbserv.doctor.facts import Capacity, Facts, Rights, ServerFacts, Surroundings
from pbserv.doctor.places import places
from pbserv.errors import ControlError
from pbserv.settings import Settings

_SYSCTL: Final = Path("/proc/sys")


def gather(settings: Settings, run_directory: Path, interface: str = "") -> Facts:
    """All but the network, which takes time and rights; see :mod:`pbserv.doctor.network`."""
    server = server_facts(run_directory)
    filters = rulesets.firewalls() if os.geteuid() == 0 else rulesets.Firewalls((), (), frozenset())
    bound = holders.bound_sockets(_ports(settings))
    port = settings.proxydhcp.proxydhcp_port
    ours = any((held.pid, held.protocol, held.port) == (server.pid, "udp", port) for held in bound)
    database, stock = reach.database(settings)
    return Facts(
        settings=settings,
        interface=interface,
        server=server,
        bound=bound,
        dhcp_programs=holders.programs_here([name for name in samehost.SERVERS if name != "windows"]),
        links=adapters.links(),
        firewalls=filters.rulesets,
        frontends=filters.frontends,
        unread_firewalls=filters.unread,
        rights=_rights(settings),
        loaders=tuple(handed_out.loaders(settings, stock)),
        lacking=tuple(handed_out.lacking(settings, stock)),
        templates=reach.templates(settings.policy.template_directory),
        database=database,
        elsewhere=reach.elsewhere(settings),
        certificate=reach.certificate(settings),
        host=socket.gethostname(),
        capacity=_capacity(server.pid, port if ours else None),
        surroundings=_surroundings(settings.pbserv.state_directory),
    )


def server_facts(run_directory: Path) -> ServerFacts:
    """What the server says of itself, if one runs."""
    state = read_state(run_directory / PID_FILE_NAME)
    if not state.running:
        return ServerFacts()
    try:
        data = ask(run_directory / CONTROL_SOCKET_NAME, Request("status")).data
    except ControlError as fault:
        return ServerFacts(state.pid, fault=str(fault))
    shown = data.get("services", [])
    rows = [row for row in (shown if isinstance(shown, list) else []) if isinstance(row, dict) and "name" in row]
    services = {
        str(row["name"]): "" if row.get("running") else str(row.get("reason") or "it was stopped") for row in rows
    }
    listeners = frozenset(str(text) for row in rows if row["name"] == "proxydhcp" for text in row.get("listeners", ()))
    https = data.get("https")
    https_fault = str(https.get("fault") or "") if isinstance(https, Mapping) else ""
    return ServerFacts(state.pid, services, listeners=listeners, https_fault=https_fault)


def _ports(settings: Settings) -> frozenset[int]:
    return frozenset(
        (67, settings.proxydhcp.proxydhcp_port, settings.proxydhcp.boot_server_port, settings.tftp.port,
         settings.pbserv.http_port, settings.pbserv.https_port or 0)
    )  # fmt: skip


def _rights(settings: Settings) -> Rights:
    user = settings.pbserv.user
    uid: int | None = None
    gids: frozenset[int] = frozenset()
    with contextlib.suppress(KeyError, ValueError):
        entry = pwd.getpwnam(user)
        uid, gids = entry.pw_uid, frozenset(os.getgrouplist(user, entry.pw_gid))
    directory = settings.tftp.directory
    return Rights(
        uid=os.geteuid(),
        capabilities=capabilities().effective,
        first_free_port=_sysctl("net/ipv4/ip_unprivileged_port_start") or 1024,
        user=user,
        user_uid=uid,
        user_gids=gids,
        tftp_path=tuple(places(directory)) if directory.is_dir() else (),
    )


def _capacity(pid: int | None, dhcp_port: int | None) -> Capacity:
    ports = [int(word) for line in _lines(_SYSCTL / "net/ipv4/ip_local_port_range") for word in line.split()]
    return Capacity(
        rmem_max=_sysctl("net/core/rmem_max"),
        receive_buffer=_receive_buffer(dhcp_port) if dhcp_port is not None else None,
        local_ports=(ports[0], ports[1]) if len(ports) == 2 else Capacity().local_ports,
        neighbours_most=_sysctl("net/ipv4/neigh/default/gc_thresh3"),
        neighbours_now=max(0, len(_lines(Path("/proc/net/arp"))) - 1),
        open_files=_file_limit(pid),
    )


def _receive_buffer(port: int) -> int | None:
    """Of the socket that holds ``port``, from ss(8); None when nothing does, or there is no ss."""
    command = ["ss", "-H", "-u", "-l", "-n", "-m", f"sport = :{port}"]
    try:
        shown = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=5, check=False,
            env={"PATH": rulesets.PATH, "LC_ALL": "C"},
        ).stdout  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return None
    found = re.search(r"\brb(\d+)", shown)
    return int(found[1]) if found else None


def _file_limit(pid: int | None) -> int | None:
    """The hard limit of the server, else ours; None when there is none."""
    for line in _lines(Path(f"/proc/{pid}/limits")) if pid is not None else ():
        words = line.removeprefix("Max open files").split()
        if line.startswith("Max open files") and len(words) > 1:
            return int(words[1]) if words[1].isdigit() else None
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    return None if hard == resource.RLIM_INFINITY else hard


def _sysctl(name: str) -> int | None:
    try:
        return int((_SYSCTL / name).read_text())
    except (OSError, ValueError):
        return None


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text("utf-8", "replace").splitlines()
    except OSError:
        return []


def _surroundings(state: Path) -> Surroundings:
    place = next(path for path in (state, *state.parents) if path.exists())
    total, _used, free = shutil.disk_usage(place)
    newest = max(_changes(state), default=None)
    return Surroundings(
        disk_path=str(place),
        disk_total=total,
        disk_free=free,
        now=time.time(),
        newest_file=newest[0] if newest else None,
        newest_path=newest[1] if newest else "",
    )


def _changes(state: Path) -> Iterator[tuple[float, str]]:
    """When the registry was changed last."""
    for name in ("registry.db", "registry.db-wal"):
        with contextlib.suppress(OSError):
            yield (state / name).stat().st_mtime, str(state / name)
