"""Files for clients that boot over HTTP: those of TFTPDirectory, and the imaging client's kernel and initramfs.

One rule: over HTTP a client gets what it would get over TFTP, and nothing else. UEFI HTTP Boot asks with HEAD how large
a file is, then with GET, and goes on with a Range after an interruption (EDK2 HttpBootDxe).
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Sequence
from http import HTTPStatus
from pathlib import Path
from typing import Final, Protocol
from urllib.parse import unquote_to_bytes

from fastapi import APIRouter, Request
from fastapi.responses import Response

from pbserv.httpapi import ApiError, local_address, peer_address
from pbserv.log import ServiceLog
from pbserv.web.sending import FileSender, MadeContent, OpenFile, PlanRange, RangePlan, Source, outdated

MAX_NAME_BYTES: Final = 1024
_ANY_FILE: Final = "application/octet-stream"
_MEDIA_TYPES: Final = {".efi": "application/efi", ".ipxe": "text/plain; charset=utf-8"}
"""application/efi is registered for UEFI programs (IANA media types); firmware looks at the type, then at the name."""


class BootFiles(Protocol):
    """The files that the TFTP service gives out."""

    def open(self, name: bytes, peer: str, local: str) -> tuple[int, os.stat_result] | bytes:
        """A descriptor that the caller owns with its facts, or what a service made.

        Raises FileNotFoundError, PermissionError with the reason, ValueError for what is no name, and another OSError
        when the file cannot be given out now.
        """


class Clients(Protocol):
    """Who gets nothing, and who wants to know what the others got."""

    def refuses(self, peer: str) -> str:
        """Why the client at this address gets nothing; empty when it may ask."""

    def fetched(self, peer: str, name: str, outcome: str, size: int) -> None:
        """``outcome`` is completed, aborted, failed, missing or refused."""


def files_router(files: BootFiles, clients: Clients, plan: PlanRange, log: ServiceLog) -> APIRouter:
    """``/files/<path below TFTPDirectory>``, read-only."""
    routes = APIRouter(tags=["boot"])
    desk = _Desk(clients, plan, log)

    @routes.get("/files/{path:path}", response_class=Response, summary="A file of TFTPDirectory")
    @routes.head("/files/{path:path}", response_class=Response, include_in_schema=False)
    async def boot_file(request: Request) -> Response:
        name = _name(request)
        try:
            found = files.open(name, peer_address(request), local_address(request))
        except FileNotFoundError:
            raise desk.refused(request, name, 404, "missing", "no such file") from None
        except PermissionError as fault:
            raise desk.refused(request, name, 403, "refused", str(fault)) from None
        except ValueError as fault:
            raise desk.refused(request, name, 400, "refused", str(fault)) from None
        except OSError as fault:
            raise desk.refused(request, name, 503, "refused", str(fault)) from None
        return desk.give(request, name, MadeContent(found) if isinstance(found, bytes) else OpenFile(*found))

    return routes


def client_router(
    directory: Path, names: Sequence[str], clients: Clients, plan: PlanRange, log: ServiceLog
) -> APIRouter:
    """``/client/<name>``: the imaging client's files; a device that boots has no token."""
    routes = APIRouter(tags=["boot"])
    desk = _Desk(clients, plan, log)

    @routes.get("/client/{name}", response_class=Response, include_in_schema=False)
    @routes.head("/client/{name}", response_class=Response, include_in_schema=False)
    async def client_file(request: Request, name: str) -> Response:
        reason = clients.refuses(peer_address(request))
        if reason:
            raise desk.refused(request, name.encode(), 403, "refused", reason)
        source = _open(directory / name) if name in names else None
        if source is None:
            raise ApiError(404, f"no file {name}; the imaging client is made by: pbserv client build")
        return desk.give(request, name.encode(), source)

    return routes


class Ending:
    """The log line and the device's journal."""

    def __init__(self, clients: Clients, log: ServiceLog) -> None:
        self._clients = clients
        self._log = log

    def tell(
        self,
        peer: str,
        method: str,
        shown: str,
        status: int,
        content_range: str | None,
        began: float,
        outcome: str,
        size_bytes: int,
        *,
        last: bool,
    ) -> None:
        """``last``: with this the client has the end of the file; ``began`` by ``time.monotonic``."""
        good = outcome == "completed"
        tell = self._log.transaction if last and good else self._log.request if good else self._log.warning
        tell("boot file", client=peer, method=method, file=shown, status=status, bytes=size_bytes, range=content_range,
             result=outcome, seconds=round(time.monotonic() - began, 3))  # fmt: skip
        if last or not good:
            self._clients.fetched(peer, shown, outcome, size_bytes)


class _Desk:
    """What both kinds of files have in common: the answer, and how its end is told."""

    def __init__(self, clients: Clients, plan: PlanRange, log: ServiceLog) -> None:
        self._clients = clients
        self._plan = plan
        self._log = log
        self._told = Ending(clients, log)

    def give(self, request: Request, name: bytes, source: Source) -> Response:
        """Takes ``source`` over."""
        if outdated(request.headers, source.etag, source.modified):
            source.close()
            raise ApiError(HTTPStatus.PRECONDITION_FAILED, "the file is another one now; begin again")
        plan = self._plan(request.headers, size_bytes=source.size_bytes, etag=source.etag, method=request.method)
        body = request.method == "GET" and plan.status in (HTTPStatus.OK, HTTPStatus.PARTIAL_CONTENT)
        # Who reads a file like a disk, in many ranges, has got it with the last one.
        last = body and plan.end == source.size_bytes
        return FileSender(
            source, plan, media_type_of(shown_name(name)), body=body, ended=self._ending(request, name, plan, last=last)
        )

    def _ending(self, request: Request, name: bytes, plan: RangePlan, *, last: bool) -> Callable[[str, int], None]:
        began = time.monotonic()
        peer, shown = peer_address(request), shown_name(name)

        def ended(outcome: str, size_bytes: int) -> None:
            self._told.tell(
                peer, request.method, shown, int(plan.status), plan.content_range, began, outcome, size_bytes, last=last
            )

        return ended

    def refused(self, request: Request, name: bytes, status: int, outcome: str, reason: str) -> ApiError:
        """Told like the end of a transfer; the caller raises what this returns."""
        peer, shown = peer_address(request), shown_name(name)
        self._log.warning("boot file", client=peer, method=request.method, file=shown, status=status,
                          result=outcome, reason=reason)  # fmt: skip
        self._clients.fetched(peer, shown, outcome, 0)
        return ApiError(status, f"{shown}: {reason}")


def _name(request: Request) -> bytes:
    """The path as it was written: names on disk are bytes. Raises ApiError."""
    raw = request.scope.get("raw_path") or request.url.path.encode()
    name = unquote_to_bytes(raw.partition(b"?")[0]).removeprefix(b"/files/")
    if len(name) > MAX_NAME_BYTES or b"\0" in name:
        raise ApiError(400, f"a name has at most {MAX_NAME_BYTES} bytes, and none of them is zero")
    return name


def media_type_of(shown: str) -> str:
    return _MEDIA_TYPES.get(os.path.splitext(shown)[1].lower(), _ANY_FILE)


def shown_name(name: bytes) -> str:
    """As it stands in logs."""
    text = name.decode("utf-8", "backslashreplace")[:200]
    return "".join(c if c.isprintable() else "?" for c in text)


def _open(path: Path) -> OpenFile | None:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    facts = os.fstat(fd)
    if not stat.S_ISREG(facts.st_mode):
        os.close(fd)
        return None
    return OpenFile(fd, facts)
