from __future__ import annotations

import errno
import os
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


def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    with pytest.raises(StartError, match=f"TFTPDirectory {tmp_path}/none does not exist; create it or change the key"):
        Directory(tmp_path / "none")
    (tmp_path / "file").write_text("")
    with pytest.raises(StartError, match="is not a directory"):
        Directory(tmp_path / "file")
