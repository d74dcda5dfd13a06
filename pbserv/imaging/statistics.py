"""The three figures of the imaging server (PXE Requests, Images Sent, Images Received), how jobs ended, and the log of
requests.

One rule: a request is one job start or one manual image operation, whatever its outcome, and is logged once with
source, type, date and time, and result. The figures live in memory: they start from nought with the process.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

RESULTS: Final = ("ok", "started", "denied", "referred", "failed", "aborted", "other")
"""What can become of a request: ``started`` is a job or an upload in parts, whose end is logged apart; ``referred``: to
another server that has the image."""


@dataclass(frozen=True, slots=True)
class Counters:
    """One reading of the figures; ``since`` is when they were nought. ``results``: how many requests ended so;
    ``jobs``: kind of job -> result -> how many jobs ended so."""

    pxe_requests: int
    images_sent: int
    images_received: int
    since: datetime
    results: Mapping[str, int] = field(default_factory=dict)
    jobs: Mapping[str, Mapping[str, int]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RequestRecord:
    """One line of the request log; ``result`` is one of RESULTS."""

    source: str
    type: str
    when: datetime
    result: str
    image: str = ""
    detail: str = ""
    seconds: float = 0.0

    def fields(self) -> dict[str, object]:
        """The record as fields of a log line, without those that are empty."""
        fields: dict[str, object] = {"source": self.source, "type": self.type, "when": self.when.isoformat()}
        fields["result"] = self.result
        fields["seconds"] = round(self.seconds, 3)
        return fields | {key: value for key, value in (("image", self.image), ("detail", self.detail)) if value}


RequestLog = Callable[[RequestRecord], None]


def _now() -> datetime:
    return datetime.now(UTC)


def _ignore(_record: RequestRecord) -> None:
    return


class OpenRequest:
    """A request that was counted and whose result is not known yet."""

    def __init__(self, record: Callable[[str, str], None]) -> None:
        self._record: Callable[[str, str], None] | None = record

    def close(self, result: str, detail: str = "") -> None:
        """Log the request with its result; the second and later calls do nothing."""
        record, self._record = self._record, None
        if record is not None:
            record(result, detail)


class Statistics:
    """The counters of one run of the process; used from the event loop only."""

    def __init__(self, log: RequestLog = _ignore, clock: Callable[[], datetime] = _now) -> None:
        self._log = log
        self._clock = clock
        self._since = clock()
        self._requests = 0
        self._results: Counter[str] = Counter()
        self._jobs: dict[str, Counter[str]] = {}
        self._sent = 0
        self._received = 0

    @property
    def counters(self) -> Counters:
        jobs = {kind: dict(results) for kind, results in self._jobs.items()}
        return Counters(self._requests, self._sent, self._received, self._since, dict(self._results), jobs)

    def request(self, source: str, kind: str, result: str, *, image: str = "", detail: str = "") -> None:
        """Count and log a request whose result is known: a job start, a denied operation."""
        self.open(source, kind, image=image).close(result, detail)

    def open(self, source: str, kind: str, *, image: str = "") -> OpenRequest:
        """Count a request now; it is logged, with the time at which it came, when its result is known."""
        self._requests += 1
        when = self._clock()

        def record(result: str, detail: str) -> None:
            self._results[result if result in RESULTS else "other"] += 1
            seconds = (self._clock() - when).total_seconds()
            self._log(RequestRecord(source, kind, when, result, image, detail, seconds))

        return OpenRequest(record)

    def ended(self, kind: str, result: str) -> None:
        """Count a job that is over: done, failed or cancelled."""
        self._jobs.setdefault(kind, Counter())[result] += 1

    def sent(self) -> None:
        """Count an image whose last byte was delivered to one device."""
        self._sent += 1

    def received(self) -> None:
        """Count an image that was committed."""
        self._received += 1
