"""`pbserv doctor`: what on this host and its network keeps machines from booting, and what a code on a screen means."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from pbserv.commands.locate import run_directory
from pbserv.conf.load import ConfigError
from pbserv.daemon.privileges import CAP_NET_RAW
from pbserv.doctor import codes
from pbserv.doctor.checks import examine
from pbserv.doctor.facts import Facts
from pbserv.doctor.finding import FINE, Finding, Severity, by_severity, exit_code
from pbserv.doctor.network import KINDS, WAIT_S, Ask, ask_all
from pbserv.doctor.server import configuration
from pbserv.errors import UsageError
from pbserv.hostcheck import bound_addresses, host_problems
from pbserv.settings import SERVICE_NAMES, Settings, load_settings


def examine_host(conf: Path, interface: str | None, quick: bool, as_json: bool) -> int:
    """Look at everything and print what was found; the exit code."""
    try:
        settings = load_settings(conf)
    except ConfigError as fault:
        return _show(configuration(fault.problems, Severity.ERROR), as_json)
    from pbserv.doctor.gather import gather

    facts = gather(settings, run_directory(conf), interface or "")
    if interface and interface not in (link.name for link in facts.links):
        there = ", ".join(link.name for link in facts.links)
        raise UsageError(f"--interface {interface}: there is no such interface; there are {there}")
    if not quick:
        facts = _with_network(facts)
    return _show(by_severity([*_of_the_files(settings), *examine(facts)]), as_json)


def _of_the_files(settings: Settings) -> list[Finding]:
    """What `pbserv check` says too; an address that a service must have and this host has not is an error."""
    stopping = bound_addresses(settings, SERVICE_NAMES)
    others = [problem for problem in (*settings.warnings, *host_problems(settings)) if problem not in stopping]
    return [*configuration(stopping, Severity.ERROR), *configuration(others)]


def _with_network(facts: Facts) -> Facts:
    """The network is asked as boot clients would; not without the right to."""
    names = [link.name for link in facts.lan_links if link.broadcasts and link.carrier is not False]
    if CAP_NET_RAW not in facts.rights.capabilities or not names:
        return facts
    from pbserv.probe.ask import ask as probe

    ask: Ask = probe
    seconds = round(len(KINDS) * WAIT_S)
    print(f"asking on {', '.join(names)} for {seconds} s (--quick leaves it out) ...", file=sys.stderr)
    return dataclasses.replace(facts, asked=ask_all(ask, names))


def _show(findings: Sequence[Finding], as_json: bool) -> int:
    if as_json:
        rows = [dataclasses.asdict(finding) for finding in findings]
        print(json.dumps({"findings": rows, "exit_code": exit_code(findings)}))
        return exit_code(findings)
    for finding in findings:
        print(f"{_painted(finding.severity)}: {finding.what}")
        if finding.evidence:
            print(f"    seen: {finding.evidence}")
        for number, line in enumerate(finding.remedy):
            print(f"    {'  do:' if number == 0 else '     '} {line}")
    print(_summary(findings))
    return exit_code(findings)


def _summary(findings: Sequence[Finding]) -> str:
    counts = {severity: sum(finding.severity is severity for finding in findings) for severity in Severity}
    words = [f"{count} {severity.value}{'s' if count > 1 else ''}" for severity, count in counts.items() if count]
    return ", ".join(words) if words else "nothing wrong was found"


def _painted(severity: Severity) -> str:
    colours = {Severity.ERROR: "31", Severity.WARNING: "33", Severity.NOTE: "36"}
    if not sys.stdout.isatty() or "NO_COLOR" in os.environ:
        return severity.value
    return f"\x1b[{colours[severity]}m{severity.value}\x1b[0m"


def explain(code: str, as_json: bool) -> int:
    """Print what a code means; an unknown one is a fault of the caller, and the known ones are listed."""
    found = codes.explain(code)
    if not found:
        raise UsageError(f"{code}: not a code that is known here; the known ones: {_brief()}")
    if as_json:
        print(json.dumps({"code": code, "meanings": [dataclasses.asdict(meaning) for meaning in found]}))
        return FINE
    for meaning in found:
        print(meaning.title)
        print(f"    {meaning.meaning}")
        for number, cause in enumerate(meaning.causes, 1):
            print(f"  {number}. {cause.text}")
            if cause.check:
                print(f"     see: {cause.check}")
            if cause.remedy:
                print(f"      do: {cause.remedy}")
    return FINE


def list_codes(as_json: bool) -> int:
    """Print every code that is known."""
    rows = list(codes.known())
    if as_json:
        print(json.dumps([{"code": code, "says": says} for code, says in rows]))
        return FINE
    for code, says in rows:
        print(f"{code:<15} {says}")
    return FINE


def _brief() -> str:
    names = dict.fromkeys(code.removeprefix("PXE-") for code, _says in codes.known() if code.startswith("PXE-"))
    return f"PXE- {' '.join(names)}, and iPXE's eight digits"
