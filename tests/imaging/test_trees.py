"""Directories as add-on images: packed by the real tar, unpacked by it, and the same bytes each time."""

from __future__ import annotations

import io
import os
import shutil
import socket
import subprocess
import tarfile
from pathlib import Path

import pytest
import zstandard

from pbserv.imaging.importing import as_it_is, send, survey_tree
from pbserv.imaging.inspection import InspectionError
from pbserv.imaging.manifest import parse
from pbserv.imaging.states import ImageKind, kind_of
from pbserv.imaging.trees import TREE, pack_tree, plan_tree
from tests.imaging.test_importing import Shelf

ODD = "odd \n name\\ é"


def make(root: Path) -> None:
    (root / "etc" / "lab").mkdir(parents=True)
    (root / "etc" / "lab" / "name").write_text("lab\n")
    (root / "etc" / "lab" / "secret").write_text("x" * 10_000)
    (root / "etc" / "lab" / "secret").chmod(0o4711)
    (root / ODD).write_bytes(os.urandom(3_000_000))
    (root / "link").symlink_to("etc/lab/name")
    (root / "hard").hardlink_to(root / "etc" / "lab" / "name")
    (root / "empty").mkdir(mode=0o700)
    os.mkfifo(root / "fifo")
    os.setxattr(root / "etc" / "lab" / "name", "user.origin", b"\x00\xff value")
    for path in root.rglob("*"):
        os.utime(path, ns=(10**18, 1_700_000_000_123_456_789), follow_symlinks=False)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    made = tmp_path / "tree"
    made.mkdir()
    make(made)
    return made


def unpack(packed: bytes, into: Path) -> Path:
    """As the imaging client does it."""
    into.mkdir()
    subprocess.run(
        ["tar", "--zstd", "--xattrs", "--xattrs-include=*", "--numeric-owner", "-xpf", "-", "-C", str(into)],
        input=packed, check=True, capture_output=True,
    )  # fmt: skip
    return into


def facts(root: Path) -> dict[str, tuple[object, ...]]:
    found = {}
    for path in sorted(root.rglob("*")):
        about = path.lstat()
        content = path.read_bytes() if path.is_file() and not path.is_symlink() else b""
        target = os.readlink(path) if path.is_symlink() else ""
        attributes = {} if path.is_symlink() else {name: os.getxattr(path, name) for name in os.listxattr(path)}
        own = {name: value for name, value in attributes.items() if name.startswith("user.")}
        found[str(path.relative_to(root))] = (
            about.st_mode, about.st_uid, about.st_gid, about.st_mtime_ns, about.st_nlink, content, target, own
        )  # fmt: skip
    return found


def test_a_tree_comes_back_as_it_was(tree: Path, tmp_path: Path) -> None:
    heard: list[int] = []
    back = unpack(b"".join(pack_tree(tree, heard.append)), tmp_path / "back")
    assert facts(back) == facts(tree)
    assert len(facts(back)) == 9
    assert sum(heard) > 3_000_000


@pytest.mark.root
def test_owners_are_kept_as_numbers(tree: Path, tmp_path: Path) -> None:
    os.chown(tree / "etc" / "lab", 12_345, 54_321)
    os.chown(tree / "link", 7, 8, follow_symlinks=False)
    os.mknod(tree / "null", 0o20666, os.makedev(1, 3))
    back = unpack(b"".join(pack_tree(tree)), tmp_path / "back")
    assert facts(back) == facts(tree)
    assert (back / "null").stat().st_rdev == os.makedev(1, 3)


def test_the_same_files_give_the_same_bytes(tree: Path, tmp_path: Path) -> None:
    """Whatever the order in which they were made, the directory's name, and when they were read."""
    other = tmp_path / "other name"
    other.mkdir()
    for path in sorted(tree.rglob("*"), key=lambda path: (len(path.parts), str(path)), reverse=False):
        if path.is_dir():
            (other / path.relative_to(tree)).mkdir()
    subprocess.run(["cp", "-a", f"{tree}/.", str(other)], check=True)
    shutil.copystat(tree, other)
    (other / ODD).read_bytes()
    first = b"".join(pack_tree(tree))
    assert b"".join(pack_tree(other)) == first == b"".join(pack_tree(tree))
    plain = zstandard.ZstdDecompressor().decompressobj().decompress(first)
    with tarfile.open(fileobj=io.BytesIO(plain)) as archive:
        names = archive.getnames()
    assert names == ["./empty", "./etc", "./etc/lab", "./etc/lab/name", "./etc/lab/secret", "./fifo", "./hard",
                     "./link", f"./{ODD}"]  # fmt: skip


def test_sockets_are_left_out(tree: Path, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        os.chdir(tree)
        listener.bind("s")
        os.chdir(tmp_path)
        back = unpack(b"".join(pack_tree(tree)), tmp_path / "back")
    assert not (back / "s").exists()
    assert (back / "hard").exists()


def test_an_empty_tree(tmp_path: Path) -> None:
    (tmp_path / "nothing").mkdir()
    back = unpack(b"".join(pack_tree(tmp_path / "nothing")), tmp_path / "back")
    assert list(back.iterdir()) == []


def test_what_cannot_be_packed_says_so(tmp_path: Path) -> None:
    with pytest.raises(InspectionError, match="gone"):
        list(pack_tree(tmp_path / "gone"))
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "gone"):
        with pytest.raises(InspectionError, match="made of a directory"):
            plan_tree(path)


def test_a_file_that_changes_while_it_is_read(tree: Path) -> None:
    """It grows while tar waits for its reader: half of it would be an image of nothing."""
    (tree / "big").write_bytes(os.urandom(64 << 20))
    pieces = pack_tree(tree)
    next(pieces)
    with (tree / "big").open("r+b") as file:
        file.truncate(1 << 20)
    with pytest.raises(InspectionError, match="big: "):
        for _ in pieces:
            pass


def test_given_up_in_the_middle(tree: Path) -> None:
    (tree / "big").write_bytes(os.urandom(32 << 20))
    pieces = pack_tree(tree)
    next(pieces)
    pieces.close()


def test_the_plan(tree: Path) -> None:
    plan = plan_tree(tree)
    (item,) = plan.items
    assert (plan.name, plan.disk.table) == ("tree", "none")
    assert (item.name, item.kind, item.compressor, item.stored_bytes) == (TREE, TREE, "zstd", 3_010_008)


def test_a_tree_is_sent_and_goes_on_where_it_broke(tree: Path, tmp_path: Path) -> None:
    shelf = Shelf(lose=frozenset({("tree", 3)}))
    source = survey_tree(tree)
    with pytest.raises(ConnectionError):
        send(source, source.plans[0], shelf, convert=False)
    again = survey_tree(tree)
    assert as_it_is(again.plans[0], convert=False)
    send(again, again.plans[0], shelf, convert=False)
    manifest = parse(shelf.manifest)
    (item,) = manifest.items
    assert kind_of(manifest) is ImageKind.TREE
    assert manifest.fact("tree", "compressor") == "zstd"
    plain = zstandard.ZstdDecompressor().decompressobj().decompress(shelf.data("tree"))
    assert item.uncompressed_bytes == len(plain)
    assert facts(unpack(shelf.data("tree"), tmp_path / "back")) == facts(tree)
