"""What a store is told by the rest of the server: its limits, who needs images, which jobs run.

One rule: everything here may change while the store runs, so it is asked for when it is needed.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

DEFAULT_FREE_FLOOR: Final = 256 * 1024 * 1024

Users = Callable[[str, int | None], Awaitable[Sequence[str]]]
"""Who outside the store needs a version of an image; version None: any, and whoever will get the served one."""

RunningJobs = Callable[[], Awaitable[Mapping[int, int | None]]]
"""The jobs that run, with the version that the registry knows of each."""

AtWork = Callable[[str, Collection[str]], Awaitable[Sequence[str]]]
"""The jobs that run with a store: asked by its name and those of its images, in words for people."""


@dataclass(slots=True)
class StoreRules:
    """What pbserv.conf says of a store. ``keep`` 0: all versions; ``quota_bytes``, ``restores``, ``captures`` 0: no
    limit."""

    allow_overwrite: bool = False
    auto_enable: bool = True
    keep: int = 0
    quota_bytes: int = 0
    floor_bytes: int = DEFAULT_FREE_FLOOR
    restores: int = 0
    captures: int = 0


async def nobody(_image: str, _version: int | None) -> Sequence[str]:
    """Nobody needs it: what a store believes until it is told better."""
    return ()


async def no_jobs() -> Mapping[int, int | None]:
    """No job runs: what a store believes until it is told better."""
    return {}


async def nobody_at_work(_store: str, _images: Collection[str]) -> Sequence[str]:
    """No job runs with it: what the stores believe until they are told better."""
    return ()
