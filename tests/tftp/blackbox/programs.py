"""Command lines of TFTP clients that others wrote, for both directions and both families."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import pytest


def program(name: str) -> str:
    """A client must be there when root runs the tests (the test command installs it)."""
    path = shutil.which(name)
    if path is None:
        if os.geteuid() == 0:
            pytest.fail(f"the program {name} is missing; make test as root installs it")
        pytest.skip(f"the program {name} is not installed")
    return path


class Done(NamedTuple):
    code: int
    said: str


@dataclass(frozen=True)
class Program:
    """``options``: name and value, as far as the program can ask for them."""

    name: str
    options: tuple[tuple[str, int], ...] = ()

    def __str__(self) -> str:
        return "-".join((self.name, *(f"{key}{value}" for key, value in self.options)))

    async def get(self, port: int, name: str, target: Path, host: str = "127.0.0.1", mode: str = "octet") -> Done:
        return await run(self._command("get", port, name, target, host, mode))

    async def put(self, port: int, source: Path, name: str, host: str = "127.0.0.1", mode: str = "octet") -> Done:
        return await run(self._command("put", port, name, source, host, mode))

    def _command(self, verb: str, port: int, name: str, local: Path, host: str, mode: str) -> list[str]:
        match self.name:
            case "hpa":
                files = [name, str(local)] if verb == "get" else [str(local), name]
                words = ["-m", "binary" if mode == "octet" else "ascii", host, str(port), "-c", verb, *files]
                return [program("tftp"), *words]
            case "atftp":
                asked = [word for key, value in self.options for word in ("--option", f"{key} {value}")]
                assert mode == "octet" or not asked
                words = [f"--{verb}", "-r", name, "-l", str(local), host, str(port)]
                return [
                    program("atftp"),
                    *asked,
                    *(["--option", "mode netascii"] if mode != "octet" else []),
                    *words,
                ]
            case "busybox":
                size = [word for _, value in self.options for word in ("-b", str(value))]
                return [program("busybox"), "tftp", f"-{verb[0]}", *size, "-r", name, "-l", str(local), host, str(port)]
            case "curl":
                wanted = dict(self.options)
                size = ["--tftp-blksize", str(wanted["blksize"])] if wanted else ["--tftp-no-options"]
                where = f"[{host}]" if ":" in host else host
                url = f"tftp://{where}:{port}/{name}" + (";mode=netascii" if mode != "octet" else "")
                return [program("curl"), "-sSg", *size, *(["-o"] if verb == "get" else ["-T"]), str(local), url]
        raise AssertionError(self.name)


async def run(command: Sequence[str], timeout_s: float = 60) -> Done:
    """What it printed and how it ended."""
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
    return Done(made.returncode or 0, out.decode(errors="replace"))


HPA = Program("hpa")
ATFTP = Program("atftp")
ATFTP_WINDOW = Program("atftp", (("blksize", 1428), ("windowsize", 8)))
BUSYBOX = Program("busybox", (("blksize", 1428),))
BUSYBOX_PLAIN = Program("busybox")
CURL = Program("curl", (("blksize", 1428),))
CURL_PLAIN = Program("curl")
ALL = (HPA, ATFTP, ATFTP_WINDOW, BUSYBOX, BUSYBOX_PLAIN, CURL, CURL_PLAIN)
