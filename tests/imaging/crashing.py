"""A program that is killed (SIGKILL) before its n-th step on the disk, for every n: one forked child for each.

A step is a call that changes a directory or makes something durable. The child works on its own copy of a store and
writes down, outside of it, what it was told: that must be true afterwards, whatever came between.
"""

from __future__ import annotations

import asyncio
import gzip
import os
import shutil
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import zstandard

from pbserv.conf.places import StorePlace
from pbserv.imaging.about import About, AboutChange
from pbserv.imaging.adopt import Adopter
from pbserv.imaging.converting import convert
from pbserv.imaging.states import VersionState
from pbserv.imaging.store import Store
from pbserv.imaging.stores import Stores, StoresSettings
from pbserv.imaging.tasks import Report
from pbserv.imaging.watch import Dropped
from tests.imaging.image_server import sha256
from tests.imaging.test_adopt import Told, drop
from tests.imaging.test_sessions import CHANGED, KIND, MADE, told
from tests.imaging.test_sessions import manifest_of as manifest
from tests.imaging.test_store import chunks_of

TABLE = b"label: gpt\n"
STEPS = ("rename", "fsync", "fdatasync", "unlink", "rmdir", "mkdir", "ftruncate", "pwrite", "link")
OWNER = "job:17"
FIRST, SECOND = MADE.stream, gzip.compress(CHANGED.stream, mtime=0)
PARTS = [zstandard.compress(CHANGED.stream[:700_000]), zstandard.compress(CHANGED.stream[700_000:])]


class Killer:
    """Counts the steps of this process and kills it before the ``last`` one; 0: never."""

    def __init__(self, last: int) -> None:
        self.last = last
        self.steps = 0

    def arm(self) -> None:
        for name in STEPS:
            setattr(os, name, self._counted(getattr(os, name)))

    def _counted(self, step: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*args: Any, **kwargs: Any) -> Any:
            self.steps += 1
            if self.steps == self.last:
                os.kill(os.getpid(), signal.SIGKILL)
            return step(*args, **kwargs)

        return counted


def manifest_text() -> str:
    """Of what the scenario uploads."""
    size, digest = told(PARTS)
    table = ("sfdisk", len(TABLE), sha256(TABLE), len(TABLE))
    return manifest(table=table, p1=(KIND, size, digest, len(CHANGED.stream)))


async def uploads(root: Path, say: Callable[[str], None]) -> None:
    """A capture in parts, its commit, and everything that can become of an image; ``say`` is what the caller heard."""
    store = Store(root, free_floor_bytes=0, allow_overwrite=True)
    await store.start()
    session = store.open_session("win", overwrite=True, owner=OWNER)
    await session.receive("table", chunks_of(TABLE))
    say("table")
    for number, part in enumerate(PARTS, start=1):
        await session.part("p1", KIND, number, chunks_of(part), None)
        say(f"part {number}")
    await session.complete("p1", None, None)
    say("complete")
    await session.commit(manifest_text())
    say("committed")
    await store.change("win", AboutChange(title="second"))
    say("titled")
    await store.register("lab", About(title="room"))
    say("registered")
    await store.move("win", 1, VersionState.RETIRED, "anna")
    say("retired")
    await store.purge("win", 1)
    say("purged")
    await store.purge("lab")
    say("gone")
    await store.close()


def stores_of(root: Path) -> Stores:
    """The one store ``root``; it is not started yet."""
    return Stores(StoresSettings((StorePlace("main", root, floor=0),)))


async def take(stores: Stores, path: Path) -> None:
    """A file of the store's directory is handed on."""
    await Adopter(stores, Told(), lambda: 100_000)(Dropped("main", path, path.name.split(".")[0]))


async def drops(root: Path, say: Callable[[str], None]) -> None:
    """A file is dropped, another one over it, that one again; a conversion, and the end of the version and its file."""
    stores = stores_of(root)
    await stores.start()
    for content, name in ((FIRST, "first"), (SECOND, "second"), (SECOND, "again")):
        await asyncio.sleep(0.02)  # so that the file is younger than the checksums of the one before
        path = drop(root, content)
        say(f"dropped {name}")
        await take(stores, path)
        say(name)
    await convert(stores, "lab", None, "anna", Report())
    say("converted")
    await stores.move("lab", 2, VersionState.RETIRED, "anna")
    say("retired")
    await stores.purge("lab", 2)
    say("purged")
    await stores.delete("lab")
    say("gone")
    await stores.close()


SCENARIOS: dict[str, Callable[[Path, Callable[[str], None]], Awaitable[None]]] = {"uploads": uploads, "drops": drops}


async def play(scenario: str, root: Path, say: Callable[[str], None]) -> None:
    await SCENARIOS[scenario](root, say)


def child(scenario: str, root: Path, heard: Path, last: int) -> int:
    """Run the scenario in this process; the number of steps when it gets to its end."""
    notes = os.open(heard, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    killer = Killer(last)
    killer.arm()
    asyncio.run(play(scenario, root, lambda text: print(text, file=os.fdopen(os.dup(notes), "a"), flush=True)))
    return killer.steps


def main(scenario: str, template: Path, folder: Path) -> None:
    """Children 1, 2, ... until one of them gets to the end alive; each leaves ``folder``/n and ``folder``/n.heard."""
    for last in range(1, 1000):
        root, heard = folder / str(last), folder / f"{last}.heard"
        shutil.copytree(template, root, symlinks=True)
        heard.touch()
        process = os.fork()
        if process == 0:
            try:
                child(scenario, root, heard, last)
            except BaseException as error:
                print(f"{last}: {error!r}", file=sys.stderr, flush=True)
                os._exit(1)
            os._exit(0)
        _, status = os.waitpid(process, 0)
        if os.WIFEXITED(status):
            sys.exit(0 if os.WEXITSTATUS(status) == 0 and last > 30 else f"child {last} ended with {status}")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
