"""The control socket: one JSON line in, one JSON line out, then it is closed. The rule: everything is bounded.

Only the service user and root may connect (mode 0600). The server side knows no verb: the handler is given to it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import stat
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

from pbserv.errors import ControlError, PbservError

CONTROL_SOCKET_NAME = "control.sock"

REQUEST_LIMIT_BYTES = 64 * 1024
RESPONSE_LIMIT_BYTES = 16 * 1024 * 1024
_MAX_CONNECTIONS = 32
_TRANSFER_TIMEOUT_S = 5.0
_HANDLER_TIMEOUT_S = 120.0
_CLOSE_GRACE_S = 2.0
_PATH_LIMIT_BYTES = 107  # sun_path of unix(7), without the closing zero

JsonValue: TypeAlias = "bool | int | float | str | Sequence[JsonValue] | Mapping[str, JsonValue] | None"


@dataclass(frozen=True, slots=True)
class Request:
    """``options`` are the further members of the request."""

    verb: str
    names: tuple[str, ...] = ()
    options: Mapping[str, JsonValue] = field(default_factory=dict)

    def encode(self) -> bytes:
        """Raises ControlError when it is larger than the server reads."""
        data = json.dumps({**self.options, "verb": self.verb, "names": self.names}).encode() + b"\n"
        if len(data) > REQUEST_LIMIT_BYTES:
            raise ControlError(f"the request has {len(data)} bytes; at most {REQUEST_LIMIT_BYTES} are allowed")
        return data

    @classmethod
    def decode(cls, data: bytes) -> Request:
        """Raises ControlError and nothing else."""
        members = _members(data, "request")
        verb = members.pop("verb", None)
        if not isinstance(verb, str) or not verb:
            raise ControlError("the request has no verb")
        return cls(verb, _texts(members.pop("names", []), "names"), members)


@dataclass(frozen=True, slots=True)
class Response:
    """``lines`` go to standard output, ``errors`` to standard error; ``data`` is for programs."""

    ok: bool
    lines: tuple[str, ...] = ()
    errors: tuple[str, ...] = ()
    data: Mapping[str, JsonValue] = field(default_factory=dict)

    def encode(self) -> bytes:
        members = {"ok": self.ok, "lines": self.lines, "errors": self.errors, "data": self.data}
        return json.dumps(members).encode() + b"\n"

    @classmethod
    def decode(cls, data: bytes) -> Response:
        """Raises ControlError and nothing else."""
        members = _members(data, "answer")
        extra = members.get("data", {})
        if not isinstance(extra, Mapping):
            raise ControlError("the answer's data is not an object")
        lines, errors = (_texts(members.get(name, []), name) for name in ("lines", "errors"))
        return cls(members.get("ok") is True, lines, errors, extra)


Handler: TypeAlias = Callable[[Request], Awaitable[Response]]


class ControlServer:
    """Listens at ``path``; each connection is one request. ``handler`` may raise PbservError: it becomes the answer.

    Any other exception is answered as an internal error and handed to ``on_bug`` (default: the loop's handler).
    """

    def __init__(
        self,
        path: Path,
        handler: Handler,
        *,
        on_bug: Callable[[Exception], None] | None = None,
        transfer_timeout_s: float = _TRANSFER_TIMEOUT_S,
        handler_timeout_s: float = _HANDLER_TIMEOUT_S,
    ) -> None:
        self._path = path
        self._handler = handler
        self._on_bug = on_bug or _report_bug
        self._transfer_timeout_s = transfer_timeout_s
        self._handler_timeout_s = handler_timeout_s
        self._server: asyncio.Server | None = None
        self._inode: tuple[int, int] = (0, 0)
        self._connections: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Bind, replacing a socket file that a dead server left; raises ControlError. The caller holds the pid file."""
        listener = _listen(self._path)
        facts = os.lstat(self._path)
        self._inode = (facts.st_dev, facts.st_ino)
        self._server = await asyncio.start_unix_server(self._serve, sock=listener, limit=REQUEST_LIMIT_BYTES)

    async def close(self) -> None:
        """Remove the socket, let running requests finish for a moment, then cancel them. Idempotent."""
        if self._server is None:
            return
        self._server.close()
        self._server = None
        with contextlib.suppress(OSError):
            facts = os.lstat(self._path)
            if (facts.st_dev, facts.st_ino) == self._inode:
                self._path.unlink()
        waiting = self._connections - {asyncio.current_task()}
        if not waiting:
            return
        _, late = await asyncio.wait(waiting, timeout=_CLOSE_GRACE_S)
        for task in late:
            task.cancel()
        if late:
            await asyncio.wait(late)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a connection is served outside of a task")
        self._connections.add(task)
        try:
            response = await self._answer(reader)
            async with asyncio.timeout(self._transfer_timeout_s):
                writer.write(response.encode())
                await writer.drain()
        except (OSError, TimeoutError):
            writer.transport.abort()  # the client has gone or does not read: nobody is left to be told
        finally:
            writer.close()
            self._connections.discard(task)

    async def _answer(self, reader: asyncio.StreamReader) -> Response:
        try:
            async with asyncio.timeout(self._transfer_timeout_s):
                data = await reader.readuntil(b"\n")
        except TimeoutError:
            return Response(False, errors=(f"no complete request within {self._transfer_timeout_s:g} s",))
        except asyncio.LimitOverrunError:
            return Response(False, errors=(f"the request has more than {REQUEST_LIMIT_BYTES} bytes",))
        except asyncio.IncompleteReadError:
            return Response(False, errors=("the request is not complete",))
        if len(self._connections) > _MAX_CONNECTIONS:
            return Response(False, errors=("too many requests at once; try again",))
        return await self._handle(data)

    async def _handle(self, data: bytes) -> Response:
        limit = asyncio.timeout(self._handler_timeout_s)
        try:
            request = Request.decode(data)
            async with limit:
                return await self._handler(request)
        except PbservError as error:
            return Response(False, errors=(str(error),))
        except Exception as error:
            if isinstance(error, TimeoutError) and limit.expired():
                return Response(False, errors=(f"{request.verb} did not finish within {self._handler_timeout_s:g} s",))
            self._on_bug(error)
            return Response(False, errors=(f"internal error: {type(error).__name__}: {error}",))


def ask(path: Path, request: Request, timeout_s: float = _HANDLER_TIMEOUT_S) -> Response:
    """Send one request and wait for the answer; raises ControlError with what to do about it."""
    data = request.encode()
    deadline = time.monotonic() + timeout_s
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(min(timeout_s, _TRANSFER_TIMEOUT_S))
        try:
            with _short_name(path) as name:
                connection.connect(name)
        except (FileNotFoundError, ConnectionRefusedError, NotADirectoryError):
            raise ControlError(f"pbserv is not running: nobody listens at {path}") from None
        except PermissionError:
            raise ControlError(f"{path}: permission denied; run this command as root or as the service user") from None
        except OSError as error:
            raise ControlError(f"{path}: {error.strerror or error}") from None
        try:
            with contextlib.suppress(BrokenPipeError):  # refused while we were sending: the answer says why
                connection.sendall(data)
            return Response.decode(_read_line(connection, deadline))
        except TimeoutError:
            raise ControlError(f"pbserv did not answer {request.verb} within {timeout_s:g} s") from None
        except OSError as error:
            raise ControlError(f"{path}: the connection broke: {error.strerror}") from None


def _read_line(connection: socket.socket, deadline: float) -> bytes:
    received = bytearray()
    while not received.endswith(b"\n"):
        left_s = deadline - time.monotonic()
        if left_s <= 0:
            raise TimeoutError
        connection.settimeout(left_s)
        data = connection.recv(65536)
        if not data:
            raise ControlError("pbserv closed the connection without an answer; its log may say why")
        received += data
        if len(received) > RESPONSE_LIMIT_BYTES:
            raise ControlError(f"the answer has more than {RESPONSE_LIMIT_BYTES} bytes")
    return bytes(received)


def _listen(path: Path) -> socket.socket:
    """Bind under a name of our own, set the mode, then rename: no moment with a wrong mode, no gap for a stale file."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    own = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        if path.exists() and not stat.S_ISSOCK(os.lstat(path).st_mode):
            raise ControlError(f"{path} is in the way: it is not a socket; remove it")
        own.unlink(missing_ok=True)
        with _short_name(own) as name:
            listener.bind(name)
        os.chmod(own, 0o600)
        os.rename(own, path)
        listener.listen(_MAX_CONNECTIONS)
    except OSError as error:
        listener.close()
        raise ControlError(f"{path}: the control socket cannot be made: {error.strerror or error}") from error
    except ControlError:
        listener.close()
        raise
    return listener


@contextlib.contextmanager
def _short_name(path: Path) -> Iterator[str]:
    """The path, or when it is too long for a socket address, a name for the same file through /proc/self/fd."""
    if len(os.fsencode(path)) <= _PATH_LIMIT_BYTES:
        yield str(path)
        return
    directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{directory}/{path.name}"
    finally:
        os.close(directory)


def _members(data: bytes, what: str) -> dict[str, JsonValue]:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        raise ControlError(f"the {what} is not JSON") from None
    if not isinstance(value, dict):
        raise ControlError(f"the {what} is not a JSON object")
    return value


def _texts(value: JsonValue, what: str) -> tuple[str, ...]:
    if isinstance(value, str) or not isinstance(value, Sequence) or not all(isinstance(item, str) for item in value):
        raise ControlError(f"{what} is not a list of texts")
    return tuple(str(item) for item in value)


def _report_bug(error: Exception) -> None:
    asyncio.get_running_loop().call_exception_handler(
        {"message": "the handler of a control request failed", "exception": error}
    )
