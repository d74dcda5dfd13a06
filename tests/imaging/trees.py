"""Directories of FOG, Clonezilla, OpenGnSys and SLEPOS as these systems leave them, made with the real programs."""

from __future__ import annotations

import bz2
import functools
import gzip
import hashlib
import lzma
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

MIB = 1 << 20
PATH = f"{os.environ['PATH']}:/usr/sbin:/sbin"
OWN = {"gzip": gzip.compress, "bzip2": bz2.compress, "xz": lzma.compress, "none": bytes}
SWAP_UUID = "0f5e8c5e-3c5e-4a8e-9a50-5d7d0b8a1c11"


def run(program: str, *arguments: str, stdin: bytes | None = None) -> bytes:
    """Its output. As root a program that is missing is a failure: `make packages` installs all of them."""
    path = shutil.which(program, path=PATH)
    if path is None and os.geteuid() != 0:
        pytest.skip(f"{program} is not on this machine")
    assert path, f"{program} is not installed: make packages"
    return subprocess.run([path, *arguments], input=stdin, capture_output=True, check=True, timeout=120).stdout


def packed(data: bytes, kind: str) -> bytes:
    """``data`` as this compressor stores it."""
    return OWN[kind](data) if kind in OWN else run(kind, "-c", stdin=data)


def empty(path: Path, size: int) -> Path:
    with path.open("wb") as file:
        file.truncate(size)
    return path


@dataclass(frozen=True, slots=True)
class Part:
    """A partition of the sample disk: a file with its file system, and where it lies, in sectors of 512 bytes."""

    number: int
    system: str
    start: int
    raw: Path

    @property
    def size(self) -> int:
        return self.raw.stat().st_size // 512


@dataclass(frozen=True, slots=True)
class Disk:
    """A disk in a file: ``table`` is what sfdisk -d prints of it as /dev/sda."""

    path: Path
    label: str
    parts: tuple[Part, ...]
    table: bytes

    @property
    def size(self) -> int:
        return self.path.stat().st_size


_MAKE = {
    "vfat": ("mkfs.fat", "-F", "16", "-s", "4"), "ext4": ("mkfs.ext4", "-q", "-F", "-b", "4096", "-d"),
    "ntfs": ("mkfs.ntfs", "-q", "-F", "-f"), "swap": ("mkswap", "-q", "-U", SWAP_UUID, "-L", "swap"),
}  # fmt: skip
_TYPES = {"gpt": {"vfat": "U", "ext4": "L", "ntfs": "L", "swap": "S"}, "dos": {"ext4": "83", "ntfs": "7", "swap": "82"}}


def disk(folder: Path, label: str, systems: tuple[str, ...]) -> Disk:
    """A disk with these file systems of 16 MiB each in a row, swap 4 MiB, files in the ext4 one."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "files").mkdir(exist_ok=True)
    for number in range(8):
        (folder / "files" / f"file{number}").write_bytes(hashlib.sha256(bytes([number])).digest() * (4096 * number + 7))
    parts, at = [], 2048
    for number, system in enumerate(systems, 1):
        raw = empty(folder / f"part{number}.raw", (4 if system == "swap" else 16) * MIB)
        command = _MAKE[system]
        run(*command, *([str(folder / "files")] if system == "ext4" else []), str(raw))
        parts.append(Part(number, system, at, raw))
        at += parts[-1].size
    path = empty(folder / "sda", at * 512 + MIB)
    lines = [f"start={part.start}, size={part.size}, type={_TYPES[label][part.system]}" for part in parts]
    run("sfdisk", "-q", str(path), stdin=("\n".join([f"label: {label}", *lines]) + "\n").encode())
    with path.open("r+b") as file:
        file.write(b"\xeb\x63\x90BOOT CODE")
        for part in parts:
            file.seek(part.start * 512)
            file.write(part.raw.read_bytes())
        file.seek(512 * 40 if label == "gpt" else 512)
        file.write(b"GRUB core image" * 100)
    table = run("sfdisk", "-d", str(path)).replace(str(path).encode(), b"/dev/sda")
    return Disk(path, label, tuple(parts), table)


@functools.cache
def saved(part: Part, *options: str) -> bytes:
    """What partclone saves of a partition that does not change."""
    return partclone(part, *options)


def partclone(part: Part, *options: str) -> bytes:
    """What partclone saves of it. It writes down its progress once more at its end, every -f seconds."""
    name = {"vfat": "partclone.vfat"}.get(part.system, f"partclone.{part.system}")
    made = part.raw.with_suffix(".pcl")
    made.unlink(missing_ok=True)
    run(name, "-c", "-q", "-f", "1", *options, "-s", str(part.raw), "-o", str(made), "-L", "/dev/null")
    return made.read_bytes()


def used_equal(part: Part, raw: Path) -> None:
    """Every block that partclone's bitmap says is used is the same in ``raw``."""
    stream = saved(part)
    blocks, size = int.from_bytes(stream[60:68], "little"), int.from_bytes(stream[84:88], "little")
    bitmap = stream[110 : 110 + -(-blocks // 8)]
    used = [block for block in range(blocks) if bitmap[block >> 3] >> (block & 7) & 1]
    assert len(used) >= int.from_bytes(stream[76:84], "little") > 0
    with raw.open("rb") as there, part.raw.open("rb") as here:
        for block in used:
            there.seek(block * size)
            here.seek(block * size)
            assert there.read(size) == here.read(size), f"block {block} differs"


def blocks_equal(part: Part, stream: bytes, folder: Path) -> None:
    """Restores a partclone stream by partclone itself; what is used on the partition is then there, bit for bit."""
    raw = folder / "restored.raw"
    raw.unlink(missing_ok=True)
    empty(raw, part.size * 512)
    run("partclone.restore", "-q", "-f", "1", "-C", "-L", "/dev/null", "-s", "-", "-O", str(raw), stdin=stream)
    used_equal(part, raw)
    if part.system == "ext4":
        run("e2fsck", "-fn", str(raw))


def fog(folder: Path, made: Disk, kind: str, *, split: int = 0) -> Path:
    """d1.partitions, d1.mbr and d1pM.img, or volumes of ``split`` bytes; swap has a line alone."""
    folder.mkdir(parents=True)
    (folder / "d1.partitions").write_bytes(made.table)
    (folder / "d1.minimum.partitions").write_bytes(made.table)
    (folder / "d1.original.fstypes").write_text("".join(f"/dev/sda{p.number} {p.system}\n" for p in made.parts))
    (folder / "d1.fixed_size_partitions").write_text("1\n")
    if made.label == "gpt":
        run("sgdisk", "-b", str(folder / "d1.mbr"), str(made.path))
    else:
        (folder / "d1.mbr").write_bytes(made.path.read_bytes()[: made.parts[0].start * 512])
    swaps = ""
    for part in made.parts:
        if part.system == "swap":
            swaps += f"{part.number} {SWAP_UUID}\n"
            continue
        _volumes(folder / f"d1p{part.number}.img", packed(saved(part), kind), split, "{:03d}".format)
    (folder / "d1.original.swapuuids").write_text(swaps)
    return folder


_SUFFIX = {
    "gzip": ".gz",
    "bzip2": ".bz2",
    "xz": ".xz",
    "lzop": ".lzo",
    "lz4": ".lz4",
    "zstd": ".zst",
    "none": ".uncomp",
}


def clonezilla(folder: Path, made: Disk, kind: str, *, split: int = 1 << 40, raw: tuple[int, ...] = ()) -> Path:
    """What savedisk leaves; partitions of ``raw`` are saved by dd."""
    folder.mkdir(parents=True)
    (folder / "disk").write_text("sda\n")
    (folder / "parts").write_text(" ".join(f"sda{p.number}" for p in made.parts if p.system != "swap") + "\n")
    (folder / "clonezilla-img").write_text("This image was saved by Clonezilla\n")
    (folder / "Info-dmi.txt").write_text("nothing\n")
    (folder / "sda-pt.sf").write_bytes(made.table)
    (folder / "sda-pt.parted").write_text(
        f"Model: ATA TEST (scsi)\nDisk /dev/sda: {made.size // 512}s\nSector size (logical/physical): 512B/512B\n"
        f"Partition Table: {'msdos' if made.label == 'dos' else 'gpt'}\nDisk Flags: \n"
    )
    data = made.path.read_bytes()
    (folder / "sda-mbr").write_bytes(data[:512])
    (folder / "sda-hidden-data-after-mbr").write_bytes(data[512 : made.parts[0].start * 512])
    for part in made.parts:
        if part.system == "swap":
            (folder / f"swappt-sda{part.number}.info").write_text(f'UUID="{SWAP_UUID}"\nLABEL="swap"\n')
            continue
        stream = part.raw.read_bytes() if part.number in raw else saved(part)
        tool = "dd" if part.number in raw else f"{part.system}-ptcl"
        name = f"sda{part.number}.{tool}-img{_SUFFIX[kind]}"
        _volumes(folder / name, packed(stream, kind), split, lambda n: chr(ord("a") + n // 26) + chr(ord("a") + n % 26))
    return folder


def opengnsys(folder: Path, part: Part, kind: str, name: str = "windows10.img") -> Path:
    """An image of a partition with its checksums, as a repository has it; the image's path."""
    folder.mkdir(parents=True, exist_ok=True)
    image = folder / name
    image.write_bytes(packed(saved(part), kind))
    for ending, command in ((".sum", "tail -c1M"), (".full.sum", "cat")):
        script = f'{command} "$1" | md5sum -b | cut -f1 -d" " > "$1{ending}"'
        subprocess.run(["bash", "-c", script, "-", str(image)], check=True)
    return image


def slepos(folder: Path, part: Part, kind: str, name: str = "graphical.i686-3.1.4") -> Path:
    """A system image as kiwi builds it, with its .md5; the image's path."""
    folder.mkdir(parents=True, exist_ok=True)
    data = part.raw.read_bytes()
    stored = packed(data, kind)
    image = folder / (name + {"gzip": ".gz", "xz": ".xz", "none": ""}[kind])
    image.write_bytes(stored)
    line = f"{hashlib.md5(data).hexdigest()} {len(data) // 4096} 4096"
    if kind != "none":
        line += f" {len(stored) // 512 + 1} 512"
    (folder / f"{name}.md5").write_text(line + "\n")
    return image


def _volumes(path: Path, data: bytes, split: int, ending: object) -> None:
    if not split:
        path.write_bytes(data)
        return
    for number, at in enumerate(range(0, len(data), split)):
        path.with_name(f"{path.name}.{ending(number)}").write_bytes(data[at : at + split])  # type: ignore[operator]
