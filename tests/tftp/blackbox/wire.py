"""A peer for black-box tests: what it sends and what it expects is said packet by packet, over IPv4 and IPv6."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from pbserv.tftp.packet import Ack, Data, Error, Opcode, OptionAck, Packet, encode_error
from tests.tftp.client import Client, finish

Options = tuple[tuple[str, object], ...]


class Peer(Client):
    """A client on the loopback of either family."""

    def __init__(self, port: int, host: str = "127.0.0.1") -> None:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.raw = socket.socket(family, socket.SOCK_DGRAM)
        self.raw.setblocking(False)
        self.raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        self.raw.bind(("::1" if ":" in host else "127.0.0.1", 0))
        self.listener = (host, port)
        self.server = self.listener
        self.last = b""

    async def receive_bytes(self, timeout_s: float = 5.0) -> bytes:
        self.last = await super().receive_bytes(timeout_s)
        return self.last

    def request(self, data: bytes) -> None:
        """Any bytes to the request port."""
        self.raw.sendto(data, self.listener)

    def read(self, name: str | bytes, *options: tuple[str, object], mode: str = "octet") -> None:
        self.ask(name, *options, mode=mode)

    def write(self, name: str | bytes, *options: tuple[str, object], mode: str = "octet") -> None:
        self.ask(name, *options, mode=mode, opcode=Opcode.WRQ)

    def data(self, block: int, payload: bytes) -> None:
        self.send(b"\0\3" + (block & 0xFFFF).to_bytes(2, "big") + payload)

    def give_up(self) -> None:
        """As firmware does that only wanted to know."""
        self.send(encode_error(0, "enough"))

    async def expect(self, *packets: Packet, timeout_s: float = 5.0) -> None:
        for packet in packets:
            assert await self.receive(timeout_s) == packet

    async def expect_error(self, code: int) -> None:
        packet = await self.receive()
        assert isinstance(packet, Error), packet
        assert packet.code == code, packet

    async def expect_options(self, *options: tuple[str, object]) -> None:
        """The OACK holds exactly these, in this order."""
        packet = await self.receive()
        assert packet == OptionAck(tuple((name.encode(), str(value).encode()) for name, value in options))


@asynccontextmanager
async def peer(port: int, host: str = "127.0.0.1") -> AsyncIterator[Peer]:
    made = Peer(port, host)
    try:
        yield made
    finally:
        made.close()


async def get(
    port: int, name: str, *options: tuple[str, object], mode: str = "octet", host: str = "127.0.0.1"
) -> bytes:
    """The whole file."""
    async with peer(port, host) as made:
        made.read(name, *options, mode=mode)
        found = await finish(made)
    assert isinstance(found, bytes), found
    return found


async def put(
    port: int, name: str, data: bytes, *options: tuple[str, object], mode: str = "octet", host: str = "127.0.0.1"
) -> None:
    """The whole file, window after window; a repeated ACK or silence sends the window after it again."""
    async with peer(port, host) as made:
        made.write(name, *options, mode=mode)
        block_size, window, base = 512, 1, 0
        match await made.receive():
            case OptionAck(agreed):
                found = {key.lower(): int(value) for key, value in agreed}
                block_size, window = found.get(b"blksize", 512), found.get(b"windowsize", 1)
            case Ack(0):
                pass
            case other:
                raise AssertionError(other)
        last = len(data) // block_size + 1
        while base < last:
            for block in range(base + 1, min(base + window, last) + 1):
                made.data(block, data[(block - 1) * block_size : block * block_size])
            answer = await made.receive()
            assert isinstance(answer, Ack), answer
            base += (answer.block - base) & 0xFFFF


def blocks(data: bytes, size: int = 512) -> list[Data]:
    """The DATA packets of a whole file."""
    count = len(data) // size + 1
    return [Data((n + 1) & 0xFFFF, data[n * size : (n + 1) * size]) for n in range(count)]


async def until(condition: Callable[[], object], timeout_s: float = 60.0) -> None:
    """Wait for what the service does after its last packet."""
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0.002)
