from __future__ import annotations

import errno
import os
import random
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pbserv.errors import StartError
from pbserv.tftp.paths import Directory, kernel_resolves


@pytest.fixture(params=["openat2", "hand over hand"])
def tree(request: pytest.FixtureRequest, tmp_path: Path):
    """Both ways to resolve a name, over the same tree."""
    by_kernel = request.param == "openat2"
    if by_kernel and not kernel_resolves():
        pytest.skip("this kernel has no openat2")
    root = tmp_path / "root"
    (root / "d" / "e").mkdir(parents=True)
    (root / "d" / "e" / "f").write_text("inside")
    (tmp_path / "secret").write_text("secret")
    directory = Directory(root, by_kernel=by_kernel)
    yield directory
    directory.close()


def read(directory: Directory, name: bytes) -> str:
    fd, _ = directory.open_file(name)
    with open(fd) as file:
        return file.read()


def fault(directory: Directory, name: bytes) -> int | None:
    with pytest.raises(OSError) as caught:
        directory.open_file(name)
    return caught.value.errno


def test_inside(tree: Directory) -> None:
    for name in (b"d/e/f", b"d/../d/e/f", b"d//e/./f", b"../d/e/f"):
        assert read(tree, name) == "inside"


def test_outside(tree: Directory) -> None:
    (tree.path / "link").symlink_to(tree.path.parent / "secret")
    (tree.path / "up").symlink_to("..")
    (tree.path / "fd").symlink_to("/proc/self/fd")
    for name in (b"../secret", b"d/../../secret", b"link", b"up/secret", b"fd/0", b"up/root/d/e/f"):
        assert fault(tree, name) in (errno.ENOENT, errno.ELOOP, errno.EXDEV, errno.ENOTDIR), name


def test_only_regular_files(tree: Directory) -> None:
    os.mkfifo(tree.path / "fifo")
    assert fault(tree, b"fifo") == errno.ENOENT
    assert fault(tree, b"d") in (errno.ENOENT, errno.EISDIR)
    assert fault(tree, b".") in (errno.ENOENT, errno.EISDIR)
    assert fault(tree, b"d/e/f/x") == errno.ENOTDIR


def test_no_descriptor_is_left(tree: Directory) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for name in (b"d/e/none", b"d", b"none/x", b"d/../d/../d/e/f"):
        try:
            os.close(tree.open_file(name)[0])
        except OSError:
            continue
    tree.other_case(b"D/E/F")
    assert len(os.listdir("/proc/self/fd")) == before


def test_other_case(tree: Directory) -> None:
    assert tree.other_case(b"D/E/F") == b"d/e/f"
    assert tree.other_case(b"d/e/f") is None
    assert tree.other_case(b"D/x") is None
    assert tree.other_case(b"../ROOT/d") is None
    (tree.path / "d" / "E").mkdir()
    (tree.path / "d" / "E" / "F").write_text("")
    assert tree.other_case(b"D/E/f") == b"d/E/F"


@contextmanager
def in_turns(*steps: tuple[Path, Path]) -> Iterator[list[int]]:
    """A thread renames each pair of paths forth, and then each back, until the block is left; yields the rounds."""
    stop, rounds = threading.Event(), [0]

    def work() -> None:
        while not stop.is_set():
            for source, target in steps:
                source.rename(target)
            for source, target in reversed(steps):
                target.rename(source)
            rounds[0] += 1
            sum(range(random.randrange(300)))  # not in step with the other thread

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield rounds
    finally:
        stop.set()
        thread.join()


def opened_while_renaming(tree: Directory, names: list[bytes]) -> Counter[str]:
    """What the names led to in half a second: contents and errors."""
    seen: Counter[str] = Counter()
    end = time.monotonic() + 0.5
    while time.monotonic() < end:
        for name in names:
            try:
                seen[read(tree, name)] += 1
            except OSError as fault:
                seen[errno.errorcode[fault.errno or 0]] += 1
    return seen


def open_folders(tree: Directory, names: tuple[bytes, ...]) -> Iterator[int]:
    """Those that can be opened at the moment; none of them has the secret in it."""
    for name in names:
        try:
            fd = tree.open_folder(name)
        except OSError:
            continue
        with pytest.raises(FileNotFoundError):
            os.stat("secret", dir_fd=fd)
        os.close(fd)
        yield fd


NO_BYTES = {"ENOENT", "ENOTDIR", "ELOOP", "EXDEV", "EAGAIN", "EISDIR"}


@pytest.fixture
def outside(tree: Directory) -> Path:
    """Beside the directory that is served: folders and files of the same names, with other bytes in them."""
    away = tree.path.parent / "away"
    for folder in (away / "e", away / "d" / "e"):
        folder.mkdir(parents=True)
        (folder / "f").write_text("secret")
    for folder in (away, away / "e", away / "d"):
        (folder / "secret").write_text("secret")
    (away / "f").write_text("secret")
    return away


def test_a_directory_that_trades_places_with_a_link_to_the_outside(tree: Directory, outside: Path) -> None:
    link = tree.path / "link"
    link.symlink_to(outside)
    names = [b"d/e/f", b"d/e/../e/f", b"d/e/../secret", b"d/secret", b"link/e/f", b"link/secret", b"link/../d/e/f"]
    with in_turns((tree.path / "d", tree.path / "real"), (link, tree.path / "d")) as rounds:
        seen = opened_while_renaming(tree, names)
    assert seen.keys() <= {"inside"} | NO_BYTES
    assert seen["inside"] > 10, seen
    assert sum(seen.values()) - seen["inside"] > 10, seen
    assert rounds[0] > 10


def test_a_file_that_trades_places_with_a_link_to_the_outside(tree: Directory, outside: Path) -> None:
    folder = tree.path / "d" / "e"
    (folder / "link").symlink_to(outside / "f")
    names = [b"d/e/f", b"d/../d/e/f", b"d/e/link", b"d/e/../e/link"]
    with in_turns((folder / "f", folder / "real"), (folder / "link", folder / "f")) as rounds:
        seen = opened_while_renaming(tree, names)
    assert seen.keys() <= {"inside"} | NO_BYTES
    assert seen["inside"] > 10, seen
    assert rounds[0] > 10


def test_a_directory_that_is_moved_out_and_back(tree: Directory, outside: Path) -> None:
    """Its ``..`` is then a folder outside, which has a file of the name that is asked for."""
    names = [b"d/e/f", b"d/../secret", b"d/e/../../secret", b"d/e/../../e/f", b"d/e/../../../away/secret"]
    with in_turns((tree.path / "d", outside / "moved")) as rounds:
        seen = opened_while_renaming(tree, names)
        folders = [
            fd for _ in range(500) for fd in open_folders(tree, (b"d/..", b"d/e/../..", b"d/e/..", b"d/e", b"d"))
        ]
    assert seen.keys() <= {"inside"} | NO_BYTES
    assert seen["inside"] > 10, seen
    assert len(folders) > 10
    assert rounds[0] > 10


def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    with pytest.raises(StartError, match=f"TFTPDirectory {tmp_path}/none does not exist; create it or change the key"):
        Directory(tmp_path / "none")
    (tmp_path / "file").write_text("")
    with pytest.raises(StartError, match="is not a directory"):
        Directory(tmp_path / "file")
