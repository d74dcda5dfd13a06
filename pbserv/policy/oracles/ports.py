"""What the policy service needs of another server that decides: an answer from memory, and somebody who asks. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Protocol

from pbserv.policy.decide import Ruling
from pbserv.types import Sighting

RESULTS: Final = ("asked", "answered", "left", "failed", "too_many")
"""``left`` to this server's own policy; ``too_many`` were not asked."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What the other server says about a device.

    ``ruling``: None leaves the device to this server's own policy. ``why``: one sentence for the steps of the decision.
    ``failed``: the other server did not answer, or not as it should; then ``ruling`` is what the settings, or what it
    said earlier, say about that.
    """

    ruling: Ruling | None
    why: str
    failed: bool = False


class Oracle(Protocol):
    """Another server that decides. Use it from one event loop."""

    @property
    def name(self) -> str:
        """Who is asked, for logs and steps: ``PolicyHook 10.0.0.7:8080``."""

    @property
    def counters(self) -> Mapping[str, int]:
        """Questions since it was made, by :data:`RESULTS`; those under way are ``asked`` only."""

    def known(self, sighting: Sighting, now: float) -> Answer | None:
        """From memory; None: not asked yet, being asked, or what it said is too old. ``now`` is monotonic."""

    def ask(self, sighting: Sighting) -> None:
        """Ask in the background, unless that is under way for this device, or for too many others."""

    async def wait(self, sighting: Sighting, timeout_s: float) -> Answer:
        """What is known, or will be: asks if need be. A failed answer when it takes longer than ``timeout_s``."""

    def forget(self, mac: str) -> None:
        """What was said about the device ``aa:bb:cc:dd:ee:ff`` counts no more: its work changed, or it was removed."""

    async def open(self) -> None:
        """Before the first question."""

    async def close(self) -> None:
        """Ends what is under way; nothing is asked afterwards."""
