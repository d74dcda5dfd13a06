"""Guest disks: a partition table, a boot loader, a Debian kernel and a file system full of real files.

The system on such a disk announces itself on the serial line, checks its files and powers off. Everything is made from
Debian packages without mounting anything; reading back mounts read-only in a mount namespace of its own.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import shutil
import stat
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tests.support.netns import run

MIB = 1 << 20
Firmware = Literal["bios", "uefi"]

DISK_BYTES = 512 * MIB
_SECTOR = 512
_KERNEL_META = "linux-image-cloud-amd64"
_MODULES = ("virtio_ring", "virtio", "virtio_pci_modern_dev", "virtio_pci_legacy_dev", "virtio_pci", "virtio_blk")
_GRUB_MODULES = ("normal", "linux", "configfile", "search", "search_fs_uuid", "serial", "terminal", "ext2", "echo")
_SOURCES = (Path("/usr/share/zoneinfo"), Path("/usr/share/perl"), Path("/usr/lib/python3"), Path("/usr/share/doc"))

_INITRAMFS_INIT = """#!/bin/busybox sh
B=/bin/busybox
$B mkdir -p /proc /sys /dev /root
$B mount -t proc proc /proc; $B mount -t sysfs sys /sys; $B mount -t devtmpfs dev /dev
for module in /modules/*; do $B insmod $module; done
for word in $($B cat /proc/cmdline); do case $word in guest.root=*) uuid=${word#guest.root=};; esac; done
tries=0
while :; do
  device=$($B findfs UUID=$uuid 2>/dev/null) && break
  tries=$((tries+1)); [ $tries -gt 100 ] && { echo "PBSERV-GUEST FAILED no root $uuid"; $B poweroff -f; }
  $B usleep 100000
done
$B mount -t ext4 $device /root || { echo "PBSERV-GUEST FAILED mount $device"; $B poweroff -f; }
exec $B switch_root /root /sbin/init $device $uuid
"""

_SYSTEM_INIT = """#!/bin/sh
export PATH=/bin
mount -t proc proc /proc
marker=$(cat /etc/guest-marker)
echo "PBSERV-GUEST $marker BOOTED root=$2"
if sha256sum -c -s /etc/manifest.sha256; then
  echo "PBSERV-GUEST $marker FILES $(sha256sum < /etc/manifest.sha256 | cut -c1-64)"
else
  echo "PBSERV-GUEST FAILED files of $marker are damaged"
fi
echo booted >> /var/log/boots
sync
mount -o remount,ro /
echo "PBSERV-GUEST $marker BYE"
poweroff -f
"""

_GRUB_CFG = """serial --unit=0 --speed=115200
terminal_output serial
search --no-floppy --fs-uuid --set=root {root}
echo GRUB of {marker}
linux /boot/vmlinuz console=ttyS0,115200 quiet loglevel=3 panic=-1 guest.root={root}
initrd /boot/initrd.img
boot
"""


@dataclass(frozen=True)
class GuestDisk:
    """What was put on a disk, to compare with later."""

    path: Path
    firmware: Firmware
    marker: str
    root_uuid: str
    swap_uuid: str
    files: int
    manifest_sha256: str

    @property
    def announcement(self) -> str:
        """The line that the system prints on its serial console when it runs."""
        return f"PBSERV-GUEST {self.marker} BOOTED root={self.root_uuid}"

    @property
    def files_line(self) -> str:
        """The line that says that every file of the manifest had its hash."""
        return f"PBSERV-GUEST {self.marker} FILES {self.manifest_sha256}"

    @property
    def farewell(self) -> str:
        """The last line before the system powers off."""
        return f"PBSERV-GUEST {self.marker} BYE"


@dataclass(frozen=True)
class Parts:
    """Kernel, initramfs and the static shell, from Debian packages."""

    kernel: Path
    initramfs: Path
    busybox: Path


def guest_parts(cache: Path) -> Parts:
    """Download and unpack the packages once; ``cache`` keeps them for later runs."""
    cache.mkdir(parents=True, exist_ok=True)
    made = Parts(cache / "vmlinuz", cache / "initrd.img", cache / "busybox")
    stamp = cache / "stamp"
    recipe = hashlib.sha256(repr((_KERNEL_META, _MODULES, _INITRAMFS_INIT)).encode()).hexdigest()
    if stamp.exists() and stamp.read_text() == recipe:
        return made
    tree = cache / "tree"
    shutil.rmtree(tree, ignore_errors=True)
    tree.mkdir()
    _unpack_packages((_real_kernel(), "busybox-static"), tree)
    shutil.copyfile(next((tree / "boot").glob("vmlinuz-*")), made.kernel)
    shutil.copyfile(tree / "bin/busybox", made.busybox)
    made.busybox.chmod(0o755)
    made.initramfs.write_bytes(_initramfs(tree, made.busybox))
    shutil.rmtree(tree)
    stamp.write_text(recipe)
    return made


def build_disk(path: Path, firmware: Firmware, marker: str, parts: Parts) -> GuestDisk:
    """Make a bootable disk of ``DISK_BYTES`` bytes at ``path`` and return what stands on it."""
    tree = path.with_suffix(".tree")
    shutil.rmtree(tree, ignore_errors=True)
    root_uuid, swap_uuid = str(uuid.uuid4()), str(uuid.uuid4())
    files = _fill_tree(tree, marker, parts)
    manifest = (tree / "etc/manifest.sha256").read_bytes()
    (tree / "boot/grub").mkdir(parents=True)
    (tree / "boot/grub/grub.cfg").write_text(_GRUB_CFG.format(root=root_uuid, marker=marker))
    blank_disk(path)
    layout = _LAYOUTS[firmware]
    subprocess.run(["sfdisk", "--quiet", str(path)], input=layout, text=True, check=True)
    table = partitions(path)
    root, swap = root_partition(path), table[-1]
    run("mke2fs", "-q", "-F", "-t", "ext4", "-L", "guestroot", "-U", root_uuid, "-d", tree,
        "-E", f"offset={root.start_bytes},root_owner=0:0", path, f"{root.size_bytes // 1024}k")  # fmt: skip
    _write_swap(path, swap, swap_uuid)
    if firmware == "bios":
        _install_bios_loader(path)
        _fill_data(path, table[1], tree / "srv/files")
    else:
        _install_efi_loader(path, table[0], root_uuid)
    shutil.rmtree(tree)
    digest = hashlib.sha256(manifest).hexdigest()
    return GuestDisk(path, firmware, marker, root_uuid, swap_uuid, files, digest)


def blank_disk(path: Path, size_bytes: int = DISK_BYTES) -> Path:
    """An empty sparse disk."""
    path.unlink(missing_ok=True)
    with path.open("wb") as disk:
        disk.truncate(size_bytes)
    return path


@dataclass(frozen=True)
class Partition:
    """One line of the partition table."""

    number: int
    start_bytes: int
    size_bytes: int
    kind: str


def partitions(disk: Path) -> list[Partition]:
    """The partition table as sfdisk reads it; raises RoomError when there is none."""
    table = json.loads(run("sfdisk", "--json", disk))["partitiontable"]
    unit = int(table.get("sectorsize", _SECTOR))
    return [
        Partition(number, entry["start"] * unit, entry["size"] * unit, entry["type"])
        for number, entry in enumerate(table.get("partitions", []), start=1)
    ]


def table_text(disk: Path) -> str:
    """The partition table: two equal disks have equal texts.

    Without the name of the image file and the last usable sector, which belongs to the disk and not to the image.
    """
    lines = run("sfdisk", "--dump", disk).replace(str(disk), "disk").splitlines()
    return "\n".join(line for line in lines if not line.startswith("last-lba:"))


def root_partition(disk: Path) -> Partition:
    """The partition with the guest's ext4 file system: the first that is no EFI system partition."""
    return next(part for part in partitions(disk) if not part.kind.upper().startswith("C12A7328"))


def check_ext4(disk: Path) -> str:
    """Run a full read-only check of the guest's root file system; raises RoomError unless it is clean."""
    with _extracted(disk, root_partition(disk)) as part:
        return run("e2fsck", "-f", "-n", part)


def swap_uuid_of(disk: Path) -> str:
    """UUID of the swap area in the last partition, as blkid reads it."""
    part = partitions(disk)[-1]
    return run("blkid", "-p", "-O", str(part.start_bytes), "-S", str(part.size_bytes), "-o", "value", "-s", "UUID",
               disk).strip()  # fmt: skip


def file_system(disk: Path, part: Partition) -> str:
    """What blkid finds in a partition: ext4, vfat, swap ..."""
    return run("blkid", "-p", "-O", str(part.start_bytes), "-S", str(part.size_bytes), "-o", "value", "-s", "TYPE",
               disk).strip()  # fmt: skip


def fat_listing(disk: Path, part: Partition) -> dict[str, str]:
    """Every file of a FAT file system with its sha256, after a check that finds nothing to repair."""
    with _extracted(disk, part) as image, tempfile.TemporaryDirectory() as scratch:
        run("fsck.vfat", "-n", image)
        run("mcopy", "-s", "-m", "-n", "-i", image, "::/*", scratch)
        files = [path for path in Path(scratch).rglob("*") if path.is_file()]
        return {str(path.relative_to(scratch)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def listing(disk: Path, part: Partition) -> dict[str, str]:
    """Every path of an ext4 with its type, mode, owner, size, time, link target and, for files, its sha256."""
    script = """
set -eu
mount -t ext4 -o ro,loop,offset="$2",sizelimit="$3" "$1" /mnt
cd /mnt
find . -path ./lost+found -prune -o -printf '%p\\t%y %m %U:%G %s %T@ %l\\n'
echo ---
find . -type f -print0 | sort -z | xargs -0 -r sha256sum
"""
    # The mount lives in the namespace of this one shell and dies with it.
    text = run("unshare", "--mount", "sh", "-c", script, "sh", disk, str(part.start_bytes), str(part.size_bytes))
    facts, sums = text.split("---\n", 1)
    found = dict(line.split("\t", 1) for line in facts.splitlines())
    for name, words in found.items():
        if words.startswith("d "):  # the size of a directory is the file system's own affair
            kind, mode, owner, _size, *rest = words.split(" ")
            found[name] = " ".join([kind, mode, owner, "-", *rest])
    for line in sums.splitlines():
        digest, name = line.split("  ", 1)
        found[name] += f" {digest}"
    return found


class _extracted:
    """A partition as a sparse file beside the disk, for tools that want a whole file."""

    def __init__(self, disk: Path, part: Partition) -> None:
        self._disk, self._part = disk, part
        self._copy = disk.with_suffix(f".part{part.number}")

    def __enter__(self) -> Path:
        run("dd", f"if={self._disk}", f"of={self._copy}", "bs=1M", "conv=sparse", "iflag=skip_bytes,count_bytes",
            f"skip={self._part.start_bytes}", f"count={self._part.size_bytes}", "status=none")  # fmt: skip
        with self._copy.open("r+b") as copy:
            copy.truncate(self._part.size_bytes)
        return self._copy

    def __exit__(self, *_: object) -> None:
        self._copy.unlink(missing_ok=True)


_LAYOUTS = {
    "bios": "label: dos\nstart=1MiB, size=380MiB, type=83, bootable\nsize=40MiB, type=c\nsize=32MiB, type=82\n",
    "uefi": "label: gpt\nstart=1MiB, size=40MiB, type=U, name=esp\nsize=380MiB, type=L, name=root\n"
    "size=32MiB, type=S, name=swap\n",
}


def _real_kernel() -> str:
    """The package that the metapackage stands for today."""
    for line in run("apt-cache", "depends", _KERNEL_META).splitlines():
        if "Depends: linux-image-" in line:
            return line.split()[-1]
    raise RuntimeError(f"{_KERNEL_META} is not in the package lists; run apt-get update")


def _unpack_packages(names: tuple[str, ...], tree: Path) -> None:
    subprocess.run(["apt-get", "download", "-q", *names], cwd=tree, check=True, capture_output=True, timeout=300)
    for package in sorted(tree.glob("*.deb")):
        run("dpkg", "-x", package, tree)


def _initramfs(tree: Path, busybox: Path) -> bytes:
    staged = tree / "initramfs"
    for name in ("bin", "modules", "proc", "sys", "dev", "root"):
        (staged / name).mkdir(parents=True)
    shutil.copy2(busybox, staged / "bin/busybox")
    for rank, module in enumerate(_MODULES):
        source = next(tree.rglob(f"{module}.ko"))
        shutil.copyfile(source, staged / "modules" / f"{rank}-{module}.ko")
    (staged / "init").write_text(_INITRAMFS_INIT)
    (staged / "init").chmod(0o755)
    return packed(staged)


def packed(tree: Path) -> bytes:
    """A compressed initramfs of everything below ``tree``."""
    names = "\n".join(sorted(str(found.relative_to(tree)) for found in tree.rglob("*")))
    archive = subprocess.run(
        ["cpio", "--quiet", "--create", "--format=newc", "--owner=0:0"],
        input=names.encode(), cwd=tree, check=True, capture_output=True,
    )  # fmt: skip
    return gzip.compress(archive.stdout, 6)


def _fill_tree(tree: Path, marker: str, parts: Parts) -> int:
    for name in ("bin", "sbin", "etc", "proc", "sys", "dev", "root", "boot", "var/log", "srv/files"):
        (tree / name).mkdir(parents=True)
    shutil.copyfile(parts.kernel, tree / "boot/vmlinuz")
    shutil.copyfile(parts.initramfs, tree / "boot/initrd.img")
    shutil.copy2(parts.busybox, tree / "bin/busybox")
    for applet in ("sh", "cat", "mount", "sha256sum", "cut", "sync", "poweroff"):
        (tree / "bin" / applet).symlink_to("busybox")
    (tree / "sbin/init").write_text(_SYSTEM_INIT)
    (tree / "sbin/init").chmod(0o755)
    (tree / "etc/guest-marker").write_text(marker + "\n")
    _copy_real_files(tree / "srv/files")
    _make_odd_files(tree / "srv")
    hashed = [path for path in sorted(tree.rglob("*")) if path.is_file() and not path.is_symlink()]
    lines = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  /{path.relative_to(tree)}" for path in hashed]
    (tree / "etc/manifest.sha256").write_text("\n".join(lines) + "\n")
    return len(lines)


def _real_files() -> Iterator[Path]:
    for source in _SOURCES:
        for path in sorted(source.rglob("*")):
            mode = path.lstat().st_mode
            if stat.S_ISREG(mode) and 0 < path.lstat().st_size < 400_000 and path.suffix != ".pyc":
                yield path


def _copy_real_files(target: Path, most_files: int = 600, most_bytes: int = 20 * MIB) -> None:
    total = 0
    for number, path in enumerate(_real_files()):
        if number >= most_files or total >= most_bytes:
            break
        copy = target / f"d{number % 23:02d}" / path.name
        copy.parent.mkdir(exist_ok=True)
        shutil.copy2(path, copy)
        total += path.stat().st_size


def _make_odd_files(target: Path) -> None:
    """What a careless copy gets wrong: holes, hard links, odd names, modes, random bytes that do not compress."""
    (target / "random.bin").write_bytes(os.urandom(8 * MIB))
    (target / "a name with spaces and ünïcode").write_text("kept\n")
    (target / "empty").touch()
    with (target / "holes").open("wb") as sparse:
        sparse.truncate(16 * MIB)
        sparse.seek(5 * MIB)
        sparse.write(b"in the middle")
    os.link(target / "random.bin", target / "the-same-file")
    (target / "private").write_text("0600\n")
    (target / "private").chmod(0o600)
    (target / "setuid").write_text("04755\n")
    (target / "setuid").chmod(0o4755)
    os.chown(target / "private", 1000, 100)


def _write_swap(disk: Path, part: Partition, swap_uuid: str) -> None:
    area = disk.with_suffix(".swap")
    blank_disk(area, part.size_bytes)
    area.chmod(0o600)
    run("mkswap", "-q", "-U", swap_uuid, "-L", "guestswap", area)
    _place(disk, part.start_bytes, area)
    area.unlink()


def _install_bios_loader(disk: Path) -> None:
    """GRUB's boot.img into the first sector, its core.img behind it, as grub-bios-setup embeds them."""
    directory = Path("/usr/lib/grub/i386-pc")
    core = disk.with_suffix(".core")
    run("grub-mkimage", "-O", "i386-pc", "-d", directory, "-o", core, "-p", "(hd0,msdos1)/boot/grub",
        "biosdisk", "part_msdos", *_GRUB_MODULES)  # fmt: skip
    boot = (directory / "boot.img").read_bytes()
    if core.stat().st_size > MIB - _SECTOR:
        raise RuntimeError("core.img does not fit between the partition table and the first partition")
    with disk.open("r+b") as target:
        target.write(boot[:440])  # the disk signature and the partition table begin at byte 440
    _place(disk, _SECTOR, core)
    core.unlink()


def _fill_data(disk: Path, part: Partition, files: Path) -> None:
    """A second file system beside the root: FAT16 with some of the root's files."""
    data = disk.with_suffix(".data")
    blank_disk(data, part.size_bytes)
    run("mkfs.vfat", "-F", "16", "-n", "DATA", data)
    run("mcopy", "-s", "-i", data, *sorted(files.iterdir())[:6], "::/")
    _place(disk, part.start_bytes, data)
    data.unlink()


def _install_efi_loader(disk: Path, part: Partition, root_uuid: str) -> None:
    """An EFI system partition with GRUB at the path that every firmware tries: EFI/BOOT/BOOTX64.EFI."""
    early, loader, esp = (disk.with_suffix(suffix) for suffix in (".early.cfg", ".efi", ".esp"))
    find_root = f"search --no-floppy --fs-uuid --set=root {root_uuid}"
    early.write_text(f"{find_root}\nset prefix=($root)/boot/grub\nconfigfile $prefix/grub.cfg\n")
    run("grub-mkimage", "-O", "x86_64-efi", "-o", loader, "-p", "/boot/grub", "-c", early,
        "part_gpt", "fat", *_GRUB_MODULES)  # fmt: skip
    blank_disk(esp, part.size_bytes)
    run("mkfs.vfat", "-F", "32", "-n", "ESP", esp)
    for directory in ("::/EFI", "::/EFI/BOOT"):
        run("mmd", "-i", esp, directory)
    run("mcopy", "-i", esp, loader, "::/EFI/BOOT/BOOTX64.EFI")
    _place(disk, part.start_bytes, esp)
    for scratch in (early, loader, esp):
        scratch.unlink()


def _place(disk: Path, offset_bytes: int, content: Path) -> None:
    run("dd", f"if={content}", f"of={disk}", "bs=1M", f"seek={offset_bytes}", "oflag=seek_bytes", "conv=notrunc,sparse",
        "status=none")  # fmt: skip
