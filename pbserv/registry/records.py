"""What the registry hands out: frozen records without a database behind them. Times are UTC."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from datetime import datetime


class DeviceState(enum.StrEnum):
    PENDING = "pending"
    KNOWN = "known"
    DENIED = "denied"


class WorkKind(enum.StrEnum):
    RESTORE = "restore"
    CAPTURE = "capture"


class WorkState(enum.StrEnum):
    """``queued`` and ``running`` work makes the device boot the imaging client; the rest is history."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


ACTIVE_WORK = (WorkState.QUEUED, WorkState.RUNNING)


class Finish(enum.StrEnum):
    """What the device does when its job has succeeded."""

    REBOOT = "reboot"
    POWEROFF = "poweroff"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Work:
    """One thing a device is to do once; cleared by the completion report of its job."""

    id: int
    mac: str
    kind: WorkKind
    image: str
    target_disk: str
    finish: Finish
    overwrite: bool
    state: WorkState
    reason: str
    created: datetime

    @property
    def active(self) -> bool:
        return self.state in ACTIVE_WORK


@dataclass(frozen=True, slots=True)
class Device:
    """A machine that boots, with the one active work it has, if any."""

    mac: str
    uuid: str | None
    name: str
    arch: int | None
    state: DeviceState
    address: str
    first_seen: datetime
    last_seen: datetime
    work: Work | None = None


@dataclass(frozen=True, slots=True)
class Job:
    """One run of a piece of work on a device. ``rate`` is in bytes per second; ``version`` is the image's."""

    id: int
    work_id: int
    mac: str
    kind: WorkKind
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
