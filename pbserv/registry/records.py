"""What the registry hands out: frozen records without a database behind them. Times are UTC."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from datetime import datetime

from pbserv.registry.options import NO_OPTIONS, WorkOptions


class DeviceState(enum.StrEnum):
    """A device without a record is unknown. ``retired``: its record is kept, it gets nothing any more."""

    PENDING = "pending"
    KNOWN = "known"
    DENIED = "denied"
    RETIRED = "retired"


class BundleKind(enum.StrEnum):
    """What a device can be told to do, as a bundle or as one piece of work."""

    RESTORE = "restore"
    MULTICAST = "multicast"
    CACHE = "cache"
    DEPLOY = "deploy"
    CAPTURE = "capture"
    SCRIPT = "script"
    MAINTENANCE = "maintenance"
    LINUX = "linux"
    INSTALL = "install"
    EFI = "efi"
    ISO = "iso"
    IPXE = "ipxe"
    CHAIN = "chain"
    MEMTEST = "memtest"
    WINPE = "winpe"
    LOCAL = "local"
    NOTHING = "nothing"


RESTORES = frozenset((BundleKind.RESTORE, BundleKind.MULTICAST, BundleKind.DEPLOY))
"""What writes an image to the disk of a device; ``deploy`` by way of the cache that the device keeps."""
FETCHES = RESTORES | {BundleKind.CACHE}
"""What reads images of the server; ``cache`` only fills the cache of the device."""
CLIENT_KINDS = FETCHES | {BundleKind.CAPTURE, BundleKind.SCRIPT, BundleKind.MAINTENANCE}
"""What the imaging client does. All else is done by the loader alone."""


class WorkState(enum.StrEnum):
    """``queued`` and ``running`` work is what the device boots for; ``held`` waits for an administrator's retry.

    ``failed`` is work of which no run is left and that was not held (its device was denied, its bundle is gone).
    """

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    HELD = "held"
    EXPIRED = "expired"
    CANCELLED = "cancelled"


ACTIVE_WORK = (WorkState.QUEUED, WorkState.RUNNING)


class Finish(enum.StrEnum):
    """What the device does when its job has succeeded."""

    REBOOT = "reboot"
    POWEROFF = "poweroff"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Work:
    """One thing a device is to do once; cleared by its completion report.

    ``document``: the bundle as it was when the work was made (the JSON of a ``policy.model.Bundle``), so that it does
    not change under the device; empty for a plain restore or capture. ``assignment``: the name of the one that led to
    it. ``retries``: further runs after one that failed. ``attempts``: runs that were begun. ``priority``: from -100 to
    100, what is higher gets a place in the queue first. ``wake``: the device is woken over the network; ``woken``: when
    it last was.
    """

    id: int
    mac: str
    kind: BundleKind
    image: str
    target_disk: str
    finish: Finish
    overwrite: bool
    state: WorkState
    reason: str
    created: datetime
    bundle: str = ""
    document: str = ""
    assignment: str = ""
    expires: datetime | None = None
    retries: int = 0
    attempts: int = 0
    options: WorkOptions = NO_OPTIONS
    priority: int = 0
    wake: bool = False
    woken: datetime | None = None
    woken_times: int = 0

    @property
    def active(self) -> bool:
        return self.state in ACTIVE_WORK


@dataclass(frozen=True, slots=True)
class Run:
    """How an assignment's newest work on a device ended, and when."""

    assignment: str
    state: WorkState
    ended: datetime


Labels = tuple[tuple[str, str], ...]
"""Names and values, sorted by name, each name once."""


@dataclass(frozen=True, slots=True)
class Device:
    """A machine that boots, with the one active work it has, if any.

    ``mac`` is the first address that was seen of it, and its name in the registry; ``macs`` are its further ones.
    ``labels`` were given by administrators and win over ``learned`` ones (from DHCP, the loader, the imaging client).
    ``folder``: ``/`` is the zone. ``menu``, ``loader`` and ``arguments``: its own menu policy, boot file and kernel
    arguments; empty: inherited. ``runs``: one for each assignment whose work ended.
    """

    mac: str
    uuid: str | None
    name: str
    arch: int | None
    state: DeviceState
    address: str
    first_seen: datetime
    last_seen: datetime
    work: Work | None = None
    macs: tuple[str, ...] = ()
    serial: str = ""
    asset: str = ""
    folder: str = "/"
    groups: tuple[str, ...] = ()
    labels: Labels = ()
    learned: Labels = ()
    menu: str = ""
    loader: str = ""
    arguments: str = ""
    runs: tuple[Run, ...] = ()

    def seen(self, uuid: str | None, arch: int | None, address: str, at: datetime, learned: Labels) -> Device:
        """The same device, heard from at ``at``. A storm of devices comes here: replace() takes three times as long."""
        return Device(
            self.mac, uuid, self.name, arch, self.state, address, self.first_seen, at, self.work, self.macs,
            self.serial, self.asset, self.folder, self.groups, self.labels, learned, self.menu, self.loader,
            self.arguments, self.runs,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Job:
    """One run of a piece of work on a device. ``rate`` is in bytes per second; ``version`` is the image's.

    ``store``: of the image. ``verified``: how what was written was verified (``stream``, ``read``, or not).
    ``bytes_sent``: image bytes that left this server. ``waited_ms``: how long the device waited for them. ``queued_s``:
    how long it waited for a place in the queue.
    """

    id: int
    work_id: int
    mac: str
    kind: BundleKind
    image: str
    version: int | None
    address: str
    state: WorkState
    reason: str
    stage: str
    item: str
    bytes_done: int
    bytes_total: int
    rate: int
    started: datetime
    finished: datetime | None
    log: str
    store: str = ""
    verified: str = ""
    bytes_sent: int = 0
    waited_ms: int = 0
    queued_s: int = 0


@dataclass(frozen=True, slots=True)
class Document:
    """One policy object: a bundle, group, folder, assignment, rule or menu. ``body`` is JSON, without the name.

    ``revision`` grows by one with every change; it is the ETag of the object.
    """

    kind: str
    name: str
    body: str
    revision: int
    changed: datetime


class Role(enum.StrEnum):
    """What the bearer of a token may do: look; change devices and work; change everything.

    ``site``: a server of another place that resolves policies here (PrebootServer), and nothing else. ``images``:
    another server that refers its callers to images here (RemoteStores); what it signs opens them, and it nothing else.
    """

    VIEWER = "viewer"
    OPERATOR = "operator"
    ADMIN = "admin"
    SITE = "site"
    IMAGES = "images"


@dataclass(frozen=True, slots=True)
class Token:
    """What is kept of an API token: never the token itself."""

    id: int
    name: str
    role: Role
    created: datetime


@dataclass(frozen=True, slots=True)
class Event:
    """One line of a device's history."""

    time: datetime
    mac: str
    what: str
    detail: str


@dataclass(frozen=True, slots=True)
class BootSession:
    """One boot of a device. ``steps`` is the journal's own encoding; ``packets`` counts those that it holds whole.

    A device begins one session at a time: ``mac`` and ``started`` name it.
    """

    mac: str
    started: datetime
    ended: datetime
    result: str
    why: str
    todo: str
    steps: bytes
    packets: int
