"""The image store on the disk: ``<name>/<version>/{manifest,items}`` below one directory. Blocking; for worker threads.

One rule: nothing is visible before it is complete and durable. Uploads lie in ``.incoming`` and are renamed into place
after fsync; deletions are renamed back there first. Below the root every step goes through a directory descriptor with
O_NOFOLLOW and a checked name, so no path leaves the store.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import secrets
import shutil
import stat
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from io import FileIO
from pathlib import Path
from types import MappingProxyType

from pbserv.errors import StartError
from pbserv.imaging.faults import DamagedImage, ImagingFault, StoreClosed, StoreFault, StoreFull
from pbserv.imaging.manifest import (
    MAX_BYTES,
    RESERVED_ITEM,
    Manifest,
    check_image_name,
    parse,
    print_manifest,
)

INCOMING = ".incoming"
DEFAULT_FREE_FLOOR = 256 * 1024 * 1024

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK  # O_NONBLOCK: a FIFO put there must not block us
CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_VERSION = re.compile(r"[1-9][0-9]{0,8}")
_FULL = (errno.ENOSPC, errno.EDQUOT)


@dataclass(frozen=True, slots=True)
class StoredImage:
    """One committed version of an image; never changes."""

    name: str
    version: int
    created: datetime
    manifest: Manifest

    @property
    def sizes(self) -> Mapping[str, int]:
        """Stored bytes per item name."""
        return MappingProxyType({item.name: item.stored_bytes for item in self.manifest.items})


@dataclass(frozen=True, slots=True)
class Damage:
    """A directory of the store that is not served, and why."""

    path: str
    reason: str


@contextmanager
def filesystem_faults(doing: str) -> Iterator[None]:
    """Turn an OSError into StoreFull or StoreFault that says what was being done."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise StoreFull(f"{doing}: {error.strerror}; make room or delete images") from error
        raise StoreFault(f"{doing}: {error.strerror or error}") from error


class Layout:
    """The directory tree of one store. Holds a lock on it from ``open`` to ``close``."""

    def __init__(self, root: Path, free_floor_bytes: int = DEFAULT_FREE_FLOOR) -> None:
        self.root = root
        self._floor = free_floor_bytes
        self._root_fd = -1
        self._incoming_fd = -1
        self._naming = threading.Lock()  # one change of the visible names at a time

    def open(self) -> None:
        """Make the directories, take the lock, remove what a crash left; raises StartError."""
        try:
            self.root.mkdir(parents=True, exist_ok=True, mode=0o750)
            self._root_fd = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            with suppress(FileExistsError):
                os.mkdir(INCOMING, 0o700, dir_fd=self._root_fd)
            self._incoming_fd = os.open(INCOMING, _DIRECTORY, dir_fd=self._root_fd)
        except OSError as error:
            self.close()
            raise StartError(
                f"image store {self.root}: {error.strerror}; check StateDirectory and its owner"
            ) from error
        try:
            fcntl.flock(self._incoming_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self.close()
            raise StartError(f"image store {self.root}: another process uses it; stop that one first") from error
        try:
            self._remove_leftovers()
        except OSError as error:
            self.close()
            raise StartError(f"image store {self.root}: cannot remove leftovers: {error.strerror}") from error

    def close(self) -> None:
        """Release descriptors and lock. Idempotent."""
        for descriptor in (self._incoming_fd, self._root_fd):
            if descriptor >= 0:
                os.close(descriptor)
        self._incoming_fd = self._root_fd = -1

    def scan(self) -> tuple[list[StoredImage], list[Damage]]:
        """Every committed version, and every directory that only looks like one."""
        images: list[StoredImage] = []
        damages: list[Damage] = []
        for name in sorted(os.listdir(self._root_fd)):
            if name in (INCOMING, "lost+found"):
                continue
            try:
                check_image_name(name)
                with _opened(name, self._root_fd) as image_fd:
                    versions = sorted(os.listdir(image_fd), key=lambda text: (len(text), text))
            except (OSError, ImagingFault) as error:
                damages.append(Damage(name, str(error)))
                continue
            for version in versions:
                try:
                    images.append(self.load(name, version))
                except (OSError, ImagingFault) as error:
                    damages.append(Damage(f"{name}/{version}", str(error)))
        return images, damages

    def load(self, name: str, version: str) -> StoredImage:
        """Read one version and check that every item is there in its full size."""
        if not _VERSION.fullmatch(version):
            raise DamagedImage(f"{version!r} is not the number of a version")
        with _opened(name, self._root_fd) as image_fd, _opened(version, image_fd) as version_fd:
            with _open_file(RESERVED_ITEM, version_fd) as file:
                text = file.read(MAX_BYTES + 1) or b""
                created = datetime.fromtimestamp(os.fstat(file.fileno()).st_mtime, UTC)
            manifest = parse(text.decode("utf-8", "replace"))
            for item in manifest.items:
                facts = os.stat(item.name, dir_fd=version_fd, follow_symlinks=False)
                if not stat.S_ISREG(facts.st_mode) or facts.st_size != item.stored_bytes:
                    raise DamagedImage(f"item {item.name} is not a file of {item.stored_bytes} bytes")
        return StoredImage(name, int(version), created, manifest)

    def open_item(self, image: StoredImage, item: str) -> FileIO:
        """An item's bytes for reading; they stay readable when the image is deleted. Raises DamagedImage."""
        expected = image.sizes[item]
        try:
            with _opened(image.name, self._root_fd) as image_fd, _opened(str(image.version), image_fd) as version_fd:
                file = _open_file(item, version_fd)
        except OSError as error:
            raise DamagedImage(f"image {image.name} version {image.version} item {item}: {error.strerror}") from error
        facts = os.fstat(file.fileno())
        if not stat.S_ISREG(facts.st_mode) or facts.st_size != expected:
            file.close()
            raise DamagedImage(
                f"image {image.name} version {image.version} item {item}: not a file of {expected} bytes any more"
            )
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_SEQUENTIAL)
        return file

    def check_space(self, needed_bytes: int = 0) -> None:
        """Raise StoreFull when ``needed_bytes`` more would leave less than the floor free."""
        if self._root_fd < 0:
            raise StoreClosed("the image store is not running")
        facts = os.fstatvfs(self._root_fd)
        free = facts.f_bavail * facts.f_frsize
        if free - needed_bytes < self._floor:
            raise StoreFull(
                f"the image store has {_mib(free)} MiB free; {_mib(needed_bytes)} MiB more would leave less than the "
                f"{_mib(self._floor)} MiB that stay free; make room or delete images"
            )

    def make_incoming(self, image: str) -> tuple[str, int]:
        """A new directory for an upload: its name and a descriptor that the caller closes."""
        with filesystem_faults(f"image {image}: making its upload directory"):
            name = f"{image}.{secrets.token_hex(8)}"
            os.mkdir(name, 0o700, dir_fd=self._incoming_fd)
            return name, os.open(name, _DIRECTORY, dir_fd=self._incoming_fd)

    def remove_incoming(self, name: str) -> None:
        """Remove an upload directory with all its files; one that is gone already is fine."""
        with suppress(FileNotFoundError), filesystem_faults(f"removing {INCOMING}/{name}"):
            _remove(name, self._incoming_fd)

    def publish(self, incoming: str, incoming_fd: int, image: str, manifest: Manifest) -> StoredImage:
        """Make an upload durable and visible as the image's next version; the items are on the disk already."""
        with filesystem_faults(f"image {image}: writing its manifest"):
            _write_durably(RESERVED_ITEM, print_manifest(manifest).encode(), incoming_fd)
            os.fchmod(incoming_fd, 0o750)
            os.fsync(incoming_fd)
            created = os.stat(RESERVED_ITEM, dir_fd=incoming_fd).st_mtime
        with self._naming, filesystem_faults(f"image {image}: renaming it into place"):
            version = self._place(incoming, image)
        return StoredImage(image, version, datetime.fromtimestamp(created, UTC), manifest)

    def delete(self, image: str) -> None:
        """Make an image with all its versions invisible at once, then remove it. Raises FileNotFoundError."""
        check_image_name(image)
        trash = f".deleted.{image}.{secrets.token_hex(8)}"
        with self._naming:
            os.rename(image, trash, src_dir_fd=self._root_fd, dst_dir_fd=self._incoming_fd)
            os.fsync(self._root_fd)
        self.remove_incoming(trash)

    def _place(self, incoming: str, image: str) -> int:
        with suppress(FileExistsError):
            os.mkdir(image, 0o750, dir_fd=self._root_fd)
        try:
            with _opened(image, self._root_fd) as image_fd:
                numbers = [int(name) for name in os.listdir(image_fd) if _VERSION.fullmatch(name)]
                version = max(numbers, default=0) + 1
                os.rename(incoming, str(version), src_dir_fd=self._incoming_fd, dst_dir_fd=image_fd)
                try:
                    os.fsync(image_fd)
                    os.fsync(self._root_fd)
                    os.fsync(self._incoming_fd)
                except OSError:  # not durable, so not there
                    os.rename(str(version), incoming, src_dir_fd=image_fd, dst_dir_fd=self._incoming_fd)
                    raise
        except OSError:
            with suppress(OSError):  # a directory that has other versions stays
                os.rmdir(image, dir_fd=self._root_fd)
            raise
        return version

    def _remove_leftovers(self) -> None:
        for name in os.listdir(self._incoming_fd):
            _remove(name, self._incoming_fd)
        for name in os.listdir(self._root_fd):
            if name != INCOMING:
                with suppress(OSError):  # only an empty directory goes: a crash between mkdir and rename left it
                    os.rmdir(name, dir_fd=self._root_fd)


@contextmanager
def _opened(name: str, parent_fd: int) -> Iterator[int]:
    descriptor = os.open(name, _DIRECTORY, dir_fd=parent_fd)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _open_file(name: str, parent_fd: int) -> FileIO:
    return FileIO(os.open(name, _READ, dir_fd=parent_fd), "rb")


def _remove(name: str, parent_fd: int) -> None:
    if stat.S_ISDIR(os.stat(name, dir_fd=parent_fd, follow_symlinks=False).st_mode):
        shutil.rmtree(name, dir_fd=parent_fd)
    else:
        os.unlink(name, dir_fd=parent_fd)


def _write_durably(name: str, data: bytes, parent_fd: int) -> None:
    with suppress(FileNotFoundError):  # of a commit that failed half-way
        os.unlink(name, dir_fd=parent_fd)
    with FileIO(os.open(name, CREATE, 0o640, dir_fd=parent_fd), "wb") as file:
        view = memoryview(data)
        while view:
            view = view[file.write(view) :]
        os.fsync(file.fileno())


def _mib(size_bytes: int) -> int:
    return size_bytes // (1024 * 1024)
