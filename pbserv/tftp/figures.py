"""The TFTP counters as the figures that `pbserv statistics` prints: a value for the control socket."""

from __future__ import annotations

from collections.abc import Mapping

from pbserv.tftp.metrics import Histogram, TftpMetrics

Figure = int | float | None | Mapping[str, int]


def figures(metrics: TftpMetrics) -> Mapping[str, Figure]:
    """Since the process started; those of the cache since the service started. Quantiles are bounds of buckets."""
    cache = metrics.cache
    return {
        "active": metrics.active,
        "read_requests": metrics.asked["read"],
        "write_requests": metrics.asked["write"],
        "sent": _outcomes(metrics, "sent"),
        "received": _outcomes(metrics, "received"),
        "refused": {f"error {code}": count for code, count in sorted(metrics.refused.items())},
        "ignored": dict(metrics.ignored),
        "bytes_sent": metrics.bytes_sent,
        "bytes_received": metrics.bytes_received,
        "bytes_discarded": metrics.bytes_discarded,
        "blocks_sent": metrics.blocks_sent,
        "blocks_received": metrics.blocks_received,
        "retransmissions": metrics.retransmissions,
        "stale_acks": metrics.stale_acks,
        "strays": metrics.strays,
        "internal_errors": metrics.bugs,
        "rtt_measured": metrics.rtt.count,
        "rtt_median_ms": _milliseconds(metrics.rtt, 0.5),
        "rtt_p99_ms": _milliseconds(metrics.rtt, 0.99),
        "cache_hits": cache.hits if cache else 0,
        "cache_misses": cache.misses if cache else 0,
        "cache_streams": cache.streams if cache else 0,
        "cache_bytes": cache.held_bytes if cache else 0,
    }


def _outcomes(metrics: TftpMetrics, direction: str) -> Mapping[str, int]:
    return {outcome: count for (kind, outcome), count in metrics.ended.items() if kind == direction}


def _milliseconds(histogram: Histogram, share: float) -> float | None:
    """None when nothing was measured, or when it lies above the last bound (JSON knows no infinity)."""
    bound = histogram.quantile(share)
    return None if bound is None or bound == float("inf") else round(bound * 1000, 3)
