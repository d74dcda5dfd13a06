"""Sends a file from its open descriptor, whole or one range, and tells how that ended (RFC 9110).

One rule: what was opened is what is sent. The name is never looked up again, so nothing that happens to it meanwhile,
a link or another file in its place, reaches the client.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Callable, Mapping
from email.utils import formatdate, parsedate_to_datetime
from http import HTTPStatus
from typing import Final, Protocol

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

CHUNK_BYTES: Final = 128 * 1024
"""Each transfer holds two at most: a room that boots at once must fit into memory. More than that is sent from below
where the server can (:mod:`pbserv.web.sendfile`)."""

EXTENSION: Final = "http.response.zerocopysend"

Ended = Callable[[str, int], None]


class RangePlan(Protocol):
    """The answer to a request: status, the bytes ``[start, end)``, and Content-Range if there is one."""

    @property
    def status(self) -> HTTPStatus: ...
    @property
    def start(self) -> int: ...
    @property
    def end(self) -> int: ...
    @property
    def content_range(self) -> str | None: ...


class PlanRange(Protocol):
    """Chooses the answer by the request's headers; ``etag`` is the strong tag with its quotes."""

    def __call__(self, headers: Mapping[str, str], *, size_bytes: int, etag: str, method: str) -> RangePlan: ...


class OpenFile:
    """A file by its descriptor, which this owns."""

    def __init__(self, fd: int, facts: os.stat_result) -> None:
        self._fd = fd
        self.size_bytes = facts.st_size
        self.modified: float | None = facts.st_mtime
        self.etag = f'"{facts.st_ino:x}-{facts.st_size:x}-{facts.st_mtime_ns:x}-{facts.st_ctime_ns:x}"'

    async def read(self, start: int, count: int) -> bytes:
        """Fewer bytes than asked only where the file ends; raises OSError."""
        return await asyncio.to_thread(os.pread, self._fd, count, start)

    def fileno(self) -> int:
        return self._fd

    def close(self) -> None:
        os.close(self._fd)


class MadeContent:
    """A file that a service made for this request."""

    modified: float | None = None

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.size_bytes = len(data)
        self.etag = f'"{hashlib.sha256(data).hexdigest()[:32]}"'

    async def read(self, start: int, count: int) -> bytes:
        return self._data[start : start + count]

    def close(self) -> None:
        return


Source = OpenFile | MadeContent


class FileSender(Response):
    """``ended(outcome, bytes)`` is called once: completed, aborted (the client went away) or failed (the disk did)."""

    def __init__(self, source: Source, plan: RangePlan, media_type: str, *, body: bool, ended: Ended) -> None:
        self.status_code = plan.status
        self.background = None
        self.body = b""
        self._source = source
        self._next, self._end = (plan.start, plan.end) if body else (0, 0)
        self._ended = ended
        self._gone = False
        self._sent = 0
        self.init_headers(_headers(source, plan, media_type))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        outcome = "aborted"
        source = self._source if EXTENSION in scope.get("extensions", {}) else None
        below = isinstance(source, OpenFile) and self._end - self._next > CHUNK_BYTES
        try:
            async with asyncio.TaskGroup() as group:
                watcher = group.create_task(self._watch(receive))
                try:
                    outcome = await (self._from_below(send) if below else self._send(send))
                finally:
                    watcher.cancel()
        finally:
            self._source.close()
            self._ended(outcome, self._sent)

    async def _watch(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self._gone = True

    async def _send(self, send: Send) -> str:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        try:
            while self._next < self._end:
                block = await self._source.read(self._next, min(CHUNK_BYTES, self._end - self._next))
                if not block:  # cut short under our feet; a connection that ends too early tells the client
                    return "failed"
                if not await self._pass_on(send, block):
                    return "aborted"
                self._next += len(block)
        except OSError:
            return "failed"
        # An empty block is accepted once there is room for more. A client that has got everything may go at once:
        # only one that goes while this waits has left something behind.
        if self._sent and not await self._pass_on(send, b""):
            return "aborted"
        await send({"type": "http.response.body", "body": b"", "more_body": False})
        return "completed"

    async def _from_below(self, send: Send) -> str:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        try:
            await send({"type": EXTENSION, "file": self._source, "offset": self._next, "count": self._end - self._next,
                        "more_body": False, "accepted": self._accepted})  # fmt: skip
        except ConnectionError:
            return "aborted"
        except (OSError, EOFError):
            return "failed"
        return "completed"

    def _accepted(self, count: int) -> None:
        self._sent += count

    async def _pass_on(self, send: Send, block: bytes) -> bool:
        """False when the client has gone."""
        if block and self._gone:
            return False
        try:
            await send({"type": "http.response.body", "body": block, "more_body": True})
        except OSError:  # how ASGI 2.4 tells it
            return False
        self._sent += len(block)
        return not self._gone


def outdated(headers: Mapping[str, str], etag: str, modified: float | None) -> bool:
    """Whether the client wants to go on with a file that is not there any more: 412 (RFC 9110 13.1.1, 13.1.4).

    A client that resumes and does not say of what (If-Range, If-Match) may put two files together.
    """
    if_match = headers.get("if-match")
    if if_match is not None:
        tags = {tag.strip() for tag in if_match.split(",")}
        return etag not in tags and "*" not in tags
    since = headers.get("if-unmodified-since")
    if since is None or modified is None:
        return False
    try:
        return int(modified) > parsedate_to_datetime(since).timestamp()
    except (ValueError, OverflowError):  # 13.1.4: "MUST ignore" what is not a date
        return False


def _headers(source: Source, plan: RangePlan, media_type: str) -> dict[str, str]:
    headers = {"Accept-Ranges": "bytes", "ETag": source.etag}
    if source.modified is not None:
        headers["Last-Modified"] = formatdate(source.modified, usegmt=True)
    if plan.content_range is not None:
        headers["Content-Range"] = plan.content_range
    if plan.status != HTTPStatus.NOT_MODIFIED:
        headers["Content-Length"] = str(plan.end - plan.start)
        headers["Content-Type"] = media_type
    return headers
