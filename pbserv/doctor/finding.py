"""What a check found: what is wrong, how that is known, and what to do about it. Pure."""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final


class Severity(enum.StrEnum):
    """An error stops machines from booting, a warning stops some or will, a note is worth knowing."""

    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that deserves a word. ``remedy`` has one command or action per element."""

    severity: Severity
    what: str
    evidence: str = ""
    remedy: tuple[str, ...] = ()


FINE: Final = 0
ERRORS: Final = 1
WARNINGS: Final = 3
_RANK: Final = {Severity.ERROR: 0, Severity.WARNING: 1, Severity.NOTE: 2}


def by_severity(findings: Iterable[Finding]) -> list[Finding]:
    """Errors first; within a severity in the order of the checks."""
    return sorted(findings, key=lambda finding: _RANK[finding.severity])


def exit_code(findings: Iterable[Finding]) -> int:
    """1 with an error, 3 with a warning and no error, else 0: notes are no fault."""
    severities = {finding.severity for finding in findings}
    if Severity.ERROR in severities:
        return ERRORS
    return WARNINGS if Severity.WARNING in severities else FINE


def error(what: str, evidence: str = "", *remedy: str) -> Finding:
    return Finding(Severity.ERROR, what, evidence, remedy)


def warning(what: str, evidence: str = "", *remedy: str) -> Finding:
    return Finding(Severity.WARNING, what, evidence, remedy)


def note(what: str, evidence: str = "", *remedy: str) -> Finding:
    return Finding(Severity.NOTE, what, evidence, remedy)
