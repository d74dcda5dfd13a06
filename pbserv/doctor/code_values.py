"""The shape of the tables of error codes. Pure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Cause:
    """A usual cause; ``check`` is the command that shows whether it is this one, ``remedy`` what ends it."""

    text: str
    check: str = ""
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class Code:
    """``code`` without ``PXE-``; ``says`` is what stands behind it on the screen; causes by likelihood."""

    code: str
    firmware: str
    says: str
    meaning: str
    causes: tuple[Cause, ...] = ()
