from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable

import pytest_asyncio

from tests.tftp.conftest import Room

Serve = Callable[..., Awaitable[Room]]


@pytest_asyncio.fixture
async def serve(make_room: Callable[[], Room]) -> AsyncIterator[Serve]:
    """Starts the service with settings; whatever a test did to it, it ends without a fault and leaves nothing."""
    rooms: list[Room] = []

    async def start(**changes: object) -> Room:
        room = make_room()
        await room.service.start(room.settings(**changes))
        rooms.append(room)
        return room

    yield start
    for room in rooms:
        await room.service.stop()
        metrics = room.service.metrics
        assert (metrics.bugs, metrics.active) == (0, 0)
        assert [path for path in room.folder.rglob("*.part")] == []


@pytest_asyncio.fixture
async def writable(serve: Serve) -> Room:
    return await serve(allow_writes=True, allow_overwrites=True, free_space_mb=0)
