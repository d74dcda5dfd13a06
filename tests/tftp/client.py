"""A raw TFTP client for tests: asyncio, no cleverness, every packet visible."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from pbserv.tftp.packet import Data, Error, Opcode, OptionAck, Packet, Request, decode, encode_ack, encode_request


class Client:
    """One UDP port. ``server`` is the address of the last packet that came in."""

    def __init__(self, port: int, host: str = "127.0.0.1", source: str = "") -> None:
        self.raw = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
        self.raw.setblocking(False)
        self.raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        self.raw.bind((source or ("::1" if ":" in host else "127.0.0.1"), 0))
        self.listener = (host, port)
        self.server: tuple[str, int] = self.listener

    def ask(
        self, name: str | bytes, *options: tuple[str, object], mode: str = "octet", opcode: int = Opcode.RRQ
    ) -> None:
        raw = name if isinstance(name, bytes) else name.encode()
        asked = tuple((key.encode(), str(value).encode()) for key, value in options)
        self.raw.sendto(encode_request(Request(opcode, raw, mode, asked)), self.listener)

    def send(self, data: bytes) -> None:
        self.raw.sendto(data, self.server)

    def ack(self, block: int) -> None:
        self.send(encode_ack(block))

    async def receive(self, timeout_s: float = 60.0) -> Packet:
        return decode(await self.receive_bytes(timeout_s))

    async def receive_bytes(self, timeout_s: float = 60.0) -> bytes:
        async with asyncio.timeout(timeout_s):
            data, self.server = await asyncio.get_running_loop().sock_recvfrom(self.raw, 65536)
        return data

    async def silent(self, for_s: float) -> bool:
        try:
            await self.receive_bytes(for_s)
        except TimeoutError:
            return True
        return False

    def close(self) -> None:
        self.raw.close()


@asynccontextmanager
async def client(port: int, host: str = "127.0.0.1", source: str = "") -> AsyncIterator[Client]:
    made = Client(port, host, source)
    try:
        yield made
    finally:
        made.close()


async def fetch(
    port: int, name: str | bytes, *options: tuple[str, object], mode: str = "octet", host: str = "127.0.0.1"
) -> bytes | Error:
    """The whole file, or the ERROR that came instead."""
    async with client(port, host) as made:
        made.ask(name, *options, mode=mode)
        return await finish(made)


async def finish(made: Client, at_block: Callable[[int], Awaitable[None]] | None = None) -> bytes | Error:
    """Everything after the request."""
    block_size, window, content, expected = 512, 1, bytearray(), 1
    while True:
        packet = await made.receive()
        match packet:
            case OptionAck(agreed):
                found = {key.lower(): int(value) for key, value in agreed}
                block_size, window = found.get(b"blksize", 512), found.get(b"windowsize", 1)
                made.ack(0)
            case Data(number, payload) if number == expected & 0xFFFF:
                content += payload
                if at_block:
                    await at_block(expected)
                if expected % window == 0 or len(payload) < block_size:
                    made.ack(expected)
                expected += 1
                if len(payload) < block_size:
                    return bytes(content)
            case Error():
                return packet
            case _:
                made.ack(expected - 1)
