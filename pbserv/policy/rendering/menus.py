"""The Preboot Menu, said without any loader's language. Pure.

One rule: what happens without a key is what would happen without the menu.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final, Literal

from pbserv.policy.decide import Ruling
from pbserv.policy.model import DEFAULT_MENU, MenuItem
from pbserv.policy.rendering.places import DECISION
from pbserv.registry.records import CLIENT_KINDS, BundleKind
from pbserv.types import Verdict

Does = Literal["ask", "local", "exit", "shell", "reboot", "poweroff"]
KEY_S: Final = 3
"""How long a key is waited for where the menu says no time."""
_BY_ITSELF: Final[dict[str, Does]] = {
    "local": "local", "exit": "exit", "shell": "shell", "reboot": "reboot", "poweroff": "poweroff",
}  # fmt: skip
_PLAIN_ACTIONS: Final[dict[Verdict | None, str]] = {Verdict.LOCAL: "local", Verdict.SILENT: "exit"}
_CLIENT_ACTIONS: Final[dict[BundleKind, str]] = {
    **dict.fromkeys(CLIENT_KINDS, "imaging"), BundleKind.MAINTENANCE: "maintenance",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Entry:
    """A line of the menu. ``label`` is a word of its own in any language; ``does``: ``ask`` asks the server what the
    item ``item`` is, all else the loader does by itself."""

    label: str
    title: str
    does: Does
    item: str


@dataclass(frozen=True, slots=True)
class Shown:
    """``timeout_s``: 0 waits for ever. ``key``: the menu opens when a key is pressed within that time."""

    title: str
    entries: tuple[Entry, ...]
    default: Entry
    timeout_s: int
    key: bool


def shown(ruling: Ruling) -> Shown:
    """The menu of the ruling, with the decision as its default item; a further item stands for it where none does."""
    menu = ruling.menu or DEFAULT_MENU
    entries = [
        Entry(f"i{number}", item.title or item.name, _BY_ITSELF.get(item.action, "ask"), item.name)
        for number, item in enumerate(menu.items, 1)
    ]
    at = _default(menu.items, ruling) if ruling.without_menu is not None else _undecided(menu.items, menu.default)
    if at is None:
        entries.insert(0, Entry("i0", f"Continue: {_by_itself(ruling)}", "ask", DECISION))
        at = 0
    elif ruling.without_menu is not None and entries[at].does == "ask":
        entries[at] = replace(entries[at], item=DECISION)
    key = menu.show == "key"
    return Shown(menu.title, tuple(entries), entries[at], menu.timeout_s or (KEY_S if key else 0), key)


def _undecided(items: tuple[MenuItem, ...], default: str) -> int:
    wanted = [at for at, item in enumerate(items) if item.name == default or (not default and item.action == "local")]
    return wanted[0] if wanted else 0


def _default(items: tuple[MenuItem, ...], ruling: Ruling) -> int | None:
    """The item that stands for the decision; None: there is none."""
    bundle = ruling.bundle if ruling.without_menu is Verdict.BOOT else None
    actions: dict[str, int] = {item.action: at for at, item in reversed(list(enumerate(items)))}
    if "decision" in actions:
        return actions["decision"]
    if bundle is not None:
        named = (at for at, item in enumerate(items) if item.bundle == bundle.name and not item.arguments)
        return next(named, actions.get(_CLIENT_ACTIONS.get(bundle.kind, "-")))
    return actions.get(_PLAIN_ACTIONS.get(ruling.without_menu, "-"))


def _by_itself(ruling: Ruling) -> str:
    if ruling.bundle is not None:
        return ruling.bundle.title or ruling.bundle.name
    return ruling.decision.reason.partition("by itself ")[2] or ruling.decision.reason
