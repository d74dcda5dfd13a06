"""What requests bring, as declared shapes; each makes the registry's value of what it was given.

One rule: a field that was not sent, or is null, leaves what is there as it is.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any, Literal  # Any: the values of a model on their way into a record of the same fields

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from pbserv.policy.api.fields import (
    FolderText,
    GroupNames,
    LabelMap,
    Line,
    Loader,
    MacText,
    MenuName,
    Name,
    Text128,
    Title,
)
from pbserv.registry.options import MAX_ADDONS, MAX_PARTITION
from pbserv.registry.orders import DeviceChange
from pbserv.registry.records import Device, DeviceState, Finish


class Body(BaseModel):
    """A field that there is not is an error, not a silent nothing."""

    model_config = ConfigDict(extra="forbid")


class NameBody(Body):
    name: Title | None = None


class OtherBody(Body):
    """``mac``: the other device, or the address that is to become one."""

    mac: MacText


class DeviceFields(Body):
    """What an administrator says of a device. ``groups`` and ``labels`` take the place of all that were there.

    ``loader``: a boot file below TFTPDirectory that it gets instead of its architecture's. ``menu``: its own menu
    policy. Empty texts: nothing of its own.
    """

    name: Title | None = None
    serial: Text128 | None = None
    asset: Text128 | None = None
    folder: FolderText | None = None
    groups: GroupNames | None = None
    labels: LabelMap | None = None
    menu: MenuName | None = None
    loader: Loader | None = None
    arguments: Line | None = None

    def change(self) -> DeviceChange:
        given: dict[str, Any] = {key: getattr(self, key) for key in self.model_fields_set}
        given.pop("mac", None)
        if self.groups is not None:
            given["groups"] = tuple(sorted(self.groups))
        if self.labels is not None:
            given["labels"] = tuple(sorted(self.labels.items()))
        return DeviceChange(**given)


class StatedDevice(DeviceFields):
    """``state``: of a device that is new, known unless it says otherwise."""

    state: DeviceState | None = None


class DeviceBody(StatedDevice):
    mac: MacText


class MembersBody(Body):
    add: list[MacText] = Field(default_factory=list, max_length=10_000)
    remove: list[MacText] = Field(default_factory=list, max_length=10_000)


Partition = Annotated[int, Field(ge=1, le=MAX_PARTITION)]


class WorkBody(Body):
    """For one device (``mac``) or all that are in a ``group`` now; with a ``bundle``, or with ``kind`` and ``image``.

    ``target_disk``: empty (the only disk that fits), ``/dev/X``, ``by-id:NAME``, ``serial:S``, ``model:M`` or
    ``size:BYTES``. ``expires``: ``8h`` (s, m, h, d, w), or a time with its zone; by then the device must have begun.
    ``retries``: further runs after one that failed; without it the bundle's. ``priority`` (-100 to 100): who gets a
    place in the queue first; ``wake``: the device is woken over the network; both without it as the bundle says.

    Restores: ``version`` of the image (0: the one that is served); ``partitions``: these alone, the table stays as it
    is; ``target_partition``: where a partition's image goes; ``resize``: the last partition is fitted to the disk;
    ``verify``: while it is written (stream), or by reading it back too (read); ``addons``: file trees laid over the
    restored system; ``efi_entry``: whether a UEFI boot entry is made; ``cache``: of the device's cache partition, use
    what is in it, or give-up: it may be overwritten. Captures: ``store``, where the image goes. Both:
    ``dry_run``, every check, and nothing is written.
    """

    mac: MacText | None = None
    group: Name | None = None
    bundle: Name | None = None
    kind: Literal["restore", "multicast", "capture", "cache", "deploy"] | None = None
    image: str = Field("", max_length=200)
    target_disk: str = Field("", max_length=200)
    finish: Finish = Finish.REBOOT
    overwrite: bool = False
    expires: str | None = Field(None, max_length=64, examples=["8h", "2027-01-31T18:00:00+01:00"])
    retries: int | None = Field(None, ge=0, le=100)
    priority: int | None = Field(None, ge=-100, le=100)
    wake: bool | None = None
    version: int = Field(0, ge=0, lt=2**31)
    partitions: tuple[Partition, ...] = Field((), max_length=MAX_PARTITION)
    target_partition: int = Field(0, ge=0, le=MAX_PARTITION)
    resize: bool = False
    verify: Literal["stream", "read"] = "stream"
    addons: tuple[Annotated[str, Field(max_length=64)], ...] = Field((), max_length=MAX_ADDONS)
    efi_entry: bool = True
    cache: Literal["", "use", "give-up"] = ""
    store: str = Field("", max_length=32)
    dry_run: bool = False


Objects = dict[Literal["bundle", "group", "folder", "assignment", "rule", "menu"], dict[str, dict[str, JsonValue]]]
"""Kind -> name -> fields, of which those at their defaults may be left out."""


class ApplyBody(Body):
    """``prune`` deletes the objects that are not named here; devices are never deleted. ``dry_run`` changes nothing."""

    objects: Objects = Field(default_factory=dict)
    devices: dict[MacText, StatedDevice] = Field(default_factory=dict, max_length=10_000)
    prune: bool = False
    dry_run: bool = False


def changed(device: Device, change: DeviceChange) -> Device:
    """The device as the change leaves it."""
    given: dict[str, Any] = {key: getattr(change, key) for key in DeviceChange.__slots__}
    return replace(device, **{key: value for key, value in given.items() if value is not None})


def said(fault: ValidationError) -> str:
    """All that is wrong with a value, in one line."""
    texts = []
    for error in fault.errors():
        where = ".".join(map(str, error["loc"]))
        text = error["msg"].removeprefix("Value error, ")
        if error["type"] == "extra_forbidden":
            text = "there is no such field"
        texts.append(f"{where}: {text}" if where else text)
    return "; ".join(texts).encode("utf-8", "backslashreplace").decode()
