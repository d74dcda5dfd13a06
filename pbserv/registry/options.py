"""What a piece of work asks for beyond kind, image and disk: one frozen value, kept as JSON beside the work.

One rule: text that this version does not understand is refused with its reason, never guessed at. Defaults take no
room.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, Final, Literal  # Any: what JSON gives

MAX_PARTITION: Final = 1024
MAX_ADDONS: Final = 16


@dataclass(frozen=True, slots=True)
class WorkOptions:
    """Options of a restore or capture.

    ``partitions``: only these numbers of a disk image, the table stays as it is; empty: all. ``target_partition``:
    where the one file system of a partition image goes; 0: not said. ``verify``: while it is written, or by reading
    back too. ``resize``: the last partition grows (or its file system shrinks to fit) to the disk. ``dry_run``: every
    check, no write. ``store``: where a captured image goes; empty: the image's own, or the first. ``addons``: images of
    kind tree that are laid over the restored system, in this order. ``cache``: of the device's cache partition, ``use``
    what is in it, or ``give-up``: it may be overwritten. ``efi_entry``: whether a UEFI boot entry is made. ``version``:
    of the image; 0: the served one. ``unreadable``: why the text of them could not be read; such work must not be done.
    """

    partitions: tuple[int, ...] = ()
    target_partition: int = 0
    verify: Literal["stream", "read"] = "stream"
    resize: bool = False
    dry_run: bool = False
    store: str = ""
    addons: tuple[str, ...] = ()
    cache: Literal["", "use", "give-up"] = ""
    efi_entry: bool = True
    version: int = 0
    unreadable: str = ""

    def to_json(self) -> str:
        """Only what differs from the defaults; empty when nothing does."""
        said = {
            field.name: list(value) if isinstance(value := getattr(self, field.name), tuple) else value
            for field in fields(self)
            if getattr(self, field.name) != field.default
        }
        return json.dumps(said, sort_keys=True) if said else ""

    @classmethod
    def read(cls, text: str) -> WorkOptions:
        """The same for what was kept: text that cannot be read (of a newer pbserv) says so in ``unreadable``."""
        try:
            return cls.from_json(text)
        except ValueError as fault:
            return cls(unreadable=str(fault))

    @classmethod
    def from_json(cls, text: str) -> WorkOptions:
        """Raises ValueError that names the option; an empty text is all defaults."""
        if not text:
            return cls()
        try:
            said = json.loads(text)
        except ValueError as fault:
            raise ValueError(f"options of work: no JSON: {fault}") from None
        if not isinstance(said, dict):
            raise ValueError("options of work: not an object")
        values: dict[str, object] = {}
        for name, value in said.items():
            if name not in _CHECKS:
                raise ValueError(f"options of work: {name!r} is unknown to this version of pbserv")
            if not _CHECKS[name](value):
                raise ValueError(f"options of work: {name} cannot be {value!r:.80}")
            values[name] = tuple(value) if isinstance(value, list) else value
        return cls(**values)  # type: ignore[arg-type]  # each was checked above


def _flag(value: object) -> bool:
    return isinstance(value, bool)


def _number(value: object, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= most


def _name(value: object) -> bool:
    return isinstance(value, str) and len(value) <= 64


_CHECKS: Final[Mapping[str, Callable[[Any], bool]]] = {
    "partitions": lambda value: (
        isinstance(value, list) and len(value) <= MAX_PARTITION and all(_number(n, MAX_PARTITION) and n for n in value)
    ),
    "target_partition": lambda value: _number(value, MAX_PARTITION),
    "verify": lambda value: value in ("stream", "read"),
    "resize": _flag,
    "dry_run": _flag,
    "store": _name,
    "addons": lambda value: isinstance(value, list) and len(value) <= MAX_ADDONS and all(_name(n) and n for n in value),
    "cache": lambda value: value in ("", "use", "give-up"),
    "efi_entry": _flag,
    "version": lambda value: _number(value, 10**9),
}

NO_OPTIONS: Final = WorkOptions()
