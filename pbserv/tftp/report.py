"""How requests and the end of a transfer are told: log line, counters, observer. One table says at which level.

One rule: a size probe and a repeated request are no failures (level 3); a missing last ACK is a completed transfer.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Literal

from pbserv.log import ServiceLog
from pbserv.tftp.metrics import TftpMetrics
from pbserv.tftp.names import escape, is_optional, shown, shown_options
from pbserv.tftp.packet import ErrorCode, Opcode, Request
from pbserv.tftp.ports import Observer
from pbserv.tftp.transfer import Outcome

Kind = Literal["sent", "received"]
"""Seen from the server: reads are sent, writes are received."""

# The manual's levels: 1 failed transactions, 2 completed transactions, 3 requests.
_EVENTS: dict[str, tuple[str, int]] = {
    Outcome.COMPLETED.word: ("", 2),
    Outcome.UNACKNOWLEDGED.word: ("", 2),
    Outcome.CLOSED.word: ("closed by client", 2),
    Outcome.PROBE.word: ("probed", 3),
    Outcome.REPLACED.word: ("replaced", 3),
    Outcome.CLIENT_ERROR.word: ("failed", 1),
    Outcome.UNANSWERED.word: ("failed", 1),
    Outcome.TIMED_OUT.word: ("failed", 1),
    Outcome.UNREACHABLE.word: ("failed", 1),
    Outcome.FILE_FAULT.word: ("failed", 1),
    Outcome.NOT_STORED.word: ("failed", 1),
    Outcome.STOPPED.word: ("failed", 1),
    Outcome.BUG.word: ("failed", 1),
}
"""Event and level; a completed transfer's event is its direction."""


@dataclass(slots=True)  # not frozen: that would cost more than all of its numbers
class Ended:
    """The facts of one transfer that is over.

    ``block_size`` and ``window`` are what was agreed on; ``bytes_moved`` are those that arrived: acknowledged by the
    client, or taken from it; ``blocks`` counts DATA packets, those that were sent again among them; ``stale`` are
    answers that told nothing new; ``rtt_s`` is 0 when it was never measured.
    """

    kind: Kind
    client: str
    name: bytes
    size_bytes: int
    block_size: int
    window: int
    seconds: float
    outcome: Outcome
    detail: str
    bytes_moved: int
    blocks: int
    retransmissions: int
    stale: int
    rtt_s: float


class Reporter:
    """Owned by the service, used by its sessions and its desk."""

    def __init__(self, log: ServiceLog, observer: Observer, metrics: TftpMetrics) -> None:
        self.log = log
        self.metrics = metrics
        self._observer = observer
        self._said: dict[str, float] = {}  # reason of a shortage: when it may be said again

    def asked(self, client: str, request: Request) -> None:
        """A well-formed request, whatever becomes of it."""
        kind = "read" if request.opcode == Opcode.RRQ else "write"
        self.metrics.asked[kind] += 1
        if self.log.level >= 3:
            self.log.request(
                "request",
                client=client,
                kind=kind,
                file=shown(request.name),
                mode=escape(request.mode),
                options=shown_options(request.options) or None,
            )

    def ended(self, facts: Ended) -> None:
        self._count(facts)
        event, level = _EVENTS[facts.outcome.word]
        if self.log.level >= level:
            self._write(level, event or facts.kind, facts)
        if facts.kind == "sent":  # uploads have a port of their own, which is told before the last ACK
            self._tell(facts.client, facts.name, facts.outcome.word, facts.size_bytes)

    def _count(self, facts: Ended) -> None:
        metrics = self.metrics
        metrics.ended[facts.kind, facts.outcome.word] += 1
        if facts.kind == "sent":
            metrics.blocks_sent += facts.blocks
            metrics.bytes_sent += facts.bytes_moved
        else:
            metrics.blocks_received += facts.blocks
            metrics.bytes_received += facts.bytes_moved
            if not facts.outcome.delivered:
                metrics.bytes_discarded += facts.bytes_moved
        metrics.retransmissions += facts.retransmissions
        metrics.stale_acks += facts.stale
        if facts.rtt_s:
            metrics.rtt.add(facts.rtt_s)
        if facts.outcome.delivered:
            metrics.durations[facts.kind].add(facts.seconds)

    def _write(self, level: int, event: str, facts: Ended) -> None:
        write = (self.log.critical, self.log.warning, self.log.transaction, self.log.request)[level]
        write(
            event,
            client=facts.client,
            file=shown(facts.name),
            kind="write" if facts.kind == "received" and event != facts.kind else None,
            size=facts.size_bytes,
            blksize=facts.block_size,
            windowsize=facts.window,
            seconds=round(facts.seconds, 3),
            rate=f"{facts.bytes_moved / facts.seconds / 1e6:.3g} MB/s" if facts.bytes_moved and facts.seconds else None,
            retransmissions=facts.retransmissions,
            rtt_ms=round(facts.rtt_s * 1000, 3) if facts.rtt_s else None,
            result=facts.outcome.word,
            reason=escape(facts.detail) or None,
        )

    def refused(self, client: str, request: Request, code: int, text: str) -> None:
        """A well-formed request that gets an ERROR; a missing configuration that loaders only try is level 3."""
        self.metrics.refused[code] += 1
        read = request.opcode == Opcode.RRQ
        missing = read and code == ErrorCode.NOT_FOUND
        optional = missing and is_optional(request.name)
        if self.log.level >= (3 if optional else 1):
            write = self.log.request if optional else self.log.warning
            write(
                "refused",
                client=client,
                file=shown(request.name),
                kind=None if read else "write",
                result=f"error {code}",
                reason=text,
            )
        if read and not optional:
            self._tell(client, request.name, "missing" if missing else "refused", 0)

    def malformed(self, client: str, reason: str) -> None:
        self.metrics.refused[ErrorCode.ILLEGAL] += 1
        self.log.warning("refused", client=client, result=f"error {ErrorCode.ILLEGAL}", reason=reason)

    def ignored(self, client: str, reason: str) -> None:
        """``reason`` is one of a few fixed texts: it is a counter too."""
        self.metrics.ignored[reason] += 1
        self.log.request("ignored", client=client, reason=reason)

    def shortage(self, reason: str) -> None:
        """What an administrator has to mend; said once a minute."""
        now = time.monotonic()
        if now >= self._said.get(reason, 0.0):
            self._said[reason] = now + 60.0
            self.log.warning("clients are not served", reason=reason)

    def bug(self, where: str, fault: Exception) -> None:
        """Our own fault: the traceback is logged, and serving goes on."""
        self.metrics.bugs += 1
        self.log.critical("internal error", where=where, exc_info=fault)

    def _tell(self, client: str, name: bytes, outcome: str, size_bytes: int) -> None:
        peer = client.rpartition(":")[0].strip("[]")  # an IPv6 address stands in brackets before its port
        try:
            self._observer.transferred(peer, shown(name), outcome, size_bytes)
        except Exception as fault:
            self.bug("observer", fault)
