"""Shows out who holds a connection and does nothing: does not take what waits for it, or owes the rest of its request.

One rule: who moves, however slowly, stays. What counts is what the kernel saw, bytes acknowledged and bytes received.
So it is the same for files from below, for TLS and for any other answer, also for a complete one whose connection is
closed as soon as the client has taken it.
"""

from __future__ import annotations

import asyncio
import fcntl
import struct
import termios
from collections.abc import Collection
from typing import Final, Protocol

from pbserv.net.tcp import tcp_info

PATIENCE_S: Final = 900.0
"""A client that vanished is given up by TCP in about this time; one that is there and does not read never is."""
LOOKS: Final = 4
"""So often within that time is looked."""
_COUNTERS: Final = struct.Struct("=QQ")
_COUNTERS_AT: Final = 120  # tcpi_bytes_acked, tcpi_bytes_received

Moved = tuple[int, int]


class Held(Protocol):
    """A connection as uvicorn keeps it."""

    transport: asyncio.Transport

    @property
    def owes(self) -> bool:
        """Whether nothing goes on before the client sends more."""


class Patience:
    """Looks after ``connections``, those that there are each time."""

    def __init__(self, connections: Collection[Held], patience_s: float = PATIENCE_S) -> None:
        self._connections = connections
        self._patience_s = patience_s
        self._still: dict[Held, tuple[Moved, float]] = {}

    async def watch(self) -> None:
        """Until it is cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(self._patience_s / LOOKS)
            self.look(loop.time())

    def look(self, now: float) -> None:
        """Break off the connections on which nothing has moved between two looks this far apart; ``now`` in seconds."""
        still: dict[Held, tuple[Moved, float]] = {}
        for connection in tuple(self._connections):
            moved = _moved(connection)
            if moved is None:
                continue
            before, since = self._still.get(connection, (None, now))
            if before != moved:
                since = now
            if now - since >= self._patience_s:
                connection.transport.abort()  # close() would wait until the client takes what is in the buffer
            else:
                still[connection] = moved, since
        self._still = still


def _moved(connection: Held) -> Moved | None:
    """Bytes acknowledged and received, of what is waited for; None: nothing is."""
    fd = connection.transport.get_extra_info("socket").fileno()
    try:
        waiting = struct.unpack("i", fcntl.ioctl(fd, termios.TIOCOUTQ, b"\0\0\0\0"))[0] > 0
        owes = connection.owes
        if not waiting and not owes:
            return None
        counters = tcp_info(fd, _COUNTERS_AT + _COUNTERS.size)
    except (OSError, ValueError):  # it is closed
        return None
    acknowledged, received = _COUNTERS.unpack_from(counters, _COUNTERS_AT)
    return acknowledged if waiting else -1, received if owes else -1
