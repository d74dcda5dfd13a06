"""The threads that send files: what goes wrong with one download is nobody else's."""

from __future__ import annotations

import os
import resource
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from pbserv.web.pumps import LONGEST_LOOK_S, Job, Pumps

WAIT_S = 20
SIZE = 300_000


@dataclass
class Told:
    """How a job ended."""

    event: threading.Event = field(default_factory=threading.Event)
    taken: int = -1
    fault: OSError | EOFError | None = None

    def __call__(self, taken: int, fault: OSError | EOFError | None) -> None:
        self.taken, self.fault = taken, fault
        self.event.set()

    def wait(self) -> tuple[int, OSError | EOFError | None]:
        assert self.event.wait(WAIT_S), "nobody was told how it ended"
        return self.taken, self.fault


class Place:
    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self._stack = stack
        (folder / "file").write_bytes(bytes(SIZE))
        self.file = os.open(folder / "file", os.O_RDONLY)
        stack.callback(os.close, self.file)
        self._listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        self.pumps = Pumps(1)
        stack.callback(self.pumps.close)

    def connection(self, room: int | None = None) -> tuple[socket.socket, socket.socket]:
        """The server's end, and the client's with a receive buffer of ``room`` bytes."""
        client = self._stack.enter_context(socket.socket())
        if room is not None:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, room)
        client.settimeout(WAIT_S)
        client.connect(self._listener.getsockname())
        out, _ = self._listener.accept()
        out.setblocking(False)
        return self._stack.enter_context(out), client

    def send(self, out: int) -> Told:
        told = Told()
        self.pumps.add(Job(out, self.file, 0, SIZE, last=True, ended=told))
        return told

    def fetch(self) -> None:
        """A download like any other."""
        out, client = self.connection()
        told = self.send(out.fileno())
        assert read(client) == SIZE
        assert told.wait() == (SIZE, None)


def read(client: socket.socket, size: int = SIZE) -> int:
    got = 0
    while got < size:
        data = client.recv(1 << 20)
        assert data
        got += len(data)
    return got


@contextmanager
def no_descriptors() -> Iterator[None]:
    """The process has as many descriptors as it may have."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.dup(0)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    with ExitStack() as stack:
        yield Place(tmp_path, stack)


def test_a_download_ends_well_when_there_are_no_descriptors_left(place: Place) -> None:
    out, client = place.connection(room=4096)
    told = place.send(out.fileno())
    assert client.recv(1)
    with no_descriptors():
        assert read(client, SIZE - 1) == SIZE - 1
        assert told.wait() == (SIZE, None)
    place.fetch()


def test_a_thread_that_cannot_be_had_is_told_and_leaves_nothing_behind(place: Place) -> None:
    out, _client = place.connection()
    told = Told()
    job = Job(out.fileno(), place.file, 0, SIZE, last=True, ended=told)
    with no_descriptors():
        place.pumps.add(job)
        taken, fault = told.wait()
    assert (taken, isinstance(fault, OSError), place.pumps.threads) == (0, True, 0)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(job.out)
    place.fetch()


def test_what_cannot_be_watched_is_told_and_the_others_go_on(place: Place) -> None:
    out, client = place.connection(room=4096)
    slow = place.send(out.fileno())
    taken, fault = place.send(place.file).wait()
    assert (taken, type(fault)) == (0, PermissionError)
    place.fetch()
    assert read(client) == SIZE
    assert slow.wait() == (SIZE, None)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_thread_that_dies_tells_its_jobs_and_gets_no_others(place: Place) -> None:
    def dying(_taken: int, _fault: OSError | EOFError | None) -> None:
        raise RuntimeError("a defect")

    (out, _slow), (other, client) = place.connection(room=4096), place.connection()
    told = place.send(out.fileno())
    before = descriptors()
    place.pumps.add(Job(other.fileno(), place.file, 0, SIZE, last=True, ended=dying))
    assert read(client) == SIZE
    assert isinstance(told.wait()[1], OSError)
    for _ in range(3):
        place.fetch()
    assert descriptors() <= before + 6  # three connections, one thread in the place of another


class Counted(Job):
    """Knows how often the kernel was asked for its bytes."""

    looks = 0

    def unacknowledged(self) -> int:
        self.looks += 1
        return super().unacknowledged()


def test_clients_that_stopped_reading_cost_the_others_little(place: Place, tmp_path: Path) -> None:
    """Their last bytes are looked for again and again, however much else there is to be done."""
    stopped = []
    for _ in range(20):
        out, _client = place.connection(room=4096)
        stopped.append(Counted(out.fileno(), place.file, 0, SIZE, last=True, ended=Told()))
        place.pumps.add(stopped[-1])
    with (tmp_path / "large").open("wb") as large:
        large.truncate(512 << 20)
    out, client = place.connection()
    told, began = Told(), time.monotonic()
    with (tmp_path / "large").open("rb") as large:
        place.pumps.add(Job(out.fileno(), large.fileno(), 0, 512 << 20, last=True, ended=told))
    read(client, 512 << 20)
    assert told.wait() == (512 << 20, None)
    doubled = 8  # from the first look to those that are furthest apart
    most = (time.monotonic() - began) / LONGEST_LOOK_S + doubled + 1
    assert all(0 < job.looks <= most for job in stopped), ([job.looks for job in stopped], most)
