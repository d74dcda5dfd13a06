"""A real root file system before and after a real upgrade of its packages, as partclone captures it (root, network).

One rule: the upgrade is done in place, in the mounted file system, by apt, so that blocks are taken and given back as
on a device in use.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pbserv.imaging.frames.head import HeadReader, PartcloneHead

MIRROR = "http://deb.debian.org/debian"
SECURITY = "http://deb.debian.org/debian-security"
SUITE = "bookworm"
INCLUDE = (
    "linux-image-amd64,openssl,python3,perl,openssh-server,curl,vim,git,ca-certificates,systemd-sysv,locales,bind9-host,"
    "gnupg,binutils,samba-libs,libglib2.0-0,krb5-user,gcc,poppler-utils,imagemagick,cups,network-manager"
)
KERNEL = "linux-image-amd64"
STEPS = ("packages", "kernel too")
"""First everything but the kernel: scattered files are replaced. A new kernel is one large area beside the old one."""
SIZE_BYTES = 6 << 30
AGED_BYTES = 4 << 30
AGED = "ext4-aged"
"""ext4 that was filled to the last block with small files, half of which went again: an upgrade lands in the holes."""
FEW = "ext4-few"
FEW_PACKAGES = ("openssl", "libssl3", "tzdata", "ca-certificates")
"""The small daily upgrade; the lists of packages are fetched before the first capture."""
MAKE = {
    FEW: ("mkfs.ext4", "-q", "-F"),
    AGED: ("mkfs.ext4", "-q", "-F"),
    "ext4": ("mkfs.ext4", "-q", "-F"),
    "xfs": ("mkfs.xfs", "-q", "-f"),
    "btrfs": ("mkfs.btrfs", "-q", "-f"),
}
_UNIT = 4096
_PRIVATE = "PBSERV_BENCH_PRIVATE_MOUNTS"
_NICE = ("nice", "-n", "10")


@dataclass(frozen=True)
class Capture:
    """One version: the stream as ``partclone -a 0`` writes it, and where its parts are."""

    path: Path
    head: PartcloneHead
    bitmap: bytes

    def blocks(self) -> Iterator[tuple[int, bytes]]:
        """(number, bytes) of every used block."""
        with self.path.open("rb") as file:
            file.seek(self.head.head_bytes)
            for place, byte in enumerate(self.bitmap):
                for bit in range(8):
                    if byte >> bit & 1:
                        yield place * 8 + bit, file.read(self.head.block_bytes)


@dataclass(frozen=True)
class Upgrade:
    """Before and after; ``packages`` are lines "name old new" of what apt changed. ``step`` is one of STEPS."""

    file_system: str
    step: str
    old: Capture
    new: Capture
    packages: tuple[str, ...]


def private_mounts() -> None:
    """Start this program again with mounts of its own: who copies ours keeps a file system mounted that we capture."""
    if os.environ.get(_PRIVATE) != "yes":
        os.environ[_PRIVATE] = "yes"
        os.execvp("unshare", ["unshare", "--mount", sys.executable, *sys.orig_argv[1:]])


def upgraded(folder: Path, file_system: str) -> list[Upgrade]:
    """Make the versions below ``folder``, or take those that are there: the first against each later one."""
    folder.mkdir(parents=True, exist_ok=True)
    steps = {AGED: STEPS[:1], FEW: ("four packages",)}.get(file_system, STEPS)  # AGED: no room for a second kernel
    streams = [folder / f"{file_system}.{number}" for number in range(len(steps) + 1)]
    said = folder / f"{file_system}.packages.json"
    if not said.exists():
        said.write_text(json.dumps(_make(folder, file_system, steps, streams)))
    packages = json.loads(said.read_text())
    old = capture(streams[0])
    return [
        Upgrade(file_system, step, old, capture(stream), tuple(packages[step]))
        for step, stream in zip(steps, streams[1:], strict=True)
    ]


def capture(path: Path) -> Capture:
    """Read the head of a stream."""
    kept = bytearray()
    reader = HeadReader(kept.extend)
    with path.open("rb") as file:
        while not reader.complete:
            reader.feed(file.read(1 << 20))
    assert reader.head is not None
    return Capture(path, reader.head, bytes(kept[110:-4]))


def changed_bytes(upgrade: Upgrade) -> int:
    """Bytes of the used 4 KiB blocks of the new version that were not used before, or had other bytes."""
    sums = {at: hash(piece) for at, piece in _pieces(upgrade.old)}
    return sum(len(piece) for at, piece in _pieces(upgrade.new) if sums.get(at) != hash(piece))


def _pieces(capture: Capture) -> Iterator[tuple[int, bytes]]:
    """(address, bytes) of used blocks, in 4 KiB where the file system's are larger, as those of btrfs are."""
    size = capture.head.block_bytes
    for number, block in capture.blocks():
        for at in range(0, size, _UNIT):
            yield number * size + at, block[at : at + _UNIT]


def _make(folder: Path, file_system: str, steps: Sequence[str], streams: Sequence[Path]) -> dict[str, list[str]]:
    tree, part = folder / "before.tar", folder / "part.tar"
    if not tree.exists():
        _run(
            *_NICE, "mmdebstrap", "--variant=minbase", f"--include={INCLUDE}", "--quiet", SUITE, str(part),
            f"deb {MIRROR} {SUITE} main",
        )  # fmt: skip
        part.rename(tree)
    disk, root = folder / f"{file_system}.disk", folder / f"{file_system}.root"
    disk.unlink(missing_ok=True)
    root.mkdir(exist_ok=True)
    with disk.open("wb") as file:
        file.truncate(AGED_BYTES if file_system == AGED else SIZE_BYTES)
    with _attached(disk) as device:
        _run(*MAKE[file_system], device)
        with _mounted(device, root):
            _run("tar", "-xpf", str(tree), "-C", str(root), "--numeric-owner")
            before = _packages(root)
            if file_system == AGED:
                _age(root / "srv")
            if file_system == FEW:
                _upgrade(root, "")
        _capture(device, file_system, streams[0])
        changed = {}
        for step, stream in zip(steps, streams[1:], strict=True):
            with _mounted(device, root):
                _upgrade(root, step)
                changed[step] = _differences(before, _packages(root))
            _capture(device, file_system, stream)
    disk.unlink()
    return changed


def _age(folder: Path) -> None:
    """Files of 4 to 32 KiB until nothing is free, the blocks kept for root neither; half of them stays."""
    choice = random.Random(1)
    written = list[Path]()
    with contextlib.suppress(OSError):  # the disk is full
        while True:
            path = folder / str(len(written) % 64) / str(len(written))
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(choice.randbytes(choice.randrange(1, 9) * 2048) * 2)
            written.append(path)
    for path in written:
        if choice.random() < 1 / 2:
            path.unlink()


def _upgrade(root: Path, step: str) -> None:
    (root / "etc/apt/sources.list").write_text(
        f"deb {MIRROR} {SUITE} main\ndeb {MIRROR} {SUITE}-updates main\ndeb {SECURITY} {SUITE}-security main\n"
    )
    (root / "usr/sbin/policy-rc.d").write_text("#!/bin/sh\nexit 101\n")
    (root / "usr/sbin/policy-rc.d").chmod(0o755)
    shutil.copy("/etc/resolv.conf", root / "etc/resolv.conf")
    with contextlib.ExitStack() as mounts:
        for kind, place in (("proc", "proc"), ("sysfs", "sys"), ("devtmpfs", "dev")):
            _run("mount", "-t", kind, kind, str(root / place))
            mounts.callback(_run, "umount", str(root / place))
        inside = (*_NICE, "chroot", str(root))
        apt = (*inside, "env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-q")
        _run(*inside, "apt-mark", "unhold" if step == STEPS[1] else "hold", KERNEL)
        _run(*apt, "update")
        if step in STEPS:
            _run(*apt, "-y", "-o", "Dpkg::Options::=--force-confold", "dist-upgrade")
        elif step:
            _run(*apt, "-y", "install", "--only-upgrade", *FEW_PACKAGES)
        _run(*apt, "clean")


def _differences(before: Mapping[str, str], after: Mapping[str, str]) -> list[str]:
    lines = (f"{name} {before.get(name, '-')} {version}" for name, version in after.items())
    return [line for line in lines if len(set(line.split()[1:])) == 2]


def _packages(root: Path) -> dict[str, str]:
    found = _run("chroot", str(root), "dpkg-query", "-W", "-f", "${Package} ${Version}\n")
    return dict(line.split(" ", 1) for line in found.splitlines())


@contextlib.contextmanager
def _attached(disk: Path) -> Iterator[str]:
    """One device for mounting and capturing: another one could be read before the first is written."""
    device = _run("losetup", "--find", "--show", str(disk)).strip()
    try:
        yield device
    finally:
        _run("losetup", "--detach", device)


@contextlib.contextmanager
def _mounted(device: str, root: Path) -> Iterator[None]:
    _run("mount", device, str(root))
    try:
        yield
    finally:
        _run("umount", str(root))
        _run("blockdev", "--flushbufs", device)


def _capture(device: str, file_system: str, to: Path) -> None:
    tool = "partclone." + file_system.partition("-")[0]
    _run(*_NICE, tool, "-q", "-c", "-a", "0", "-L", "/dev/null", "-s", device, "-O", str(to))


def _run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        print(done.stdout[-2000:], done.stderr[-2000:], file=sys.stderr)
        raise SystemExit(f"{' '.join(command)} failed")
    return done.stdout
