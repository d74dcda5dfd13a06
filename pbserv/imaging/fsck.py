"""What a start does with what it finds, by hand and while the store runs: leftovers go, store and registry agree.

One rule: nothing that is at work is touched, and nothing that was committed is removed: a version that is not whole is
not served any more, and that is said.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from pbserv.imaging.draft import Draft
from pbserv.imaging.durable import filesystem_faults
from pbserv.imaging.faults import ImagingFault, InUse, UnknownImage
from pbserv.imaging.layout import Layout, StoredImage
from pbserv.imaging.reconcile import Found, Remove, Tell, plan
from pbserv.imaging.session_file import SessionFacts
from pbserv.imaging.store import Store
from pbserv.imaging.tasks import Report, counted

Inform = Callable[[Tell], Awaitable[None]]
"""Tells the registry which version a job made."""


@dataclass(frozen=True, slots=True)
class _Seen:
    """The directory of a version as it is; ``fault`` says why it is none."""

    name: str
    version: str
    fault: str
    strays: tuple[str, ...]


async def check(store: Store, report: Report, tell: Callable[[str], None], inform: Inform) -> str:
    """The sentence of the result; ``tell`` gets a line for everything that was found. Raises Cancelled, StoreFault.

    Sizes, names and manifests are looked at, no byte of an item is read: that is a scrub.
    """
    with store.locks.shared("", None, "the store is being checked"):
        removed = [*await _uploads(store, inform), *await _incoming(store)]
        seen = await asyncio.to_thread(_look, store.layout, report)
        removed += await _strays(store, seen)
        damaged = await _damaged(store, seen)
        strange = [*_strange(store, seen), *(f"{name}: a folder that is no image" for name in store.foreign)]
    for line in (*removed, *damaged, *strange):
        tell(line)
    return (
        f"{counted(len(seen), 'version')} looked at, {counted(len(removed), 'leftover')} removed, "
        f"{f'{len(damaged)} damaged and not served' if damaged else 'none damaged'}"
        + (f", {len(strange)} that the server does not know" if strange else "")
    )


async def _uploads(store: Store, inform: Inform) -> list[str]:
    """Give up what nobody goes on with; tell the registry what it missed."""
    drafts = {draft.number: draft for draft in store.sessions() if draft.idle}
    running = await store.jobs()
    found = [Found(number, _facts(draft), draft.touched) for number, draft in drafts.items()]
    gone = []
    for action in plan(found, store.made_by_jobs(), running, datetime.now(UTC)):
        if isinstance(action, Tell):
            await inform(action)
        elif isinstance(action, Remove) and drafts[action.name].idle:
            await drafts[action.name].discard()
            gone.append(f"upload {action.name} of image {drafts[action.name].image}: {action.why}")
    return gone


def abandoned(store: Store) -> tuple[Remove, ...]:
    """Give up the uploads that nobody goes on with, at once; those of jobs end with their jobs. What went."""
    drafts = {
        f"{draft.image}.{draft.number}": draft
        for draft in store.sessions()
        if draft.idle and not draft.owner.startswith("job:")
    }
    found = [Found(name, _facts(draft), draft.touched) for name, draft in drafts.items()]
    gone = [action for action in plan(found, {}, {}, datetime.now(UTC)) if isinstance(action, Remove)]
    for action in gone:
        drafts[action.name].discard()
    return tuple(gone)


def _facts(draft: Draft) -> SessionFacts:
    return SessionFacts(draft.image, draft.owner, draft.created)


async def _incoming(store: Store) -> list[str]:
    with filesystem_faults(f"image store {store.name}: removing leftovers"):
        names = await asyncio.to_thread(store.layout.remove_leftovers, store.layout.at_work)
    return [f"{name}: nobody works on it" for name in names]


def _look(layout: Layout, report: Report) -> list[_Seen]:
    """Blocking: all versions that the disk has."""
    seen = []
    with filesystem_faults(f"image store {layout.name}: reading its directories"):
        for name, version in layout.entries():
            report.check()
            try:
                image = layout.load(name, version)
                seen.append(_Seen(name, version, "", layout.strays(image)))
            except (OSError, ImagingFault) as fault:
                seen.append(_Seen(name, version, str(fault), ()))
    return seen


async def _strays(store: Store, seen: list[_Seen]) -> list[str]:
    """Remove what helped while items arrived, where nobody is at work now."""
    gone: list[str] = []
    for one in seen:
        if not one.strays or (one.name, int(one.version)) not in store.known:
            continue
        try:
            with store.locks.taken(one.name, int(one.version), "is being checked"):
                image = store.info(one.name, int(one.version))
                gone += await asyncio.to_thread(_tidied, store.layout, image)
        except (InUse, UnknownImage):
            continue  # it is looked at again the next time
    return gone


def _tidied(layout: Layout, image: StoredImage) -> list[str]:
    with filesystem_faults(f"image {image.name} version {image.version}: removing leftovers"):
        return [f"{image.name}/{image.version}/{name}: it helped while an item arrived" for name in layout.tidy(image)]


async def _damaged(store: Store, seen: list[_Seen]) -> list[str]:
    """Versions that are served and are not whole: they are not, from now on."""
    whole = {(one.name, one.version) for one in seen if not one.fault}
    found = []
    for name, number in sorted(store.known):
        if (name, str(number)) in whole:
            continue
        try:
            with store.locks.shared(name, number, "is being checked"):  # what was seen may have been its end
                fault = await asyncio.to_thread(_fault, store.layout, name, number)
                if fault and (name, number) in store.known and not store.object(name).version(number).damage:
                    await store.verified(name, number, fault)
                    found.append(f"image {name} version {number}: {fault}")
        except (InUse, UnknownImage):
            continue
    return found


def _fault(layout: Layout, name: str, number: int) -> str:
    try:
        layout.load(name, str(number))
    except (OSError, ImagingFault) as fault:
        return str(fault)
    return ""


def _strange(store: Store, seen: list[_Seen]) -> list[str]:
    """Directories that came, or were mended, by other ways than this server."""
    damages = {damage.path for damage in store.damages}
    lines = []
    for one in seen:
        path = f"{one.name}/{one.version}"
        known = one.version.isdigit() and (one.name, int(one.version)) in store.known
        if known or store.uploading(one.name) or one.name in damages or (path in damages and one.fault):
            continue
        lines.append(f"{path}: {one.fault or 'it is whole; restart imaging to have it served'}")
    return lines
