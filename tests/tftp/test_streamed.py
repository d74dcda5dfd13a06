from __future__ import annotations

import asyncio
import os
import random
import tempfile
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pbserv.tftp import lines as lines_module
from pbserv.tftp import scatter
from pbserv.tftp.content import FileFault, block_count
from pbserv.tftp.lines import Counting, Lines
from pbserv.tftp.netascii import to_netascii
from pbserv.tftp.readahead import ReadAhead
from pbserv.tftp.readers import Readers
from pbserv.tftp.scatter import in_memory
from pbserv.tftp.streamed import Streamed
from tests.tftp.contents import Thread, forget, make, opened, wire


class Counted(Streamed):
    """Remembers which blocks were read."""

    def __init__(self, *given) -> None:
        self.reads: list[tuple[int, int]] = []
        super().__init__(*given)

    def _fill(self, slot: int, block: int, count: int, flags: int) -> int:
        got = super()._fill(slot, block, count, flags)
        self.reads.append((block, got))
        return got


def lines(path: Path, block_size: int, window: int, readers: Readers, rollover: int = 0) -> Lines:
    fd, identity = opened(path)
    counting = Counting(fd, identity)
    while counting.index is None:
        counting.advance()
    return Lines(fd, identity, counting.index, block_size, window, readers, rollover)


def streamed(path: Path, block_size: int, window: int, readers: Readers, rollover: int = 0) -> Streamed:
    return Streamed(*opened(path), block_size, window, readers, rollover)


def make_content(kind: str, path: Path, block_size: int, window: int, thread: Thread, *, waits: bool) -> ReadAhead:
    content = {"octet": streamed, "netascii": lines}[kind](path, block_size, window, thread.readers)
    if waits:
        content._flags = None  # a file system that cannot say what is in memory
    return content


@pytest.mark.parametrize("waits", [False, True])
@pytest.mark.parametrize("kind", ["octet", "netascii"])
@settings(deadline=None, max_examples=60)
@given(
    st.integers(0, 60_000),
    st.sampled_from([8, 61, 512, 1428]),
    st.integers(1, 40),
    st.integers(0, 1 << 32),
)
def test_whatever_a_sender_asks_for(
    tmp_path_factory: pytest.TempPathFactory,
    kind: str,
    waits: bool,
    size: int,
    block_size: int,
    window: int,
    seed: int,
) -> None:
    """Windows, repairs from any acknowledged block on, and extensions, of a file that comes and goes in memory."""
    chance = random.Random(seed)
    data = bytes(chance.choices(b"ab\r\n", k=min(size, block_size * 400)))
    path = tmp_path_factory.getbasetemp() / "asked"
    path.write_bytes(data)
    sent = to_netascii(data) if kind == "netascii" else data
    thread = Thread()
    content = make_content(kind, path, block_size, window, thread, waits=waits)
    assert content.size_bytes == len(sent)
    last = block_count(len(sent), block_size)
    base = high = 0
    while base < last:
        if chance.random() < 0.02:
            forget(path)
        repair = chance.random() < 0.5 and high > base
        first = base + 1 if repair else high + 1  # or the next window, or an extension of the last
        high = min(base + window, last)
        count = high + 1 - first
        if count:
            assert thread.get(content, first, count) == wire(sent, block_size, first, count)
        if chance.random() < 0.3:
            thread.work()  # what is read ahead comes sooner or later
        base = high if chance.random() < 0.7 else chance.randint(base, high)
    thread.work()
    content.close()


@pytest.mark.parametrize("kind", ["octet", "netascii"])
@pytest.mark.parametrize("waits", [False, True])
def test_backwards_and_forwards(tmp_path: Path, kind: str, waits: bool) -> None:
    """A group of clients begins again where the next one lost a block (RFC 2090)."""
    data = os.urandom(3_000_000)
    path = tmp_path / "f"
    path.write_bytes(data)
    sent = to_netascii(data) if kind == "netascii" else data
    thread = Thread()
    content = make_content(kind, path, 512, 4, thread, waits=waits)
    last = block_count(len(sent), 512)
    for first in (1, 5, 9, 5, 150, 192, 193, 196, 1, last, last - 3, 17, 4999, last - 1, 2):
        assert thread.get(content, first, 4) == wire(sent, 512, first, 4), first
    content.close()


def test_a_file_in_memory_is_read_several_windows_at_a_time(tmp_path: Path) -> None:
    path = make(tmp_path, "f", 1_000_000)
    thread = Thread()
    content = Counted(*opened(path), 1428, 4, thread.readers)
    for first in range(1, 702, 4):
        assert content.flight(first, 4) is not None
    assert content.reads == [(first, min(32, 702 - first)) for first in range(1, 702, 32)]
    assert not thread.waiting
    content.close()


def test_a_repair_reads_nothing_again(tmp_path: Path) -> None:
    path = make(tmp_path, "f", 1_000_000)
    data = path.read_bytes()
    thread = Thread()
    content = Counted(*opened(path), 1428, 16, thread.readers)
    content._flags = None
    for first, count in ((1, 16), (17, 16), (33, 16), (41, 16), (42, 16), (42, 16), (58, 16), (66, 8), (58, 16)):
        assert thread.get(content, first, count) == wire(data, 1428, first, count)
        thread.work()
    blocks = [block for first, count in content.reads for block in range(first, first + count)]
    assert blocks == sorted(set(blocks))
    content.close()


def test_the_next_window_is_read_while_the_last_one_travels(tmp_path: Path) -> None:
    path = make(tmp_path, "f", 1_000_000)
    thread = Thread()
    content = streamed(path, 1428, 16, thread.readers)
    content._flags = None
    assert content.flight(1, 16) is None
    thread.work()
    for first in range(1, 680, 16):
        assert content.flight(first, 16) is not None
        thread.work()
    content.close()


def test_who_asks_twice_is_called_once(tmp_path: Path) -> None:
    thread = Thread()
    content = streamed(make(tmp_path, "f", 100_000), 512, 1, thread.readers)
    content._flags = None
    calls: list[str] = []
    assert content.flight(1, 1, lambda: calls.append("first")) is None
    assert content.flight(1, 1, lambda: calls.append("second")) is None
    assert len(thread.waiting) == 1
    thread.work()
    assert calls == ["second"]
    content.close()


def test_closed_while_a_thread_reads(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    thread = Thread()
    content = streamed(make(tmp_path, "f", 100_000), 512, 1, thread.readers)
    content._flags = None
    calls: list[None] = []
    content.flight(1, 1, lambda: calls.append(None))
    content.close()
    assert len(os.listdir("/proc/self/fd")) == before + 1  # the thread may be using it
    thread.work()
    assert len(os.listdir("/proc/self/fd")) == before
    assert not calls


def cut(path: Path) -> None:
    os.truncate(path, 1000)


def rewrite(path: Path) -> None:
    path.write_bytes(b"b" * path.stat().st_size)


def grow(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"b")


def rewrite_and_set_back(path: Path) -> None:
    """As rsync --inplace --times does: only ctime tells."""
    before = path.stat()
    rewrite(path)
    while path.stat().st_ctime_ns == before.st_ctime_ns or path.stat().st_mtime_ns != before.st_mtime_ns:
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def rewrite_and_link(path: Path) -> None:
    rewrite(path)
    os.link(path, path.with_name("another"))


CHANGES = [cut, rewrite, grow, rewrite_and_set_back, rewrite_and_link]


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("waits", [False, True])
@pytest.mark.parametrize("kind", ["octet", "netascii"])
def test_a_changed_file_is_noticed(tmp_path: Path, kind: str, waits: bool, change: Callable[[Path], None]) -> None:
    path = make(tmp_path, "f", 200_000)
    data = path.read_bytes()
    thread = Thread()
    content = make_content(kind, path, 512, 1, thread, waits=waits)
    assert thread.get(content, 1, 1) == wire(data, 512, 1, 1)
    change(path)
    got: list[bytes] = []
    with pytest.raises(FileFault):
        got.extend(thread.get(content, first, 1) for first in range(2, 392))
    assert len(got) < 390
    assert b"".join(got) == wire(data, 512, 2, len(got))
    with pytest.raises(FileFault):  # and nothing more leaves
        content.flight(1, 1)
    content.close()


@pytest.mark.parametrize("change", CHANGES)
def test_the_end_is_compared_although_it_was_read_before(tmp_path: Path, change: Callable[[Path], None]) -> None:
    path = make(tmp_path, "f", 2000)
    thread = Thread()
    content = streamed(path, 512, 1, thread.readers)
    thread.get(content, 1, 1)  # reads all of it
    thread.get(content, 4, 1)
    change(path)
    thread.get(content, 3, 1)  # is what it was when it was read
    with pytest.raises(FileFault):
        content.flight(4, 1)
    content.close()


@pytest.mark.parametrize("waits", [False, True])
def test_a_replaced_file_keeps_its_content(tmp_path: Path, waits: bool) -> None:
    path = make(tmp_path, "f", 200_000)
    data = path.read_bytes()
    thread = Thread()
    content = make_content("octet", path, 512, 1, thread, waits=waits)
    (tmp_path / "g").write_bytes(b"b")
    (tmp_path / "g").rename(path)
    for first in range(1, 392):
        assert thread.get(content, first, 1) == wire(data, 512, first, 1)
    content.close()


def test_a_write_cannot_hide_behind_an_earlier_link(tmp_path: Path) -> None:
    path = make(tmp_path, "f", 2000)
    thread = Thread()
    content = streamed(path, 512, 1, thread.readers)
    os.link(path, tmp_path / "another")
    thread.get(content, 4, 1)  # as a backup by links: nothing was written
    rewrite_and_set_back(path)
    with pytest.raises(FileFault):
        content.flight(4, 1)
    content.close()


@pytest.mark.parametrize(("block_size", "window"), [(1428, 16), (1428, 1), (512, 4), (8, 1), (1428, 32)])
def test_memory_of_a_transfer(tmp_path: Path, block_size: int, window: int) -> None:
    path = make(tmp_path, "f", 300_000)
    thread = Thread()
    fd, identity = opened(path)
    tracemalloc.start()
    try:
        content = Streamed(fd, identity, block_size, window, thread.readers)
        content._cold = True
        for first in range(1, 160, window):
            thread.get(content, first, window)
        peak = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert peak <= max(48 << 10, 2 * window * (block_size + 24) + 2048)
    content.close()


async def test_a_file_that_is_not_in_memory_comes_through_the_loop(tmp_path: Path) -> None:
    path = tmp_path / "f"
    data = os.urandom(5_000_000)
    path.write_bytes(data)
    forget(path)
    loop = asyncio.get_running_loop()

    def in_thread(work, done) -> None:
        loop.run_in_executor(None, work).add_done_callback(lambda future: done(future.result()))

    content = streamed(path, 1428, 16, Readers(in_thread))
    first, got, asked_again = 1, [], 0
    while first <= block_count(len(data), 1428):
        came = asyncio.Event()
        while (flight := content.flight(first, 16, came.set)) is None:
            asked_again += 1
            await came.wait()
            came.clear()
        got.append(bytes(flight))
        first += 16
    assert b"".join(got) == wire(data, 1428, 1, first)
    content.close()


def test_a_file_system_in_memory_needs_no_thread() -> None:
    """tmpfs does not know RWF_NOWAIT."""
    folder = Path("/dev/shm")
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        pytest.skip("no /dev/shm")
    with tempfile.NamedTemporaryFile(dir=folder) as file:
        if not in_memory(file.fileno()):
            pytest.skip("/dev/shm is no tmpfs")
        data = os.urandom(100_000)
        file.write(data)
        file.flush()
        thread = Thread()
        content = streamed(Path(file.name), 512, 4, thread.readers)
        for first in range(1, 196, 4):
            assert content.flight(first, 4) == wire(data, 512, first, 4)
        assert not thread.waiting
        content.close()


def test_a_c_library_without_preadv2(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scatter, "_preadv2", None)
    path = make(tmp_path, "f", 100_000)
    thread = Thread()
    content = streamed(path, 512, 4, thread.readers)
    for first in range(1, 196, 4):
        assert thread.get(content, first, 4) == wire(path.read_bytes(), 512, first, 4)
    content.close()


def test_more_than_a_window_is_our_own_mistake(tmp_path: Path) -> None:
    content = streamed(make(tmp_path, "f", 1_000_000), 1428, 16, Thread().readers)
    with pytest.raises(ValueError, match="more than the window of 16"):
        content.flight(1, 100)
    content.close()


def test_counting_goes_on_where_it_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In turns with others, and with marks in a file of any size."""
    monkeypatch.setattr(lines_module, "COUNTED_AT_ONCE", 300_000)
    data = os.urandom(2_500_000)
    path = tmp_path / "f"
    path.write_bytes(data)
    fd, identity = opened(path)
    counting = Counting(fd, identity)
    turns = 0
    while counting.index is None:
        counting.advance()
        turns += 1
    assert turns == 9
    assert counting.index.size_bytes == len(to_netascii(data))
    assert list(counting.index.marks) == [len(to_netascii(data[: mark << 20])) for mark in range(3)]
    os.close(fd)
