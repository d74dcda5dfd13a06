"""What a device that captures sends: items whole or in parts, and the manifest that makes them an image.

One rule: bytes are taken for a job that runs and whose work is active; a dry run sends none.
"""

from __future__ import annotations

import time
from contextlib import aclosing
from typing import Annotated, Any, Final  # Any: a dependency of FastAPI

from fastapi import APIRouter, Form, Path, Query, Request
from fastapi.responses import Response

from pbserv.httpapi import ApiError
from pbserv.imaging.captures import Captures
from pbserv.imaging.elsewhere import Elsewhere
from pbserv.imaging.faults import InvalidRequest
from pbserv.imaging.jobs import Jobs
from pbserv.imaging.manifest import MAX_BYTES
from pbserv.imaging.part_bodies import bounded, check_length
from pbserv.imaging.transfer import Transfers, announced_checksum, content_length, receive_item
from pbserv.registry.access import Caller

_MOST: Final = 2**31 - 1
_EXPECTED: Final = "X-Expected-Bytes"
JobNumber = Annotated[int, Path(ge=1, lt=2**63)]
PartNumber = Annotated[int, Path(ge=1, le=_MOST, description="1 for the first part of each item")]
ItemKind = Annotated[str, Query(max_length=64, description="of the item, as in the manifest")]


def add(
    routes: APIRouter, jobs: Jobs, captures: Captures, transfers: Transfers, elsewhere: Elsewhere, caller: Any
) -> None:
    """``caller``: the dependency that gives the device with its work."""
    away = captures.away

    @routes.put("/jobs/{job_id}/items/{name}", response_model=None)
    async def upload(request: Request, job_id: JobNumber, name: str, who: Caller = caller) -> str | Response:
        """A whole item; the answer is its size and SHA-256, or where it is to be sent (307)."""
        job = await jobs.uploading(job_id, work_of(who))
        if job in away:
            return await away.item(job, name, size_bytes=expected_bytes(request))
        stored = await receive_item(request, captures.draft(job, expected_bytes(request)), name)
        return f"{stored.size_bytes} {stored.sha256}\n"

    @routes.put("/jobs/{job_id}/items/{name}/parts/{number}", response_model=None)
    async def part(
        request: Request, job_id: JobNumber, name: str, number: PartNumber, kind: ItemKind, who: Caller = caller
    ) -> str | Response:
        """A part of an item; the answer is the number of the next one, the bytes so far, and what the part's SHA-256
        is. X-Checksum-SHA256 is needed. The same part again is fine; 409 names the one that is wanted: ``next=N``."""
        job = await jobs.uploading(job_id, work_of(who))
        if job in away:
            return await away.item(job, name, number, kind, size_bytes=expected_bytes(request))
        digest = part_digest(request, name, number)
        check_length(content_length(request))
        async with aclosing(bounded(request, job.image)) as chunks:
            done = await captures.session(job, expected_bytes(request)).part(name, kind, number, chunks, digest)
        return f"{done.next_part} {done.received_bytes} {done.sha256}\n"

    @routes.post("/jobs/{job_id}/items/{name}/complete")
    async def complete(
        job_id: JobNumber, name: str, parts: Annotated[int, Form(ge=0, le=_MOST)],
        plain: Annotated[int, Form(alias="bytes", ge=0, le=2**63 - 1)], who: Caller = caller,
    ) -> str:  # fmt: skip
        """All parts of an item came, of so many uncompressed ``bytes``; the answer is what its line of the manifest
        says: its size, and the SHA-256 of the parts' digests in a row."""
        job = await jobs.uploading(job_id, work_of(who))
        if job in away:
            done = await away.complete(job, name, parts, plain)
            return f"{done.stored_bytes} {done.sha256}\n"
        stored = await captures.session(job).complete(name, parts, plain)
        return f"{stored.size_bytes} {stored.sha256}\n"

    @routes.post("/jobs/{job_id}/commit")
    async def commit(request: Request, job_id: JobNumber, who: Caller = caller) -> str:
        """The manifest: the image becomes visible. Repeating it is harmless."""
        began = time.monotonic()
        text = await _small_body(request)
        job = await jobs.uploading(job_id, work_of(who))
        if job.version is not None:  # the first answer was lost on its way
            return "COMMITTED\n"
        await transfers.check_commit(job.image, job.mac)
        if job in away:
            version = await away.commit(job, text, elsewhere.title(job.image))
            await elsewhere.captured(job.image, job.store, f"job:{job.id}")
            await jobs.committed(job, version)
            return "COMMITTED\n"
        image, now = await captures.commit(job, text)
        if now:
            transfers.received(image, job.mac, began)
        await jobs.committed(job, image.version)
        return "COMMITTED\n"


def part_digest(request: Request, name: str, number: int) -> str:
    """The SHA-256 that is announced for a part; raises InvalidRequest where none is."""
    digest = announced_checksum(request)
    if digest is None:
        raise InvalidRequest(f"item {name[:64]!r} part {number}: X-Checksum-SHA256 is needed")
    return digest


def expected_bytes(request: Request) -> int:
    """What the whole image is going to take, by X-Expected-Bytes; 0: nobody can tell. Raises InvalidRequest."""
    text = request.headers.get(_EXPECTED, "0")
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        raise InvalidRequest(f"{_EXPECTED} {text[:40]!r} is not a number of bytes")
    return int(text)


def work_of(who: Caller) -> int:
    """The work whose token the caller has; raises ApiError 401."""
    if who.work is None:
        raise ApiError(401, "the token of this device's work is needed")
    return who.work


async def _small_body(request: Request) -> str:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BYTES:
            raise ApiError(413, f"a manifest has at most {MAX_BYTES} bytes")
    return body.decode("utf-8", "replace")
