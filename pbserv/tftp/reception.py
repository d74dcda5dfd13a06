"""Receiving one file: RFC 1350, RFC 1123 4.2.3, RFC 7440, with the timer of RFC 6298. Pure.

One rule: a batch of datagrams and the time come in; the payloads to append and at most one datagram to send come out.
The last ACK is made by :meth:`Reception.committed` alone: it tells the client that the file is durable and visible.
Block numbers are unbounded here. Blocks are taken in order only; what an earlier or a later block says is whether one
of our ACKs was lost, or one of the blocks.
"""

from __future__ import annotations

from collections.abc import Sequence

from pbserv.errors import WireError
from pbserv.tftp.options import Terms
from pbserv.tftp.packet import Error, ErrorCode, decode, encode_ack, encode_error, encode_oack
from pbserv.tftp.transfer import (
    GUARD_FLOOR_S,
    GUARD_UNMEASURED_S,
    NEVER,
    OPENING_INTERVAL_S,
    OPENING_SENDS,
    PATIENCE_S,
    RTO_CEILING_S,
    RTO_FLOOR_S,
    Outcome,
)

Action = bytes | None

DALLY_S = 6.0
"""How long a lost last ACK can be asked for: most clients repeat their last block after 1 to 5 seconds."""
DALLY_MARGIN_S = 1.0
GUARD_ROUND_TRIPS = 2
_DATA = b"\0\3"


class Reception:
    """The receiver's side of one conversation.

    ``outcome`` is None until the file is committed or the conversation broke; ``complete``: every block is here;
    ``over``: nothing more will be said (a completed reception dallies before). ``deadline`` is the instant at which
    :meth:`on_deadline` wants to be called.
    """

    __slots__ = (
        "_acked", "_acked_at", "_again_at", "_clean", "_committed_at", "_dally_s", "_dally_until", "_expected",
        "_fastest", "_first", "_nacked", "_nacked_at", "_next", "_progress_at", "_repairs", "_rto", "_rto_at",
        "_rttvar", "_samples", "_sends", "_srtt", "_started_at", "_terms", "answered", "blocks", "complete",
        "deadline", "detail", "outcome", "over", "received_bytes", "retransmissions", "stale", "window",
    )  # fmt: skip

    def __init__(self, terms: Terms) -> None:
        self._terms = terms
        self.window = terms.window
        self._first = encode_oack(terms.accepted) if terms.accepted else encode_ack(0)
        self._expected = 1
        self._next = _DATA + b"\0\1"  # how the expected block begins
        self._acked = 0  # the block of our last ACK; the sender's window ends ``window`` blocks behind it, or earlier
        self._nacked = 0  # the missing block that was reported last
        self._nacked_at = -NEVER
        self._clean = True  # our last ACK was sent once, and for no gap: Karn's rule
        self._rto = terms.timeout_s
        self._srtt = self._rttvar = 0.0
        self._sends = self._repairs = self._samples = 0
        self._fastest = NEVER
        self._started_at = self._progress_at = self._acked_at = self._committed_at = 0.0
        self._rto_at = self._again_at = self._dally_until = self.deadline = NEVER
        self._dally_s = max(DALLY_S, terms.timeout_s + DALLY_MARGIN_S)
        self.answered = self.complete = self.over = False
        self.blocks = self.received_bytes = self.retransmissions = self.stale = 0
        self.outcome: Outcome | None = None
        self.detail = ""

    @property
    def rto_s(self) -> float:
        """The present timeout."""
        return self._rto

    @property
    def rtt_s(self) -> float:
        """Smoothed round-trip time, 0 when it was never measured."""
        return self._srtt

    # -- events ---------------------------------------------------------------------------------------------------

    def start(self, now: float) -> Action:
        """The first packet: the OACK, or ACK 0 when no option was agreed on."""
        self._started_at = self._progress_at = now
        return self._open(now)

    def receive_all(self, datagrams: Sequence[bytes], now: float) -> tuple[list[bytes], Action]:
        """Datagrams that were waiting, in the order of their arrival: what to append to the file, what to send."""
        payloads: list[bytes] = []
        block_size = self._terms.block_size
        ahead, behind = 0, False
        for datagram in datagrams:
            if datagram.startswith(self._next) and not self.complete and self.outcome is None:
                payload = datagram[4:]
                if len(payload) > block_size:
                    return [], self._too_large(len(payload))
                payloads.append(payload)
                self._advance(len(payload))
                continue
            block = self._block_of(datagram)
            if block > self._expected:
                ahead = max(ahead, block)
            elif block > 0:
                behind = True
        if payloads:
            self._progressed(now, len(payloads))
        return payloads, self._answer(bool(payloads), ahead >= self._expected, behind, now)

    def committed(self, now: float) -> Action:
        """The file is durable and visible: the last ACK. From here on a lost one is repeated, nothing else."""
        if self.outcome is not None:
            return None
        self.end(Outcome.COMPLETED)
        self.over = False
        self._committed_at = now
        return self._last_ack(now)

    def on_deadline(self, now: float) -> Action:
        """The deadline may have passed."""
        if now < self.deadline or self.over:
            return None
        if self.outcome is None:
            patient = now < self._progress_at + max(PATIENCE_S, 2 * self._terms.timeout_s)
            return self._repeat(now) if patient and self._again_at <= now else self._timed_out(now)
        if self._again_at <= now < self._dally_until:
            return self._last_ack(now)
        self._close()
        return None

    def on_request_again(self, now: float) -> Action:
        """The same request from the same port: our first packet was lost, or is still under way."""
        opening = self.outcome is None and not self.answered and self._sends < OPENING_SENDS
        return self._open(now) if opening and now - self._acked_at >= RTO_FLOOR_S else None

    def abandoned_for(self, now: float) -> bool:
        """A repeated request means a restarted client; shortly after the start it is a late duplicate.

        While the file is being committed the client hears nothing and may well ask again: it gets its ACK soon.
        """
        committing = self.complete and self.outcome is None
        return self.answered and not committing and now - self._started_at >= RTO_FLOOR_S

    def on_unreachable(self) -> None:
        """The client's port is closed (ICMP). A client that sent everything may be gone before the last ACK."""
        if self.outcome is not None:
            self._close()
        elif not self.complete:
            self.end(Outcome.UNREACHABLE, "ICMP port unreachable")

    def on_unsent(self, now: float) -> None:
        """The kernel had no room for the last packet: try again soon, without backing off."""
        if self.answered and not self.over:
            self._again_at = now + GUARD_FLOOR_S
            self.deadline = min(self.deadline, self._again_at)

    def end(self, outcome: Outcome, detail: str = "") -> None:
        if self.outcome is None:
            self.outcome, self.detail = outcome, detail
        self._close()

    def _close(self) -> None:
        self.over = True
        self.deadline = NEVER

    # -- blocks ---------------------------------------------------------------------------------------------------

    def _wire(self, block: int) -> int:
        """RFC 1350 does not say what follows 65535; 0 does, or what was agreed on (tftp-hpa's rollover)."""
        if block <= 0xFFFF:
            return block
        first = self._terms.rollover
        return first + (block - 65536) % (65536 - first)

    def _unbounded(self, number: int) -> int:
        """The block nearest to the expected one that is written so."""
        first = self._terms.rollover
        period = 65536 - first
        lap = 65536 + number - first
        lap += (self._expected - lap + period // 2) // period * period
        known = number >= first and lap >= 65536 and abs(lap - self._expected) < abs(number - self._expected)
        return lap if known else number

    def _advance(self, size: int) -> None:
        """The expected block came."""
        self.complete = size < self._terms.block_size
        self.received_bytes += size
        self._expected += 1
        self._next = _DATA + self._wire(self._expected).to_bytes(2, "big")

    def _block_of(self, datagram: bytes) -> int:
        """The number of a block that is not the expected one; 0: this is no such block."""
        if len(datagram) < 4 or datagram[:2] != _DATA:
            self._other(datagram)
            return 0
        self.stale += 1
        block = self._unbounded(datagram[2] << 8 | datagram[3])
        return block if block <= self._acked + self.window else 0  # nobody sends more than a window ahead

    def _too_large(self, size: int) -> bytes:
        text = f"block {self._expected} has {size} bytes; {self._terms.block_size} were agreed on"
        self.end(Outcome.CLIENT_ERROR, text)
        return encode_error(ErrorCode.ILLEGAL, text)

    def _progressed(self, now: float, count: int) -> None:
        if self._clean:
            self._measure(now - self._acked_at)
        if self._terms.fixed_timeout:
            self._rto = self._terms.timeout_s
        self.blocks += count
        self.answered = True
        self._clean = False
        self._repairs = 0
        self._progress_at = now
        self._again_at = NEVER
        self._rto_at = self.deadline = NEVER if self.complete else now + self._rto

    # -- acknowledgements -----------------------------------------------------------------------------------------

    def _answer(self, progressed: bool, gap: bool, behind: bool, now: float) -> Action:
        """The one packet that a batch may cause. RFC 7440 section 4: an ACK at the end of a window or at a gap."""
        if self.over:
            return None
        if self.complete:  # without an outcome the file is being committed: its ACK comes after that
            guard_s = min(self._guard(), GUARD_UNMEASURED_S)
            repeated = self.outcome is not None and behind and now - self._acked_at >= guard_s
            return self._repeat_last(now) if repeated else None
        if self._expected - 1 - self._acked >= self.window:
            self._clean = True
            return self._acknowledge(now)
        # Once per flight: when a late block follows its NACK, the rest of the same flight shows the next gap.
        if gap and self._nacked != self._expected and now - self._nacked_at >= self._guard():
            self._nacked, self._nacked_at = self._expected, now
            self._clean = False
            self.answered = True
            return self._acknowledge(now)
        if gap or (behind and not progressed):
            return self._suspect(now)
        return None

    def _suspect(self, now: float) -> Action:
        """The sender repeats itself, or goes on without a block that we asked for: an ACK may be lost.

        It may be the network too, which doubles and delays packets. So the ACK is repeated when a guard time went by
        without any progress, and no more than once in that time: doubled packets never make doubled traffic.
        """
        due = max(self._acked_at, self._progress_at) + self._guard()
        if now >= due:
            return self._repeat(now)
        self._again_at = due
        self.deadline = min(self.deadline, due)
        return None

    def _acknowledge(self, now: float) -> bytes:
        self._acked = self._expected - 1
        self._acked_at = now
        self._again_at = NEVER
        self._rto_at = self.deadline = now + self._rto
        return encode_ack(self._wire(self._acked))

    def _repeat(self, now: float) -> bytes:
        self._clean = False
        self._repairs += 1
        self.retransmissions += 1
        return self._acknowledge(now)

    def _repeat_last(self, now: float) -> bytes:
        self.retransmissions += 1
        return self._last_ack(now)

    def _last_ack(self, now: float) -> bytes:
        """RFC 1350 section 6, dallying: it can be asked for again, at most as long as a client is waited for."""
        ack = self._acknowledge(now)
        longest = self._committed_at + max(PATIENCE_S, self._dally_s)
        self._dally_until = self.deadline = min(now + self._dally_s, longest)
        return ack

    def _guard(self) -> float:
        """Longer than an answer takes. From the shortest round trip, because a block that was lost and sent again by
        its sender looks like a slow answer; a single measurement may be such a one."""
        known = self._samples > 1
        measured = max(GUARD_FLOOR_S, GUARD_ROUND_TRIPS * self._fastest) if known else GUARD_UNMEASURED_S
        return min(self._rto, measured * (1 << min(self._repairs, 6)))

    def _measure(self, sample_s: float) -> None:
        """RFC 6298 section 2."""
        self._samples += 1
        self._fastest = min(self._fastest, sample_s)
        if self._srtt:
            self._rttvar += (abs(self._srtt - sample_s) - self._rttvar) / 4
            self._srtt += (sample_s - self._srtt) / 8
        else:
            self._srtt, self._rttvar = sample_s, sample_s / 2
        ceiling = max(RTO_CEILING_S, self._terms.timeout_s)
        self._rto = min(max(RTO_FLOOR_S, self._srtt + 4 * self._rttvar), ceiling)

    # -- silence --------------------------------------------------------------------------------------------------

    def _open(self, now: float) -> Action:
        self._sends += 1
        if self._sends > 1:
            self._clean = False
            self.retransmissions += 1
        self._acked_at = now
        self._rto_at = self.deadline = now + min(self._rto, OPENING_INTERVAL_S)
        return self._first

    def _timed_out(self, now: float) -> Action:
        patience_s = max(PATIENCE_S, 2 * self._terms.timeout_s)
        silent = now - self._progress_at >= patience_s
        if not self.answered and (silent or self._sends >= OPENING_SENDS):
            self.end(Outcome.UNANSWERED, f"sent {self._sends} times")
            return None
        if silent:
            self.end(Outcome.TIMED_OUT, f"no DATA after block {self._expected - 1}")
            return None
        self._rto = min(self._rto * 2, max(RTO_CEILING_S, self._terms.timeout_s))
        return self._repeat(now) if self.answered else self._open(now)

    # -- everything that is not DATA ------------------------------------------------------------------------------

    def _other(self, datagram: bytes) -> None:
        try:
            packet = decode(datagram)
        except WireError:
            return  # rubbish on a transfer port disturbs nobody
        if not isinstance(packet, Error):
            return
        if not self.answered and self._terms.accepted and packet.code in (ErrorCode.UNDEFINED, ErrorCode.OPTION):
            self.end(Outcome.PROBE, packet.text)
        elif packet.code == ErrorCode.UNDEFINED:
            self.end(Outcome.CLOSED, packet.text)
        else:
            self.end(Outcome.CLIENT_ERROR, f"error {packet.code} {packet.text}")
