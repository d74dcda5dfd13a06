"""How the end of a transfer is told: log line, counters, observer. One table says at which level.

One rule: a size probe and a repeated request are no failures (level 3); a missing last ACK is a completed transfer.
"""

from __future__ import annotations

from dataclasses import dataclass

from pbserv.log import ServiceLog
from pbserv.tftp.metrics import TftpMetrics
from pbserv.tftp.names import escape, is_optional, shown
from pbserv.tftp.packet import ErrorCode, Request
from pbserv.tftp.ports import Observer
from pbserv.tftp.transfer import Outcome, Transfer

_EVENTS: dict[Outcome, tuple[str, int]] = {
    Outcome.COMPLETED: ("sent", 2),
    Outcome.UNACKNOWLEDGED: ("sent", 2),
    Outcome.CLOSED: ("closed by client", 2),
    Outcome.PROBE: ("probed", 3),
    Outcome.REPLACED: ("replaced", 3),
    Outcome.CLIENT_ERROR: ("failed", 1),
    Outcome.UNANSWERED: ("failed", 1),
    Outcome.TIMED_OUT: ("failed", 1),
    Outcome.UNREACHABLE: ("failed", 1),
    Outcome.FILE_FAULT: ("failed", 1),
    Outcome.STOPPED: ("failed", 1),
    Outcome.BUG: ("failed", 1),
}


@dataclass(frozen=True, slots=True)
class Ended:
    """The facts of one transfer that is over; ``block_size`` is what was agreed on."""

    client: str
    name: bytes
    size_bytes: int
    block_size: int
    seconds: float
    transfer: Transfer


class Reporter:
    """Owned by the service, used by its sessions and its desk."""

    def __init__(self, log: ServiceLog, observer: Observer, metrics: TftpMetrics) -> None:
        self.log = log
        self.metrics = metrics
        self._observer = observer

    def ended(self, facts: Ended) -> None:
        transfer, metrics = facts.transfer, self.metrics
        outcome = transfer.outcome or Outcome.BUG
        metrics.outcomes[outcome.value] += 1
        metrics.blocks_sent += transfer.blocks_sent
        metrics.bytes_sent += min(transfer.acknowledged * facts.block_size, facts.size_bytes)
        metrics.retransmissions += transfer.retransmissions
        metrics.stale_acks += transfer.stale_acks
        event, level = _EVENTS[outcome]
        if self.log.level >= level:
            write = (self.log.critical, self.log.warning, self.log.transaction, self.log.request)[level]
            write(
                event,
                client=facts.client,
                file=shown(facts.name),
                size=facts.size_bytes,
                blksize=facts.block_size,
                windowsize=transfer.window,
                seconds=round(facts.seconds, 3),
                retransmissions=transfer.retransmissions,
                result=outcome.value,
                reason=escape(transfer.detail) or None,
            )
        self._tell(facts.client, facts.name, outcome.value, facts.size_bytes)

    def refused(self, client: str, request: Request, code: int, text: str) -> None:
        """A well-formed request that gets an ERROR; a missing configuration that loaders only try is level 3."""
        self.metrics.refused[code] += 1
        missing = code == ErrorCode.NOT_FOUND
        optional = missing and is_optional(request.name)
        if self.log.level >= (3 if optional else 1):
            write = self.log.request if optional else self.log.warning
            write("refused", client=client, file=shown(request.name), result=f"error {code}", reason=text)
        if not optional:
            self._tell(client, request.name, "missing" if missing else "refused", 0)

    def malformed(self, client: str, reason: str) -> None:
        self.metrics.refused[ErrorCode.ILLEGAL] += 1
        self.log.warning("refused", client=client, result=f"error {ErrorCode.ILLEGAL}", reason=reason)

    def ignored(self, client: str, reason: str) -> None:
        """``reason`` is one of a few fixed texts: it is a counter too."""
        self.metrics.ignored[reason] += 1
        self.log.request("ignored", client=client, reason=reason)

    def bug(self, where: str, fault: Exception) -> None:
        """Our own fault: the traceback is logged, and serving goes on."""
        self.metrics.bugs += 1
        self.log.critical("internal error", where=where, exc_info=fault)

    def _tell(self, client: str, name: bytes, outcome: str, size_bytes: int) -> None:
        try:
            self._observer.transferred(client.rpartition(":")[0], shown(name), outcome, size_bytes)
        except Exception as fault:
            self.bug("observer", fault)
