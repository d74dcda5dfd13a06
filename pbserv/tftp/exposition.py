"""The TFTP counters as Prometheus metric families, made when they are asked for.

One rule: labels come from closed sets. No file name and no address appears: anybody may read them.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from pbserv.tftp.metrics import Histogram, TftpMetrics
from pbserv.tftp.packet import ErrorCode
from pbserv.tftp.transfer import Outcome

_PREFIX = "pbserv_tftp_"

_PLAIN = (
    ("datagrams", "requests", "Datagrams of any kind that came to the request port."),
    ("sent_bytes", "bytes_sent", "Bytes of files that clients acknowledged; a transfer counts when it ends."),
    ("received_bytes", "bytes_received", "Bytes that clients uploaded; a transfer counts when it ends."),
    ("discarded_bytes", "bytes_discarded", "Bytes received for uploads that broke and left nothing behind."),
    ("sent_blocks", "blocks_sent", "DATA packets sent, repeated ones among them."),
    ("received_blocks", "blocks_received", "DATA packets received."),
    ("retransmissions", "retransmissions", "Packets of transfers that were sent again."),
    ("stale_acks", "stale_acks", "Answers that told nothing new: duplicates and acknowledgements of old blocks."),
    ("stray_datagrams", "strays", "Datagrams to a transfer's port from somebody who has no transfer there."),
    ("internal_errors", "bugs", "Faults of the server itself; each one is in its log."),
)
"""Name, attribute of TftpMetrics, help."""


class TftpCollector:
    """Reads the plain numbers at scrape time."""

    def __init__(self, metrics: TftpMetrics) -> None:
        self._metrics = metrics

    def collect(self) -> Iterator[Metric]:
        for name, attribute, text in _PLAIN:
            yield CounterMetricFamily(_PREFIX + name, text, getattr(self._metrics, attribute))
        yield GaugeMetricFamily(_PREFIX + "active_transfers", "Transfers that run now.", self._metrics.active)
        yield self._requests()
        yield self._transfers()
        yield self._refusals()
        yield self._ignored()
        yield from self._histograms()
        yield from self._cache()

    def _requests(self) -> Metric:
        family = CounterMetricFamily(_PREFIX + "requests", "Well-formed requests by kind.", labels=("kind",))
        for kind in ("read", "write"):
            family.add_metric((kind,), self._metrics.asked[kind])
        return family

    def _transfers(self) -> Metric:
        text = "Transfers that ended, by direction (seen from the server) and outcome."
        family = CounterMetricFamily(_PREFIX + "transfers", text, labels=("direction", "outcome"))
        for direction in self._metrics.durations:
            for outcome in Outcome:
                count = self._metrics.ended[direction, outcome.value]
                family.add_metric((direction, outcome.name.lower()), count)
        return family

    def _refusals(self) -> Metric:
        text = "Requests that were answered with an ERROR, by its code (RFC 1350; 8: RFC 2347)."
        family = CounterMetricFamily(_PREFIX + "refusals", text, labels=("code",))
        for code in range(ErrorCode.OPTION + 1):
            family.add_metric((str(code),), self._metrics.refused[code])
        return family

    def _ignored(self) -> Metric:
        family = CounterMetricFamily(_PREFIX + "ignored", "Datagrams not answered, by reason.", labels=("reason",))
        for reason, count in self._metrics.ignored.items():
            family.add_metric((reason.replace(" ", "_").lower(),), count)
        return family

    def _histograms(self) -> Iterator[Metric]:
        text = "Smoothed round-trip time of each transfer that ended, where it was measured."
        family = HistogramMetricFamily(_PREFIX + "round_trip_seconds", text)
        family.add_metric((), _buckets(self._metrics.rtt), self._metrics.rtt.total)
        yield family
        text = "From request to last acknowledgement, of transfers that were completed."
        family = HistogramMetricFamily(_PREFIX + "transfer_seconds", text, labels=("direction",))
        for direction, histogram in self._metrics.durations.items():
            family.add_metric((direction,), _buckets(histogram), histogram.total)
        yield family

    def _cache(self) -> Iterator[Metric]:
        cache = self._metrics.cache
        if cache is None:
            return
        text = "Files asked of the cache since the service started: held, read into it, or too large for it."
        family = CounterMetricFamily(_PREFIX + "cache_requests", text, labels=("result",))
        for result, count in (("hit", cache.hits), ("miss", cache.misses), ("stream", cache.streams)):
            family.add_metric((result,), count)
        yield family
        yield GaugeMetricFamily(_PREFIX + "cache_bytes", "Memory held by the cache.", cache.held_bytes)


def _buckets(histogram: Histogram) -> list[tuple[str, float]]:
    """Prometheus counts cumulatively, up to and with infinity."""
    bounds = [*map(str, histogram.bounds), "+Inf"]
    return list(zip(bounds, map(float, accumulate(histogram.counts)), strict=True))
