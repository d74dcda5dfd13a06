"""sd_notify against a socket of our own."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pbserv.daemon.notify import Notifier


@pytest.fixture(params=["path", "abstract"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "notify") if request.param == "path" else f"@pbserv-test-{os.getpid()}-{time.monotonic_ns()}"


@pytest.fixture
def systemd(place: str) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind("\0" + place[1:] if place.startswith("@") else place)
        receiver.settimeout(5)
        yield receiver


def test_states(systemd: socket.socket, place: str) -> None:
    environment = {"NOTIFY_SOCKET": place, "OTHER": "stays"}
    notifier = Notifier.from_environment(environment)
    assert environment == {"OTHER": "stays"}
    assert notifier.enabled
    assert notifier.ready("4 services")
    assert systemd.recv(4096) == b"READY=1\nSTATUS=4 services"
    before = time.monotonic_ns() // 1000
    assert notifier.reloading()
    first, second = systemd.recv(4096).decode().split("\n")
    assert first == "RELOADING=1"
    assert before <= int(second.removeprefix("MONOTONIC_USEC=")) <= time.monotonic_ns() // 1000
    assert notifier.ready()
    assert systemd.recv(4096) == b"READY=1"
    assert notifier.status("two\nlines")
    assert systemd.recv(4096) == b"STATUS=two lines"
    assert notifier.status("")
    assert systemd.recv(4096) == b"STATUS="
    assert notifier.stopping("bye")
    assert systemd.recv(4096) == b"STOPPING=1\nSTATUS=bye"


def test_without_systemd_nothing_happens() -> None:
    notifier = Notifier.from_environment({})
    assert not notifier.enabled
    assert not notifier.ready()
    assert not notifier.stopping()


@pytest.mark.parametrize("address", ["/nonexistent/socket", "@nobody-listens-here", "/" + "x" * 300, "vsock:2:1"])
def test_failure_never_raises(address: str) -> None:
    assert not Notifier(address).ready("x")
