from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import random
import stat
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import pytest_asyncio

from pbserv.tftp import quota, sink
from pbserv.tftp.catalogue import Overload, Refusal, Target
from pbserv.tftp.config import TftpConf
from pbserv.tftp.packet import ErrorCode
from pbserv.tftp.quota import Rules, Usage, measure, sweep
from pbserv.tftp.sink import Sink, rename_new
from pbserv.tftp.uploads import UPLOADS_PER_ADDRESS, UploadRoom, rules_of

noise = random.Random(3).randbytes
WRITE = Rules(allow_writes=True)
REPLACE = Rules(allow_writes=True, allow_overwrites=True)


def at(folder: Path, name: str = "f") -> Target:
    return Target(os.open(folder, os.O_PATH | os.O_DIRECTORY), os.fsencode(name), os.fsencode(name))


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


async def until(condition, timeout_s: float = 60.0) -> None:
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0.002)


async def commit(room: UploadRoom, one: Sink) -> None:
    """Raises what the disk said."""
    came: asyncio.Future[BaseException | None] = asyncio.get_running_loop().create_future()
    room.commit(one, came.set_result)
    fault = await came
    if fault is not None:
        raise fault


async def place(room: UploadRoom, folder: Path, name: str, data: bytes, announced: int | None = None) -> None:
    one = room.admit(at(folder, name), announced, "10.0.0.9")
    try:
        one.write([data])
    except Refusal:
        one.abandon()
        raise
    await commit(room, one)


class Hall:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.rooms: list[UploadRoom] = []

    def room(self, rules: Rules) -> UploadRoom:
        self.rooms.append(UploadRoom(self.folder, rules))
        return self.rooms[-1]

    async def counted(self, rules: Rules) -> UploadRoom:
        room = self.room(rules)
        await until(lambda: room._ledger._counted is not None)
        return room

    @property
    def names(self) -> list[str]:
        return sorted(os.listdir(self.folder))


@pytest_asyncio.fixture
async def hall(tmp_path: Path) -> AsyncIterator[Hall]:
    folder = tmp_path / "tftp"
    folder.mkdir()
    before = descriptors()
    hall = Hall(folder)
    yield hall
    for room in hall.rooms:
        room._executor.shutdown()
        assert room._ledger._reserved == Usage()
        assert room._ledger.unwritten_bytes == 0
        assert room._running == {}
    await until(lambda: descriptors() <= before)
    assert not [name for name in hall.names if name.endswith(".part")]


class refused:
    """``with`` a Refusal of this code whose text contains that."""

    def __init__(self, code: int, text: str) -> None:
        self.code, self.text = code, text

    def __enter__(self) -> None: ...

    def __exit__(self, kind, fault, trace) -> bool:
        assert isinstance(fault, Refusal), fault
        assert (fault.code, self.text in fault.text) == (self.code, True), (fault.code, fault.text)
        return True


# -- the two flags of the manual ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("overwrites", [False, True])
async def test_without_the_first_flag_the_second_does_not_count(hall: Hall, overwrites: bool) -> None:
    conf = TftpConf(directory=hall.folder, allow_writes=False, allow_overwrites=overwrites)
    room = hall.room(rules_of(conf))
    (hall.folder / "old").write_bytes(b"old")
    for name in ("f", "old"):
        with refused(ErrorCode.ACCESS, "writes are not allowed"):
            room.admit(at(hall.folder, name), None, "10.0.0.9")
    assert hall.names == ["old"]


async def test_a_new_file_is_complete_or_not_there(hall: Hall) -> None:
    room = hall.room(WRITE)
    data = noise(100_000)
    one = room.admit(at(hall.folder), None, "10.0.0.9")
    (part,) = hall.names
    assert part.startswith(".f.")
    assert part.endswith(".part")
    facts = (hall.folder / part).stat()
    assert facts.st_mode & 0o777 == 0o600
    for start in range(0, len(data), 1000):
        one.write([data[start : start + 500], data[start + 500 : start + 1000]])
    assert hall.names == [part]
    await commit(room, one)
    assert hall.names == ["f"]
    assert (hall.folder / "f").read_bytes() == data
    assert (hall.folder / "f").stat().st_mode & 0o7777 == 0o644
    assert one.size_bytes == len(data)


async def test_an_empty_file_too(hall: Hall) -> None:
    await place(hall.room(WRITE), hall.folder, "f", b"")
    assert (hall.folder / "f").read_bytes() == b""


async def test_an_upload_that_breaks_leaves_nothing(hall: Hall) -> None:
    room = hall.room(WRITE)
    one = room.admit(at(hall.folder), 5000, "10.0.0.9")
    one.write([b"x" * 1000])
    one.abandon()
    one.abandon()
    assert hall.names == []


async def test_existing_files_need_the_second_flag(hall: Hall) -> None:
    (hall.folder / "f").write_bytes(b"old")
    with refused(ErrorCode.EXISTS, "exists"):
        hall.room(WRITE).admit(at(hall.folder), None, "10.0.0.9")
    await place(hall.room(REPLACE), hall.folder, "f", b"new")
    assert (hall.folder / "f").read_bytes() == b"new"


async def test_who_reads_the_old_file_keeps_it(hall: Hall) -> None:
    (hall.folder / "f").write_bytes(b"old")
    with (hall.folder / "f").open("rb") as reader:
        await place(hall.room(REPLACE), hall.folder, "f", b"new")
        assert reader.read() == b"old"


async def test_a_replaced_file_keeps_its_mode_and_owner(hall: Hall) -> None:
    file = hall.folder / "f"
    file.write_bytes(b"old")
    file.chmod(0o640)
    if os.geteuid() == 0:
        os.chown(file, 1234, 2345)
    before = file.stat()
    await place(hall.room(REPLACE), hall.folder, "f", b"new")
    after = file.stat()
    assert (after.st_mode, after.st_uid, after.st_gid) == (before.st_mode, before.st_uid, before.st_gid)


async def test_a_file_that_appears_meanwhile_is_not_replaced(hall: Hall) -> None:
    room = hall.room(WRITE)
    one = room.admit(at(hall.folder), None, "10.0.0.9")
    one.write([b"late"])
    (hall.folder / "f").write_bytes(b"first")
    with refused(ErrorCode.EXISTS, "exists"):
        await commit(room, one)
    assert hall.names == ["f"]
    assert (hall.folder / "f").read_bytes() == b"first"


@pytest.mark.parametrize("rules", [WRITE, REPLACE])
async def test_two_uploads_of_one_name(hall: Hall, rules: Rules) -> None:
    room = hall.room(rules)
    first, second = (room.admit(at(hall.folder), None, peer) for peer in ("10.0.0.8", "10.0.0.9"))
    first.write([b"first"])
    second.write([b"second"])
    await commit(room, second)
    assert (hall.folder / "f").read_bytes() == b"second"
    if rules is REPLACE:
        await commit(room, first)
        assert (hall.folder / "f").read_bytes() == b"first"
    else:
        with refused(ErrorCode.EXISTS, "exists"):
            await commit(room, first)
        assert (hall.folder / "f").read_bytes() == b"second"


async def test_many_at_once_of_one_name_leave_one_whole_file(hall: Hall) -> None:
    room = hall.room(WRITE)
    sinks = [room.admit(at(hall.folder), None, f"10.0.0.{n}") for n in range(24)]
    for n, one in enumerate(sinks):
        one.write([bytes([n]) * 10_000])
    ends = await asyncio.gather(*(commit(room, one) for one in sinks), return_exceptions=True)
    assert sum(end is None for end in ends) == 1
    assert {end.code for end in ends if isinstance(end, Refusal)} == {ErrorCode.EXISTS}
    assert (hall.folder / "f").read_bytes() == bytes([ends.index(None)]) * 10_000


# -- what stands there -------------------------------------------------------------------------------------------------


def _fifo(path: Path) -> None:
    os.mkfifo(path)


def _link(path: Path) -> None:
    (path.parent.parent / "secret").write_bytes(b"secret")
    path.symlink_to(path.parent.parent / "secret")


def _dangling(path: Path) -> None:
    path.symlink_to(path.parent.parent / "nothing")


def _folder(path: Path) -> None:
    path.mkdir()


@pytest.mark.parametrize("make", [_fifo, _link, _dangling, _folder])
async def test_only_plain_files_are_replaced(hall: Hall, make) -> None:
    make(hall.folder / "f")
    kind = (hall.folder / "f").lstat().st_mode
    with refused(ErrorCode.ACCESS, "not a regular file"):
        hall.room(REPLACE).admit(at(hall.folder), None, "10.0.0.9")
    with refused(ErrorCode.EXISTS, "exists"):
        hall.room(WRITE).admit(at(hall.folder), None, "10.0.0.9")
    (hall.folder / "g").write_bytes(b"")
    room = hall.room(REPLACE)
    one = room.admit(at(hall.folder, "g"), None, "10.0.0.9")
    one.write([b"new"])
    (hall.folder / "g").unlink()
    make(hall.folder / "g") if make is not _link else (hall.folder / "g").symlink_to("f")
    with refused(ErrorCode.ACCESS, "not a regular file"):
        await commit(room, one)
    assert (hall.folder / "f").lstat().st_mode == kind
    if make is _link:
        assert (hall.folder.parent / "secret").read_bytes() == b"secret"


@pytest.mark.parametrize("mode", [0o4755, 0o2755, 0o6755])
async def test_files_that_run_with_other_rights_are_not_replaced(hall: Hall, mode: int) -> None:
    (hall.folder / "f").write_bytes(b"old")
    (hall.folder / "f").chmod(mode)
    with refused(ErrorCode.ACCESS, "rights of others"):
        hall.room(REPLACE).admit(at(hall.folder), None, "10.0.0.9")


@pytest.mark.root
async def test_as_a_user_without_rights(hall: Hall) -> None:
    """A file that the server's user could not write into is not replaced by way of its directory."""
    nobody = 65534
    for name in ("mine", "locked"):
        (hall.folder / name).write_bytes(b"old")
        os.chown(hall.folder / name, nobody, nobody)
    (hall.folder / "locked").chmod(0o444)
    (hall.folder / "roots").write_bytes(b"old")
    os.chown(hall.folder, nobody, nobody)
    room = hall.room(REPLACE)
    (hall.folder / "d").mkdir()
    locked, roots, mine = (at(hall.folder, name) for name in ("locked", "roots", "mine"))
    new = at(hall.folder / "d", "new")
    os.seteuid(nobody)
    try:
        for target in (locked, roots):
            with refused(ErrorCode.ACCESS, "file may not be written"):
                room.admit(target, None, "10.0.0.9")
        one = room.admit(mine, None, "10.0.0.9")
        one.write([b"new"])
        await commit(room, one)
        with refused(ErrorCode.ACCESS, "directory may not be written"):
            room.admit(new, None, "10.0.0.9")
    finally:
        os.seteuid(0)
    assert (hall.folder / "mine").read_bytes() == b"new"
    assert hall.names == ["d", "locked", "mine", "roots"]


async def test_the_longest_name(hall: Hall) -> None:
    name = "n" * 255
    await place(hall.room(WRITE), hall.folder, name, b"x")
    assert hall.names == [name]
    with refused(ErrorCode.ILLEGAL, "too long"):
        hall.room(WRITE).admit(at(hall.folder, name + "n"), None, "10.0.0.9")


async def test_a_folder_that_is_removed_meanwhile(hall: Hall) -> None:
    room = hall.room(WRITE)
    (hall.folder / "d").mkdir()
    one = room.admit(at(hall.folder / "d"), None, "10.0.0.9")
    one.write([b"x"])
    for part in (hall.folder / "d").iterdir():
        part.unlink()
    (hall.folder / "d").rmdir()
    with refused(ErrorCode.NOT_FOUND, "directory not found"):
        await commit(room, one)


async def test_a_file_system_without_noreplace(hall: Hall, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sink, "_libc", object())
    await place(hall.room(WRITE), hall.folder, "f", b"1")
    assert hall.names == ["f"]
    with refused(ErrorCode.EXISTS, "exists"):
        await place(hall.room(WRITE), hall.folder, "f", b"2")
    folder = os.open(hall.folder, os.O_PATH)
    try:
        (hall.folder / "a").write_bytes(b"a")
        with pytest.raises(FileExistsError):
            rename_new(folder, b"a", b"f")
    finally:
        os.close(folder)
    assert (hall.folder / "f").read_bytes() == b"1"


# -- sizes -------------------------------------------------------------------------------------------------------------


async def test_the_largest_size(hall: Hall) -> None:
    room = hall.room(Rules(allow_writes=True, largest_bytes=1000))
    with refused(ErrorCode.DISK_FULL, "TFTPMaxUploadSize"):
        room.admit(at(hall.folder), 1001, "10.0.0.9")
    with refused(ErrorCode.DISK_FULL, "TFTPMaxUploadSize"):
        room.admit(at(hall.folder), 10**30, "10.0.0.9")
    with refused(ErrorCode.DISK_FULL, "TFTPMaxUploadSize"):
        await place(room, hall.folder, "f", b"x" * 1001)
    await place(room, hall.folder, "f", b"x" * 1000)


async def test_more_than_was_announced(hall: Hall) -> None:
    with refused(ErrorCode.UNDEFINED, "tsize"):
        await place(hall.room(WRITE), hall.folder, "f", b"x" * 11, announced=10)


async def test_the_quota_of_bytes(hall: Hall) -> None:
    (hall.folder / "d").mkdir()
    (hall.folder / "d" / "old").write_bytes(b"x" * 600)
    room = await hall.counted(Rules(allow_writes=True, quota_bytes=1000))
    with refused(ErrorCode.DISK_FULL, "TFTPQuota"):
        room.admit(at(hall.folder), 401, "10.0.0.9")
    with refused(ErrorCode.DISK_FULL, "TFTPQuota"):
        await place(room, hall.folder, "f", b"x" * 401)
    await place(room, hall.folder, "f", b"x" * 300)
    with refused(ErrorCode.DISK_FULL, "TFTPQuota"):
        room.admit(at(hall.folder, "g"), 101, "10.0.0.9")
    await place(room, hall.folder, "g", b"x" * 100, announced=100)
    assert measure(hall.folder) == Usage(1000, 3)


async def test_running_uploads_count(hall: Hall) -> None:
    room = await hall.counted(Rules(allow_writes=True, quota_bytes=1000, quota_files=2))
    first = room.admit(at(hall.folder, "a"), 700, "10.0.0.9")
    with refused(ErrorCode.DISK_FULL, "TFTPQuota"):
        room.admit(at(hall.folder, "b"), 1001, "10.0.0.9")
    room.admit(at(hall.folder, "b"), 1000, "10.0.0.9").abandon()  # a request alone, which may be forged, takes nothing
    first.write([b"x"])
    with refused(ErrorCode.DISK_FULL, "TFTPQuota"):
        room.admit(at(hall.folder, "b"), 301, "10.0.0.9")
    second = room.admit(at(hall.folder, "b"), None, "10.0.0.9")
    with refused(ErrorCode.DISK_FULL, "TFTPQuotaFiles"):
        room.admit(at(hall.folder, "c"), 1, "10.0.0.9")
    second.write([b"x" * 300])
    with refused(ErrorCode.DISK_FULL, "TFTPQuota"):
        second.write([b"x"])
    second.abandon()
    first.write([b"x" * 699])
    await commit(room, first)
    await place(room, hall.folder, "c", b"x" * 300)


async def test_a_replacement_needs_no_new_file_but_its_bytes(hall: Hall) -> None:
    (hall.folder / "f").write_bytes(b"x" * 400)
    room = await hall.counted(Rules(allow_writes=True, allow_overwrites=True, quota_bytes=1000, quota_files=1))
    for _ in range(5):
        await place(room, hall.folder, "f", b"y" * 600)
        await place(room, hall.folder, "f", b"y" * 400)
    with refused(ErrorCode.DISK_FULL, "TFTPQuotaFiles"):
        await place(room, hall.folder, "g", b"")


async def test_files_that_others_put_there_are_seen_in_time(hall: Hall, monkeypatch: pytest.MonkeyPatch) -> None:
    room = await hall.counted(Rules(allow_writes=True, quota_bytes=1000))
    (hall.folder / "big").write_bytes(b"x" * 990)
    await place(room, hall.folder, "a", b"x" * 10)
    monkeypatch.setattr(quota, "RECOUNT_S", 0.0)
    counted_at = room._ledger._counted_at
    await place(room, hall.folder, "b", b"")  # asks for a new count, and is judged by the old one
    await until(lambda: room._ledger._counted_at > counted_at)
    monkeypatch.undo()
    with refused(ErrorCode.DISK_FULL, "TFTPQuota"):
        await place(room, hall.folder, "c", b"x")


async def test_until_the_tree_is_counted_clients_have_to_ask_again(hall: Hall) -> None:
    room = hall.room(Rules(allow_writes=True, quota_files=10))
    with pytest.raises(Overload, match="counted"):
        room.admit(at(hall.folder), None, "10.0.0.9")
    await until(lambda: room._ledger._counted is not None)
    await place(room, hall.folder, "f", b"")


async def test_new_settings_count_for_new_uploads(hall: Hall, tmp_path: Path) -> None:
    room = hall.room(WRITE)
    running = room.admit(at(hall.folder), None, "10.0.0.9")
    room.adopt(hall.folder, Rules(allow_writes=True, largest_bytes=1, quota_bytes=10))
    running.write([b"x" * 100])
    await commit(room, running)
    with refused(ErrorCode.DISK_FULL, "TFTPMaxUploadSize"):
        room.admit(at(hall.folder, "g"), 2, "10.0.0.9")
    other = tmp_path / "other"
    other.mkdir()
    room.adopt(other, Rules(allow_writes=True, quota_bytes=10))
    await until(lambda: room._ledger._counted == Usage())
    await place(room, other, "f", b"x" * 10)


async def test_so_many_uploads_of_one_client_and_no_more(hall: Hall) -> None:
    room = hall.room(WRITE)
    running = [room.admit(at(hall.folder, f"f{n}"), None, "10.0.0.9") for n in range(UPLOADS_PER_ADDRESS)]
    with pytest.raises(Overload, match="too many uploads"):
        room.admit(at(hall.folder, "g"), None, "10.0.0.9")
    running.append(room.admit(at(hall.folder, "g"), None, "10.0.0.8"))
    for one in running:
        one.abandon()


async def test_the_free_space_that_is_kept(hall: Hall) -> None:
    facts = os.statvfs(hall.folder)
    free = facts.f_bavail * facts.f_frsize
    with refused(ErrorCode.DISK_FULL, "TFTPFreeSpace"):
        hall.room(Rules(allow_writes=True, free_bytes=free * 2)).admit(at(hall.folder), None, "10.0.0.9")
    with refused(ErrorCode.DISK_FULL, "TFTPFreeSpace"):
        hall.room(WRITE).admit(at(hall.folder), 10**18, "10.0.0.9")


@contextmanager
def small_disk(folder: Path, options: str) -> Iterator[None]:
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


@pytest.mark.root
async def test_a_disk_that_becomes_full(hall: Hall) -> None:
    def emptied() -> bool:
        """Blocks are freed in a thread."""
        facts = os.statvfs(hall.folder)
        return facts.f_bavail * facts.f_frsize > 7 << 20

    with small_disk(hall.folder, "size=8m"):
        room = hall.room(Rules(allow_writes=True, free_bytes=4 << 20))
        with refused(ErrorCode.DISK_FULL, "TFTPFreeSpace"):
            room.admit(at(hall.folder), (4 << 20) + 1, "10.0.0.9")
        first = room.admit(at(hall.folder, "a"), 3 << 20, "10.0.0.9")
        first.write([b"x"])
        with refused(ErrorCode.DISK_FULL, "TFTPFreeSpace"):
            room.admit(at(hall.folder, "b"), 2 << 20, "10.0.0.9")  # the first one's space is promised
        first.abandon()
        growing = room.admit(at(hall.folder, "c"), None, "10.0.0.9")
        with refused(ErrorCode.DISK_FULL, "TFTPFreeSpace"):
            for _ in range(100):
                growing.write([b"x" * 65_536])
        assert growing.size_bytes > 3 << 20
        facts = os.statvfs(hall.folder)
        assert facts.f_bavail * facts.f_frsize >= 4 << 20
        growing.abandon()
        await until(emptied)
        # nothing is kept free: the kernel says when it is enough
        greedy = hall.room(WRITE)
        other = greedy.admit(at(hall.folder, "d"), None, "10.0.0.9")
        with refused(ErrorCode.DISK_FULL, "disk full"):
            for _ in range(200):
                other.write([b"x" * 65_536])
        other.abandon()
        assert hall.names == []
        await until(emptied)
        announced = room.admit(at(hall.folder, "e"), 3 << 20, "10.0.0.9")
        (hall.folder / "theirs").write_bytes(b"x" * (2 << 20))
        with refused(ErrorCode.DISK_FULL, "TFTPFreeSpace"):
            for _ in range(48):
                announced.write([b"x" * 65_536])
        announced.abandon()
        for one in hall.rooms:
            one._executor.shutdown()


@pytest.mark.root
async def test_a_disk_without_inodes(hall: Hall) -> None:
    with small_disk(hall.folder, "nr_inodes=2"):
        room = hall.room(WRITE)
        (hall.folder / "f").write_bytes(b"")
        with refused(ErrorCode.DISK_FULL, "inode"):
            room.admit(at(hall.folder, "g"), None, "10.0.0.9")
        room._executor.shutdown()


@pytest.mark.root
async def test_a_disk_that_may_only_be_read(hall: Hall) -> None:
    with small_disk(hall.folder, "ro"):
        with refused(ErrorCode.ACCESS, "may not be written"):
            hall.room(WRITE).admit(at(hall.folder), None, "10.0.0.9")
        hall.rooms[0]._executor.shutdown()


# -- what an earlier process left --------------------------------------------------------------------------------------


async def test_leftovers_are_removed_and_nothing_else(hall: Hall) -> None:
    (hall.folder / "d").mkdir()
    ours = [hall.folder / ".f.0123456789abcdef.part", hall.folder / "d" / ".g.txt.fedcba9876543210.part"]
    theirs = [hall.folder / name for name in (".f.part", "f.0123456789abcdef.part", ".f.0123456789abcdeg.part", ".x")]
    for path in [*ours, *theirs]:
        path.write_bytes(b"x")
    outside = hall.folder.parent / "outside"
    outside.mkdir()
    (outside / ".f.0123456789abcdef.part").write_bytes(b"x")
    (hall.folder / "link").symlink_to(outside)
    (hall.folder / ".l.0123456789abcdef.part").symlink_to(theirs[0])
    os.mkfifo(hall.folder / ".p.0123456789abcdef.part")
    assert sweep(hall.folder) == 2
    assert [path.exists() for path in ours] == [False, False]
    assert all(path.exists() for path in theirs)
    assert (outside / ".f.0123456789abcdef.part").exists()
    assert (hall.folder / ".l.0123456789abcdef.part").is_symlink()
    (hall.folder / ".l.0123456789abcdef.part").unlink()
    (hall.folder / ".p.0123456789abcdef.part").unlink()
    theirs[0].unlink()
    theirs[1].unlink()
    theirs[2].unlink()


@pytest.mark.parametrize("theirs", [False, True])
async def test_running_uploads_are_no_leftovers(hall: Hall, monkeypatch: pytest.MonkeyPatch, theirs: bool) -> None:
    room = hall.room(WRITE)
    one = room.admit(at(hall.folder), None, "10.0.0.9")
    if theirs:
        monkeypatch.setattr(quota, "_OURS", b"01234567")  # the sweep of a server that starts beside this one
    assert sweep(hall.folder) == 0
    one.write([b"x"])
    await commit(room, one)
    assert hall.names == ["f"]


async def test_a_room_begins_with_a_sweep(hall: Hall) -> None:
    (hall.folder / ".f.0123456789abcdef.part").write_bytes(b"x")
    hall.room(Rules())
    await until(lambda: hall.names == [])


async def test_an_upload_that_was_swept_in_the_moment_of_its_birth(hall: Hall, monkeypatch) -> None:
    room = hall.room(WRITE)

    def removed(file: int, how: int) -> None:
        for name in hall.names:
            (hall.folder / name).unlink()
        raise BlockingIOError(errno.EWOULDBLOCK, "")

    monkeypatch.setattr(fcntl, "flock", removed)
    with pytest.raises(Overload, match="removed"):
        room.admit(at(hall.folder), None, "10.0.0.9")


async def test_a_tree_that_cannot_be_read_counts_nothing(tmp_path: Path) -> None:
    assert measure(tmp_path / "none") == Usage()
    assert sweep(tmp_path / "none") == 0


# -- the loop ----------------------------------------------------------------------------------------------------------


async def test_a_slow_disk_does_not_stop_the_loop(hall: Hall, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.fsync

    def slow(file: int) -> None:
        time.sleep(0.3)
        real(file)

    monkeypatch.setattr(os, "fsync", slow)
    room = hall.room(WRITE)
    one = room.admit(at(hall.folder), None, "10.0.0.9")
    one.write([b"x"])
    longest, before = 0.0, time.monotonic()
    async with asyncio.TaskGroup() as tasks:
        committing = tasks.create_task(commit(room, one))
        while not committing.done():
            await asyncio.sleep(0.001)
            now = time.monotonic()
            longest, before = max(longest, now - before), now
    assert longest < 0.15


async def test_a_commit_that_nobody_wants_any_more_is_not_seen(hall: Hall, monkeypatch: pytest.MonkeyPatch) -> None:
    room = hall.room(WRITE)
    one = room.admit(at(hall.folder), None, "10.0.0.9")
    one.write([b"x"])
    real = os.fsync

    def given_up(file: int) -> None:
        one.abandon()
        real(file)

    monkeypatch.setattr(os, "fsync", given_up)
    with refused(ErrorCode.UNDEFINED, "given up"):
        await commit(room, one)
    assert hall.names == []


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
async def test_what_fsync_finds_out_is_told(hall: Hall, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    def failing(file: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", failing)
    room = hall.room(WRITE)
    wanted = ErrorCode.UNDEFINED if code == errno.EIO else ErrorCode.DISK_FULL
    with refused(wanted, "cannot be written" if code == errno.EIO else "disk full"):
        await place(room, hall.folder, "f", b"x")
    assert hall.names == []


async def test_a_file_system_that_cannot_sync_directories(hall: Hall, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.fsync

    def files_only(file: int) -> None:
        if stat.S_ISDIR(os.fstat(file).st_mode):
            raise OSError(errno.EINVAL, "")
        real(file)

    monkeypatch.setattr(os, "fsync", files_only)
    await place(hall.room(WRITE), hall.folder, "f", b"x")
    assert hall.names == ["f"]


async def test_a_write_that_the_kernel_cuts_short_is_finished(hall: Hall, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.writev
    monkeypatch.setattr(os, "writev", lambda file, parts: real(file, [parts[0][:3]]))
    data = [noise(100) for _ in range(10)]
    room = hall.room(WRITE)
    one = room.admit(at(hall.folder), None, "10.0.0.9")
    one.write(data)
    one.write(data)
    await commit(room, one)
    assert (hall.folder / "f").read_bytes() == b"".join(data) * 2
