"""Map files and directories of clients in the running service: judged at start and reload, seen by clients."""

from __future__ import annotations

from pathlib import Path

import pytest

from pbserv.errors import StartError
from pbserv.tftp.packet import Error, Opcode
from tests.tftp.client import client, fetch


@pytest.fixture
def rules(tmp_path: Path) -> Path:
    path = tmp_path / "map"
    path.write_text("rg \\\\ /\na \\.pvt$ kept\\ from\\ \\i\nr ^old/ new/\n")
    return path


async def test_rules_of_the_service(make_room, rules: Path) -> None:
    room = make_room()
    room.put("new/f", b"new")
    await room.service.start(room.settings(map_file=rules))
    assert await fetch(room.port, "old\\f", ("tsize", 0)) == b"new"
    assert await fetch(room.port, "/new/f") == b"new"
    assert await fetch(room.port, "new/k.pvt") == Error(2, "kept from 127.0.0.1")
    await room.service.stop()


async def test_a_bad_map_file_stops_a_start_and_a_reload(make_room, rules: Path) -> None:
    room = make_room()
    room.put("new/f", b"new")
    good = rules.read_text()
    rules.write_text("r a b\nr ( x\n")
    with pytest.raises(StartError, match=f"map file {rules}: line 2, column 3"):
        await room.service.start(room.settings(map_file=rules))
    assert not room.service.running
    rules.write_text(good)
    await room.service.start(room.settings(map_file=rules))
    rules.write_text("q")
    with pytest.raises(StartError):
        await room.service.prepare(room.settings(map_file=rules))
    assert await fetch(room.port, "old/f") == b"new", "the old rules go on"
    rules.write_text("r ^other/ new/")
    (await room.service.prepare(room.settings(map_file=rules))).commit()
    assert await fetch(room.port, "other/f") == b"new"
    assert isinstance(await fetch(room.port, "old/f"), Error)
    await room.service.stop()


async def test_directories_of_clients(make_room) -> None:
    room = make_room()
    for name in ("f", "127.0.0.1/f", "127.0.0.2/f"):
        room.put(name, name.encode())
    await room.service.start(room.settings(client_directories="ip", allow_writes=True, free_space_mb=0))
    assert await fetch(room.port, "f") == b"127.0.0.1/f"
    assert await fetch(room.port, "127.0.0.2/f") == Error(1, "file not found")
    async with client(room.port) as made:
        made.ask("up", opcode=Opcode.WRQ)
        await made.receive()
        made.send(b"\0\3\0\1x")
        await made.receive()
    assert (room.folder / "127.0.0.1" / "up").read_bytes() == b"x"
    await room.service.stop()
