"""Real file systems, captured by the real partclone, through the server's frames, and back onto a device."""

import asyncio
import contextlib
import hashlib
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from pbserv.imaging.faults import ChecksumMismatch
from pbserv.imaging.frames.delta import unshared
from pbserv.imaging.frames.head import HeadReader, PartcloneHead
from pbserv.imaging.frames.reader import FrameDamage, OpenIndex, verify
from pbserv.imaging.frames.writer import Reuse
from pbserv.imaging.reframe import Reframer, StoredItem
from tests.client.disks import MEBIBYTE, fill, fill_fat, hashes, loop, mounted, read_fat, run

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root rights: loop devices"),
]

PART = 8 << 20
MAKE = {
    "ext4": (96, "mkfs.ext4 -q -F"),
    "xfs": (320, "mkfs.xfs -q -f"),
    "btrfs": (256, "mkfs.btrfs -q -f"),
    "ntfs": (96, "mkfs.ntfs -q -Q -F"),
    "fat": (96, "mkfs.vfat -F 32"),
}
CHECK = {
    "ext4": "e2fsck -fn",
    "xfs": "xfs_repair -n",
    "btrfs": "btrfs check --readonly",
    "ntfs": "ntfsresize -i -f",
    "fat": "fsck.fat -n",
}


@dataclass(frozen=True)
class Source:
    """A file system on a loop device and the content hashes of its files."""

    kind: str
    node: str
    size: int
    contents: dict[str, str]


def filled(kind: str, node: str, folder: Path) -> dict[str, str]:
    """Files of known bytes on a new file system, with holes where some were removed; their content hashes."""
    if kind == "fat":
        return fill_fat(node, folder, 1)
    if kind == "ntfs":
        folder.mkdir()
        fill(folder, 1)
        for path in sorted(folder.iterdir()):
            run("ntfscp", "-q", node, str(path), path.name)
        return hashes(folder)
    with mounted(node, folder) as root:
        fill(root, 1, files=24)
        for index in range(0, 24, 3):
            (root / f"file{index}").unlink()
        (root / "sparse").write_bytes(b"begin")
        os.truncate(root / "sparse", 5 << 20)
        return hashes(root)


def contents(kind: str, node: str, folder: Path, names: dict[str, str]) -> dict[str, str]:
    """Content hashes of the files of a restored file system."""
    if kind == "fat":
        return read_fat(node, folder)
    if kind == "ntfs":
        read = (subprocess.run(["ntfscat", node, name], capture_output=True, check=True).stdout for name in names)
        return {name: hashlib.sha256(data).hexdigest() for name, data in zip(names, read, strict=True)}
    with mounted(node, folder) as root:
        return hashes(root)


@contextlib.contextmanager
def made(kind: str, folder: Path) -> Iterator[Source]:
    megabytes, command = MAKE[kind]
    with loop(folder / "source.disk", megabytes * MEBIBYTE, scan=False) as node:
        run(*command.split(), node)
        yield Source(kind, node, megabytes * MEBIBYTE, filled(kind, node, folder / "files"))


def captured(source: Source, *options: str) -> bytes:
    """What partclone writes."""
    run("blockdev", "--flushbufs", source.node)
    command = [f"partclone.{source.kind}", "-q", "-c", *options, "-L", "/dev/null", "-s", source.node, "-o", "-"]
    done = subprocess.run(command, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode(errors="replace")
    return done.stdout


def reframed(folder: Path, source: Source, stream: bytes, reuse: Reuse | None = None) -> StoredItem:
    """The stream uploaded as the imaging client does it: parts, each compressed by zstd on its own."""

    async def upload() -> StoredItem:
        reframer = Reframer()
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            item = reframer.item(descriptor, "item.zst", f"partclone.{source.kind}", reuse=reuse, charge=lambda _: None)
            parts = [stream[at : at + PART] for at in range(0, len(stream), PART)]
            for number, part in enumerate(parts, start=1):
                body = subprocess.run(["zstd", "-q", "-1", "-c"], input=part, capture_output=True, check=True).stdout

                async def chunks(body: bytes = body):
                    yield body

                await item.part(number, chunks(), hashlib.sha256(body).hexdigest())
            return await item.complete(len(parts), len(stream))
        finally:
            await reframer.close()
            os.close(descriptor)

    folder.mkdir(exist_ok=True)
    return asyncio.run(upload())


def head_of(stream: bytes) -> tuple[PartcloneHead, bytes]:
    kept = bytearray()
    reader = HeadReader(kept.extend)
    reader.feed(stream)
    assert reader.head is not None
    return reader.head, bytes(kept[110:])


def opened(folder: Path) -> OpenIndex:
    with (folder / "item.zst.pbx").open("rb") as file:
        return OpenIndex(file.fileno())


@contextlib.contextmanager
def restored(folder: Path, item: Path, size: int) -> Iterator[str]:
    """A new device with the item on it, as a client restores it."""
    with loop(folder / "target.disk", size, scan=False) as node:
        script = 'zstd -dcq "$1" | partclone.restore -q -L /dev/null -s - -o "$2"'
        run("bash", "-o", "pipefail", "-c", script, "restore", str(item), node)
        run("blockdev", "--flushbufs", node)
        yield node


def used_blocks(node: str, head: PartcloneHead, bitmap: bytes) -> Iterator[bytes]:
    with open(node, "rb") as device:
        for number in range(head.blocks):
            if bitmap[number >> 3] >> (number & 7) & 1:
                device.seek(number * head.block_bytes)
                yield device.read(head.block_bytes)


@pytest.mark.parametrize(
    ("kind", "options"),
    [*((kind, "") for kind in MAKE), ("ext4", "-a 0"), ("ext4", "-a 1 -k 37")],
)
def test_a_capture_comes_back_bit_by_bit(kind: str, options: str, tmp_path: Path) -> None:
    """Used blocks equal, the file system clean, its files the same; the item is what ``-a 0`` writes."""
    with made(kind, tmp_path) as source:
        _comes_back(source, tuple(options.split()), tmp_path)


def _comes_back(source: Source, options: tuple[str, ...], tmp_path: Path) -> None:
    stream = captured(source, *options)
    item = reframed(tmp_path / "store", source, stream)
    path = tmp_path / "store" / "item.zst"
    head, bitmap = head_of(stream)
    plain = subprocess.run(["zstd", "-dcq", str(path)], capture_output=True, check=True).stdout
    assert plain == captured(source, "-a", "0")
    assert item.plain_bytes == len(plain)
    index = opened(tmp_path / "store")
    with path.open("rb") as file:
        assert not [x for x in verify(file.fileno(), index.index, deep=True) if isinstance(x, FrameDamage)]
    with restored(tmp_path, path, source.size) as node:
        blocks = list(used_blocks(source.node, head, bitmap))
        assert list(used_blocks(node, head, bitmap)) == blocks
        assert hashlib.sha256(b"".join(blocks)).hexdigest() == item.facts["body_sha256"]
        read_back = captured(Source(source.kind, node, source.size, {}), "-a", "0")
        assert hashlib.sha256(read_back[int(item.facts["head_bytes"]) :]).hexdigest() == item.facts["body_sha256"]
        run(*CHECK[source.kind].split(), node)
        assert contents(source.kind, node, tmp_path / "back", source.contents) == source.contents
    run("zstd", "-tq", str(path))
    for program in ("chkimg -s -", f"restore -q -W -s - -O {tmp_path}/raw.disk"):
        script = f'zstd -dcq "$1" | partclone.{program} -L /dev/null'
        run("bash", "-o", "pipefail", "-c", script, "check", str(path))
    with loop(tmp_path / "raw.disk", source.size, scan=False) as node:
        run(*CHECK[source.kind].split(), node)


def test_two_versions_share_what_did_not_change(tmp_path: Path) -> None:
    """A file more: the frames of everything else are taken over as they lie there."""
    with made("ext4", tmp_path) as source:
        reframed(tmp_path / "old", source, captured(source))
        with mounted(source.node, tmp_path / "files") as root:
            (root / "new").write_bytes(os.urandom(300_000))
        old = opened(tmp_path / "old")
        with (tmp_path / "old" / "item.zst").open("rb") as file:
            reuse = Reuse(old.index, file.fileno(), lambda: None)
            reframed(tmp_path / "new", source, captured(source), reuse)
        new = opened(tmp_path / "new")
        difference = unshared(new.index, old.index)
        device = new.index.header.used_bytes
        assert 300_000 < difference.plain_bytes < device // 4
        shared = {(frame.address, frame.digest) for frame in old.index.frames()}
        taken = [frame for frame in new.index.frames() if (frame.address, frame.digest) in shared]
        assert len(taken) > len(new.index) // 2
        plain = subprocess.run(
            ["zstd", "-dcq", str(tmp_path / "new" / "item.zst")], capture_output=True, check=True
        ).stdout
        assert plain == captured(source, "-a", "0")


def test_damage_on_the_way_is_found_by_partclones_own_checksums(tmp_path: Path) -> None:
    with made("ext4", tmp_path) as source:
        stream = bytearray(captured(source))
        stream[len(stream) // 2] ^= 1
        with pytest.raises(ChecksumMismatch, match="device addresses 0x"):
            reframed(tmp_path / "store", source, bytes(stream))
