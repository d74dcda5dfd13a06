"""What would applying a policy change? Pure.

One rule: equal objects are no change, however they were written; nothing is deleted unless that was asked for.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal  # Any: the plain values of an object, as JSON and TOML have them

from pbserv.policy.documents import kind_of, values_of
from pbserv.policy.model import KINDS, PolicyObject
from pbserv.policy.snapshot import Objects

Action = Literal["create", "change", "delete", "none"]
_ORDER: Final = tuple(KINDS)


@dataclass(frozen=True, slots=True)
class Change:
    """``before`` and ``after``: the object's values without its name and without defaults; None: it is not there."""

    action: Action
    kind: str
    name: str
    before: dict[str, Any] | None
    after: dict[str, Any] | None


def changes(before: Objects, after: Iterable[PolicyObject], *, prune: bool) -> list[Change]:
    """One for each object of ``after`` (``none``: it stands like that already), in the order of :data:`KINDS`, then by
    name; with ``prune`` also one for each object of ``before`` that ``after`` has not, these last and backwards."""
    there = _valued(before.everything())
    wanted = _valued(after)
    made = [changed(*key, there.get(key), wanted[key]) for key in sorted(wanted, key=_place)]
    if not prune:
        return made
    gone = sorted(there.keys() - wanted.keys(), key=_place, reverse=True)
    return [*made, *(changed(*key, there[key], None) for key in gone)]


def changed(kind: str, name: str, before: Mapping[str, Any] | None, after: Mapping[str, Any] | None) -> Change:
    """The change that leads from one to the other; at least one of them is given."""
    action: Action = "none"
    if before is None:
        action = "create"
    elif after is None:
        action = "delete"
    elif before != after:
        action = "change"
    return Change(action, kind, name, None if before is None else dict(before), None if after is None else dict(after))


def _valued(objects: Iterable[PolicyObject]) -> dict[tuple[str, str], dict[str, Any]]:
    return {(kind_of(each), each.name): values_of(each) for each in objects}


def _place(key: tuple[str, str]) -> tuple[int, str]:
    kind, name = key
    return _ORDER.index(kind), name
