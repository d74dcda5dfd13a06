"""A bad network in front of the service: loses, doubles and reorders datagrams by a seed."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from pbserv.tftp.packet import Opcode

Fate = Callable[[str, int, bytes], tuple[float, ...]]
"""Direction ("up" to the server, "down" to the client), number of the datagram in that direction of that client from 0,
its bytes -> the delays after which it arrives; none: it is lost."""


def rough(seed: int, loss: float = 0.03, doubled: float = 0.03, late: float = 0.03) -> Fate:
    """Everything but the first datagram of a client may suffer: real clients wait five seconds for that one."""
    chance = random.Random(seed)

    def fate(direction: str, number: int, _data: bytes) -> tuple[float, ...]:
        dice = chance.random()
        if direction == "up" and number == 0:
            return (0.0,)
        if dice < loss:
            return ()
        if dice < loss + doubled:
            return (0.0, chance.random() * 0.01)
        return (chance.random() * 0.02,) if dice < loss + doubled + late else (0.0,)

    return fate


class Proxy:
    """Clients speak to ``port`` alone, as with a server in single-port mode."""

    def __init__(self, server_port: int, fate: Fate) -> None:
        self._loop = asyncio.get_running_loop()
        self._server = ("127.0.0.1", server_port)
        self._fate = fate
        self._front = _socket()
        self._front.bind(("127.0.0.1", 0))
        self._backs: dict[tuple[str, int], socket.socket] = {}
        self._transfer: dict[tuple[str, int], tuple[str, int]] = {}
        self._numbers: Counter[tuple[str, tuple[str, int]]] = Counter()
        self.counts: Counter[str] = Counter()
        """Datagrams that came in, by direction, and those lost."""
        self._loop.add_reader(self._front.fileno(), self._from_clients)

    @property
    def port(self) -> int:
        return int(self._front.getsockname()[1])

    def close(self) -> None:
        for each in (self._front, *self._backs.values()):
            self._loop.remove_reader(each.fileno())
            each.close()

    def _from_clients(self) -> None:
        for data, client in _waiting(self._front):
            back = self._backs.get(client) or self._open(client)
            request = data[:2] in (b"\0\1", b"\0\2")
            to = self._server if request else self._transfer.get(client, self._server)
            self._pass("up", client, data, lambda data=data, back=back, to=to: back.sendto(data, to))

    def _open(self, client: tuple[str, int]) -> socket.socket:
        back = self._backs[client] = _socket()
        self._loop.add_reader(back.fileno(), self._from_server, client, back)
        return back

    def _from_server(self, client: tuple[str, int], back: socket.socket) -> None:
        for data, transfer in _waiting(back):
            self._transfer[client] = transfer
            self._pass("down", client, data, lambda data=data: self._front.sendto(data, client))

    def _pass(self, direction: str, client: tuple[str, int], data: bytes, deliver: Callable[[], object]) -> None:
        number = self._numbers[direction, client]
        self._numbers[direction, client] += 1
        self.counts[direction] += 1
        self.counts[f"{direction} data"] += data[1] == Opcode.DATA
        delays = self._fate(direction, number, data)
        self.counts["lost"] += not delays
        for delay in delays:
            if delay:
                self._loop.call_later(delay, _unless_closed, deliver)
            else:
                _unless_closed(deliver)


def _unless_closed(deliver: Callable[[], object]) -> None:
    with contextlib.suppress(OSError):  # the client or the proxy is gone
        deliver()


def _socket() -> socket.socket:
    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    made.setblocking(False)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
    return made


def _waiting(raw: socket.socket) -> list[tuple[bytes, tuple[str, int]]]:
    found = []
    try:
        while len(found) < 256:
            found.append(raw.recvfrom(65_536))
    except OSError:
        pass  # nothing left, or a port that was closed
    return found


@asynccontextmanager
async def proxy(server_port: int, fate: Fate) -> AsyncIterator[Proxy]:
    made = Proxy(server_port, fate)
    try:
        yield made
    finally:
        made.close()
