"""Who may do what with images: the port through which the routes ask. Pure.

One rule: the routes never see how tokens are kept; they learn what kind of caller holds one, or that nobody does.
"""

from __future__ import annotations

from typing import Protocol


class Caller(Protocol):
    """The holder of a valid token."""

    @property
    def kind(self) -> str:
        """``admin`` for an administrator; anything else (a device with its work's token) may not manage images."""


class Guard(Protocol):
    """Whoever keeps the tokens."""

    def authorize(self, token: str | None) -> Caller | None:
        """The holder of ``token``, or None when there is none; in memory, never waits."""
