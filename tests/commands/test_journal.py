"""`pbserv journal` against the running server: tables, timelines, packets for Wireshark, live."""

from __future__ import annotations

import json
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from scapy.utils import rdpcap

from tests.support.process import Installed
from tests.web.test_journal_routes import boots, discover

MAC = "52:54:00:00:ee:01"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installed]:
    installed = Installed(tmp_path_factory.mktemp("server"))
    installed.ok("start")
    assert "no device has booted yet" in installed.ok("journal")
    yield installed
    installed.finish()


@pytest.fixture(scope="module")
def booted(server: Installed) -> Installed:
    """A server that has seen one device."""
    for secs in (0, 4):
        discover(server, MAC, secs=secs)
    with httpx.Client(base_url=server.url, trust_env=False) as nobody:
        boots(nobody, MAC)
    end = time.monotonic() + 20
    while server.json("journal", MAC)[0]["packets"] < 2:
        assert time.monotonic() < end
    return server


def test_the_newest_boots(booted: Installed) -> None:
    head, *rows = booted.ok("journal").splitlines()
    assert head.split() == ["Time", "Device", "How", "far", "Why"]
    [row] = [row for row in rows if MAC in row]
    assert "pending (so far)" in row
    assert "was not accepted yet" in row
    assert MAC in [session["mac"] for session in booted.json("journal", "--limit", "5")]


def test_one_device(booted: Installed) -> None:
    text = booted.ok("journal", MAC)
    assert text.startswith(MAC)
    for words in (
        "registry  registered  pending by dhcp", "dhcp      DISCOVER  x2 in", "secs 0..4",
        "-> not answered (policy silent)",
        "so far: pending", f"todo: pbserv device accept {MAC}",
    ):  # fmt: skip
        assert words in text, text
    assert "option 53" not in text
    assert "< option 53 message type: DISCOVER" in booted.ok("journal", MAC, "--packets")
    assert "no boot of 52:54:00:00:ee:99 is kept" in booted.ok("journal", "52:54:00:00:ee:99")


def test_packets_are_saved_to_a_new_file_only(booted: Installed, tmp_path: Path) -> None:
    target = tmp_path / "boot.pcap"
    assert str(target) in booted.ok("journal", MAC, "--pcap", str(target))
    assert len(rdpcap(str(target))) == 2
    before = target.read_bytes()
    again = booted.call("journal", MAC, "--pcap", str(target))
    assert (again.returncode, target.read_bytes()) == (1, before)
    assert "exists; name a file that does not" in again.stderr
    nowhere = booted.call("journal", MAC, "--pcap", str(tmp_path / "no" / "file"))
    assert "No such file or directory" in nowhere.stderr
    unknown = booted.call("journal", "52:54:00:00:ee:99", "--pcap", str(tmp_path / "none.pcap"))
    assert "no packets of 52:54:00:00:ee:99 are kept" in unknown.stderr
    assert (unknown.returncode, (tmp_path / "none.pcap").exists()) == (1, False)


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--pcap", "x"], 2, "name its MAC address"),
        (["--packets"], 2, "name its MAC address"),
        (["nonsense"], 1, "aa:bb:cc:dd:ee:ff"),
        (["--limit", "-3"], 2, "--limit"),
        ([MAC, "--limit", "21"], 1, "limit"),
    ],
)
def test_wrong_calls_are_named(server: Installed, arguments: list[str], code: int, words: str) -> None:
    done = server.call("journal", *arguments)
    assert done.returncode == code, done
    assert words in done.stderr
    assert "Traceback" not in done.stderr


class Watching:
    """A running `pbserv journal --follow`, and the lines that it printed."""

    def __init__(self, server: Installed, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [str(server.program), "--conf", str(server.conf), "journal", "--follow", *arguments],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.lines: list[str] = []
        self._come = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._come:
                self.lines.append(line.rstrip("\n"))
                self._come.notify_all()

    def wait_for(self, *words: str, meanwhile: Callable[[], object] = lambda: None) -> str:
        end = time.monotonic() + 30
        while True:
            with self._come:
                for line in self.lines:
                    if all(word in line for word in words):
                        return line
                assert time.monotonic() < end, (words, self.lines)
                self._come.wait(0.2)
            meanwhile()

    def stop(self) -> tuple[int, str]:
        self.process.send_signal(signal.SIGINT)
        code = self.process.wait(20)
        self._reader.join(20)
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        said = self.process.stderr.read()
        self.process.stdout.close()
        self.process.stderr.close()
        return code, said


def test_live(booted: Installed) -> None:
    watching = Watching(booted)
    try:
        line = watching.wait_for(
            "52:54:00:00:ee:02  ", "DISCOVER", meanwhile=lambda: discover(booted, "52:54:00:00:ee:02")
        )
        assert "UEFI x64" in line
        watching.wait_for("-> not answered (policy silent): device is pending")
    finally:
        assert watching.stop() == (0, "")


def test_live_after_the_timeline_of_one_device(booted: Installed) -> None:
    watching = Watching(booted, MAC, "--json")
    try:
        first = json.loads(watching.wait_for('"result"'))
        assert first["mac"] == MAC
        line = watching.wait_for('"DISCOVER"', '"count": 1', meanwhile=lambda: discover(booted, MAC, secs=99))
        assert json.loads(line)["mac"] == MAC
    finally:
        watching.stop()


def test_nobody_answers(tmp_path: Path) -> None:
    stopped = Installed(tmp_path)
    (stopped.state).mkdir()
    (stopped.state / "admin.token").write_text("x")
    for arguments in ([], ["--follow"], [MAC, "--pcap", str(tmp_path / "x")]):
        done = stopped.call("journal", *arguments)
        assert done.returncode == 1
        assert "is the server running?" in done.stderr
