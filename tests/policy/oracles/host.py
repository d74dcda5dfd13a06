"""An HTTP server of the tests on 127.0.0.1: it says, byte by byte, what the test tells it, and keeps the questions."""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from pbserv.log import ServiceLog
from pbserv.supervisor import Supervisor


def answer(status: int = 200, body: bytes | str | dict[str, object] = b"", **headers: str) -> bytes:
    """A whole HTTP/1.1 response. A dict is sent as JSON."""
    data = json.dumps(body).encode() if isinstance(body, dict) else body.encode() if isinstance(body, str) else body
    lines = [f"HTTP/1.1 {status} X", f"Content-Length: {len(data)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + data


@dataclass
class Asked:
    method: str
    target: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Host:
    """``says``: the bytes of the next answers, ``then`` of those after the next one, if they differ; ``holds``: nothing
    is said while it is not set."""

    says: bytes = answer(404)
    then: bytes | None = None
    asked: list[Asked] = field(default_factory=list)
    holds: asyncio.Event = field(default_factory=asyncio.Event)
    most: int = 0
    port: int = 0
    tls: ssl.SSLContext | None = None
    connections: int = 0
    _now: int = 0
    _open: set[asyncio.StreamWriter] = field(default_factory=set)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[Host]:
        self.holds.set()
        server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, ssl=self.tls)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            self.holds.set()
            await server.wait_closed()
            for writer in self._open:
                writer.close()
            while self._open:
                await asyncio.sleep(0.001)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._open.add(writer)
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                await self._one(head.decode(), reader, writer)
                if writer.is_closing():
                    break
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
        self._open.discard(writer)

    async def _one(self, head: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        first, *lines = head.strip().splitlines()
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        method, target, _version = first.split(" ")
        self.asked.append(Asked(method, target, headers, body))
        self._now += 1
        self.most = max(self.most, self._now)
        try:
            await self.holds.wait()
        finally:
            self._now -= 1
        says = self.says
        self.says, self.then = self.then or says, None
        writer.write(says)
        await writer.drain()
        if b"Content-Length" not in says:
            writer.close()


@contextlib.asynccontextmanager
async def owned() -> AsyncIterator[Supervisor]:
    """Who owns the tasks; none of them is left, and none has failed."""
    supervisor = Supervisor((), ServiceLog("pbserv"))
    try:
        yield supervisor
    finally:
        await supervisor.close()
