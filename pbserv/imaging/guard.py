"""Who may do what with images: the port through which the routes ask. Pure.

One rule: the routes never see how tokens are kept; they learn what the holder of one may do, or that nobody holds it.
"""

from __future__ import annotations

from typing import Final, Protocol

from pbserv.registry.records import Role

LOOK: Final = Role.VIEWER
"""Lists of images and what is known of their items."""
FETCH: Final = Role.OPERATOR
"""The bytes of images: they are whole disks, with all that is on them."""
CHANGE: Final = Role.ADMIN
"""To store, replace and delete images."""


class Caller(Protocol):
    """The holder of a valid token."""

    @property
    def kind(self) -> str:
        """The role of an API token, or ``work`` for a device with its work's token; for messages."""

    @property
    def name(self) -> str:
        """What the token is called, where it has a name; for the log and for who did what."""

    def may(self, role: Role) -> bool:
        """Whether the holder may do what ``role`` may; a device may do nothing here."""


class Guard(Protocol):
    """Whoever keeps the tokens."""

    def authorize(self, token: str | None) -> Caller | None:
        """The holder of ``token``, or None when there is none; in memory, never waits."""
