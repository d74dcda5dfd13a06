"""Says in the log that another server does not answer, and that it does again: once, not for each device."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from pbserv.log import ServiceLog

QUIET_S: Final = 60.0


class Trouble:
    """``name``: who does not answer."""

    def __init__(self, log: ServiceLog, name: str, clock: Callable[[], float]) -> None:
        self._log = log
        self._name = name
        self._clock = clock
        self._until: float | None = None  # None: all is well

    def met(self, device: str, reason: str) -> None:
        """It happened with ``device``; within a minute of the last line it is said at level 3 only."""
        now = self._clock()
        say = self._log.request
        if self._until is None or now >= self._until:
            self._until, say = now + QUIET_S, self._log.warning
        say("another server does not decide", server=self._name, device=device, reason=reason)

    def over(self) -> None:
        """It answered."""
        if self._until is not None:
            self._until = None
            self._log.warning("another server decides again", server=self._name)
