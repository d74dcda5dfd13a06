"""One client of a multicast group: what it was answered, what it has, and the timer that waits for it. Pure.

One rule: each member has a retransmission timeout of its own (RFC 6298); a group has slow and fast clients.
"""

from __future__ import annotations

from pbserv.tftp.options import Terms
from pbserv.tftp.packet import Option, encode_oack
from pbserv.tftp.transfer import RTO_CEILING_S, RTO_FLOOR_S, Outcome

TURN_S = 3.0
LONGEST_TURN_S = 10.0
"""While others wait, a master without progress is passed over after this; iPXE gives up after some 16 s of silence."""

MemberKey = tuple[str, int]
"""Client address and port."""


def oacks(accepted: tuple[Option, ...], group: str, port: int) -> tuple[bytes, bytes]:
    """The OACK of a listener and that of the master; ``accepted`` holds the multicast option with any value.

    RFC 2090 lets later OACKs leave address and port empty, but atftp reads ",,1" as an address and breaks off
    (options.c opt_get_multicast), so they are always named. EDK2 wants them unchanged, iPXE joins again.
    """

    def oack(mc: int) -> bytes:
        value = b"%s,%d,%d" % (group.encode("ascii"), port, mc)
        return encode_oack(tuple((name, value if name.lower() == b"multicast" else old) for name, old in accepted))

    return oack(0), oack(1)


class Member:
    """One client of a group; ``position`` is how many blocks it has without a gap, as far as it said."""

    __slots__ = ("_fixed", "_rttvar", "_timeout_s", "answered", "blocks", "calls", "detail", "final_resends",
                 "final_sent", "joined_at", "key", "oack_listener", "oack_master", "outcome", "position",
                 "retransmissions", "rto_s", "rtt_s", "silent_turns", "stale", "tells", "told_at")  # fmt: skip

    def __init__(self, key: MemberKey, terms: Terms, answers: tuple[bytes, bytes], now: float) -> None:
        self.key = key
        self.oack_listener, self.oack_master = answers
        self._fixed = terms.fixed_timeout
        self._timeout_s = self.rto_s = terms.timeout_s
        self.rtt_s = self._rttvar = 0.0
        self.joined_at = self.told_at = now
        self.tells = 0
        self.answered = self.final_sent = False
        self.position = self.calls = self.silent_turns = self.final_resends = 0
        self.blocks = self.retransmissions = self.stale = 0
        self.outcome: Outcome | None = None
        self.detail = ""

    @property
    def turn_s(self) -> float:
        return min(max(TURN_S, 2 * self._timeout_s), LONGEST_TURN_S)

    def measure(self, sample_s: float) -> None:
        """RFC 6298 section 2."""
        if self._fixed:
            self.rto_s = self._timeout_s
            return
        if self.rtt_s:
            self._rttvar += (abs(self.rtt_s - sample_s) - self._rttvar) / 4
            self.rtt_s += (sample_s - self.rtt_s) / 8
        else:
            self.rtt_s, self._rttvar = sample_s, sample_s / 2
        self.rto_s = min(max(self.rtt_s + 4 * self._rttvar, RTO_FLOOR_S), max(RTO_CEILING_S, self._timeout_s))

    def begin_turn(self) -> None:
        self.rto_s = min(self.rto_s, self._timeout_s)

    def back_off(self) -> None:
        self.rto_s = min(self.rto_s * 2, max(RTO_CEILING_S, self._timeout_s))
