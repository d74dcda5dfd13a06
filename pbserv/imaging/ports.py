"""What the imaging service needs of the policy. Nothing here waits.

One rule: what a device tells goes there as it was read and bounded here; what becomes of it the policy decides.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from pbserv.registry.orders import WorkOrder
from pbserv.registry.records import Work


class Site(Protocol):
    """Where a device stands, as far as that limits how many work at a time: the name of a folder."""

    @property
    def name(self) -> str: ...

    @property
    def max_jobs(self) -> int:
        """0: it has no limit."""


class Hooks(Protocol):
    """The administrator's programs."""

    async def ask(self, event: str, facts: Mapping[str, str], patience_s: float | None = None) -> str:
        """Empty: go on; else the reason of the refusal. ``patience_s``: how long to wait until it can be asked."""

    def tell(self, event: str, facts: Mapping[str, str]) -> None:
        """Soon; nothing waits for it."""


class Policy(Protocol):
    """Whoever keeps the labels of devices, and knows what is assigned to them."""

    def learn(
        self, mac: str, labels: Mapping[str, str], *, serial: str = "", asset: str = "", uuid: str | None = None
    ) -> None:
        """What the imaging client told of the machine; nothing happens for one that is not registered."""

    def images_closed(self, work: Work) -> str:
        """Why there are no images in the imaging maintenance of ``work``; empty: all are open to it."""

    def imaging(self, mac: str) -> WorkOrder | None:
        """The imaging that is assigned to the device, as work that can be ordered; None: none is."""

    def site_of(self, mac: str) -> Site:
        """The nearest folder upwards of the device that says how many jobs it bears."""

    def uses_image(self, image: str) -> tuple[str, ...]:
        """What the policy promises this image by, in words: bundles that devices can get."""
