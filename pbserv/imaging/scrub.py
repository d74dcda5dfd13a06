"""Reads what is stored again and compares it with its digests; damage is named by image, item, byte and device address.

One rule: it takes turns with everything else: one thread, a limit of its rate, and nothing stays in the page cache that
was not there for somebody else.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Final, Protocol

from pbserv.imaging.durable import SHORTAGES
from pbserv.imaging.faults import DamagedImage, ImagingFault, InUse, UnknownImage
from pbserv.imaging.frames.pieces import PieceIndexer, worth
from pbserv.imaging.frames.reader import FrameDamage, OpenIndex, verify
from pbserv.imaging.layout import StoredImage
from pbserv.imaging.manifest import ManifestItem
from pbserv.imaging.opened import open_index
from pbserv.imaging.repair import Elsewhere, Repairer
from pbserv.imaging.store import Store
from pbserv.imaging.tasks import Report, Task, Tasks, counted

DEFAULT_RATE_MB: Final = 100
_BLOCK_BYTES: Final = 1024 * 1024
_NICE: Final = 10
_NEVER: Final = datetime.min.replace(tzinfo=UTC)


class Scrubbable(Protocol):
    """What keeps images and can verify them."""

    async def scrub(self, order: ScrubOrder, report: Report, tell: Callable[[str], None]) -> str: ...


class Pace:
    """A limit of bytes per second for a thread. ``rate`` 0: none."""

    def __init__(self, rate: int, report: Report, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate = rate
        self._report = report
        self._clock = clock
        self._free_at = clock()

    def __call__(self, size: int) -> None:
        """Before ``size`` bytes are read: wait for their turn. Raises Cancelled."""
        self._report.check()
        if not self._rate:
            return
        now = self._clock()
        if self._free_at > now:
            self._report.wait(self._free_at - now)
        self._free_at = max(self._free_at, now) + size / self._rate


@dataclass(slots=True)
class Found:
    """What a scrub of one version found: ``damages`` that are left, ``repaired`` frames, and ``faults``: why it was not
    verified to its end; all as lines."""

    damages: list[str] = field(default_factory=list)
    repaired: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class ScrubOrder:
    """``store``, ``image`` empty: all. ``rate_mb`` 0: as fast as it goes. ``deep``: frames are uncompressed too."""

    store: str = ""
    image: str = ""
    version: int | None = None
    rate_mb: int = DEFAULT_RATE_MB
    deep: bool = False
    repair: bool = True


async def scrub(
    stores: Sequence[Store], order: ScrubOrder, report: Report, tell: Callable[[str], None],
    elsewhere: Elsewhere | None = None,
) -> str:  # fmt: skip
    """Verify versions, the longest unverified first; the sentence of the result. ``tell`` gets every damage, and why a
    version was not verified; ``elsewhere`` is asked for frames that none of ``stores`` has.

    Raises UnknownImage where nothing is to be verified by that name, Cancelled.
    """
    work = _plan(stores, order)
    if order.image and not work:
        raise UnknownImage(f"image {order.image} has no version to verify")
    report.total = sum(image.manifest.stored_bytes for _, image in work)
    pace = Pace(order.rate_mb * 1_000_000, report)
    damaged = repaired = skipped = unverified = 0
    with ThreadPoolExecutor(1, "pbserv-scrub", initializer=_be_nice) as thread:
        for store, image in work:
            try:
                lock = store.locks.share(image.name, image.version, "is being verified")
            except InUse:  # it is being purged
                skipped += 1
                report.add(image.manifest.stored_bytes)
                continue
            try:
                job = partial(_version, stores, store, image, order, report, pace, elsewhere)
                found = await _in_thread(thread, job, report)
                for line in (*found.repaired, *found.damages):
                    tell(line)
                await _note(store, image, found)
                for line in found.faults:
                    tell(line)
            finally:
                store.locks.release(lock)
            damaged += bool(found.damages)
            repaired += len(found.repaired)
            unverified += bool(found.faults) and not found.damages
    return _sentence(len(work) - skipped - unverified, damaged, repaired, unverified)


async def _note(store: Store, image: StoredImage, found: Found) -> None:
    """Write down whether the version is clean or damaged, where that is known."""
    if found.faults and not found.damages:
        return
    try:
        await store.verified(image.name, image.version, "; ".join(found.damages[:3]))
    except UnknownImage:  # it was deleted meanwhile
        return
    except (ImagingFault, OSError) as fault:
        found.faults.append(
            f"image {image.name} version {image.version}: what was found could not be written down: {fault}"
        )


async def _in_thread(thread: ThreadPoolExecutor, job: Callable[[], Found], report: Report) -> Found:
    working = asyncio.get_running_loop().run_in_executor(thread, job)
    try:
        return await asyncio.shield(working)
    except asyncio.CancelledError:
        report.cancel()  # the thread ends at its next block
        working.add_done_callback(lambda done: done.cancelled() or done.exception())
        while not working.done():  # here, as the executor would hold the loop meanwhile
            with suppress(asyncio.CancelledError):
                await asyncio.wait([working])
        raise


def _plan(stores: Sequence[Store], order: ScrubOrder) -> list[tuple[Store, StoredImage]]:
    wanted = [
        (store, version)
        for store in stores
        if order.store in ("", store.name)
        for image in store.all()
        if order.image in ("", image.name)
        for version in image.versions
        if order.version in (None, version.number)
    ]
    wanted.sort(key=lambda one: one[1].about.verified or _NEVER)
    return [(store, version.image) for store, version in wanted]


def _version(
    stores: Sequence[Store], store: Store, image: StoredImage, order: ScrubOrder, report: Report, pace: Pace,
    elsewhere: Elsewhere | None,
) -> Found:  # fmt: skip
    """Blocking: verify all items of a version, and its manifest."""
    found = Found()
    _manifest(store, image, found)
    for item in image.manifest.items:
        what = f"image {image.name} version {image.version} item {item.name}"
        before = report.done
        damages: list[FrameDamage | str] = []
        try:
            _item(store, image, item.name, order.deep, report, pace, damages)
        except ImagingFault as fault:
            damages.append(str(fault))
        except OSError as fault:  # of this server, not of the item
            found.faults.append(f"{what}: it was not verified to its end: {fault.strerror or fault}")
        frames = [damage for damage in damages if isinstance(damage, FrameDamage)]
        if frames and order.repair:
            mended = []
            try:
                mended = Repairer(stores, store, image, item.name, elsewhere, report.check).repair(frames)
            except (ImagingFault, OSError) as fault:
                found.faults.append(f"{what}: its repair ended early: {fault}")
            found.repaired += [f"{what}: {damage} (repaired from {source})" for damage, source in mended]
            gone = {damage for damage, _ in mended}
            damages = [damage for damage in damages if damage not in gone]
        found.damages += [text if text.startswith("image ") else f"{what}: {text}" for text in map(str, damages)]
        report.add(item.stored_bytes - (report.done - before))
    return found


def _manifest(store: Store, image: StoredImage, found: Found) -> None:
    """Blocking: what is wrong with the files beside the items."""
    try:
        store.layout.load(image.name, str(image.version), items=False)
    except (OSError, ImagingFault) as fault:
        ours = isinstance(fault, OSError) and fault.errno in SHORTAGES
        (found.faults if ours else found.damages).append(f"image {image.name} version {image.version}: {fault}")


def _item(
    store: Store, image: StoredImage, item: str, deep: bool, report: Report, pace: Pace,
    found: list[FrameDamage | str],
) -> None:  # fmt: skip
    """Blocking: the damages of one item go into ``found``. Raises DamagedImage, Cancelled; OSError says nothing of the
    item."""
    layout = store.layout
    index = _index(store, image, item)
    try:
        with layout.open_item(image, item, check_size=False) as file:
            if index is None:
                found += _whole(store, file.fileno(), image, item, report, pace)
                return
            for one in verify(file.fileno(), index.index, deep=deep, pace=pace):
                if isinstance(one, FrameDamage):
                    found.append(one)
                else:
                    report.add(one)
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        if index is not None:
            index.close()


def _index(store: Store, image: StoredImage, item: str) -> OpenIndex | None:
    """None also for a damaged one that can be made anew: of a file that is kept as it came. Raises DamagedImage."""
    try:
        return open_index(store.layout, image, item, whole=True)
    except DamagedImage:
        if image.manifest.fact(item, "body_sha256"):  # of a stream that was cut; pieces of a file have none
            raise
        return None


def _whole(store: Store, fd: int, image: StoredImage, item: str, report: Report, pace: Pace) -> list[FrameDamage | str]:
    """An item without an index has one digest: one that is right gets an index, so that the next damage is found."""
    facts = image.manifest.item(item)
    if facts is None:
        raise DamagedImage(f"image {image.name} version {image.version} has no item {item}")
    digest, indexer, position = hashlib.sha256(), PieceIndexer(), 0
    while True:
        pace(_BLOCK_BYTES)
        try:
            block = os.pread(fd, _BLOCK_BYTES, position)
        except OSError as error:
            return [_alone(facts, f"byte {position}: it cannot be read: {error.strerror}")]
        if not block:
            break
        digest.update(block)
        indexer.feed(block)
        position += len(block)
        report.add(len(block))
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    if position != facts.stored_bytes:
        return [_alone(facts, f"it has {position} bytes, not {facts.stored_bytes}")]
    if digest.hexdigest() != facts.sha256:
        return [_alone(facts, f"its SHA-256 is {digest.hexdigest()}, not {facts.sha256}")]
    if worth(position):
        with suppress(ImagingFault):  # the item is right; there is room for an index the next time
            store.layout.put_index(image, item, indexer.index(facts.sha256))
    return []


def _alone(item: ManifestItem, why: str) -> FrameDamage | str:
    """The damage of an item without an index: of its only piece, or of no one knows which."""
    if worth(item.stored_bytes):
        return f"{why}; it has no index that could say where"
    return FrameDamage(0, 0, "file", 0, why)


def _sentence(versions: int, damaged: int, repaired: int, unverified: int) -> str:
    mended = f", {counted(repaired, 'frame')} repaired" if repaired else ""
    wrong = f"{damaged} damaged and not served" if damaged else "none damaged"
    left = f"; {counted(unverified, 'version')} could not be verified: see the log" if unverified else ""
    return f"{counted(versions, 'version')} verified, {wrong}{mended}{left}"


def _be_nice() -> None:
    with suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, _NICE)


def ordered(tasks: Tasks, backend: Scrubbable, order: ScrubOrder, critical: Callable[..., None]) -> Task:
    """Start a scrub as a task; every damage goes to the log. ``critical`` is ``ServiceLog.critical``."""
    what = order.image or (f"store {order.store}" if order.store else "all stores")

    def tell(line: str) -> None:
        critical("image damaged", damage=line)

    return tasks.run("scrub", what, lambda report: backend.scrub(order, report, tell))
