"""The error tree. Every message says what is wrong, where, and what to do; nothing here does I/O."""

from __future__ import annotations


class PbservError(Exception):
    """A fault that the user or a peer caused; shown as one line, never as a traceback."""

    exit_code = 1


class UsageError(PbservError):
    """A command that was called wrongly."""

    exit_code = 2


class WireError(PbservError):
    """Bytes that are not what the protocol says.

    ``offset`` is the byte position in the datagram, ``field`` the name of the thing that was being read.
    """

    def __init__(self, offset: int, field: str, why: str) -> None:
        super().__init__(f"byte {offset}: {field}: {why}")
        self.offset = offset
        self.field = field
        self.why = why


class StartError(PbservError):
    """A service cannot start (address in use, directory missing ...); the message names the remedy."""


class ControlError(PbservError):
    """The running server could not be asked, or refused."""
