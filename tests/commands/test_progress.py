"""How far something is: a bar where somebody looks, lines where nobody does."""

from __future__ import annotations

import os
import pty
import random
import re
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

from tests.client.site import MAC, Site
from tests.client.test_orders import Wire
from tests.support.process import Installed

SCREEN = {"TERM": "xterm", "COLUMNS": "140", "PYTHONUTF8": "1"}
CODE = """
import pbserv.commands.progress as progress
progress._EVERY_S = 0
with progress.Bar("image [x]\\x1b", 4 * 1024 * 1024) as bar:
    bar.add(1024 * 1024)
    bar.at(3 * 1024 * 1024)
    bar.at(8 * 1024 * 1024, 16 * 1024 * 1024)
"""


def test_lines_where_there_is_no_terminal() -> None:
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    assert done.stdout == ""
    assert done.stderr.splitlines() == [
        "image [x]?: 1.0 MiB of 4.0 MiB, 25 %",
        "image [x]?: 3.0 MiB of 4.0 MiB, 75 %",
        "image [x]?: 8.0 MiB of 16.0 MiB, 50 %",
    ]


def test_a_bar_on_a_terminal() -> None:
    ours, theirs = pty.openpty()
    try:
        environment = {**os.environ, **SCREEN}
        subprocess.run([sys.executable, "-c", CODE], stderr=theirs, env=environment, check=True)
        seen = os.read(ours, 65536).decode()
    finally:
        os.close(ours)
        os.close(theirs)
    assert "image [x]?" in seen
    assert "16.8" not in seen
    assert "8.0/16.0 MiB" in seen


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installed]:
    installed = Installed(tmp_path_factory.mktemp("server"))
    installed.ok("start")
    yield installed
    installed.finish()


class Terminal:
    """A command of ``server`` on a terminal of its own; ``lines``: what was drawn, each time anew, without colours."""

    def __init__(self, server: Installed, *arguments: str) -> None:
        self._ours, theirs = pty.openpty()
        command = [*server.prefix, str(server.program), "--conf", str(server.conf), *arguments]
        try:
            self._running = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=theirs, stderr=theirs, env={**os.environ, **SCREEN}
            )
        finally:
            os.close(theirs)
        self._seen = b""

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        if self._running.poll() is None:
            self._running.kill()
        self._running.wait()
        os.close(self._ours)

    @property
    def lines(self) -> list[str]:
        drawn = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", self._seen.decode(errors="replace"))
        return [line.rstrip() for line in re.split(r"[\r\n]+", drawn) if line.strip()]

    def until(self, pattern: str) -> re.Match[str]:
        """Wait for a line in which this is."""
        end = time.monotonic() + 60
        while True:
            for line in self.lines:
                if found := re.search(pattern, line):
                    return found
            assert self._more(end), f"{pattern} in {self.lines}"

    def ended(self) -> int:
        """Wait for the end; the exit code."""
        end = time.monotonic() + 60
        while self._more(end):
            pass
        return self._running.wait(60)

    def _more(self, end: float) -> bool:
        ready, _, _ = select.select([self._ours], [], [], max(0.0, end - time.monotonic()))
        more = b""
        if ready:
            with suppress(OSError):  # Linux says EIO when the other end is closed
                more = os.read(self._ours, 65536)
        self._seen += more
        return bool(more)


def test_a_scrub_draws_how_much_is_read_how_fast_and_for_how_long_still(server: Installed) -> None:
    httpx.put(
        f"{server.url}/api/v1/images/paced", content=random.Random(9).randbytes(6 * 1024 * 1024), trust_env=False,
        headers={"Authorization": f"Bearer {server.token}"},
    ).raise_for_status()  # fmt: skip
    with Terminal(server, "store", "scrub", "--image", "paced", "--rate", "2") as screen:
        drawn = r"^scrub paced +[━╸╺]{20,} +(\d\.\d)/6\.0 MiB +[\d.]+ MB/s +0:00:0\d$"
        assert 0 < float(screen.until(drawn)[1]) < 6
        assert screen.ended() == 0
        amounts = [float(found[1]) for line in screen.lines if (found := re.search(r"━ +(\d\.\d)/6\.0 MiB", line))]
        assert amounts == sorted(amounts)
        assert len(set(amounts)) > 2, "it moved"
        assert screen.lines[-1] == "paced: 1 version verified, none damaged"


def test_a_watched_job_has_a_bar_with_percent_rate_and_time_and_ends_with_its_end(
    server: Installed, tmp_path: Path
) -> None:
    server.ok("device", "accept", MAC)
    site = Site(server, tmp_path)
    site.order("job", kind="capture", image="seen")
    wire = Wire(site, site.token)
    assert wire.begin(client="2")["ACTION"] == "capture"
    bar = rf"^{MAC} job {wire.job}: capture seen +[━╸╺]{{20,}}"

    def report(done: int) -> None:
        form = {"stage": "upload", "item": "p0", "bytes": str(done), "total": "1000", "rate": "50"}
        assert wire.call("POST", f"/jobs/{wire.job}/progress", data=form).text == "CONTINUE\n"

    report(250)
    with Terminal(server, "job", "watch", wire.job) as screen:
        screen.until(rf"{bar} upload p0 25 % 50 B/s, 15 s left$")
        report(750)
        screen.until(rf"{bar} upload p0 75 % [\d.]+ (Ki)?B/s, \d+ s left$")
        wire.call("POST", f"/jobs/{wire.job}/result", data={"ok": "0", "reason": "no disk"})
        assert screen.ended() == 1
        assert re.search(rf"{bar} failed after \d+ s: no disk$", screen.lines[-1]), screen.lines
    site.cancel(site.newest()["id"])
