"""Sending one file: RFC 1350, RFC 1123 4.2.3, RFC 7440, with the timer of RFC 6298. Pure.

One rule: datagrams and the time come in; what to send comes out, as bytes or as a flight of block numbers.
Block numbers are unbounded here; the OACK is block 0, so the number before it is -1. The last block is always
shorter than the block size (it may be empty).
"""

from __future__ import annotations

import enum
from collections.abc import Sequence

from pbserv.errors import WireError
from pbserv.tftp.options import Terms
from pbserv.tftp.packet import Error, ErrorCode, decode, encode_oack

Flight = tuple[int, int]
"""First block and number of blocks: the shell sends them as one buffer."""

Action = Flight | bytes | None

RTO_FLOOR_S = 0.2
"""Below this, clients that write flash memory get duplicates, and some of them hang on a duplicate."""
RTO_CEILING_S = 8.0
GUARD_FLOOR_S = 0.005
GUARD_UNMEASURED_S = 0.1
PATIENCE_S = 30.0
SAMPLE_INTERVAL_S = 0.005
"""The round trip is measured no more often than this: RFC 6298 section 3 asks for one sample per round trip at most."""
OPENING_SENDS = 4
# A forged request must not hold a place for long, whatever timeout it asks for.
OPENING_INTERVAL_S = 8.0
"""Transmissions before the client's first answer: its address may be forged, so no more than this reaches it."""
FINAL_RESENDS = 5
NEVER = float("inf")


class Outcome(enum.Enum):
    """How a transfer ended; ``word`` is for logs, counters and observers, ``delivered``: everything has arrived."""

    COMPLETED = "completed"
    UNACKNOWLEDGED = "completed, final ACK missing"
    CLOSED = "closed by client"
    PROBE = "size probe"
    REPLACED = "replaced by a new request"
    CLIENT_ERROR = "client error"
    UNANSWERED = "no answer"
    TIMED_OUT = "timed out"
    UNREACHABLE = "client port closed"
    FILE_FAULT = "file changed"
    NOT_STORED = "not stored"
    STOPPED = "service stopped"
    BUG = "internal error"

    def __init__(self, word: str) -> None:
        self.word = word  # as ``value``, which takes longer to look up than a block to send
        self.delivered = word.startswith("completed")


class Transfer:
    """The sender's side of one conversation; ``outcome`` is None while it runs.

    ``deadline`` is the instant at which :meth:`on_deadline` wants to be called.
    """

    __slots__ = ("_base", "_clean", "_final_resends", "_fixed", "_gap_at", "_oack", "_progress_at", "_repairs",
                 "_resent", "_rollover", "_rto", "_rttvar", "_sample_at", "_sends", "_sent_at", "_sized", "_srtt",
                 "_started_at", "_superseded", "_terms", "_troubled", "answered", "deadline", "detail", "high", "last",
                 "outcome", "retransmissions", "stale_acks", "window")  # fmt: skip

    def __init__(self, size_bytes: int, terms: Terms) -> None:
        self._terms = terms
        self.window = terms.window
        self.last = size_bytes // terms.block_size + 1
        self._sized = any(name.lower() == b"tsize" for name, _ in terms.accepted)
        self._superseded = False
        self._oack = encode_oack(terms.accepted) if terms.accepted else b""
        self._base = -1 if self._oack else 0  # highest acknowledged block
        self.high = self._base + 1  # highest block sent
        self._rollover = terms.rollover
        self._rto = terms.timeout_s
        self._fixed = terms.fixed_timeout
        self._srtt = self._rttvar = 0.0
        self._sample_at = 0.0
        self._clean = True  # no block of the running flight was sent before: Karn's rule
        self._troubled = False  # something happened to the running flight: look closer when it has arrived
        self._repairs = self._final_resends = self._sends = self._resent = 0
        self._sent_at = self._progress_at = self._started_at = 0.0
        self._gap_at = self.deadline = NEVER
        self.answered = False
        self.retransmissions = self.stale_acks = 0
        self.outcome: Outcome | None = None
        self.detail = ""

    def resize(self, size_bytes: int) -> None:
        """Before the start: the content turned out to have this size."""
        self.last = size_bytes // self._terms.block_size + 1

    @property
    def rto_s(self) -> float:
        """The present retransmission timeout."""
        return self._rto

    @property
    def rtt_s(self) -> float:
        """Smoothed round-trip time, 0 when it was never measured."""
        return self._srtt

    @property
    def acknowledged(self) -> int:
        """Blocks that the client has."""
        return max(0, self._base)

    @property
    def blocks_sent(self) -> int:
        """Blocks that left, repetitions included."""
        return (self.high if self._sends else 0) + self._resent

    @property
    def awaited(self) -> int:
        """The 16-bit number of the ACK that completes the running flight."""
        return self.high & 0xFFFF if self.high < 65536 or not self._rollover else self._wire(self.high)

    # -- events ---------------------------------------------------------------------------------------------------

    def start(self, now: float) -> Action:
        """The first packet: the OACK, or block 1 when no option was agreed on. Never a window."""
        self._started_at = self._progress_at = now
        return self._open(now)

    def receive(self, datagram: bytes, now: float) -> Action:
        """One datagram of the client."""
        if len(datagram) >= 4 and datagram[1] == 4 and datagram[0] == 0:
            number = datagram[2] << 8 | datagram[3]
            if number == self.awaited and self.outcome is None:
                count = self.flight_arrived(now)
                return (self.high + 1 - count, count) if count else None
            return self._acknowledge(self._unbounded(number), now)
        self._other(datagram)
        return None

    def receive_burst(self, datagrams: Sequence[bytes], now: float) -> Action:
        """Several datagrams that were waiting: only the highest acknowledgement is acted on."""
        best: bytes | None = None
        for datagram in datagrams:
            if datagram[:2] != b"\0\4" or len(datagram) < 4:
                self._other(datagram)
            elif best is None or self._rank(datagram) > self._rank(best):
                best = datagram
        return None if best is None else self.receive(best, now)

    def on_deadline(self, now: float) -> Action:
        """The deadline may have passed."""
        if now < self.deadline or self.outcome is not None:
            return None
        if self._gap_at <= now < self._progress_at + max(PATIENCE_S, 2 * self._terms.timeout_s):
            return self._repair(now)
        return self._timed_out(now)

    def on_request_again(self, now: float) -> Action:
        """The same request from the same port: our first packet was lost, or is still under way."""
        opening = self.outcome is None and not self.answered and self._sends < OPENING_SENDS
        return self._open(now) if opening and now - self._sent_at >= RTO_FLOOR_S else None

    def abandoned_for(self, now: float) -> bool:
        """A repeated request means a restarted client; shortly after the start it is a late duplicate."""
        return self.answered and now - self._started_at >= RTO_FLOOR_S

    def on_unreachable(self) -> None:
        """The client's port is closed (ICMP). While the last ACK is due that is a client that was satisfied."""
        if self._base < 0 and self._sized:
            self.end(Outcome.PROBE, "size learned, port closed")
            return
        self.end(Outcome.UNACKNOWLEDGED if self._only_last_missing else Outcome.UNREACHABLE, "ICMP port unreachable")

    @property
    def _only_last_missing(self) -> bool:
        """The client may have everything, and all but its last ACK has come.

        A client that acknowledged no block at all is not believed to have a whole window of them.
        """
        return self.high == self.last and (self._base > 0 or (self.answered and self.last == 1))

    def supersede(self) -> None:
        """The client asks for the same file again: if it never answers this one, it only wanted to know the size."""
        self._superseded = self._sized and self._base < 0

    def on_unsent(self, now: float) -> None:
        """The kernel had no room for the last packet, or no way: try again soon, and then less often."""
        if self.answered and self.outcome is None:
            self._troubled = True
            self._gap_at = now + min(GUARD_FLOOR_S * (1 << min(self._repairs, 10)), self._rto)
            self.deadline = min(self.deadline, self._gap_at)

    def on_delayed(self, now: float) -> None:
        """The flight that was asked for leaves only now, because its content had to be read first."""
        self._sent_at = self._progress_at = now
        self.deadline = now + self._rto

    def end(self, outcome: Outcome, detail: str = "") -> None:
        if self.outcome is None:
            self.outcome, self.detail, self.deadline = outcome, detail, NEVER

    # -- acknowledgements -----------------------------------------------------------------------------------------

    def _wire(self, block: int) -> int:
        """The number of a block behind 65535: RFC 1350 does not say; 0 follows, or what the client asked for."""
        return self._rollover + (block - 65536) % (65536 - self._rollover)

    def _unbounded(self, number: int) -> int:
        """The block nearest to the base that has this 16-bit number (block 65536 is written 0)."""
        if not self._rollover:
            return self._base + ((number - self._base + 0x8000) & 0xFFFF) - 0x8000
        period = 65536 - self._rollover
        lap = 65536 + number - self._rollover
        lap += (self._base - lap + period // 2) // period * period
        return lap if lap >= 65536 and abs(lap - self._base) < abs(number - self._base) else number

    def _rank(self, datagram: bytes) -> int:
        block = self._unbounded(datagram[2] << 8 | datagram[3])
        return block if block <= self.high else -2

    def flight_arrived(self, now: float) -> int:
        """The client has everything that was sent (the hot path): how many blocks follow, up to ``high``; 0: none."""
        base = self.high
        if self._troubled:
            self._settle()
        elif now >= self._sample_at:
            self._sample(base, now)
        self._base = base
        self.answered = True
        count = self.last - base
        if count <= 0:
            self.end(Outcome.COMPLETED)
            return 0
        if count > self.window:
            count = self.window
        self.high = base + count
        self._sent_at = self._progress_at = now
        self.deadline = now + self._rto
        return count

    def _settle(self) -> None:
        """The flight arrived after all."""
        self._troubled = False
        self._clean = True
        self._repairs = 0
        self._gap_at = NEVER
        if self._fixed:
            self._rto = self._terms.timeout_s

    def _sample(self, base: int, now: float) -> None:
        # A late ACK 0 says little about the round trip: PXELINUX holds it back until its user wants to read.
        if not self._fixed and (base > 0 or now - self._sent_at < self._rto / 10):
            self._measure(now - self._sent_at)
            self._sample_at = now + SAMPLE_INTERVAL_S

    def _acknowledge(self, block: int, now: float) -> Action:
        if self.outcome is not None or self._base < 0 or not self._base <= block < self.high:
            self.stale_acks += 1
            return None
        if block > self._base:
            self._base = block
            self.answered = True
            self._progress_at = now
            self._repairs = self._final_resends = 0
            # RFC 7440 section 4: an ACK inside a window reports a gap; the next window starts behind it. Within a
            # repair it is more often the echo of blocks that the client had already.
            return self._repair(now) if self._clean else self._extend(now)
        if self.window == 1:
            # RFC 1123 4.2.3.1: a duplicate ACK never causes a resend (sorcerer's apprentice); the timer does.
            self.stale_acks += 1
            return None
        # A NACK. Resend once per guard time: one lost block makes EDK2 send as many as the window has blocks.
        self._troubled = True
        self._gap_at = self._sent_at + self._guard()
        if now >= self._gap_at:
            return self._repair(now)
        self.deadline = min(self.deadline, self._gap_at)
        return None

    def _extend(self, now: float) -> Action:
        """Blocks that were never sent, up to a full window behind the base.

        EDK2 counts its window from its last ACK of any kind, so a window that ends earlier would never be answered.
        """
        first = self.high + 1
        self.high = min(self._base + self.window, self.last)
        count = self.high + 1 - first
        self._sent_at = now
        self._gap_at = now + self._guard()
        self._troubled = True
        self.deadline = min(now + self._rto, self._gap_at)
        return (first, count) if count else None

    def _guard(self) -> float:
        measured = max(GUARD_FLOOR_S, self._srtt + 4 * self._rttvar) if self._srtt else GUARD_UNMEASURED_S
        return min(self._rto, measured * (1 << min(self._repairs, 6)))

    def _measure(self, sample_s: float) -> None:
        """RFC 6298 section 2."""
        if self._srtt:
            self._rttvar += (abs(self._srtt - sample_s) - self._rttvar) / 4
            self._srtt += (sample_s - self._srtt) / 8
        else:
            self._srtt, self._rttvar = sample_s, sample_s / 2
        rto = self._srtt + 4 * self._rttvar
        ceiling = max(RTO_CEILING_S, self._terms.timeout_s)
        self._rto = RTO_FLOOR_S if rto < RTO_FLOOR_S else min(rto, ceiling)

    # -- sending --------------------------------------------------------------------------------------------------

    def _open(self, now: float) -> Action:
        self._sends += 1
        self._sent_at = now
        self.deadline = now + min(self._rto, OPENING_INTERVAL_S)
        if self._sends > 1:
            self._clean = False
            self._troubled = True
            self.retransmissions += 1
        if self._base < 0:
            return self._oack
        self._resent += self._sends > 1
        return 1, 1

    def _repair(self, now: float) -> Action:
        count = min(self.window, self.last - self._base)
        again = self.high - self._base
        self.retransmissions += again
        self._resent += again
        self.high = self._base + count
        self._clean = False
        self._troubled = True
        self._repairs += 1
        self._sent_at = now
        self._gap_at = NEVER
        self.deadline = now + self._rto
        return self._base + 1, count

    def _timed_out(self, now: float) -> Action:
        patience_s = max(PATIENCE_S, 2 * self._terms.timeout_s)
        if not self.answered and (self._sends >= OPENING_SENDS or now - self._progress_at >= patience_s):
            outcome = Outcome.PROBE if self._superseded else Outcome.UNANSWERED
            self.end(outcome, f"sent {self._sends} times")
            return None
        if self._only_last_missing and self._final_resends >= FINAL_RESENDS:
            # RFC 1350 section 6: the transfer may still have been completed successfully.
            self.end(Outcome.UNACKNOWLEDGED)
            return None
        if now - self._progress_at >= patience_s:
            self.end(Outcome.TIMED_OUT, f"no ACK after block {self.acknowledged} of {self.last}")
            return None
        self._rto = min(self._rto * 2, max(RTO_CEILING_S, self._terms.timeout_s))
        if not self.answered:
            return self._open(now)
        if self._only_last_missing:
            self._final_resends += 1
        return self._repair(now)

    # -- everything that is not an ACK ----------------------------------------------------------------------------

    def _other(self, datagram: bytes) -> None:
        try:
            packet = decode(datagram)
        except WireError:
            return  # rubbish on a transfer port disturbs nobody
        if not isinstance(packet, Error) or self.outcome is not None:
            return
        # EDK2 and boot ROMs ask for the size, read it in the OACK and break off with 8 or 0: that is no failure.
        if self._base < 0 and packet.code in (ErrorCode.UNDEFINED, ErrorCode.OPTION):
            self.end(Outcome.PROBE, packet.text)
        elif packet.code == ErrorCode.UNDEFINED:
            self.end(Outcome.CLOSED, packet.text)
        else:
            self.end(Outcome.CLIENT_ERROR, f"error {packet.code} {packet.text}")
