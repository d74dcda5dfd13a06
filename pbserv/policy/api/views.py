"""What the API answers, as declared shapes, and how they are made of the registry's records.

One rule: a record's fields keep their names; what a view leaves out (the whole bundle of a piece of work) is said here.
"""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from typing import Literal

from pydantic import BaseModel, Field, JsonValue

from pbserv.registry.records import BundleKind, Device, DeviceState, Event, Finish, Work, WorkState
from pbserv.types import ClientArch


class OptionsView(BaseModel):
    """What a restore or capture is asked for beyond image and disk. ``version`` 0: the one that is served.

    ``unreadable``: why the registry's text of them could not be read; such work is not done.
    """

    version: int
    partitions: list[int]
    target_partition: int
    resize: bool
    verify: Literal["stream", "read"]
    addons: list[str]
    efi_entry: bool
    cache: Literal["", "use", "give-up"]
    store: str
    dry_run: bool
    unreadable: str


class WorkView(BaseModel):
    """``retries``: further runs after one that failed. The bundle as it was when the work was made is not shown.

    ``priority``: who gets a place in the queue first. ``wake``: the device is woken over the network; ``woken``: when
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
    bundle: str
    assignment: str
    expires: datetime | None
    retries: int
    attempts: int
    options: OptionsView
    priority: int
    wake: bool
    woken: datetime | None


class WorkCreated(BaseModel):
    """``work`` is a list where it was made for a group. ``refusals``: MAC -> why that device has got none."""

    work: WorkView | list[WorkView]
    refusals: dict[str, str] = Field(default_factory=dict)
    warnings: list[str] = Field(default_factory=list)


class RunView(BaseModel):
    """How the newest work of an assignment on the device ended."""

    assignment: str
    state: WorkState
    ended: datetime


class DeviceView(BaseModel):
    """``macs``: further addresses. ``labels`` were given by administrators, ``learned`` by the device itself."""

    mac: str
    name: str
    uuid: str | None
    arch: int | None
    arch_name: str
    state: DeviceState
    address: str
    first_seen: datetime
    last_seen: datetime
    work: WorkView | None
    macs: list[str]
    serial: str
    asset: str
    folder: str
    groups: list[str]
    labels: dict[str, str]
    learned: dict[str, str]
    menu: str
    loader: str
    arguments: str
    runs: list[RunView]


class EventView(BaseModel):
    time: datetime
    mac: str
    what: str
    detail: str


class MembersView(BaseModel):
    """The devices that are in the group since now, and those that are not any more."""

    group: str
    added: list[str]
    removed: list[str]


class ExplainView(BaseModel):
    """``steps``: the order of the decision, with what each had to say. ``order``: the assignment or rule for which work
    would be made when the device asks. ``without_menu``: what the default item of the menu comes to."""

    mac: str
    verdict: Literal["silent", "local", "loader", "menu", "boot"]
    reason: str
    steps: list[str]
    bundle: str
    kind: BundleKind | None
    work: WorkView | None
    order: str
    menu: str
    without_menu: str
    arguments: str
    refused: str
    device: DeviceView | None


class ChangeView(BaseModel):
    """``before`` and ``after`` hold what differs from the defaults; null: there is no such thing then.

    ``kind`` is that of an object, or ``device`` (whose name is its MAC address).
    """

    action: Literal["create", "change", "delete", "none"]
    kind: str
    name: str
    before: dict[str, JsonValue] | None
    after: dict[str, JsonValue] | None


class ApplyView(BaseModel):
    """``applied``: it was changed; false after ``dry_run``, and where nothing was to change."""

    changes: list[ChangeView]
    applied: bool
    warnings: list[str]


class RowFault(BaseModel):
    """``row`` counts as a spreadsheet does: 1 is the header of a CSV file, or the first element of a JSON list."""

    row: int
    error: str


class ImportView(BaseModel):
    created: int
    changed: int
    unchanged: int
    errors: list[RowFault] = Field(default_factory=list)


class ImportRefused(ImportView):
    """Nothing was changed. ``error`` names the first faults in one sentence each, ``errors`` has them all."""

    error: str


def device_view(device: Device) -> DeviceView:
    fields = asdict(device)
    fields["work"] = None if device.work is None else work_view(device.work)
    fields["labels"], fields["learned"] = dict(device.labels), dict(device.learned)
    fields["arch_name"] = "" if device.arch is None else str(ClientArch(device.arch))
    return DeviceView.model_validate(fields)


def work_view(work: Work) -> WorkView:
    fields = asdict(work)
    del fields["document"]
    return WorkView.model_validate(fields)


def event_view(event: Event) -> EventView:
    return EventView.model_validate(asdict(event))
