"""Image bytes in and out over HTTP: downloads with ranges and resume, uploads as a stream. The shell of the service.

One rule: bytes count as delivered when the transport has taken them and the client is still there. A block is counted
when the next one (or the end) was accepted, because a server accepts only after it flushed the one before. Where the
server sends files itself (ASGI's http.response.zerocopysend), it says what it sent, and the end is acknowledged.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from functools import partial
from http import HTTPStatus
from typing import Protocol, runtime_checkable

from fastapi import Request
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from pbserv.imaging.backend import ImageDraft, ImagingBackend, ItemSource
from pbserv.imaging.coverage import Coverage, Recipient
from pbserv.imaging.draft import StoredItem
from pbserv.imaging.faults import Forbidden, ImagingFault, InvalidRequest, UnknownImage, UploadBroken
from pbserv.imaging.layout import StoredImage
from pbserv.imaging.manifest import is_sha256
from pbserv.imaging.ports import Hooks
from pbserv.imaging.ranges import Plan, plan
from pbserv.imaging.statistics import Statistics

CHUNK_BYTES = 1024 * 1024
ZERO_COPY = "http.response.zerocopysend"
ZERO_COPY_BYTES = 128 * 1024 * 1024
"""At most in one message: so often is looked whether the store still runs, and so much counts at once."""
COMMIT_PATIENCE_S = 600.0
"""So long all bytes of an image wait for a place of the administrator's programs: sending them again takes longer."""
CHECKSUM_HEADER = "x-checksum-sha256"

Delivered = Callable[[int, int], None]
Ended = Callable[[str, int], None]


class EventLog(Protocol):
    """What the routes log: results, and what went wrong."""

    def transaction(self, event: str, /, **fields: object) -> None: ...

    def warning(self, event: str, /, **fields: object) -> None: ...


@runtime_checkable
class Descriptor(Protocol):
    """An item that is a file: a server that can sends it without reading it."""

    def fileno(self) -> int: ...


class TransferResponse(Response):
    """Streams ``[start, end)`` of an open item and closes it.

    ``delivered(start, end)`` is called per block, ``ended(result, bytes)`` once: ok, aborted (the client went away)
    or failed (the disk did).
    """

    def __init__(self, source: ItemSource, wanted: Plan, *, body: bool, delivered: Delivered, ended: Ended) -> None:
        self.status_code = wanted.status
        self.background = None
        self.body = b""
        self._source = source
        self._plan = wanted
        self._with_body = body and wanted.end > wanted.start
        self._delivered = delivered
        self._ended = ended
        self._gone = False
        self._sent = 0
        self.init_headers(_headers(source, wanted))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        result = "aborted"
        below = self._with_body and ZERO_COPY in scope.get("extensions", {})
        file = self._source if below and isinstance(self._source, Descriptor) else None
        try:
            async with asyncio.TaskGroup() as group:
                watcher = group.create_task(self._watch(receive))
                try:
                    result = await (self._stream(send) if file is None else self._from_below(send, file))
                except OSError:  # ASGI 2.4: how newer servers tell that the client went away
                    result = "aborted"
                finally:
                    watcher.cancel()
        finally:
            self._source.close()
            self._ended(result, self._sent)

    async def _watch(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self._gone = True

    async def _stream(self, send: Send) -> str:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        position = self._plan.start
        waiting = 0  # bytes before ``position`` that were accepted, but perhaps not flushed
        while self._with_body and position < self._plan.end:
            try:
                block = await self._source.read(position, min(CHUNK_BYTES, self._plan.end - position))
            except (OSError, ImagingFault):
                return "failed"
            if not block:  # truncated under our feet; ending the connection early tells the client
                return "failed"
            await send({"type": "http.response.body", "body": block, "more_body": True})
            if not await self._flushed(position - waiting, position):
                return "aborted"
            position += len(block)
            waiting = len(block)
        if waiting:  # accepting this flushes the last block; after the end itself nobody could tell a disconnect
            await send({"type": "http.response.body", "body": b"", "more_body": True})
            if not await self._flushed(position - waiting, position):
                return "aborted"
        elif self._source.size_bytes == 0:
            self._delivered(0, 0)
        await send({"type": "http.response.body", "body": b"", "more_body": False})
        return "ok"

    async def _from_below(self, send: Send, file: Descriptor) -> str:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        position = self._plan.start

        def accepted(count: int) -> None:
            self._count(position, position + count)

        while position < self._plan.end:
            count = min(ZERO_COPY_BYTES, self._plan.end - position)
            try:
                if not await self._source.read(position, 1):  # as long as the store lets us
                    return "failed"
                more = position + count < self._plan.end
                await send({"type": ZERO_COPY, "file": file.fileno(), "offset": position, "count": count,
                            "more_body": more, "accepted": accepted})  # fmt: skip
            except ConnectionError:
                return "aborted"
            except (OSError, EOFError, ImagingFault):
                return "failed"
            position += count
        return "ok"

    async def _flushed(self, start: int, end: int) -> bool:
        """Count the block before the one that was just accepted; False when the client has gone."""
        await asyncio.sleep(0)  # lets the watcher see a disconnect that ended the wait
        if self._gone:
            return False
        if end > start:
            self._count(start, end)
        return True

    def _count(self, start: int, end: int) -> None:
        self._sent += end - start
        self._delivered(start, end)


class Transfers:
    """Downloads of one store, with their figures: who serves image bytes holds one of these."""

    def __init__(self, store: ImagingBackend, statistics: Statistics, coverage: Coverage, log: EventLog) -> None:
        self.store = store
        self.statistics = statistics
        self.coverage = coverage
        self._log = log
        self.hooks: Hooks | None = None

    async def check_commit(self, image: str, source: str) -> None:
        """Before an image becomes visible: raises Forbidden when a program of the administrator refuses it."""
        facts = {"image": image, "source": source}
        reason = "" if self.hooks is None else await self.hooks.ask("before-commit", facts, COMMIT_PATIENCE_S)
        if reason:
            raise Forbidden(reason)

    async def item_response(
        self, request: Request, image: StoredImage, item: str, recipient: Recipient, *, ended: Ended | None = None
    ) -> Response:
        """Answer a GET or HEAD of an item of exactly this version of the image.

        Counts the image as sent when this completes its delivery to ``recipient``. Raises UnknownImage, DamagedImage.
        """
        facts = image.manifest.item(item)
        if facts is None:
            raise UnknownImage(f"image {image.name} version {image.version} has no item {item[:80]!r}")
        wanted = plan(request.headers, size_bytes=facts.stored_bytes, etag=f'"{facts.sha256}"', method=request.method)
        source = await self.store.open(image.name, item, image.version)
        body = request.method == "GET" and wanted.status in (HTTPStatus.OK, HTTPStatus.PARTIAL_CONTENT)
        delivered = partial(self._delivered, recipient, image, item) if body else _nothing

        def finished(result: str, sent_bytes: int) -> None:
            if result == "failed":
                self._log.warning("image unreadable", to=str(recipient), image=image.name, version=image.version,
                                  item=item, at=wanted.start + sent_bytes, result="failed")  # fmt: skip
            if ended is not None:
                ended(result, sent_bytes)

        return TransferResponse(source, wanted, body=body, delivered=delivered, ended=finished)

    def _delivered(self, recipient: Recipient, image: StoredImage, item: str, start: int, end: int) -> None:
        if self.coverage.delivered(recipient, image, item, start, end):
            self.statistics.sent()
            self._log.transaction(
                "image sent", to=str(recipient), image=image.name, version=image.version,
                bytes=image.manifest.stored_bytes, result="ok",
            )  # fmt: skip

    def received(self, image: StoredImage, source: str, began: float) -> None:
        """Count and log an image that was committed; ``began`` is the ``time.monotonic`` of its first byte."""
        self.statistics.received()
        self._log.transaction(
            "image received", source=source, image=image.name, version=image.version,
            bytes=image.manifest.stored_bytes, result="ok", seconds=round(time.monotonic() - began, 3),
        )  # fmt: skip
        self.committed(image, source)

    def dropped(self, image: StoredImage) -> None:
        """Count an image that was made of a file in the store's directory, where the file is logged."""
        self.statistics.received()
        self.committed(image, "drop")

    def committed(self, image: StoredImage, source: str) -> None:
        """Tell the administrator's program of a new version, wherever it came from."""
        if self.hooks is not None:
            facts = {"image": image.name, "version": str(image.version), "source": source}
            self.hooks.tell("image-committed", facts)


async def receive_item(request: Request, draft: ImageDraft, name: str) -> StoredItem:
    """Store a request's body as an item, checked against Content-Length and X-Checksum-SHA256 where they are given.

    Raises an ImagingFault; UploadBroken when the client went away, then nobody reads the answer.
    """
    length = content_length(request)
    checksum = announced_checksum(request)
    async with aclosing(_body(request, draft.image)) as chunks:
        return await draft.receive(name, chunks, size_bytes=length, sha256=checksum)


def content_length(request: Request) -> int | None:
    """The announced length of the body, or None for a chunked one; raises InvalidRequest."""
    text = request.headers.get("content-length")
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        raise InvalidRequest(f"Content-Length {text[:40]!r} is not a number")
    return int(text)


def announced_checksum(request: Request) -> str | None:
    """The SHA-256 that the sender expects, in lower case, or None; raises InvalidRequest."""
    text = request.headers.get(CHECKSUM_HEADER)
    if text is None:
        return None
    checksum = text.strip().lower()
    if not is_sha256(checksum):
        raise InvalidRequest(f"X-Checksum-SHA256 {text[:80]!r} is not 64 hexadecimal digits")
    return checksum


async def _body(request: Request, image: str) -> AsyncGenerator[bytes, None]:
    try:
        async for chunk in request.stream():
            yield chunk
    except ClientDisconnect:
        raise UploadBroken(f"image {image}: the connection ended in the middle of the upload") from None


def _headers(source: ItemSource, wanted: Plan) -> dict[str, str]:
    headers = {"Accept-Ranges": "bytes", "ETag": f'"{source.sha256}"'}
    if wanted.content_range is not None:
        headers["Content-Range"] = wanted.content_range
    if wanted.status != HTTPStatus.NOT_MODIFIED:
        headers["Content-Length"] = str(wanted.end - wanted.start)
        headers["Content-Type"] = "application/octet-stream"
        headers["X-Checksum-SHA256"] = source.sha256
    return headers


def _nothing(_start: int, _end: int) -> None:
    return
