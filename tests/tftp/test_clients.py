"""Programs that others wrote, against the service over the loopback."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
from pathlib import Path

import pytest

from tests.tftp.conftest import Room

noise = random.Random(2).randbytes
SIZES = [0, 1, 511, 512, 513, 1428, 1428 * 20, 100_001]


def program(name: str) -> str:
    """A client must be there when root runs the tests (the test command installs it)."""
    path = shutil.which(name)
    if path is None:
        if os.geteuid() == 0:
            pytest.fail(f"the program {name} is missing; make test as root installs it")
        pytest.skip(f"the program {name} is not installed")
    return path


def hpa(port: int, name: str, target: Path) -> list[str]:
    return [program("tftp"), "-m", "binary", "127.0.0.1", str(port), "-c", "get", name, str(target)]


def atftp(port: int, name: str, target: Path) -> list[str]:
    options = ["--option", "blksize 1428", "--option", "tsize 0"]
    return [program("atftp"), *options, "-g", "-r", name, "-l", str(target), "127.0.0.1", str(port)]


def atftp_window(port: int, name: str, target: Path) -> list[str]:
    options = ["--option", "blksize 1428", "--option", "windowsize 8", "--option", "timeout 2"]
    return [program("atftp"), *options, "-g", "-r", name, "-l", str(target), "127.0.0.1", str(port)]


def busybox(port: int, name: str, target: Path) -> list[str]:
    return [program("busybox"), "tftp", "-g", "-b", "1428", "-r", name, "-l", str(target), "127.0.0.1", str(port)]


def busybox_512(port: int, name: str, target: Path) -> list[str]:
    return [program("busybox"), "tftp", "-g", "-r", name, "-l", str(target), "127.0.0.1", str(port)]


def curl(port: int, name: str, target: Path) -> list[str]:
    url = f"tftp://127.0.0.1:{port}/{name}"
    return [program("curl"), "-sS", "--tftp-blksize", "1428", "-o", str(target), url]


def curl_plain(port: int, name: str, target: Path) -> list[str]:
    return [program("curl"), "-sS", "--tftp-no-options", "-o", str(target), f"tftp://127.0.0.1:{port}/{name}"]


CLIENTS = [hpa, atftp, atftp_window, busybox, busybox_512, curl, curl_plain]


async def run(command: list[str], timeout_s: float = 60) -> tuple[int, str]:
    made = await asyncio.create_subprocess_exec(
        *command, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    try:
        async with asyncio.timeout(timeout_s):
            out, _ = await made.communicate()
    except TimeoutError:
        made.kill()
        await made.wait()
        raise
    return made.returncode or 0, out.decode(errors="replace")


@pytest.mark.parametrize("make", CLIENTS)
async def test_sizes(room: Room, tmp_path: Path, make) -> None:
    for size in SIZES:
        if make is curl and size == 0:
            continue  # RFC 2349 asks for tsize=0 and GRUB needs it; curl calls it invalid (lib/tftp.c)
        data = room.put(f"f{size}", noise(size))
        target = tmp_path / f"{size}.out"
        code, said = await run(make(room.port, f"f{size}", target))
        assert code == 0, (size, said)
        assert (target.read_bytes() if target.exists() else b"") == data, size
    assert room.service.metrics.retransmissions == 0
    assert {outcome for _, _, outcome, _ in room.told} <= {"completed", "completed, final ACK missing"}


@pytest.mark.parametrize("make", [hpa, busybox_512, curl_plain])
async def test_more_than_65535_blocks_of_512(room: Room, tmp_path: Path, make) -> None:
    data = room.put("f", noise(1 << 20) * 33)
    target = tmp_path / "out"
    code, said = await run(make(room.port, "f", target))
    assert code == 0, said
    assert target.read_bytes() == data


@pytest.mark.parametrize("make", [hpa, atftp, busybox, curl])
async def test_a_missing_file_is_an_error_for_them(room: Room, tmp_path: Path, make) -> None:
    code, said = await run(make(room.port, "none", tmp_path / "out"), 10)
    assert code != 0 or "not found" in said.lower()
