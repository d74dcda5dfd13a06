"""What a store holds and may hold, counted by several threads at once."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from pbserv.imaging.faults import StoreClosed, StoreFull
from pbserv.imaging.usage import Usage

MIB = 1 << 20


class MetQuota(int):
    """Who compares with it waits for the other one who does, as long as one may come: a moment of bad luck."""

    def __new__(cls, size_bytes: int, _meeting: threading.Barrier) -> MetQuota:
        return super().__new__(cls, size_bytes)

    def __init__(self, _size_bytes: int, meeting: threading.Barrier) -> None:
        self.meeting = meeting

    def __lt__(self, other: int) -> bool:
        with suppress(threading.BrokenBarrierError):
            self.meeting.wait(0.5)
        return int(self) < other


@pytest.fixture
def root_fd(tmp_path: Path) -> Iterator[int]:
    descriptor = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    yield descriptor
    os.close(descriptor)


def charged(usage: Usage, size_bytes: int) -> bool:
    """Whether there was room."""
    try:
        usage.charge(size_bytes)
    except StoreFull:
        return False
    return True


def test_two_blocks_at_once_do_not_share_the_last_room(root_fd: int) -> None:
    usage = Usage("main", 0, lambda: root_fd)
    usage.quota_bytes = MetQuota(10 * MIB, threading.Barrier(2))
    usage.used_bytes = 3 * MIB
    with ThreadPoolExecutor(2) as pool:
        taken = list(pool.map(charged, [usage] * 2, [5 * MIB] * 2))
    assert sorted(taken) == [False, True]
    assert usage.used_bytes == 8 * MIB
    assert charged(usage, 2 * MIB), "what was refused is not counted"


def test_blocks_of_many_threads_fill_a_store_to_its_quota_and_not_further(root_fd: int) -> None:
    usage = Usage("main", 0, lambda: root_fd)
    usage.quota_bytes = 1000
    with ThreadPoolExecutor(8) as pool:
        taken = list(pool.map(charged, [usage] * 400, [3] * 400))
    assert (taken.count(True), usage.used_bytes) == (333, 999)


def test_the_disk_is_not_asked_while_others_wait_to_count() -> None:
    asked, answered = threading.Event(), threading.Event()

    def slow_disk() -> int:
        asked.set()
        assert answered.wait(20)
        return -1

    usage = Usage("main", 0, slow_disk)
    with ThreadPoolExecutor(1) as pool:
        charging = pool.submit(usage.charge, MIB)
        assert asked.wait(20)
        usage.count(7)
        assert usage.used_bytes == 7
        answered.set()
        with pytest.raises(StoreClosed):
            charging.result()
    assert usage.used_bytes == 7
