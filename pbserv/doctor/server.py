"""The server itself and its files: does it run, does each service, and what does it say of its configuration? Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Final

from pbserv.conf.load import Problem
from pbserv.doctor.facts import Facts
from pbserv.doctor.finding import Finding, Severity, error, note, warning
from pbserv.settings import TITLES

# Keys that hostcheck names only when their service does not start.
_STOPPING: Final = frozenset(("TFTPDirectory", "TFTPMapFile", "BootServerPort", "StrategyTable", "LIBRARY_NAME"))


def services_running(facts: Facts) -> Iterator[Finding]:
    """A service that should run and does not, with the reason that it gave."""
    server = facts.server
    if server.fault:
        yield error("the server runs, but does not answer", server.fault, "pbserv restart")
    elif not server.running:
        yield note("the server does not run", "no process has its pid file", "pbserv start")
        return
    for name, reason in server.services.items():
        if reason:
            yield error(f"{TITLES.get(name, name)} does not run", reason, f"pbserv start {name}")


def proxydhcp_wanted(facts: Facts) -> Iterator[Finding]:
    """ProxyDHCP is not among the services that start by themselves: PXE clients get nothing until somebody says so."""
    if facts.wants("proxydhcp"):
        return
    say: Callable[..., Finding] = warning if facts.server.running else note
    yield say(
        "proxyDHCP is not among the services: no PXE client gets an offer from here",
        f"Services = {' '.join(facts.settings.pbserv.services)}",
        "now: pbserv start proxydhcp",
        "at every start: pbserv install proxydhcp, or add it to Services in pbserv.conf",
    )


def configuration(problems: Iterable[Problem], severity: Severity | None = None) -> list[Finding]:
    """What the files deserve a word about, and what cannot hold on this host, as findings of ``severity``.

    Without it the key decides: an error where its service does not start.
    """
    return [
        Finding(
            severity or (Severity.ERROR if problem.key in _STOPPING else Severity.WARNING),
            f"{problem.key}: {problem.reason}" if problem.key else problem.reason,
            f"{problem.file}:{problem.line}" if problem.line else problem.file,
            ("correct it there, then: pbserv check && pbserv force-reload",) if problem.line else (),
        )
        for problem in problems
    ]
