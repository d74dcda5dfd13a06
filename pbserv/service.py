"""What a service is to the process: start, stop, reload in two steps, status. Knows no service by name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, TypeVar

S_contra = TypeVar("S_contra", contravariant=True)


@dataclass(frozen=True, slots=True)
class ServiceStatus:
    """One line of ``pbserv status``; ``listeners`` are texts such as ``udp 0.0.0.0:69``."""

    name: str
    title: str
    running: bool
    listeners: tuple[str, ...] = ()
    reason: str = ""


class Reload(Protocol):
    """A prepared change: everything that can fail has been done; exactly one of the two is called."""

    def commit(self) -> None:
        """Swap to the new settings; must not fail. Running transfers go on with what they had."""

    def abort(self) -> None:
        """Release what the preparation bound or opened; the old settings stay."""


class Service(Protocol[S_contra]):
    """A long-running part of the process. ``S_contra`` is the frozen settings value that it takes."""

    @property
    def name(self) -> str: ...

    @property
    def title(self) -> str: ...

    @property
    def running(self) -> bool: ...

    @property
    def listeners(self) -> tuple[str, ...]: ...

    async def start(self, settings: S_contra) -> None:
        """Listen and serve; raises StartError and leaves nothing behind when it cannot."""

    async def stop(self) -> None:
        """Stop listening, give running work a short grace, release everything. Idempotent."""

    async def prepare(self, settings: S_contra) -> Reload:
        """First half of a reload; raises StartError and changes nothing when the new settings cannot be served."""
