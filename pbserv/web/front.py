"""A connection as it begins: small boot files are answered at once, everything else is handed on to uvicorn.

One rule: what was handed on never comes back. HTTP with all that belongs to it is h11's; here are whole requests of a
kind that is known to the last byte, each answered before the next is looked at.
"""

from __future__ import annotations

import asyncio
import sys
import time
from typing import Any, Final

from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.utils import get_local_addr, get_remote_addr, is_ssl
from uvicorn.server import ServerState

from pbserv.web.shortcut import BEGINNINGS, MOST_REQUEST_BYTES, Shortcut

FIRST_REQUEST_S: Final = 15


class Front(asyncio.Protocol):
    """Takes the place of uvicorn's protocol. ``behind``: the protocol that what is not answered here goes to."""

    shortcut: Shortcut
    behind: type[H11Protocol]
    owes = False

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        self._config = config
        self._state = server_state
        self._app_state = app_state
        self._loop = _loop or asyncio.get_running_loop()
        self._peer = self._local = ""
        self._answered_at = 0.0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self.transport = transport
        self._state.connections.add(self)  # type: ignore[arg-type]  # uvicorn calls shutdown() of what stands there
        self._timer = self._loop.call_later(FIRST_REQUEST_S, self._look)
        client, server = get_remote_addr(transport), get_local_addr(transport)
        if is_ssl(transport) or client is None or server is None:
            self._hand_on()
        else:
            self._peer, self._local = client[0], server[0]

    def data_received(self, data: bytes) -> None:
        if not data.startswith(BEGINNINGS) or len(data) > MOST_REQUEST_BYTES or not self._answer(data):
            self._hand_on().data_received(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._leave()

    def shutdown(self) -> None:
        """The server ends: nothing is under way here."""
        self.transport.close()

    def _answer(self, request: bytes) -> bool:
        """False: nothing has happened."""
        transport, state = self.transport, self._state
        if (
            transport.is_closing()
            or transport.get_write_buffer_size()
            or max(len(state.connections), len(state.tasks)) >= (self._config.limit_concurrency or sys.maxsize)
        ):
            return False
        began = time.monotonic()
        answer = self.shortcut.answer(request, self._peer, self._local, state.default_headers)
        if answer is None:
            return False
        transport.write(answer.data)
        self._answered_at = began
        state.total_requests += 1
        self.shortcut.ended(answer, self._peer, began, gone=transport.is_closing())
        if answer.close:
            transport.close()
        return True

    def _hand_on(self) -> H11Protocol:
        self._leave()
        behind = self.behind(self._config, self._state, self._app_state, self._loop)
        self.transport.set_protocol(behind)
        behind.connection_made(self.transport)
        return behind

    def _leave(self) -> None:
        self._state.connections.discard(self)
        self._timer.cancel()

    def _look(self) -> None:
        """Close what brought nothing, or nothing more: idle connections would use up ``limit_concurrency``."""
        rest = self._answered_at + self._config.timeout_keep_alive - time.monotonic() if self._answered_at else 0.0
        if rest > 0:
            self._timer = self._loop.call_later(rest, self._look)
        else:
            self.transport.close()
