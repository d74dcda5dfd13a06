"""The image store on the disk: ``<name>/<version>/{manifest,facts,items}`` and ``<name>/about`` below one directory.

Blocking; for worker threads. One rule: nothing is visible before it is complete and durable. Uploads lie in
``.incoming`` and are renamed into place after fsync; deletions are renamed back there first. Below the root every step
goes through a directory descriptor with O_NOFOLLOW and a checked name, so no path leaves the store.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import stat
import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from io import FileIO
from pathlib import Path

from pbserv.errors import StartError
from pbserv.imaging import about as about_file
from pbserv.imaging import session_file, version_facts
from pbserv.imaging.about import MAX_ABOUT_BYTES, About
from pbserv.imaging.changes import completed
from pbserv.imaging.durable import (
    DIRECTORY,
    files_of,
    filesystem_faults,
    newest,
    open_file,
    opened_directory,
    remove_entry,
    remove_links,
    replace_durably,
    write_durably,
)
from pbserv.imaging.faults import DamagedImage, ImageExists, ImagingFault, StoreFault, UnknownImage
from pbserv.imaging.folders import ABOUT_FILE, ABOUT_NEW, INCOMING, VERSION, foreign, incoming_name, numeric
from pbserv.imaging.manifest import (
    FACTS_FILE,
    INDEX_SUFFIX,
    MAX_STORED_BYTES,
    RESERVED_ITEM,
    Manifest,
    check_image_name,
    parse,
    print_manifest,
)
from pbserv.imaging.reconcile import Found
from pbserv.imaging.session_file import MAX_SESSION_BYTES, SESSION_FILE, SessionFacts
from pbserv.imaging.states import VersionState
from pbserv.imaging.store_file import STORE_FILE, identify
from pbserv.imaging.store_rules import DEFAULT_FREE_FLOOR
from pbserv.imaging.stored import Damage, Scan, StoredImage
from pbserv.imaging.sum_files import half_made
from pbserv.imaging.usage import Usage
from pbserv.imaging.version_facts import MAX_FACTS_BYTES, VersionFacts

__all__ = ["Damage", "Layout", "Scan", "StoredImage", "incoming_name"]

Check = Callable[[About, bool], None]
"""Gets what is said of an image just before some of it is removed, and whether all of it goes; refuses by raising."""

_TRASH = ".deleted."
_NO_FILE = (FileNotFoundError, NotADirectoryError, IsADirectoryError)
_WORKING = (".state", ".state.new", ".head", ".parts")
"""Ends of the names of files that ``frames.intake`` has beside an item while it arrives."""


class Layout:
    """The directory tree of one store. Holds a lock on it from ``open`` to ``close``.

    ``abouts`` is what is said of every image, as it stands on the disk; it may be read from any thread, and
    :meth:`change_about` alone changes it.
    """

    def __init__(
        self,
        root: Path,
        free_floor_bytes: int = DEFAULT_FREE_FLOOR,
        *,
        name: str = "main",
        nested: Collection[str] = (),
    ) -> None:
        self.root = root
        self.name = name
        self.number = ""
        self.usage = Usage(name, free_floor_bytes, lambda: self._root_fd)
        self.abouts: dict[str, About] = {}
        self.foreign: tuple[str, ...] = ()  # folders that scan passed over: nothing in them is of an image
        self._nested = frozenset(nested)
        self.at_work: set[str] = set()  # the names in ``.incoming`` that this process has made and not yet removed
        self._root_fd = -1
        self._incoming_fd = -1
        self._naming = threading.Lock()  # one change of the visible names at a time

    def open(self) -> None:
        """Make the directories, take the lock; raises StartError. ``remove_leftovers`` is the caller's next step."""
        try:
            self.root.mkdir(parents=True, exist_ok=True, mode=0o750)
            self._root_fd = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            with suppress(FileExistsError):
                os.mkdir(INCOMING, 0o700, dir_fd=self._root_fd)
            self._incoming_fd = os.open(INCOMING, DIRECTORY, dir_fd=self._root_fd)
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
            self.number = identify(self._root_fd, self.name)
        except (OSError, ImagingFault) as error:
            self.close()
            raise StartError(f"image store {self.root}: {STORE_FILE}: {error}") from error

    def close(self) -> None:
        """Release descriptors and lock. Idempotent."""
        for descriptor in (self._incoming_fd, self._root_fd):
            if descriptor >= 0:
                os.close(descriptor)
        self._incoming_fd = self._root_fd = -1

    def scan(self, missing: VersionState = VersionState.ENABLED) -> Scan:
        """Every committed version, and every directory that only looks like one; fills ``abouts`` and ``foreign``.

        ``missing``: the state of a version that its image's ``about`` does not know: a crash came between.
        """
        found = Scan([], [], 0)
        used = 0
        self.abouts.clear()
        self.foreign = tuple(name for name in self._folders() if self._is_foreign(name))
        for name in self._folders():
            if name in self.foreign:
                continue
            try:
                check_image_name(name)
                with opened_directory(name, self._root_fd) as image_fd:
                    with suppress(FileNotFoundError):  # a crash came before it was renamed
                        os.unlink(ABOUT_NEW, dir_fd=image_fd)
                    inside = os.listdir(image_fd)
                    about = self._read_about(image_fd)
                if not inside:  # a crash came after it was made
                    os.rmdir(name, dir_fd=self._root_fd)
                    continue
            except (OSError, ImagingFault) as error:
                found.damages.append(Damage(name, str(error)))
                continue
            versions = sorted((text for text in inside if text != ABOUT_FILE), key=numeric)
            numbers = [int(text) for text in versions if VERSION.fullmatch(text)]
            self.abouts[name] = completed(about, numbers, missing)
            for version in versions:
                try:
                    found.images.append(self.load(name, version))
                    self.tidy(found.images[-1])
                except (OSError, ImagingFault) as error:
                    found.damages.append(Damage(f"{name}/{version}", str(error)))
                used += self.size_of(name, version)
        self.usage.used_bytes = used
        return Scan(found.images, found.damages, used)

    def load(self, name: str, version: str, *, items: bool = True) -> StoredImage:
        """Read one version, check that its manifest is the one that was signed off, and (``items``) that every item is
        there in its full size. Raises OSError, ImagingFault."""
        if not VERSION.fullmatch(version):
            raise DamagedImage(f"{version!r} is not the number of a version")
        with self._inside(name, version) as version_fd:
            with open_file(RESERVED_ITEM, version_fd) as file:
                text = file.read(MAX_STORED_BYTES + 1) or b""
                created = datetime.fromtimestamp(os.fstat(file.fileno()).st_mtime, UTC)
            manifest = parse(text.decode("utf-8", "replace"), MAX_STORED_BYTES)
            self.abouts.get(name, About()).version(int(version)).check_signed(text)
            for item in manifest.items if items else ():
                facts = os.stat(item.name, dir_fd=version_fd, follow_symlinks=False)
                if not stat.S_ISREG(facts.st_mode) or facts.st_size != item.stored_bytes:
                    raise DamagedImage(f"item {item.name} is not a file of {item.stored_bytes} bytes")
            try:
                known = version_facts.decode(self._read(FACTS_FILE, version_fd, MAX_FACTS_BYTES + 1))
            except FileNotFoundError:  # of an older pbserv
                known = VersionFacts()
        return StoredImage(name, int(version), known.created or created, manifest, known)

    def change_about(self, name: str, change: Callable[[About], About], *, make: bool = False) -> About:
        """Replace what is said of an image, durably; with ``make`` one that is not there yet is made (registered).

        ``change`` gets what is said now and must not wait; what it raises leaves everything as it is. Raises
        UnknownImage, StoreFault.
        """
        check_image_name(name)
        with self._naming:
            if not make and name not in self.abouts:
                raise UnknownImage(f"there is no image {name!r} any more")
            return self._change_about(name, change)

    def _change_about(self, name: str, change: Callable[[About], About]) -> About:
        about = change(self.abouts.get(name, About()))
        data = about_file.encode(about)
        if len(data) > MAX_ABOUT_BYTES:
            raise StoreFault(f"image {name}: {ABOUT_FILE} would have more than {MAX_ABOUT_BYTES} bytes; purge versions")
        with filesystem_faults(f"image {name}: writing {ABOUT_FILE}"):
            made = False
            with suppress(FileExistsError):
                os.mkdir(name, 0o750, dir_fd=self._root_fd)
                made = True
            if not made and name not in self.abouts:
                self.check_free(name)
            with opened_directory(name, self._root_fd) as image_fd:
                replace_durably(ABOUT_FILE, data, image_fd)
            if made:
                os.fsync(self._root_fd)
        self.abouts[name] = about
        return about

    def entries(self) -> Iterator[tuple[str, str]]:
        """Image and version of every directory that is one, or looks like one. Raises OSError."""
        for name in self._folders():
            with suppress(*_NO_FILE), opened_directory(name, self._root_fd) as image_fd:
                names = os.listdir(image_fd)
                for inside in sorted(names if not foreign(names) else (), key=numeric):
                    if inside not in (ABOUT_FILE, ABOUT_NEW):
                        yield name, inside

    def _folders(self) -> list[str]:
        """What is an image, or looks like one."""
        names = sorted(os.listdir(self._root_fd))
        other = {INCOMING, "lost+found", *self._nested}
        return [name for name in names if name not in other and not self._is_file(name)]

    def check_free(self, name: str) -> None:
        """Raises ImageExists where a folder of other things has the name: it would become an image's, and be purged."""
        if self._is_foreign(name):
            raise ImageExists(
                f"{self.root / name} is a folder of other things, and no image: move it away, or take another name"
            )

    def _is_foreign(self, name: str) -> bool:
        with suppress(OSError), opened_directory(name, self._root_fd) as folder_fd:
            return foreign(os.listdir(folder_fd))
        return False

    def tidy(self, image: StoredImage) -> tuple[str, ...]:
        """Remove what helped while the items arrived: a crash came between the rename and that; what it was."""
        found = self.strays(image)
        with self._inside(image.name, image.version) as version_fd:
            for name in found:
                os.unlink(name, dir_fd=version_fd)
        return found

    def strays(self, image: StoredImage) -> tuple[str, ...]:
        """What :meth:`tidy` would remove. Raises OSError."""
        ends = tuple(f"{item.name}{end}" for item in image.manifest.items for end in _WORKING)
        items = {item.name for item in image.manifest.items}
        with self._inside(image.name, image.version) as version_fd:
            names = sorted(set(os.listdir(version_fd)) - items)
        return tuple(name for name in names if name in (SESSION_FILE, *ends) or name.startswith(".part."))

    def _read_about(self, image_fd: int) -> About | None:
        try:
            return about_file.decode(self._read(ABOUT_FILE, image_fd, MAX_ABOUT_BYTES + 1))
        except FileNotFoundError:  # of an older pbserv, or a crash came between
            return None
        except (OSError, ImagingFault) as error:
            raise DamagedImage(f"{ABOUT_FILE}: {error}; mend or remove that file, then start imaging again") from error

    def open_item(self, image: StoredImage, item: str, *, check_size: bool = True) -> FileIO:
        """An item's bytes for reading; they stay readable when the image is deleted. Raises DamagedImage."""
        expected = image.sizes[item]
        try:
            with self._inside(image.name, image.version) as version_fd:
                file = open_file(item, version_fd)
        except OSError as error:
            raise DamagedImage(f"image {image.name} version {image.version} item {item}: {error.strerror}") from error
        facts = os.fstat(file.fileno())
        if not stat.S_ISREG(facts.st_mode) or (check_size and facts.st_size != expected):
            file.close()
            raise DamagedImage(
                f"image {image.name} version {image.version} item {item}: not a file of {expected} bytes any more"
            )
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_SEQUENTIAL)
        return file

    def patch_item(self, image: StoredImage, item: str) -> FileIO:
        """An item for reading and writing in place: for repairs alone. Raises OSError."""
        with self._inside(image.name, image.version) as version_fd:
            return FileIO(os.open(item, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=version_fd), "r+b")

    def open_index(self, image: StoredImage, item: str) -> FileIO | None:
        """The index of an item's frames for reading; None when it has none. Raises DamagedImage."""
        try:
            with self._inside(image.name, image.version) as version_fd:
                return open_file(item + INDEX_SUFFIX, version_fd)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise DamagedImage(f"image {image.name} version {image.version} item {item}: {error.strerror}") from error

    def put_index(self, image: StoredImage, item: str, data: bytes) -> None:
        """An index beside an item that has none, or a damaged one, in one step. Raises StoreFull, StoreFault."""
        new = f".part.{secrets.token_hex(8)}"  # what a crash leaves of it goes with the next start
        before = self.size_of(image.name, image.version)
        self.usage.check(len(data))
        with (
            filesystem_faults(f"image {image.name} version {image.version} item {item}: writing its index"),
            self._inside(image.name, image.version) as version_fd,
        ):
            write_durably(new, data, version_fd)
            os.rename(new, item + INDEX_SUFFIX, src_dir_fd=version_fd, dst_dir_fd=version_fd)
            os.fsync(version_fd)
        self.usage.count(self.size_of(image.name, image.version) - before)

    def make_incoming(self, image: str, name: str) -> int:
        """A new directory ``name`` (see :func:`incoming_name`) for an upload: a descriptor that the caller closes."""
        self.at_work.add(name)
        with filesystem_faults(f"image {image}: making its upload directory"):
            os.mkdir(name, 0o700, dir_fd=self._incoming_fd)
            os.fsync(self._incoming_fd)
            return os.open(name, DIRECTORY, dir_fd=self._incoming_fd)

    def open_incoming(self, name: str) -> int:
        """A descriptor of an upload directory, which the caller closes; raises OSError."""
        self.at_work.add(name)
        return os.open(name, DIRECTORY, dir_fd=self._incoming_fd)

    def incoming(self) -> list[Found]:
        """What lies in ``.incoming`` after a start, whatever it is. Raises OSError."""
        found: list[Found] = []
        for name in sorted(os.listdir(self._incoming_fd)):
            image, dot, number = name.rpartition(".")
            session = touched = None
            if dot and not name.startswith("."):
                with suppress(*_NO_FILE, ImagingFault), opened_directory(name, self._incoming_fd) as folder_fd:
                    session = session_file.decode(self._read(SESSION_FILE, folder_fd, MAX_SESSION_BYTES + 1))
                    if session.image != image or not number:
                        session = None
                    touched = newest(folder_fd, lambda file: file == SESSION_FILE or file.endswith(".state"))
            found.append(Found(name, session, touched))
        return found

    def read_session(self, folder_fd: int) -> SessionFacts:
        """Of an open upload directory; raises OSError, DamagedImage."""
        return session_file.decode(self._read(SESSION_FILE, folder_fd, MAX_SESSION_BYTES + 1))

    def remove_incoming(self, name: str) -> None:
        """Remove an upload directory with all its files; one that is gone already is fine."""
        try:
            with suppress(FileNotFoundError), filesystem_faults(f"removing {INCOMING}/{name}"):
                remove_entry(name, self._incoming_fd)
        finally:
            self.at_work.discard(name)

    def publish(
        self,
        incoming: str,
        incoming_fd: int,
        image: str,
        manifest: Manifest,
        facts: VersionFacts,
        signed: Callable[[About, int], About],
    ) -> StoredImage:
        """Make an upload durable and visible as the image's next version; the items are on the disk already.

        ``signed`` says what becomes of the image's ``about`` with the new version; should writing that fail, the
        version is there all the same, with that state until the next start.
        """
        with filesystem_faults(f"image {image}: writing its manifest"):
            write_durably(FACTS_FILE, version_facts.encode(facts), incoming_fd)
            write_durably(RESERVED_ITEM, print_manifest(manifest).encode(), incoming_fd)
            os.fchmod(incoming_fd, 0o750)
            os.fsync(incoming_fd)
            created = os.stat(RESERVED_ITEM, dir_fd=incoming_fd).st_mtime
        with self._naming:
            with filesystem_faults(f"image {image}: renaming it into place"):
                version = self._place(incoming, image)
            self.at_work.discard(incoming)
            try:
                self._change_about(image, lambda about: signed(about, version))
            except ImagingFault:
                self.abouts[image] = signed(self.abouts.get(image, About()), version)
        return StoredImage(image, version, facts.created or datetime.fromtimestamp(created, UTC), manifest, facts)

    def delete(self, image: str, check: Check, gone: Callable[[], None]) -> None:
        """Make an image with all its versions invisible at once, tell ``gone``, then remove it.

        Raises FileNotFoundError, and what ``check`` raises, which leaves everything as it is.
        """
        check_image_name(image)
        with self._removing(image) as trash:
            size = sum(self.size_of(image, version) for version in self._versions_of(image))
            check(self.abouts.get(image, About()), True)
            self._take_away(image, trash)
            self.usage.count(-size)
            gone()

    def purge(self, image: str, version: int, check: Check, gone: Callable[[], None]) -> bool:
        """As ``delete`` with one version; True when it was the last and the image went with it.

        A full disk does not keep its bytes: ``about`` is written again when they are gone. Where that fails too, it
        names a version that is not there, as after a crash, until the next change or start.
        """
        check_image_name(image)
        said = True
        with self._removing(f"{image}.{version}") as trash:
            size = self.size_of(image, str(version))
            with opened_directory(image, self._root_fd) as image_fd:
                others = [name for name in os.listdir(image_fd) if VERSION.fullmatch(name) and int(name) != version]
                check(self.abouts.get(image, About()), not others)
                if others:
                    os.rename(str(version), trash, src_dir_fd=image_fd, dst_dir_fd=self._incoming_fd)
                    os.fsync(image_fd)
            if others:
                said = self._say_without(image, version)
            else:
                self._take_away(image, trash)
            self.usage.count(-size)
            gone()
        if not said:
            with suppress(ImagingFault):
                self.change_about(image, lambda about: about)
        return not others

    @contextmanager
    def _removing(self, what: str) -> Iterator[str]:
        """The name in ``.incoming`` that ``what`` gets in the block, which alone changes names; then its bytes go."""
        trash = f"{_TRASH}{what}.{secrets.token_hex(8)}"
        self.at_work.add(trash)
        try:
            with self._naming:
                yield trash
        except BaseException:
            self.at_work.discard(trash)  # nobody removes what may lie there, but a check or the next start
            raise
        with suppress(OSError):
            self._remove_linked(trash)
        self.remove_incoming(trash)

    def _take_away(self, image: str, trash: str) -> None:
        os.rename(image, trash, src_dir_fd=self._root_fd, dst_dir_fd=self._incoming_fd)
        os.fsync(self._root_fd)
        self.abouts.pop(image, None)

    def _say_without(self, image: str, version: int) -> bool:
        """A version is not there any more; whether ``about`` could be written. The next start says the same else."""
        try:
            self._change_about(image, lambda about: about.without(version))
        except ImagingFault:
            self.abouts[image] = self.abouts.get(image, About()).without(version)
            return False
        return True

    def remove_leftovers(self, keep: Collection[str] = ()) -> list[str]:
        """Remove what a crash left in ``.incoming`` but ``keep`` (asked after the directory was read), and what it left
        half-made beside dropped files; what was removed. Raises OSError."""
        removed = []
        for name in [name for name in os.listdir(self._incoming_fd) if name not in keep]:
            with suppress(FileNotFoundError):  # somebody's work ended meanwhile
                if name.startswith(_TRASH):
                    self._remove_linked(name)
                remove_entry(name, self._incoming_fd)
                removed.append(name)
        for name in half_made(self._root_fd):
            with suppress(FileNotFoundError):
                os.unlink(name, dir_fd=self._root_fd)
                removed.append(name)
        with suppress(FileNotFoundError):
            os.unlink(f"{STORE_FILE}.new", dir_fd=self._root_fd)
        return removed

    def _place(self, incoming: str, image: str) -> int:
        with suppress(FileExistsError):
            os.mkdir(image, 0o750, dir_fd=self._root_fd)
        try:
            self.check_free(image)
            with opened_directory(image, self._root_fd) as image_fd:
                numbers = [int(name) for name in os.listdir(image_fd) if VERSION.fullmatch(name)]
                last = self.abouts[image].last if image in self.abouts else 0
                version = max(max(numbers, default=0), last) + 1
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

    def _remove_linked(self, trash: str) -> None:
        """The other names in the root of what is being removed: files that were dropped there and adopted."""
        remove_links(trash, self._incoming_fd, self._root_fd, (".sum", ".full.sum"))

    def size_of(self, image: str, version: str | int) -> int:
        """Bytes of all files of a version; 0 when it is not there."""
        try:
            with self._inside(image, version) as version_fd:
                return sum(facts.st_size for facts in files_of(version_fd))
        except OSError:
            return 0

    @contextmanager
    def _inside(self, image: str, version: str | int) -> Iterator[int]:
        """A descriptor of the directory of a version."""
        with opened_directory(image, self._root_fd) as image_fd, opened_directory(str(version), image_fd) as version_fd:
            yield version_fd

    def _versions_of(self, image: str) -> list[str]:
        with opened_directory(image, self._root_fd) as image_fd:
            return [name for name in os.listdir(image_fd) if VERSION.fullmatch(name)]

    def _is_file(self, name: str) -> bool:
        """A file in the root is no image: it is the store's own, or was dropped there and waits to be adopted."""
        with suppress(OSError):
            return stat.S_ISREG(os.stat(name, dir_fd=self._root_fd, follow_symlinks=False).st_mode)
        return False

    @staticmethod
    def _read(name: str, parent_fd: int, limit: int) -> bytes:
        with open_file(name, parent_fd) as file:
            return file.read(limit) or b""
