"""What is asked of the registry: frozen values, read and checked by whoever asks."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from pbserv.registry.options import NO_OPTIONS, WorkOptions
from pbserv.registry.records import BundleKind, DeviceState, Finish, Labels


@dataclass(frozen=True, slots=True)
class WorkOrder:
    """One thing a device is to do once. An empty ``target_disk`` means the only disk that fits; the rest as in Work.

    ``expires`` (aware): the device must have begun by then.
    """

    mac: str
    kind: BundleKind
    image: str = ""
    target_disk: str = ""
    finish: Finish = Finish.REBOOT
    overwrite: bool = False
    bundle: str = ""
    document: str = ""
    assignment: str = ""
    expires: datetime | None = None
    retries: int = 0
    options: WorkOptions = NO_OPTIONS
    priority: int = 0
    wake: bool = False


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a job is; ``rate`` in bytes per second."""

    stage: str
    item: str
    bytes_done: int
    bytes_total: int
    rate: int


@dataclass(frozen=True, slots=True)
class DeviceChange:
    """What an administrator changes of a device's record; None leaves a field as it is. The fields are those of Device.

    ``groups`` and ``labels`` take the place of all that were there.
    """

    state: DeviceState | None = None
    name: str | None = None
    serial: str | None = None
    asset: str | None = None
    folder: str | None = None
    groups: tuple[str, ...] | None = None
    labels: Labels | None = None
    menu: str | None = None
    loader: str | None = None
    arguments: str | None = None
