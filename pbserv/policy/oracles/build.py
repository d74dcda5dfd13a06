"""Which other server decides, of the settings; there is one at most."""

from __future__ import annotations

import os
import ssl
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from pbserv.errors import StartError
from pbserv.log import ServiceLog
from pbserv.net.interfaces import address_on_host
from pbserv.policy.config import PolicyConf
from pbserv.policy.oracles.hook import Hook, HookSettings
from pbserv.policy.oracles.ports import Oracle
from pbserv.policy.oracles.preboot_server import FILE, PrebootServer, ServerSettings
from pbserv.policy.oracles.questions import Spawn

OracleSettings = HookSettings | ServerSettings | None
"""Equal settings mean the same oracle: a reload that changes nothing here keeps it, with what it knows."""
MOST_BYTES = 512
MOST_PEM = 1024 * 1024


def oracle_settings(conf: PolicyConf, http_port: int, state: Path | None) -> OracleSettings:
    """None: this server decides, which is also what its own address means. ``state``: StateDirectory; None: answers of
    PrebootServer are kept in memory alone.

    Raises StartError for settings that do not go together and a token that cannot be used.
    """
    server = _other_server(conf.preboot_server, http_port)
    if conf.hook is not None and server:
        raise StartError("PolicyHook and PrebootServer are both set, and one server decides: remove one of the two; the"
                         " server that PrebootServer names may have a PolicyHook of its own")  # fmt: skip
    if conf.hook is not None:
        return HookSettings(conf.hook, conf.hook_timeout_ms / 1000, conf.hook_failure)
    if not server:
        return None
    if conf.preboot_server_token is None:
        raise StartError(f"PrebootServer = {conf.preboot_server} needs PrebootServerToken: a file with a token of role"
                         " site of that server (there: pbserv token create)")  # fmt: skip
    file = None if state is None else state / FILE
    settings = ServerSettings(server, read_token(conf.preboot_server_token), file, _trust(conf, server))
    try:
        settings.context()
    except (ssl.SSLError, ValueError):
        raise StartError(f"PrebootServerCA: {conf.preboot_server_ca} holds no certificate in PEM form"
                         " (-----BEGIN CERTIFICATE-----)") from None  # fmt: skip
    return settings


def oracle_of(
    settings: OracleSettings,
    spawn: Spawn,
    log: ServiceLog,
    clock: Callable[[], float] = time.monotonic,
    calendar: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> Oracle | None:
    """Not open yet. ``spawn``: :meth:`pbserv.supervisor.Supervisor.spawn`."""
    match settings:
        case HookSettings():
            return Hook(settings, spawn, log, clock)
        case ServerSettings():
            return PrebootServer(settings, spawn, log, clock, calendar)
    return None


def read_token(path: Path) -> str:
    """Raises StartError that names the remedy."""
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            text = file.read(MOST_BYTES + 1).decode("ascii", "replace").strip()
    except OSError as fault:
        raise StartError(f"PrebootServerToken: {path}: {fault.strerror}; it must be a file with a token that the"
                         " service user can read") from None  # fmt: skip
    if mode & 0o004:
        raise StartError(f"PrebootServerToken: everybody can read {path}, which holds a token; do: chmod o-r {path}")
    if not 1 <= len(text) <= MOST_BYTES or not text.isascii() or not text.isprintable() or " " in text:
        raise StartError(f"PrebootServerToken: {path} does not hold one token; write the line there that pbserv token"
                         " create printed on the other server")  # fmt: skip
    return text


def _trust(conf: PolicyConf, server: str) -> str:
    """The fingerprint, or what the file holds: a file that changed means other settings."""
    ca = conf.preboot_server_ca
    if ca is None:
        return ""
    if not server.startswith("https://"):
        raise StartError(f"PrebootServerCA: {server} is asked over plain HTTP, where nobody can be believed: write"
                         " PrebootServer = https://HOST:PORT with its HTTPSPort")  # fmt: skip
    if not ca.startswith("/"):
        return ca
    try:
        with Path(ca).open("rb") as file:
            text = file.read(MOST_PEM + 1).decode("ascii", "replace")
    except OSError as fault:
        raise StartError(f"PrebootServerCA: {ca}: {fault.strerror}; it must be a PEM file that the service user can"
                         " read") from None  # fmt: skip
    if not text.isascii() or len(text) > MOST_PEM or not text.strip():
        raise StartError(f"PrebootServerCA: {ca} holds no certificate in PEM form (-----BEGIN CERTIFICATE-----)")
    return text


def _other_server(server: str | None, http_port: int) -> str:
    """``host:port`` or ``https://host:port``; empty for this server."""
    if server is None:
        return ""
    if server.startswith("https://"):
        return server
    host, _, port = server.partition(":")
    number = int(port or http_port)
    literal = host.replace(".", "").isdigit()
    if number == http_port and (host == "localhost" or (literal and address_on_host(host))):
        return ""
    return f"{host}:{number}"
