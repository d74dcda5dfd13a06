"""Packets whose answer another server has to know first: held for a moment, the newest of each device. Pure.

One rule: what is held is bounded, in number and in time; time passes in the steps that were asked for, not by a clock.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from pbserv.proxydhcp.outcome import Ignore, Reason

MOST_HELD: Final = 1024
STEPS_S: Final = (0.025, 0.05, 0.075, 0.1)
"""After these times the policy is asked again, then each time after the last of them."""
LONGEST_S: Final = 1.5
TOO_MANY: Final = Ignore(
    Reason.TOO_MANY_WAIT, f"{MOST_HELD} devices wait already for what another server decides about them"
)

Later = Callable[[float, Callable[[], None]], None]


@dataclass(slots=True)
class _Held:
    packet: object
    waited_s: float = 0.0
    steps: int = 0


class Waiting:
    """``later(seconds, call)`` runs ``call`` after that time."""

    def __init__(self, later: Later) -> None:
        self._later = later
        self._held: dict[bytes, _Held] = {}

    def __len__(self) -> int:
        return len(self._held)

    def packet_of(self, mac: bytes) -> object | None:
        """The packet of the device that is held."""
        held = self._held.get(mac)
        return None if held is None else held.packet

    def hold(self, mac: bytes, packet: object, reason: str, again: Callable[[float], None]) -> Ignore | None:
        """Call ``again`` soon, with the seconds that passed since the last time, unless another packet of the device
        takes the place of this one. An Ignore: it has waited long enough, or too many wait already.

        ``reason``: what is waited for.
        """
        held = self._held.get(mac)
        if held is None or held.packet is not packet:
            if held is None and len(self._held) >= MOST_HELD:
                return TOO_MANY
            held = self._held[mac] = _Held(packet)
        step_s = STEPS_S[min(held.steps, len(STEPS_S) - 1)]
        if held.waited_s + step_s > LONGEST_S:
            del self._held[mac]
            return Ignore(Reason.POLICY_LATE, f"after {LONGEST_S:g} s: {reason}")
        held.steps += 1
        held.waited_s += step_s
        self._later(step_s, lambda: self._again(mac, held, step_s, again))
        return None

    def over(self, mac: bytes) -> float:
        """The device is answered: nothing of it is held any more. How many seconds its packet has waited."""
        held = self._held.pop(mac, None)
        return 0.0 if held is None else held.waited_s

    def _again(self, mac: bytes, held: _Held, passed_s: float, again: Callable[[float], None]) -> None:
        if self._held.get(mac) is held:
            again(passed_s)
