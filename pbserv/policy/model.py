"""The objects of a policy: bundles, groups, folders, assignments, rules and menus. Pure.

One rule: an object that exists is valid by itself; whether what it names exists is asked of the snapshot.
"""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass, field, fields
from typing import ClassVar, Final, Literal

from pbserv.policy.condition import parse_condition
from pbserv.policy.schedule import parse_schedule
from pbserv.registry.options import MAX_ADDONS, MAX_PARTITION
from pbserv.registry.records import CLIENT_KINDS, BundleKind, Finish
from pbserv.types import MacAddress

MAX_TEXT: Final = 64 * 1024
"""Characters of a script or an answer file."""
MAX_LINE: Final = 1024
"""Characters of a title or a line of kernel arguments."""
ROOT: Final = "/"
"""The folder that holds all others: the zone."""
_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._ -]{0,62}[A-Za-z0-9])?")
_FOLDER = re.compile(r"/|(/[A-Za-z0-9](?:[A-Za-z0-9._ -]{0,62}[A-Za-z0-9])?){1,8}")
_URL = re.compile(r"(https?|tftp|nfs)://[^\s/$|&;`\"'{}<>\\]+(/[^\s$|&;`\"'{}<>\\]*)?", re.IGNORECASE)
_DISK = re.compile(r"/dev/[\w./:-]+|(by-id|serial|model|size):[\w .:+/-]+")
_IMAGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_STORE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,31}")
_PATH = re.compile(r"[^\s$|&;`\"'{}<>\\%?#\x00-\x1f\x7f]+")

Strict: Final = {"extra": "forbid"}
"""What pydantic reads of a class: a key that it does not have is an error, not a silent nothing."""


class Installer(enum.StrEnum):
    """Whose answer file it is; decides how the kernel is told where to find it."""

    KICKSTART = "kickstart"
    AUTOYAST = "autoyast"
    PRESEED = "preseed"
    AUTOINSTALL = "autoinstall"


class Report(enum.StrEnum):
    """Who says that one-shot work is done: the imaging client, the installed system (``done_url`` of its answer file),
    or the loader, when all is loaded and it hands over."""

    CLIENT = "client"
    SYSTEM = "system"
    LOADER = "loader"


_NEEDED: Final[dict[BundleKind, tuple[str, ...]]] = {
    BundleKind.RESTORE: ("image",),
    BundleKind.MULTICAST: ("image",),
    BundleKind.CACHE: ("image",),
    BundleKind.DEPLOY: ("image",),
    BundleKind.CAPTURE: ("image",),
    BundleKind.SCRIPT: ("script",),
    BundleKind.MAINTENANCE: (),
    BundleKind.LINUX: ("kernel",),
    BundleKind.INSTALL: ("kernel", "installer", "answer"),
    BundleKind.EFI: ("file",),
    BundleKind.ISO: ("file",),
    BundleKind.IPXE: ("script",),
    BundleKind.CHAIN: ("url",),
    BundleKind.MEMTEST: (),
    BundleKind.WINPE: ("files",),
    BundleKind.LOCAL: (),
    BundleKind.NOTHING: (),
}
_CLIENT: Final = ("finish", "arguments", "priority", "wake")
_RESTORING: Final = (
    "target_disk", "version", "partitions", "target_partition", "resize", "verify", "addons", "efi_entry", "cache",
    "dry_run",
)  # fmt: skip
_AROUND: Final = ("before", "after")
_MAY: Final[dict[BundleKind, tuple[str, ...]]] = {
    BundleKind.RESTORE: (*_RESTORING, *_AROUND, *_CLIENT),
    BundleKind.MULTICAST: (*_RESTORING, *_AROUND, "clients", "wait_min", *_CLIENT),
    BundleKind.CACHE: ("version", *_CLIENT),
    BundleKind.DEPLOY: (*_RESTORING, *_AROUND, *_CLIENT),
    BundleKind.CAPTURE: ("target_disk", "overwrite", "store", "dry_run", *_AROUND, *_CLIENT),
    BundleKind.SCRIPT: _CLIENT,
    BundleKind.MAINTENANCE: _CLIENT,
    BundleKind.LINUX: ("initrd", "arguments", "report"),
    BundleKind.INSTALL: ("initrd", "arguments", "report", "meta"),
    BundleKind.EFI: ("arguments",),
    BundleKind.MEMTEST: ("file", "arguments"),
}
_ALWAYS: Final = ("name", "kind", "title", "retries")


def fields_of(kind: BundleKind) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What a bundle of this kind needs, and what else it may have beside title and retries."""
    return _NEEDED[kind], _MAY.get(kind, ())


def check_name(name: str, what: str) -> None:
    """Raises ValueError for what is no name of an object."""
    if not _NAME.fullmatch(name):
        said = "1 to 64 letters, digits, spaces and . _ -, a letter or digit at both ends"
        raise ValueError(f"{name!r} is no name of a {what}: {said}")


def check_folder(path: str) -> None:
    """Raises ValueError unless ``path`` is ``/`` or ``/name/name``, eight deep at most."""
    if not _FOLDER.fullmatch(path):
        raise ValueError(f"{path!r} is no folder: write /, or /NAME/NAME, eight names at most")


def _line(text: str, what: str) -> None:
    if len(text) > MAX_LINE or not text.isprintable():
        raise ValueError(f"{what} is one line of at most {MAX_LINE} printable characters")


def check_place(text: str, what: str) -> None:
    """A file below TFTPDirectory, or a URL. Raises ValueError."""
    if "://" in text:
        if not _URL.fullmatch(text):
            raise ValueError(f"{what} {text!r}: write http://, https://, tftp:// or nfs:// with host and path")
    elif not _PATH.fullmatch(text) or text.startswith("/") or ".." in text.split("/") or len(text) > MAX_LINE:
        raise ValueError(f"{what} {text!r}: write a path below TFTPDirectory without a leading /, or a URL")


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """What a device is to do.

    ``kernel``, ``initrd``, ``file`` and ``files`` are paths below TFTPDirectory or URLs. ``arguments``: the kernel's.
    ``script``: an iPXE script (kind ipxe) or a POSIX shell script for the imaging client (kind script). ``answer``:
    a Jinja2 template, rendered per device; ``meta``: autoinstall's meta-data, likewise. ``files``: of kind winpe, what
    wimboot is given (bootmgr, BCD, boot.sdi, boot.wim). ``target_disk``: see ``api.bodies``. ``clients`` and
    ``wait_min``: a multicast session begins when so many wait, or after so many minutes. ``retries``: further runs
    after one that failed.

    Of restores: ``version`` of the image (0: the one that is served); ``partitions``: these of it alone, the table of
    the disk stays as it is; ``target_partition``: where the one file system of the image goes, or the one that
    ``partitions`` names; ``resize``: the last partition is fitted to the disk; ``verify``: while it is written
    (stream), or by reading it back, too (read); ``addons``: file trees laid over the restored system; ``efi_entry``:
    whether a UEFI boot entry is made; ``cache``: of the cache partition of the device, ``use`` what is in it, or
    ``give-up``: it may be overwritten. ``store``: where a captured image goes. ``dry_run``: every check, and nothing is
    written. ``before`` and ``after``: shell scripts that the imaging client runs around it. ``priority``: -100 to 100,
    the higher gets a place in the queue first. ``wake``: when work of it is ordered, the device is woken over the
    network.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = Strict

    name: str
    kind: BundleKind
    title: str = ""
    image: str = ""
    target_disk: str = ""
    finish: Finish = Finish.REBOOT
    overwrite: bool = False
    clients: int = 0
    wait_min: int = 0
    kernel: str = ""
    initrd: tuple[str, ...] = ()
    arguments: str = ""
    file: str = ""
    files: tuple[str, ...] = ()
    url: str = ""
    script: str = ""
    installer: Installer | None = None
    answer: str = ""
    meta: str = ""
    report: Report | None = None
    retries: int = 0
    version: int = 0
    partitions: tuple[int, ...] = ()
    target_partition: int = 0
    resize: bool = False
    verify: Literal["stream", "read"] = "stream"
    addons: tuple[str, ...] = ()
    efi_entry: bool = True
    cache: Literal["", "use", "give-up"] = ""
    store: str = ""
    dry_run: bool = False
    before: str = ""
    after: str = ""
    priority: int = 0
    wake: bool = False

    def __post_init__(self) -> None:
        check_name(self.name, "bundle")
        self._check_fields()
        _check_imaging(self)
        for what in ("title", "image", "arguments"):
            _line(getattr(self, what), what)
        for place in (self.kernel, *self.initrd, self.file, *self.files):
            if place:
                check_place(place, "file")
        if self.url and not _URL.fullmatch(self.url):
            raise ValueError(f"url {self.url!r}: write http://, https:// or tftp:// with host and path")
        if self.target_disk and not _DISK.fullmatch(self.target_disk):
            raise ValueError("target_disk: write /dev/X, by-id:NAME, serial:S, model:M or size:BYTES")
        if max(map(len, (self.script, self.answer, self.meta, self.before, self.after))) > MAX_TEXT:
            raise ValueError(f"a script or answer file has at most {MAX_TEXT} characters")
        if not (0 <= self.retries <= 100 and 0 <= self.clients <= 10_000 and 0 <= self.wait_min <= 1_440):
            raise ValueError("retries is 0 to 100, clients 0 to 10000, wait_min 0 to 1440")
        if self.report is Report.CLIENT:
            raise ValueError("report is system or loader: the imaging client always reports by itself")

    def _check_fields(self) -> None:
        """What its kind needs is there, and nothing else: a field without effect is a mistake of whoever wrote it."""
        needed = _NEEDED[self.kind]
        for name in needed:
            if not getattr(self, name):
                raise ValueError(f"a bundle of kind {self.kind} needs: {', '.join(needed)}; {name} is missing")
        known = {*_ALWAYS, *needed, *_MAY.get(self.kind, ())}
        for entry in fields(self):
            if entry.name not in known and getattr(self, entry.name) != entry.default:
                raise ValueError(f"a bundle of kind {self.kind} has no {entry.name}")

    @property
    def reporter(self) -> Report:
        """Who says that one-shot work with this bundle is done."""
        if self.kind in CLIENT_KINDS:
            return Report.CLIENT
        return self.report or (Report.SYSTEM if self.kind is BundleKind.INSTALL else Report.LOADER)

    @property
    def once(self) -> bool:
        """Whether an assignment without a schedule means: once per device. Else it is what the device always boots."""
        return self.kind in CLIENT_KINDS or self.kind is BundleKind.INSTALL


def _check_imaging(bundle: Bundle) -> None:
    """What a restore or capture is asked for beyond its image. Raises ValueError."""
    numbers = bundle.partitions
    if len(set(numbers)) != len(numbers) or not all(1 <= number <= MAX_PARTITION for number in numbers):
        raise ValueError(f"partitions are different numbers from 1 to {MAX_PARTITION}")
    if not 0 <= bundle.target_partition <= MAX_PARTITION:
        raise ValueError(f"target_partition is a number from 1 to {MAX_PARTITION}, or 0: not said")
    if numbers and bundle.resize:
        raise ValueError("partitions are written into what the disk has already: leave resize out")
    if len(numbers) > 1 and bundle.target_partition:
        raise ValueError("target_partition is for one partition of the image: name one in partitions, or none")
    if bundle.verify not in ("stream", "read"):
        raise ValueError("verify is stream (while it is written) or read (by reading it back, too)")
    if bundle.cache not in ("", "use", "give-up"):
        raise ValueError("cache is use (what is in it), give-up (it may be overwritten), or nothing")
    if len(bundle.addons) > MAX_ADDONS or not all(_IMAGE.fullmatch(name) for name in bundle.addons):
        raise ValueError(f"addons are at most {MAX_ADDONS} names of images")
    if bundle.store and not _STORE.fullmatch(bundle.store):
        raise ValueError(f"store {bundle.store!r} is no name of an image store: letters, digits, _ and -, 32 at most")
    if not (0 <= bundle.version < 2**31 and -100 <= bundle.priority <= 100):
        raise ValueError("version is a number of the image, or 0: the one that is served; priority is -100 to 100")


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Devices that belong together; who is in it stands in the devices' records. It lies in one ``folder``."""

    __pydantic_config__: ClassVar[dict[str, str]] = Strict

    name: str
    title: str = ""
    folder: str = ROOT
    priority: int = 0

    def __post_init__(self) -> None:
        check_name(self.name, "group")
        _line(self.title, "title")
        check_folder(self.folder)


@dataclass(frozen=True, slots=True, kw_only=True)
class Folder:
    """A place of the tree; ``name`` is its whole path. ``menu``: for all below, unless a nearer one differs.
    ``arguments``: for all below, before those of nearer ones. ``max_jobs``: so many devices of it and of the folders
    below restore or capture at a time, unless a nearer one says its own; 0: it sets no limit.

    A folder need not have an object to hold devices.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = Strict

    name: str
    title: str = ""
    menu: str = ""
    arguments: str = ""
    max_jobs: int = 0

    def __post_init__(self) -> None:
        check_folder(self.name)
        _line(self.title, "title")
        _line(self.arguments, "arguments")
        if not 0 <= self.max_jobs <= 100_000:
            raise ValueError("max_jobs is 0 (no limit of its own) to 100000")


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    """A bundle for one device (its MAC, in any spelling), group, folder or the zone (folder ``/``).

    ``schedule``: see :mod:`pbserv.policy.schedule`; empty: from now on, and once per device for a bundle that changes
    the machine (``Bundle.once``). ``priority``: the higher goes first among those of one place.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = Strict

    name: str
    bundle: str
    device: str = ""
    group: str = ""
    folder: str = ""
    priority: int = 0
    schedule: str = ""
    arguments: str = ""
    enabled: bool = True

    def __post_init__(self) -> None:
        check_name(self.name, "assignment")
        if self.device:
            object.__setattr__(self, "device", str(MacAddress.parse(self.device)))
        if sum(map(bool, (self.device, self.group, self.folder))) != 1:
            raise ValueError("an assignment is for one device, group or folder (folder / is the zone)")
        if self.folder:
            check_folder(self.folder)
        _line(self.arguments, "arguments")
        parse_schedule(self.schedule)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """A bundle for every device whose labels fulfil ``when`` (:mod:`pbserv.policy.condition`); the first one wins.

    ``position``: the lower is asked first, then by name. ``unknown``: asked for devices too that nobody accepted.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = Strict

    name: str
    when: str
    bundle: str
    position: int = 100
    schedule: str = ""
    arguments: str = ""
    enabled: bool = True
    unknown: bool = False

    def __post_init__(self) -> None:
        check_name(self.name, "rule")
        _line(self.arguments, "arguments")
        parse_condition(self.when)
        parse_schedule(self.schedule)


MenuAction = Literal["", "decision", "imaging", "maintenance", "local", "shell", "reboot", "poweroff", "exit"]


@dataclass(frozen=True, slots=True, kw_only=True)
class MenuItem:
    """One line of a menu: a bundle, or an action.

    ``decision``: what the device would do without a menu. ``imaging``: its one-shot or assigned imaging, or the local
    disk when it has none. ``exit``: leaves the loader, to the firmware.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = Strict

    name: str
    title: str
    bundle: str = ""
    action: MenuAction = ""
    arguments: str = ""

    def __post_init__(self) -> None:
        check_name(self.name, "menu item")
        _line(self.title, "title")
        _line(self.arguments, "arguments")
        if bool(self.bundle) == bool(self.action):
            raise ValueError(f"menu item {self.name!r} has a bundle or an action, one of the two")


_DEFAULT_ITEMS: Final = (
    MenuItem(name="imaging", title="Start imaging", action="imaging"),
    MenuItem(name="maintenance", title="Start imaging maintenance", action="maintenance"),
    MenuItem(name="local", title="Boot from the local disk", action="local"),
    MenuItem(name="exit", title="Exit", action="exit"),
)
"""The manual's items (Preboot Menu), without those of the ZENworks partition, which nobody has any more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Menu:
    """A Preboot Menu policy. ``show``: ``key`` waits ``timeout_s`` for a key that opens the menu.

    The item that the decision stands for is the default, and starts after ``timeout_s`` seconds (0: waits for ever).
    ``default`` names another one for devices for which nothing was decided (ZoneDefault = menu).
    """

    __pydantic_config__: ClassVar[dict[str, str]] = Strict

    name: str
    title: str = ""
    show: Literal["always", "never", "key"] = "always"
    timeout_s: int = 10
    default: str = ""
    items: tuple[MenuItem, ...] = field(default=_DEFAULT_ITEMS)

    def __post_init__(self) -> None:
        check_name(self.name, "menu")
        _line(self.title, "title")
        names = [item.name for item in self.items]
        if not 1 <= len(names) <= 50 or len(set(names)) != len(names):
            raise ValueError("a menu has 1 to 50 items, each with a name of its own")
        if self.default and self.default not in names:
            raise ValueError(f"default {self.default!r} is none of the items: {', '.join(names)}")
        if not 0 <= self.timeout_s <= 3_600:
            raise ValueError("timeout_s is 0 (wait for ever) to 3600")


DEFAULT_MENU: Final = Menu(name="default")
"""What is shown where a menu is due and none is set."""

PolicyObject = Bundle | Group | Folder | Assignment | Rule | Menu
KINDS: Final[dict[str, type[PolicyObject]]] = {
    "bundle": Bundle, "group": Group, "folder": Folder, "assignment": Assignment, "rule": Rule, "menu": Menu,
}  # fmt: skip
"""The kinds of objects, in the order in which they can be made: each names only what stands before it, or devices.

Folders name menus: they are checked after all have been read.
"""
