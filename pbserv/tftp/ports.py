"""What the TFTP service needs from others: who gets nothing, files that are made on demand, those who want to know."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol


class Gate(Protocol):
    """Keeps clients out. Asked once per request; must be fast and must not block."""

    def refuses(self, peer: str) -> str:
        """Why the client with this address gets nothing; empty when it may ask."""


class OpenGate:
    """Refuses nobody."""

    def refuses(self, peer: str) -> str:
        return ""


class VirtualFiles(Protocol):
    """Files that do not lie in the directory, and names that say whose boot they belong to."""

    def path_of(self, name: str, peer: str) -> str:
        """``name`` (no leading slash) without the token of a boot, if it has one. Must be fast and must not block.

        Raises PermissionError, which says why, when ``peer`` may not use the token.
        """

    def find(self, name: str, peer: str, local: str) -> bytes | None:
        """The content of ``name`` (no leading slash) for the client ``peer``, which asked our address ``local``.

        Asked only when there is no such real file. One client may ask several times: to learn the size, again
        after a loss. Must be fast and must not block. Raises PermissionError, which says why, when this client may not
        have it.
        """


class Observer(Protocol):
    """Told of every transfer that ended and of every file that was missing."""

    def transferred(self, peer: str, name: str, outcome: str, size: int) -> None:
        """``outcome`` is a value of ``transfer.Outcome``, "missing" or "refused"."""


class Uploads(Protocol):
    """Told of every file that a client placed below the directory, for instance a terminal's report."""

    def uploaded(self, peer: str, name: str, path: Path, size: int) -> None:
        """``path`` is complete and durable; ``name`` is its path below the directory, printable.

        Called before the client gets its last ACK. Must not block.
        """
