"""LIBRARY_NAME: where images are kept is a backend, the built-in store or somebody's own.

An own backend is a Python file (``/path/to/file.py``, or ``/path/to/file.py:object``) or an importable
``package.module:object``. The object (``backend`` when a file names none) is called once, with the state directory and
the keywords ``allow_overwrite`` and ``free_floor_bytes``, and returns an ImagingBackend. One rule: nothing of it runs
before the name, the file and the object were found to be what they must be; every refusal says what to do.
"""

from __future__ import annotations

import importlib
import importlib.util
import re
from collections.abc import AsyncIterable, Awaitable, Callable, Mapping
from datetime import datetime
from pathlib import Path
from types import ModuleType
from typing import Protocol, TypeGuard

from pbserv.conf.places import StorePlace
from pbserv.errors import StartError
from pbserv.imaging.about import About, AboutChange
from pbserv.imaging.draft import ItemProgress, PartDone, StoredItem
from pbserv.imaging.frames.index import Header
from pbserv.imaging.frames.reader import OpenIndex
from pbserv.imaging.layout import Damage, StoredImage
from pbserv.imaging.manifest import Manifest
from pbserv.imaging.objects import ImageObject, StoreFacts
from pbserv.imaging.scrub import ScrubOrder
from pbserv.imaging.states import VersionState
from pbserv.imaging.store import DEFAULT_NAME
from pbserv.imaging.store_rules import DEFAULT_FREE_FLOOR
from pbserv.imaging.stores import Stores, StoresSettings
from pbserv.imaging.tasks import Report
from pbserv.imaging.watch import Facts

IMAGES_DIRECTORY = "images"
_DEFAULT_OBJECT = "backend"
_OBJECT_NAME = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*", re.ASCII)
_NATIVE = re.compile(r"\.(?:so(?:\.[0-9.]+)?|dll|nlm|dylib)$", re.IGNORECASE)
_METHODS = ("start", "close", "list", "versions", "info", "open", "begin", "delete")
_REMEDY = "comment LIBRARY_NAME out to use the built-in image store"


class ItemSource(Protocol):
    """An item opened for reading; readable until ``close``, also when its image is deleted meanwhile."""

    @property
    def size_bytes(self) -> int: ...

    @property
    def sha256(self) -> str: ...

    async def read(self, offset: int, size_bytes: int) -> bytes:
        """Up to ``size_bytes`` bytes; empty only at the end. Raises OSError."""

    def close(self) -> None: ...


class ImageDraft(Protocol):
    """An upload that is not visible yet."""

    @property
    def image(self) -> str: ...

    async def receive(
        self, name: str, chunks: AsyncIterable[bytes], *, size_bytes: int | None = None, sha256: str | None = None
    ) -> StoredItem:
        """Store one item; leaves nothing of it when it raises."""

    async def commit(self, manifest_text: str) -> StoredImage:
        """Make the image durable, then visible, when manifest and items agree."""

    def discard(self) -> Awaitable[None]:
        """Give up; after a commit it does nothing. Awaiting the result is optional."""


class Session(ImageDraft, Protocol):
    """An upload that can go on after a restart, whose items may come in parts.

    ``number`` names it; ``owner`` is ``job:17`` or ``token:NAME``; ``store`` is where it goes.
    """

    @property
    def number(self) -> str: ...

    @property
    def owner(self) -> str: ...

    @property
    def store(self) -> str: ...

    @property
    def created(self) -> datetime: ...

    def progress(self) -> Mapping[str, ItemProgress]:
        """Every item that something arrived of."""

    def next_part(self, item: str) -> int:
        """The number of the part to send, from 1."""

    async def part(
        self, item: str, kind: str, number: int, chunks: AsyncIterable[bytes], sha256: str | None
    ) -> PartDone:
        """Store a part; the same one again is answered as before. Raises WrongPart, ChecksumMismatch."""

    async def complete(self, item: str, parts: int | None, plain_bytes: int | None) -> StoredItem:
        """All parts are there; the answer is what arrived, with the SHA-256 of their digests (hex) in a row."""

    async def commit(self, manifest_text: str, *, made_of: int | None = None, mac: str = "") -> StoredImage:
        """As an ImageDraft's; one that is ``made_of`` a version is enabled only where that one is served. ``mac``:
        the device that was captured."""


class ImagingBackend(Protocol):
    """What the imaging service needs from a store. Refusals are faults of ``pbserv.imaging.faults``.

    ``allow_overwrite`` follows AllowImageOverwrite and may be set while the backend runs. Methods that are not
    ``async`` answer from memory: they are called on the event loop.
    """

    allow_overwrite: bool

    async def start(self) -> None:
        """Make ready; raises StartError."""

    async def close(self) -> None: ...

    def list(self) -> tuple[StoredImage, ...]:
        """The version of every image that is served."""

    def versions(self, name: str) -> tuple[int, ...]: ...

    def info(self, name: str, version: int | None = None) -> StoredImage:
        """The served or the named version; raises UnknownImage."""

    async def open(self, name: str, item: str, version: int | None = None) -> ItemSource: ...

    def begin(self, name: str, *, overwrite: bool | None = None, size_bytes: int = 0) -> ImageDraft:
        """Start an upload or refuse it at once; ``overwrite`` None means as ``allow_overwrite`` says."""

    async def delete(self, name: str) -> None: ...


class VersionedBackend(ImagingBackend, Protocol):
    """A store that knows more of an image than its bytes: states, titles, where it is kept.

    The built-in store is one; of an own backend it is not asked. Refusals: UnknownImage, WrongState (the state does not
    allow it), InUse (who needs it is named), Changed (``expected`` is not the etag any more).
    """

    @property
    def damages(self) -> tuple[Damage, ...]:
        """What lies in the store and is not served, and why."""

    def stores(self) -> tuple[StoreFacts, ...]:
        """Where images are kept, as it is now."""

    def all(self) -> tuple[ImageObject, ...]:
        """Every image by name, also without a version."""

    def object(self, name: str) -> ImageObject: ...

    async def register(self, name: str, about: About, store: str = "") -> ImageObject:
        """Make an image that has no version yet; ``store`` empty: the first one."""

    async def change(self, name: str, change: AboutChange, expected: str = "") -> ImageObject: ...

    async def move(self, name: str, version: int, to: VersionState, by: str) -> ImageObject: ...

    async def rollback(self, name: str, to: int | None, by: str) -> ImageObject: ...

    async def purge(self, name: str, version: int | None = None) -> None:
        """Remove a retired version; None: the whole image, when all its versions are retired."""

    async def index(self, image: StoredImage, item: str) -> OpenIndex | None:
        """The frames of an item; None when it has no index."""

    async def index_header(self, image: StoredImage, item: str) -> Header | None:
        """The figures of its frames alone; None when it has no index."""

    def open_session(
        self,
        name: str,
        *,
        store: str = "",
        overwrite: bool | None = None,
        size_bytes: int = 0,
        owner: str = "",
        asis: bool = False,
    ) -> Session:
        """As ``begin``, and it can go on after a restart of the server; ``asis``: nothing is cut into frames."""

    def begin_next(self, name: str, *, size_bytes: int = 0, creator: str = "") -> Session:
        """Begin a version that is made of one before, as a conversion does: it overwrites nothing and ends with this
        process. Raises UnknownImage, UploadRunning, StoreFull, StoreClosed."""
        ...

    def sessions(self) -> tuple[Session, ...]:
        """All uploads under way."""

    def session(self, number: str) -> Session:
        """Raises DraftGone."""

    def session_of_job(self, job: int) -> Session | None: ...

    async def scrub(self, order: ScrubOrder, report: Report, tell: Callable[[str], None]) -> str:
        """Verify what is stored, repair what can be; ``tell`` gets a line for each damage."""

    async def check(self, store: str, report: Report, tell: Callable[[str], None]) -> str:
        """Remove the leftovers of a store and look at its versions; ``tell`` gets a line for each thing found."""

    async def take_file(
        self, store: str, file: Path, name: str, manifest: Manifest, index: bytes = b"", facts: Facts | None = None
    ) -> StoredImage:
        """A file in a store's directory becomes the next version of an image; ``index``: of its pieces, ``facts``: what
        it was when ``manifest`` was made of it."""

    async def verified(self, name: str, version: int, damage: str) -> None:
        """A version was read and is clean, or with ``damage`` is not served any more."""

    def made_by_job(self, job: int) -> StoredImage | None:
        """The version that a job committed, as the disk tells."""


_VERSIONED = (
    "stores", "all", "object", "register", "change", "move", "rollback", "purge", "index", "index_header",
    "open_session", "begin_next", "sessions", "session", "session_of_job", "made_by_job", "scrub", "take_file",
    "verified", "check",
)  # fmt: skip


def is_versioned(backend: ImagingBackend) -> TypeGuard[VersionedBackend]:
    """Whether a backend can do what :class:`VersionedBackend` says."""
    return all(callable(getattr(backend, method, None)) for method in _VERSIONED)


def load_backend(
    name: str,
    state_directory: Path,
    *,
    allow_overwrite: bool = False,
    free_floor_bytes: int = DEFAULT_FREE_FLOOR,
    stores: StoresSettings | None = None,
) -> ImagingBackend:
    """The backend that LIBRARY_NAME names, not started yet; an empty name is the built-in one. Raises StartError.

    ``stores``: what the configuration says of the built-in stores; None: one in the state directory.
    """
    name = name.strip()
    if not name:
        place = StorePlace(DEFAULT_NAME, state_directory / IMAGES_DIRECTORY)
        return Stores(
            stores or StoresSettings((place,), allow_overwrite=allow_overwrite, free_floor_bytes=free_floor_bytes)
        )
    factory = _find(name)
    if not callable(factory):
        raise StartError(f"LIBRARY_NAME = {name}: the object is no callable that returns a backend; {_REMEDY}")
    try:
        backend: ImagingBackend = factory(
            state_directory, allow_overwrite=allow_overwrite, free_floor_bytes=free_floor_bytes
        )
    except Exception as error:
        raise StartError(f"LIBRARY_NAME = {name}: making the backend failed: {_said(error)}") from error
    missing = [method for method in _METHODS if not callable(getattr(backend, method, None))]
    if not hasattr(backend, "allow_overwrite"):
        missing.append("allow_overwrite")
    if missing:
        raise StartError(
            f"LIBRARY_NAME = {name}: what it returns is no imaging backend, it lacks {', '.join(missing)}; {_REMEDY}"
        )
    return backend


def _find(name: str) -> object:
    place, colon, attribute = name.rpartition(":")
    if not colon:
        place, attribute = name, ""
    if _NATIVE.search(place) or _NATIVE.search(name):
        raise StartError(
            f"LIBRARY_NAME = {name}: native libraries of the original imaging server cannot be loaded; {_REMEDY}, "
            "or name a Python file or package.module:object"
        )
    if "/" in place or "\\" in place or place.endswith(".py"):
        module = _load_file(name, Path(place))
        return _attribute(name, module, attribute or _DEFAULT_OBJECT)
    if not attribute or not _OBJECT_NAME.fullmatch(place):
        raise StartError(
            f"LIBRARY_NAME = {name}: is neither the path of a Python file nor package.module:object; {_REMEDY}"
        )
    try:
        module = importlib.import_module(place)
    except Exception as error:
        raise StartError(f"LIBRARY_NAME = {name}: module {place} cannot be imported: {_said(error)}") from error
    return _attribute(name, module, attribute)


def _load_file(name: str, path: Path) -> ModuleType:
    if not path.is_absolute():
        raise StartError(f"LIBRARY_NAME = {name}: write the path of the Python file in full, beginning with /")
    if path.suffix != ".py":
        raise StartError(f"LIBRARY_NAME = {name}: a backend file is a Python file and ends in .py; {_REMEDY}")
    if not path.is_file():
        raise StartError(f"LIBRARY_NAME = {name}: there is no such file; {_REMEDY}")
    spec = importlib.util.spec_from_file_location(f"pbserv_backend_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise StartError(f"LIBRARY_NAME = {name}: Python cannot load this file; {_REMEDY}")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise StartError(f"LIBRARY_NAME = {name}: the file cannot be loaded: {_said(error)}") from error
    return module


def _attribute(name: str, module: ModuleType, attribute: str) -> object:
    if not _OBJECT_NAME.fullmatch(attribute):
        raise StartError(f"LIBRARY_NAME = {name}: {attribute!r} is not the name of an object")
    found: object = module
    for part in attribute.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            raise StartError(f"LIBRARY_NAME = {name}: there is no object {attribute!r} in it; {_REMEDY}") from None
    return found


def _said(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"
