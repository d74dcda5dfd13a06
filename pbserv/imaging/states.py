"""What a version of an image may be and become, and which version is served. Pure.

One rule: the table of changes stands here and nowhere else; whoever moves a version asks :func:`may` first.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Final

from pbserv.imaging.manifest import Manifest


class VersionState(enum.StrEnum):
    """``validated``: complete and signed off; ``enabled``: may be served; ``retired``: kept until it is purged."""

    VALIDATED = "validated"
    ENABLED = "enabled"
    DISABLED = "disabled"
    RETIRED = "retired"


class ImageKind(enum.StrEnum):
    """What an image is of."""

    PARTITION = "partition"
    DISK = "disk"
    TREE = "tree"
    BOOT = "boot"
    FILE = "file"


REGISTERED: Final = "registered"
"""The state of an image that has no version yet."""

_MAY: Final[Mapping[VersionState, frozenset[VersionState]]] = {
    VersionState.VALIDATED: frozenset({VersionState.ENABLED, VersionState.DISABLED, VersionState.RETIRED}),
    VersionState.ENABLED: frozenset({VersionState.DISABLED, VersionState.RETIRED}),
    VersionState.DISABLED: frozenset({VersionState.ENABLED, VersionState.RETIRED}),
    VersionState.RETIRED: frozenset({VersionState.DISABLED}),
}
_KEPT: Final = (VersionState.VALIDATED, VersionState.ENABLED, VersionState.DISABLED)
_OF_A_PARTITION: Final = ("raw", "partimage", "ntfsclone", "fsarchiver")


def may(now: VersionState, to: VersionState) -> bool:
    """Whether a version may go from ``now`` to ``to``; staying where it is is no change and always allowed."""
    return now is to or to in _MAY[now]


def ways(now: VersionState) -> tuple[VersionState, ...]:
    """Where a version may go from ``now``, for messages."""
    return tuple(sorted(_MAY[now]))


def served(states: Mapping[int, VersionState]) -> int | None:
    """The version that is served: the newest enabled one; None when there is none."""
    return max((number for number, state in states.items() if state is VersionState.ENABLED), default=None)


def image_state(states: Mapping[int, VersionState]) -> str:
    """The state of an image as a whole: enabled when one version is served, else that of its newest version."""
    if not states:
        return REGISTERED
    return VersionState.ENABLED.value if served(states) is not None else states[max(states)].value


def rollback(states: Mapping[int, VersionState], to: int | None = None) -> dict[int, VersionState]:
    """What must change so that version ``to`` is served, default: the enabled one before the served one.

    Newer enabled or validated versions become disabled, ``to`` enabled. Raises ValueError, which says why it cannot be.
    """
    now = served(states)
    if to is None:
        to = served({number: state for number, state in states.items() if now is not None and number < now})
        if to is None:
            raise ValueError(
                "there is no enabled version before the one that is served; name the version to serve: --to N"
                if now is not None
                else "no version is enabled; name the version to serve: --to N"
            )
    if to not in states:
        raise ValueError(f"there is no version {to}, but {', '.join(map(str, sorted(states)))}")
    if not may(states[to], VersionState.ENABLED):
        raise ValueError(f"version {to} is {states[to].value} and cannot be enabled; restore it first")
    newer = (VersionState.ENABLED, VersionState.VALIDATED)
    changes = {number: VersionState.DISABLED for number, state in states.items() if number > to and state in newer}
    if states[to] is not VersionState.ENABLED:
        changes[to] = VersionState.ENABLED
    return changes


def beyond(states: Mapping[int, VersionState], keep: int) -> tuple[int, ...]:
    """The versions that are too many when the newest ``keep`` are kept, oldest first; ``keep`` 0 keeps all.

    Retired ones do not count. The one that is served is never among them: after a roll-back it may be an old one.
    """
    if keep <= 0:
        return ()
    kept = sorted(number for number, state in states.items() if state in _KEPT)
    now = served(states)
    return tuple(number for number in kept[:-keep] if number != now)


def kind_of(manifest: Manifest) -> ImageKind:
    """What an image is of, as its items tell."""
    kinds = {item.kind for item in manifest.items}
    names = {item.name.split(".")[0] for item in manifest.items}
    if manifest.disk.table != "none" or "disk" in kinds or (kinds == {"raw"} and manifest.disk.size_bytes):
        return ImageKind.DISK
    if "tree" in kinds:
        return ImageKind.TREE
    if {"kernel", "initrd"} <= names:
        return ImageKind.BOOT
    streams = [kind for kind in (item.kind for item in manifest.items) if _is_stream(kind)]
    return ImageKind.PARTITION if len(streams) == 1 else ImageKind.FILE


def _is_stream(kind: str) -> bool:
    return kind.startswith("partclone.") or kind in _OF_A_PARTITION
