"""Small boot files on the shortest way: a room that boots asks for the same few files, a thousand times.

One rule: nothing is decided here. Whether the client may ask and what it gets is asked each time of those whom the
route asks, and each answer is told and counted as the route does; remembered are the bytes alone, by the identity of
the file that was opened. What is unusual in any way is left to the route.
"""

from __future__ import annotations

import os
import re
import stat
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import h11

from pbserv.log import ServiceLog
from pbserv.web.boot_files_routes import BootFiles, Clients, Ending, media_type_of, shown_name
from pbserv.web.requests_counted import Requests
from pbserv.web.sending import FileSender, MadeContent, OpenFile, PlanRange, Source
from pbserv.web.session_path import PathOf

SMALL_BYTES: Final = 60 * 1024
"""With its head it is less than a connection's buffer takes at once: nobody needs to wait for a slow client, and a
connection that is handed on never is one that was told to write no more."""
BEGINNINGS: Final = (b"GET /files/", b"GET /s/")
MOST_REQUEST_BYTES: Final = 2048
_MOST_REMEMBERED: Final = 4096
_MOST_BYTES: Final = 16 * 1024 * 1024
_TARGET: Final = re.compile(rb"(/s/[A-Za-z0-9]+)?/files/([A-Za-z0-9._/+-]+)")
_HARMLESS: Final = frozenset((b"host", b"user-agent", b"accept", b"accept-encoding", b"accept-language", b"connection"))
_CONNECTIONS: Final = frozenset((b"close", b"keep-alive"))
Headers = list[tuple[bytes, bytes]]
_Key = tuple[bytes, bool, int, int, int, int, int]
"""Name, whether the connection ends, and whose bytes they are: device, inode, size and both times."""


@dataclass(slots=True, eq=False)
class Asked:
    """What a request of exactly these bytes means. ``boot``: the path begins with the token of a boot.

    ``close``: the client wants no other answer on its connection.
    """

    request: bytes
    name: bytes
    path: str
    shown: str
    boot: bool
    close: bool


@dataclass(slots=True, eq=False)
class Answer:
    """``data``: head and body. ``size_bytes``: of the body. ``defaults``: what was in force when it was made."""

    shown: str
    close: bool
    data: bytes
    size_bytes: int
    defaults: Headers


class Shortcut:
    """``running``: whether the service of these files runs. ``path_of``: as for :class:`SessionPath`.

    Used from the event loop only; waits for nothing.
    """

    def __init__(
        self,
        files: BootFiles,
        clients: Clients,
        plan: PlanRange,
        log: ServiceLog,
        running: Callable[[], bool],
        requests: Requests,
        path_of: PathOf,
    ) -> None:
        self._files = files
        self._plan = plan
        self._running = running
        self._requests = requests
        self._path_of = path_of
        self._ending = Ending(clients, log)
        self._asked: dict[bytes, Asked | None] = {}
        self._answers: OrderedDict[_Key, Answer] = OrderedDict()
        self._held_bytes = 0

    def answer(self, request: bytes, peer: str, local: str, defaults: Headers) -> Answer | None:
        """The answer to a whole request, or None: the route has to. ``defaults``: the headers of every answer.

        The caller sends it and calls :meth:`ended`.
        """
        asked = self._asked[request] if request in self._asked else self._read(request)
        if asked is None or not self._running():
            return None
        try:
            if asked.boot and self._path_of(asked.path[1:], peer) != f"files/{asked.shown}":
                return None
            found = self._files.open(asked.name, peer, local)
        except (OSError, ValueError):  # the route asks again, and tells
            return None
        if isinstance(found, bytes):
            return self._whole(asked, MadeContent(found), found, defaults) if len(found) <= SMALL_BYTES else None
        fd, facts = found
        try:
            key = (asked.name, asked.close, facts.st_dev, facts.st_ino, facts.st_size, facts.st_mtime_ns,
                   facts.st_ctime_ns)  # fmt: skip
            answer = self._answers.get(key)
            if answer is None or answer.defaults is not defaults:
                answer = self._made(asked, key, fd, facts, defaults)
        finally:
            os.close(fd)
        return answer

    def ended(self, answer: Answer, peer: str, began: float, *, gone: bool) -> None:
        """Tell and count; ``gone``: the connection was found broken. ``began`` by ``time.monotonic``."""
        self._requests.count("/files", "GET", 200)
        outcome, size = ("aborted", 0) if gone else ("completed", answer.size_bytes)
        self._ending.tell(peer, "GET", answer.shown, 200, None, began, outcome, size, last=True)

    def _read(self, request: bytes) -> Asked | None:
        if len(self._asked) >= _MOST_REMEMBERED:
            self._asked.clear()
        asked = self._asked[request] = _asked(request)
        return asked

    def _made(self, asked: Asked, key: _Key, fd: int, facts: os.stat_result, defaults: Headers) -> Answer | None:
        """None: not a small file, or one that is being written."""
        if facts.st_size > SMALL_BYTES or not stat.S_ISREG(facts.st_mode):
            return None
        body = os.pread(fd, facts.st_size + 1, 0)
        if len(body) != facts.st_size:
            return None
        answer = self._whole(asked, OpenFile(-1, facts), body, defaults)
        before = self._answers.pop(key, None)
        self._held_bytes += len(answer.data) - (len(before.data) if before is not None else 0)
        self._answers[key] = answer
        while self._held_bytes > _MOST_BYTES:
            _key, oldest = self._answers.popitem(last=False)
            self._held_bytes -= len(oldest.data)
        return answer

    def _whole(self, asked: Asked, source: Source, body: bytes, defaults: Headers) -> Answer:
        return Answer(asked.shown, asked.close, self._head(asked, source, defaults) + body, len(body), defaults)

    def _head(self, asked: Asked, source: Source, defaults: Headers) -> bytes:
        """What the route's answer begins with, made in the same way: by its sender, and by h11."""
        whole = self._plan({}, size_bytes=source.size_bytes, etag=source.etag, method="GET")
        sender = FileSender(source, whole, media_type_of(asked.shown), body=True, ended=lambda _outcome, _size: None)
        own = [(b"Content-Length" if name == b"content-length" else name, value) for name, value in sender.raw_headers]
        closing = [(b"connection", b"close")] if asked.close else []
        writer = h11.Connection(h11.SERVER)
        writer.receive_data(asked.request)
        writer.next_event()
        written = writer.send(h11.Response(status_code=200, headers=[*defaults, *own, *closing], reason=b"OK"))
        return bytes(written or b"")


def _asked(request: bytes) -> Asked | None:
    """As h11 reads it; None for everything that is not a plain request for one file, whole and alone."""
    reader = h11.Connection(h11.SERVER)
    try:
        reader.receive_data(request)
        event, end = reader.next_event(), reader.next_event()
    except h11.RemoteProtocolError:
        return None
    if not isinstance(event, h11.Request) or not isinstance(end, h11.EndOfMessage) or reader.trailing_data[0]:
        return None
    wanted = _TARGET.fullmatch(event.target)
    headers = list(event.headers)
    if event.http_version != b"1.1" or wanted is None or not _HARMLESS.issuperset(name for name, _ in headers):
        return None
    connection = [value.lower() for name, value in headers if name == b"connection"]
    if len(connection) > 1 or not _CONNECTIONS.issuperset(connection):
        return None
    boot, name = wanted.groups()
    close = connection == [b"close"]
    return Asked(request, name, event.target.decode("ascii"), shown_name(name), boot is not None, close)
