"""Clients that get nothing: ERROR 2, whatever they ask for, and the administrator reads why."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from pbserv.tftp.packet import Error, ErrorCode, Opcode
from pbserv.tftp.service import TftpService
from tests.tftp.client import client, fetch
from tests.tftp.conftest import Room


class Door:
    """A gate that counts, and is shut when it has a reason."""

    def __init__(self) -> None:
        self.reason = ""
        self.asked: list[str] = []

    def refuses(self, peer: str) -> str:
        self.asked.append(peer)
        return self.reason


@pytest.fixture
def door() -> Door:
    return Door()


@pytest.fixture
async def guarded(make_room, door: Door) -> AsyncIterator[Room]:
    room = make_room()
    room.service = TftpService(room.service._log, room, room, {}, gate=door)
    await room.service.start(room.settings(allow_writes=True))
    yield room
    await room.service.stop()
    assert room.service.metrics.bugs == 0


async def test_a_refused_client_gets_no_file_at_all(guarded: Room, door: Door) -> None:
    guarded.put("f", b"1")
    guarded.virtual["boot.ipxe"] = b"#!ipxe\n"
    assert await fetch(guarded.port, "f") == b"1"
    door.reason = "device is denied"
    for name in ("f", "none", "boot.ipxe", "../x"):
        assert await fetch(guarded.port, name, ("tsize", 0)) == Error(2, "access denied")
    async with client(guarded.port) as made:
        made.ask("new", opcode=Opcode.WRQ)
        assert await made.receive() == Error(2, "access denied")
    assert not (guarded.folder / "new").exists()
    assert guarded.service.metrics.refused[ErrorCode.ACCESS] == 5
    assert door.asked == ["127.0.0.1"] * 6  # once per request
    assert guarded.told[-1] == ("127.0.0.1", "../x", "refused", 0)
    assert guarded.log.count('result="error 2" reason="device is denied"') == 5


async def test_a_made_file_may_be_refused_to_one_client(room: Room) -> None:
    def find(name: str, peer: str, local: str) -> bytes | None:
        raise PermissionError("device is pending")

    room.find = find  # type: ignore[method-assign]
    assert await fetch(room.port, "boot/52-54-00-00-00-01.ipxe") == Error(2, "access denied")
    assert 'reason="device is pending"' in room.log


async def test_what_is_given_out_in_other_ways_passes_the_same_gate(guarded: Room, door: Door) -> None:
    guarded.put("f", b"1")
    guarded.virtual["boot.ipxe"] = b"#!ipxe\n"
    assert guarded.service.open(b"boot.ipxe", "10.0.0.7", "10.0.0.2") == b"#!ipxe\n"
    with pytest.raises(FileNotFoundError, match="file not found"):
        guarded.service.open(b"none", "10.0.0.7", "10.0.0.2")
    with pytest.raises(ValueError, match="too long"):
        guarded.service.open(b"x" * 300, "10.0.0.7", "10.0.0.2")
    door.reason = "device is denied"
    with pytest.raises(PermissionError, match="device is denied"):
        guarded.service.open(b"f", "10.0.0.7", "10.0.0.2")
