"""Sends files below uvicorn's HTTP protocol: the ASGI extension ``http.response.zerocopysend``.

One rule: h11 counts every byte, also those that it never sees; so framing, keep-alive and what is wrong with either
are as for any other answer. Where it cannot be done (TLS, another server) the extension is not offered, and the
application sends the bytes itself.

The message is the extension's: ``file`` (a descriptor, or what has a ``fileno``), ``offset``, ``count`` and
``more_body``; besides, ``accepted`` is called with the number of bytes that went out, before the message ends or fails.
Sending it raises ConnectionError when the client is gone, EOFError when the file is shorter, OSError when it cannot be
read. With ``more_body`` False it ends when the client's kernel has acknowledged the last byte.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import h11
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

from pbserv.web.pumps import Pumps, pump
from pbserv.web.sending import EXTENSION


class Descriptor(Protocol):
    def fileno(self) -> int: ...


class _Sized:
    """Bytes that h11 counts and nobody makes."""

    def __init__(self, count: int) -> None:
        self._count = count

    def __len__(self) -> int:
        return self._count


class ZeroCopy:
    """The application of one connection, with the extension. ``disconnected`` is for the protocol to call."""

    def __init__(self, app: ASGIApp, protocol: H11Protocol, pumps: Pumps) -> None:
        self._app = app
        self._protocol = protocol
        self._pumps = pumps
        self._give_up: Callable[[], None] | None = None

    def disconnected(self) -> None:
        if self._give_up is not None:
            self._give_up()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["scheme"] != "http":
            return await self._app(scope, receive, send)
        cycle = self._protocol.cycle
        scope["extensions"] = {**scope.get("extensions", {}), EXTENSION: {}}

        async def below(message: Message) -> None:
            if message["type"] == EXTENSION:
                await self._send_file(cycle, message)
            else:
                await send(message)

        return await self._app(scope, receive, below)

    async def _send_file(self, cycle: RequestResponseCycle, message: Message) -> None:
        if cycle.disconnected:  # perhaps before the answer's start: that was thrown away then
            raise ConnectionResetError("the client went away")
        if not cycle.response_started or cycle.response_complete:
            raise RuntimeError("a file can be sent between the start and the end of an answer only")
        if cycle.scope["method"] != "HEAD" and message["count"]:
            await self._pump(cycle, message)
        if not message.get("more_body", False):
            await cycle.send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _pump(self, cycle: RequestResponseCycle, message: Message) -> None:
        transport = self._protocol.transport
        await self._drained(cycle)
        if cycle.disconnected or transport.is_closing():
            raise ConnectionResetError("the client went away")
        file: int | Descriptor = message["file"]
        fd = file if isinstance(file, int) else file.fileno()
        count: int = message["count"]
        self._protocol.conn.send_with_data_passthrough(h11.Data(data=_Sized(count)))  # type: ignore[arg-type]
        out = transport.get_extra_info("socket").fileno()
        try:
            taken, fault = await pump(
                self._pumps, out, fd, message["offset"], count, last=not message.get("more_body", False),
                started=self._started,
            )  # fmt: skip
        finally:
            self._give_up = None
        accepted = message.get("accepted")
        if accepted is not None and taken:
            accepted(taken)
        if fault is not None:
            raise fault

    def _started(self, give_up: Callable[[], None]) -> None:
        self._give_up = give_up

    async def _drained(self, cycle: RequestResponseCycle) -> None:
        """Until what was written before, the head, is in the kernel: nothing may come in between."""
        transport, flow = self._protocol.transport, self._protocol.flow
        while transport.get_write_buffer_size() and not cycle.disconnected and not transport.is_closing():
            transport.set_write_buffer_limits(0)
            await flow.drain()
            if not transport.is_closing():
                transport.set_write_buffer_limits()
