from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import pytest_asyncio

from pbserv.log import ServiceLog
from pbserv.tftp.config import TftpConf
from pbserv.tftp.service import TftpService


@dataclass
class Room:
    """A running service on a free port of the loopback, and what its neighbours saw."""

    folder: Path
    log_file: Path
    service: TftpService
    virtual: dict[str, bytes] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    told: list[tuple[str, str, str, int]] = field(default_factory=list)

    @property
    def port(self) -> int:
        return int(self.service.listeners[0].rpartition(":")[2])

    @property
    def log(self) -> str:
        return self.log_file.read_text() if self.log_file.exists() else ""

    def put(self, name: str, data: bytes) -> bytes:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return data

    def settings(self, **changes) -> TftpConf:
        return TftpConf(**{"interfaces": ("127.0.0.1",), "port": 0, "directory": self.folder, **changes})

    # the ports of the service

    def path_of(self, name: str, peer: str) -> str:
        return name

    def find(self, name: str, peer: str, local: str) -> bytes | None:
        self.asked.append(name)
        return self.virtual.get(name)

    def transferred(self, peer: str, name: str, outcome: str, size: int) -> None:
        self.told.append((peer, name, outcome, size))


ALIASES = {"nvlnbp.sys": "undionly.kpxe", "nvlnbpx64.efi": "ipxe.efi"}


@pytest.fixture
def make_room(tmp_path: Path) -> Callable[[], Room]:
    def make() -> Room:
        folder = tmp_path / "tftp"
        folder.mkdir()
        log = ServiceLog("tftp")
        log.configure(3, tmp_path / "tftp.log", 15, quiet=True)
        room = Room(folder, tmp_path / "tftp.log", None)  # type: ignore[arg-type]
        room.service = TftpService(log, room, room, ALIASES)
        return room

    return make


@pytest_asyncio.fixture
async def room(make_room: Callable[[], Room]) -> AsyncIterator[Room]:
    room = make_room()
    await room.service.start(room.settings())
    yield room
    await room.service.stop()
    assert not room.service.running
    assert room.service.metrics.bugs == 0
    assert room.service.metrics.active == 0
