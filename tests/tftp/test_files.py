from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pbserv.tftp import files
from pbserv.tftp.files import Content, ContentStore, FileFault, FileId, LaidOut, Streamed, block_count


def wire(data: bytes, block_size: int, first: int, count: int) -> bytes:
    """What must leave, written the slow way."""
    out = b""
    for block in range(first, min(first + count, block_count(len(data), block_size) + 1)):
        out += b"\0\3" + (block & 0xFFFF).to_bytes(2, "big") + data[(block - 1) * block_size : block * block_size]
    return out


def opened(path: Path) -> tuple[int, FileId]:
    fd = os.open(path, os.O_RDONLY)
    return fd, FileId.of(os.fstat(fd))


@given(st.binary(max_size=400), st.integers(8, 50), st.integers(1, 60), st.integers(1, 20))
def test_layouts_agree(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, size: int, first: int, count: int
) -> None:
    first = min(first, block_count(len(data), size))
    path = tmp_path_factory.mktemp("f") / "f"
    path.write_bytes(data)
    fd, identity = opened(path)
    streamed = Streamed(fd, identity, size, count)
    for content in (LaidOut.of_bytes(data, size), LaidOut.of_file(fd, identity, size), streamed):
        assert bytes(content.flight(first, count)) == wire(data, size, first, count)
    streamed.close()


def test_numbers_roll_over_in_headers(tmp_path: Path) -> None:
    data = os.urandom(8 * 131_080 + 3)
    path = tmp_path / "f"
    path.write_bytes(data)
    fd, identity = opened(path)
    kept, streamed = LaidOut.of_file(fd, identity, 8), Streamed(fd, identity, 8, 32)
    for first in (1, 65_530, 65_535, 65_536, 131_060, 131_072):
        assert bytes(kept.flight(first, 32)) == bytes(streamed.flight(first, 32)) == wire(data, 8, first, 32)
    streamed.close()


def test_streaming_backwards_and_forwards(tmp_path: Path) -> None:
    data = os.urandom(100_000)
    path = tmp_path / "f"
    path.write_bytes(data)
    streamed = Streamed(*opened(path), 512, 4)
    for first in (1, 5, 9, 5, 150, 192, 193, 196, 1):
        assert bytes(streamed.flight(first, 4)) == wire(data, 512, first, 4)
    streamed.close()


@pytest.mark.parametrize("change", ["cut", "rewrite", "grow"])
def test_a_changed_file_is_noticed(tmp_path: Path, change: str) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"a" * 200_000)
    fd, identity = opened(path)
    streamed = Streamed(fd, identity, 512, 1)
    streamed.flight(1, 1)
    match change:
        case "cut":
            os.truncate(path, 1000)
        case "rewrite":
            path.write_bytes(b"b" * 200_000)
        case "grow":
            with path.open("ab") as file:
                file.write(b"b")
    with pytest.raises(FileFault):
        list(map(streamed.flight, range(1, 392), [1] * 391))
    with pytest.raises(FileFault):
        LaidOut.of_file(fd, identity, 512)
    streamed.close()


def test_the_end_is_compared_although_it_was_read_before(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"a" * 2000)
    streamed = Streamed(*opened(path), 512, 1)
    streamed.flight(1, 1)  # reads all of it
    path.write_bytes(b"b" * 2000)
    with pytest.raises(FileFault):
        streamed.flight(4, 1)
    streamed.close()


def test_a_replaced_file_keeps_its_content(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"a" * 200_000)
    streamed = Streamed(*opened(path), 512, 1)
    (tmp_path / "g").write_bytes(b"b")
    (tmp_path / "g").rename(path)
    assert bytes(streamed.flight(391, 1))[4:] == b"a" * 320
    streamed.close()


class Shelf:
    """A store with its thread replaced by a list of what waits."""

    def __init__(self, limit_bytes: int) -> None:
        self.waiting: list[tuple] = []
        self.store = ContentStore(limit_bytes, lambda work, done: self.waiting.append((work, done)))

    def get(self, path: Path, block_size: int = 512) -> list[Content | FileFault]:
        got: list[Content | FileFault] = []
        self.store.obtain(*opened(path), block_size, 1, got.append)
        return got

    def work(self) -> None:
        for work, done in self.waiting:
            try:
                done(work())
            except FileFault as fault:
                done(fault)
        self.waiting.clear()


def make(tmp_path: Path, name: str, size: int) -> Path:
    path = tmp_path / name
    path.write_bytes(b"x" * size)
    return path


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
    assert shelf.store.held_bytes == again.held_bytes  # only what is in use stays


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
