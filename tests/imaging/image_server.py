"""A real uvicorn server on loopback over a real store, for the tests of image transfer; also a program to be killed."""

from __future__ import annotations

import asyncio
import hashlib
import socket
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import uvicorn

from pbserv.conf.places import StorePlace
from pbserv.imaging.coverage import Coverage
from pbserv.imaging.image_routes import router
from pbserv.imaging.referring import NO_REMOTES, Referring, Remotes, image_of_upload
from pbserv.imaging.slot import BackendSlot
from pbserv.imaging.statistics import RequestRecord, Statistics
from pbserv.imaging.stores import Stores, StoresSettings
from pbserv.imaging.tasks import Tasks
from pbserv.log import ServiceLog
from pbserv.registry.access import Access, Caller
from pbserv.registry.records import Role
from pbserv.registry.tokens import WorkTokens, digest
from pbserv.web.app import create_app

ADMIN_TOKEN = "the-administrators-token"
TOKENS = WorkTokens(b"x" * 32)
ADMIN = {"Authorization": f"Bearer {ADMIN_TOKEN}"}


def bearer_of(role: str) -> dict[str, str]:
    """The header of a token of this role."""
    return ADMIN if role == "admin" else {"Authorization": f"Bearer the-{role}-token"}


class EventLines:
    """Keeps the events instead of writing them."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, dict[str, object]]] = []

    def transaction(self, event: str, /, **fields: object) -> None:
        self.lines.append((event, fields))

    warning = critical = transaction


@dataclass
class Running:
    url: str
    store: Stores
    statistics: Statistics
    coverage: Coverage
    requests: list[RequestRecord] = field(default_factory=list)
    events: EventLines = field(default_factory=EventLines)

    @property
    def api(self) -> str:
        return self.url.removesuffix("/images")

    @property
    def figures(self) -> tuple[int, int, int]:
        """PXE Requests, Images Sent, Images Received."""
        counters = self.statistics.counters
        return counters.pxe_requests, counters.images_sent, counters.images_received


class Guard:
    """Tokens as the process keeps them."""

    def __init__(self) -> None:
        others = {digest(f"the-{role}-token"): role.value for role in Role if role is not Role.ADMIN}
        self._access = Access({digest(ADMIN_TOKEN): Role.ADMIN.value, **others}, TOKENS)

    def authorize(self, token: str | None) -> Caller | None:
        return self._access.authorize(token)


def loopback_socket() -> socket.socket:
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    return listener


@asynccontextmanager
async def serving(
    root: Path,
    *,
    allow_overwrite: bool = False,
    free_floor_bytes: int = 0,
    idle_timeout_s: float = 60.0,
    backend: BackendSlot | None = None,
    remotes: Remotes = NO_REMOTES,
    places: tuple[StorePlace, ...] = (),
    upload_directories: tuple[Path, ...] = (),
) -> AsyncIterator[Running]:
    """``backend``: what is served in place of the stores; ``places``: these, in place of one below ``root``."""
    settings = StoresSettings(
        places or (StorePlace("main", root),),
        allow_overwrite=allow_overwrite,
        free_floor_bytes=free_floor_bytes,
        upload_directories=upload_directories,
    )
    store = Stores(settings, idle_timeout_s)
    requests: list[RequestRecord] = []
    events = EventLines()
    statistics, coverage = Statistics(requests.append), Coverage()
    tasks = Tasks(events)
    referring = Referring(lambda: [digest("the-site-token")], partial(image_of_upload, store))
    referring.remotes = remotes
    await store.start()
    routes = router(
        backend or store, statistics, coverage, Guard(), events, tasks, referring=referring
    )  # fmt: skip
    app = create_app([("", routes)], running=lambda _name: True, log=ServiceLog("pbserv"))
    listener = loopback_socket()
    server = uvicorn.Server(uvicorn.Config(app, log_level="critical", lifespan="off", timeout_graceful_shutdown=1))
    async with asyncio.TaskGroup() as group:
        serve = group.create_task(server._serve([listener]))
        owned = group.create_task(tasks.own())
        await until(lambda: server.started)
        try:
            yield Running(f"http://127.0.0.1:{listener.getsockname()[1]}/api/v1/images", store, statistics, coverage,
                          requests, events)  # fmt: skip
        finally:
            owned.cancel()
            server.should_exit = True
            await serve
            await store.close()
            listener.close()


async def until(condition: Callable[[], bool], timeout_s: float = 20.0) -> None:
    """Wait for something that another task, thread or process makes true."""
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0.005)


def files_below(root: Path) -> list[str]:
    """What is there but the file that says whose directory it is."""
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file() and path.name != ".store")


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


async def _main(root: Path) -> None:
    async with serving(root) as running:
        print(running.url, flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_main(Path(sys.argv[1])))
