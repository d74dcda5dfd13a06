"""Clients that others wrote, reading and writing: tftp-hpa, atftp, busybox and curl, over IPv4 and IPv6."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.tftp.blackbox.conftest import Serve
from tests.tftp.blackbox.programs import ALL, ATFTP, BUSYBOX_PLAIN, CURL, CURL_PLAIN, HPA, Program
from tests.tftp.conftest import Room

noise = random.Random(3).randbytes
SIZES = (0, 1, 511, 512, 513, 1427, 1428, 1429, 1428 * 8, 100_001)

programs = pytest.mark.parametrize("program", ALL, ids=str)
hosts = pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
long_files = pytest.mark.parametrize("program", [HPA, ATFTP, BUSYBOX_PLAIN, CURL_PLAIN], ids=str)


async def start(serve: Serve, host: str) -> Room:
    return await serve(interfaces=(host,), allow_writes=True, allow_overwrites=True, free_space_mb=0)


async def check_get(program: Program, room: Room, name: str, target: Path, host: str = "127.0.0.1") -> None:
    done = await program.get(room.port, name, target, host)
    assert done.code == 0, done.said
    assert (target.read_bytes() if target.exists() else b"") == (room.folder / name).read_bytes(), name


async def check_put(program: Program, room: Room, source: Path, name: str, host: str = "127.0.0.1") -> None:
    done = await program.put(room.port, source, name, host)
    assert done.code == 0, done.said
    assert (room.folder / name).read_bytes() == source.read_bytes(), name


@hosts
@programs
async def test_reads(serve: Serve, tmp_path: Path, program: Program, host: str) -> None:
    room = await start(serve, host)
    for size in SIZES:
        if program is CURL and size == 0:
            continue  # RFC 2349 asks for tsize=0 and GRUB needs it; curl calls it invalid: see below
        room.put(f"f{size}", noise(size))
        await check_get(program, room, f"f{size}", tmp_path / f"{size}.out", host)
    assert room.service.metrics.retransmissions == 0


@hosts
@programs
async def test_writes(serve: Serve, tmp_path: Path, program: Program, host: str) -> None:
    room = await start(serve, host)
    for size in SIZES:
        source = tmp_path / f"{size}.in"
        source.write_bytes(noise(size))
        await check_put(program, room, source, f"f{size}", host)


async def test_curl_reads_an_empty_file_when_tsize_is_refused(serve: Serve, tmp_path: Path) -> None:
    room = await serve(refused_options=("tsize",))
    room.put("empty", b"")
    await check_get(CURL, room, "empty", tmp_path / "out")


@long_files
async def test_reads_of_more_than_65535_blocks(serve: Serve, tmp_path: Path, program: Program) -> None:
    room = await serve()
    room.put("f", noise(1 << 20) * 33)
    await check_get(program, room, "f", tmp_path / "out")


@long_files
async def test_writes_of_more_than_65535_blocks(writable: Room, tmp_path: Path, program: Program) -> None:
    source = tmp_path / "in"
    source.write_bytes(noise(1 << 20) * 33)
    await check_put(program, writable, source, "f")


@pytest.mark.parametrize("program", [HPA, CURL_PLAIN], ids=str)
async def test_netascii(writable: Room, tmp_path: Path, program: Program) -> None:
    """Line ends and a bare CR; CR LF of a text that crosses a border of blocks."""
    text = b"A" * 511 + b"\nfoo\nbar\n" + b"B" * 505 + b"\nend\n"
    writable.put("unix.txt", text)
    target = tmp_path / "out"
    done = await program.get(writable.port, "unix.txt", target, mode="netascii")
    assert done.code == 0, done.said
    wire = text.replace(b"\n", b"\r\n")
    # curl converts in neither direction (lib/tftp.c): what it stores and sends is what stands on the wire
    assert target.read_bytes() == (text if program is HPA else wire)
    done = await program.put(writable.port, target, "back.txt", mode="netascii")
    assert done.code == 0, done.said
    assert (writable.folder / "back.txt").read_bytes() == text


@pytest.mark.parametrize("program", [HPA, ATFTP, BUSYBOX_PLAIN, CURL], ids=str)
async def test_errors_reach_the_user(serve: Serve, tmp_path: Path, program: Program) -> None:
    room = await serve()
    source = tmp_path / "in"
    source.write_bytes(b"x")
    done = await program.get(room.port, "none", tmp_path / "out")
    assert done.code != 0 or "not found" in done.said.lower(), done.said
    if program is CURL:
        assert done.code == 68  # TFTP: file not found
    done = await program.put(room.port, source, "f")
    assert done.code != 0 or "not allowed" in done.said.lower(), done.said
    if program is CURL:
        assert done.code == 69  # TFTP: access violation
    assert not (room.folder / "f").exists()


@pytest.mark.parametrize("program", [HPA, ATFTP, BUSYBOX_PLAIN, CURL], ids=str)
async def test_existing_files_stay_when_overwriting_is_off(serve: Serve, tmp_path: Path, program: Program) -> None:
    room = await serve(allow_writes=True, free_space_mb=0)
    room.put("f", b"old")
    source = tmp_path / "in"
    source.write_bytes(b"new")
    done = await program.put(room.port, source, "f")
    assert done.code != 0 or "exists" in done.said.lower(), done.said
    if program is CURL:
        assert done.code == 73  # TFTP: file already exists
    assert (room.folder / "f").read_bytes() == b"old"
