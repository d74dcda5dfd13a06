from __future__ import annotations

import ctypes
import os
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pbserv.tftp import files
from pbserv.tftp.files import Content, ContentStore, FileFault, LaidOut, Streamed, block_count
from pbserv.tftp.lines import Lines
from pbserv.tftp.netascii import to_netascii
from tests.tftp.contents import Thread, make, opened, wire

LATER_NS = 1_000_000_000


@given(
    st.binary(max_size=400), st.integers(8, 50), st.integers(1, 60), st.integers(1, 20), st.sampled_from([0, 1, 65535])
)
def test_layouts_agree(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, size: int, first: int, count: int, rollover: int
) -> None:
    data *= 100 * (count % 2) + 1  # files that are small, and files that are not
    first = min(first, block_count(len(data), size))
    path = tmp_path_factory.mktemp("f") / "f"
    path.write_bytes(data)
    fd, identity = opened(path)
    for content in (LaidOut.of_bytes(data, size, rollover), LaidOut.of_file(fd, identity, size, rollover)):
        assert bytes(content.flight(first, count)) == wire(data, size, first, count)
        assert ctypes.string_at(content.address, content.length) == wire(data, size, 1, 100_000)
        assert content.stride == size + 4
    os.close(fd)


@pytest.mark.parametrize("rollover", [0, 1, 2, 65534, 65535])
def test_numbers_roll_over_in_headers(tmp_path: Path, rollover: int) -> None:
    data = os.urandom(8 * 131_080 + 3)
    path = tmp_path / "f"
    path.write_bytes(data)
    fd, identity = opened(path)
    thread = Thread()
    streamed = Streamed(fd, identity, 8, 32, thread.readers, rollover)
    kept = LaidOut.of_file(fd, identity, 8, rollover), LaidOut.of_bytes(data, 8, rollover)
    for first in (1, 65_530, 65_535, 65_536, 131_060, 131_072):
        expected = wire(data, 8, first, 32, rollover)
        assert [bytes(content.flight(first, 32)) for content in kept] == [expected, expected]
        assert thread.get(streamed, first, 32) == expected
    streamed.close()


@pytest.mark.parametrize("size", [0, 1, 511, 512, 513, 1024, 40_000, 65_464, 70_000])
def test_a_file_of_any_size(tmp_path: Path, size: int) -> None:
    path = make(tmp_path, "f", size)
    fd, identity = opened(path)
    for block_size in (8, 512, 1428, 65464):
        assert bytes(LaidOut.of_file(fd, identity, block_size).flight(1, 10_000)) == wire(
            path.read_bytes(), block_size, 1, 10_000
        )
    os.close(fd)


@pytest.mark.parametrize("change", ["cut", "rewrite", "grow", "mtime set back"])
@pytest.mark.parametrize("size", [2000, files.LARGEST_DIRECT_READ])
def test_a_file_that_changed_before_it_was_read(tmp_path: Path, change: str, size: int) -> None:
    path = make(tmp_path, "f", size)
    fd, identity = opened(path)
    match change:
        case "cut":
            os.truncate(path, 1000)
        case "rewrite":
            path.write_bytes(b"b" * size)
        case "grow":
            with path.open("ab") as file:
                file.write(b"b")
        case _:
            path.write_bytes(b"b" * size)
            while os.stat(path).st_ctime_ns == identity.ctime_ns or os.stat(path).st_mtime_ns != identity.mtime_ns:
                os.utime(path, ns=(identity.mtime_ns, identity.mtime_ns))
    for lay_out in (LaidOut.of_file, LaidOut.of_text):
        with pytest.raises(FileFault):
            lay_out(fd, identity, 512)
    os.close(fd)


class Shelf:
    """A store with its thread replaced by a list of what waits."""

    def __init__(self, limit_bytes: int) -> None:
        self.waiting: list[tuple] = []
        self.now_ns = time.time_ns() + LATER_NS
        self.store = ContentStore(
            limit_bytes, lambda work, done: self.waiting.append((work, done)), lambda: self.now_ns
        )

    def get(
        self, path: Path, block_size: int = 512, rollover: int = 0, *, netascii: bool = False
    ) -> list[Content | FileFault]:
        got: list[Content | FileFault] = []
        obtain = self.store.obtain_netascii if netascii else self.store.obtain
        obtain(*opened(path), block_size, 1, got.append, rollover)
        return got

    def work(self) -> None:
        while self.waiting:
            work, done = self.waiting.pop(0)
            try:
                result = work()
            except FileFault as fault:
                result = fault
            done(result)


def test_one_buffer_for_all(tmp_path: Path) -> None:
    shelf = Shelf(10_100)
    path = make(tmp_path, "a", 5000)
    (first,), (second,) = shelf.get(path), shelf.get(path)
    assert first is second
    (other,) = shelf.get(path, 1024)
    assert other is not first
    assert isinstance(shelf.get(path, 2048)[0], Streamed)  # both others are in use
    assert (shelf.store.hits, shelf.store.misses, shelf.store.streams) == (1, 2, 1)


def test_what_is_not_in_use_goes_oldest_first(tmp_path: Path) -> None:
    shelf = Shelf(10_400)
    a, b, c = (make(tmp_path, name, 5000) for name in "abc")
    for path in (a, b):
        shelf.get(path)[0].close()
    again = shelf.get(a)[0]
    shelf.get(c)[0].close()  # b goes
    assert shelf.get(a)[0] is again
    assert shelf.store.held_bytes <= 10_400
    before = shelf.store.misses
    shelf.get(b)[0].close()
    assert shelf.store.misses == before + 1
    shelf.store.resize(0)
    assert shelf.store.held_bytes == again.length  # only what is in use stays


def test_a_large_file_is_read_in_a_thread_once(tmp_path: Path) -> None:
    shelf = Shelf(1 << 24)
    path = make(tmp_path, "a", files.LARGEST_DIRECT_READ + 1)
    first, second = shelf.get(path), shelf.get(path)
    assert not first
    assert len(shelf.waiting) == 1
    shelf.work()
    assert first == second
    assert isinstance(first[0], LaidOut)


def test_a_file_that_cannot_be_read_frees_its_place(tmp_path: Path) -> None:
    shelf = Shelf(1 << 24)
    path = make(tmp_path, "a", files.LARGEST_DIRECT_READ + 1)
    got = shelf.get(path)
    os.truncate(path, 10)
    shelf.work()
    assert isinstance(got[0], FileFault)
    assert shelf.store.held_bytes == 0


def test_what_is_in_use_does_not_make_a_request_slower_or_push_out_others(tmp_path: Path) -> None:
    shelf = Shelf(10_400)
    a, b, c = (make(tmp_path, name, 5000) for name in "abc")
    used = shelf.get(a)[0]
    idle = shelf.get(b)[0]
    idle.close()
    big = make(tmp_path, "big", 6000)
    assert isinstance(shelf.get(big)[0], Streamed)  # it would not fit without b either, so b stays
    assert shelf.get(b)[0] is idle
    idle.close()
    shelf.get(c)[0].close()
    assert shelf.get(a)[0] is used


def test_what_was_kept_is_sent_on_although_the_file_is_another_now(tmp_path: Path) -> None:
    shelf = Shelf(1 << 20)
    path = make(tmp_path, "a", 5000)
    old = shelf.get(path)[0]
    before = path.read_bytes()
    path.write_bytes(b"other" * 1000)
    os.utime(path, ns=(1, 1))
    assert bytes(old.flight(1, 100)) == wire(before, 512, 1, 100)
    new = shelf.get(path)[0]
    assert bytes(new.flight(1, 100)) == wire(b"other" * 1000, 512, 1, 100)


def test_a_file_that_changed_just_now_is_not_kept(tmp_path: Path) -> None:
    """On kernels with coarse time stamps it may change again and look the same."""
    shelf = Shelf(1 << 20)
    path = make(tmp_path, "a", 5000)
    shelf.now_ns = os.stat(path).st_ctime_ns + files.SETTLED_NS // 2
    first, second = shelf.get(path)[0], shelf.get(path)[0]
    assert first is not second
    assert shelf.store.held_bytes == first.length + second.length
    first.close()
    second.close()
    assert shelf.store.held_bytes == 0
    shelf.now_ns += files.SETTLED_NS
    assert shelf.get(path)[0] is shelf.get(path)[0]


def test_rollover_counts_where_numbers_roll_over(tmp_path: Path) -> None:
    shelf = Shelf(1 << 24)
    small, large = make(tmp_path, "a", 5000), make(tmp_path, "b", 8 * 65_536)
    assert shelf.get(small, 8, 0)[0] is shelf.get(small, 8, 1)[0]
    zero, one = shelf.get(large, 8, 0)[0], shelf.get(large, 8, 1)[0]
    assert zero is not one
    assert [bytes(content.flight(65_536, 1))[:4] for content in (zero, one)] == [b"\0\3\0\0", b"\0\3\0\1"]


def test_few_threads_read_at_a_time(tmp_path: Path) -> None:
    shelf = Shelf(1 << 26)
    size = files.LARGEST_DIRECT_READ + 1
    got = [shelf.get(make(tmp_path, str(number), size)) for number in range(10)]
    assert len(shelf.waiting) == 4
    shelf.work()
    assert [len(each) for each in got] == [1] * 10


def test_netascii_is_kept_beside_the_file(tmp_path: Path) -> None:
    shelf = Shelf(1 << 20)
    text = b"one\ntwo\rthree\r\n" * 300
    path = tmp_path / "a"
    path.write_bytes(text)
    (content,), (same,), (octet,) = (shelf.get(path, netascii=True), shelf.get(path, netascii=True), shelf.get(path))
    assert content is same is not octet
    assert content.size_bytes == len(to_netascii(text))
    assert bytes(content.flight(1, 100)) == wire(to_netascii(text), 512, 1, 100)
    assert shelf.store.held_bytes == content.length + octet.length  # not what was reserved


def test_a_large_text_is_counted_once_for_all(tmp_path: Path) -> None:
    shelf = Shelf(1 << 20)
    text = b"line\n" * 1_000_000
    path = tmp_path / "a"
    path.write_bytes(text)
    first, second = shelf.get(path, netascii=True), shelf.get(path, netascii=True)
    assert (first, second, len(shelf.waiting)) == ([], [], 1)
    shelf.work()
    third = shelf.get(path, netascii=True)
    for (content,) in (first, second, third):
        assert isinstance(content, Lines)
        assert content.size_bytes == 6_000_000
        content.close()
    assert shelf.store.streams == 3


def test_a_large_text_that_changes_while_it_is_counted(tmp_path: Path) -> None:
    shelf = Shelf(1 << 20)
    path = make(tmp_path, "a", files.LARGEST_CONVERTED + 1)
    got = [shelf.get(path, netascii=True) for _ in range(2)]
    before = len(os.listdir("/proc/self/fd"))
    os.truncate(path, 10)
    shelf.work()
    assert all(isinstance(each, FileFault) for (each,) in got)
    assert len(os.listdir("/proc/self/fd")) == before - 2


def test_a_text_that_does_not_fit_the_cache_is_streamed(tmp_path: Path) -> None:
    shelf = Shelf(0)
    path = make(tmp_path, "a", 5000)
    got = shelf.get(path, netascii=True)
    shelf.work()
    assert isinstance(got[0], Lines)
    got[0].close()
