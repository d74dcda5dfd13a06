"""The figures of the imaging server as Prometheus metric families, made when they are asked for."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, Metric

from pbserv.imaging.statistics import RESULTS, Statistics


class ImagingCollector:
    def __init__(self, statistics: Statistics) -> None:
        self._statistics = statistics

    def collect(self) -> Iterator[Metric]:
        now = self._statistics.counters
        text = "Job starts and manual image operations, whatever their outcome."
        yield CounterMetricFamily("pbserv_imaging_requests", text, now.pxe_requests)
        results = CounterMetricFamily("pbserv_imaging_results", "What became of these requests.", labels=("result",))
        for result in RESULTS:
            results.add_metric((result,), now.results.get(result, 0))
        yield results
        jobs = CounterMetricFamily("pbserv_imaging_jobs", "How jobs of devices ended.", labels=("kind", "result"))
        for kind, ended in sorted(now.jobs.items()):
            for result, count in sorted(ended.items()):
                jobs.add_metric((kind, result), count)
        yield jobs
        yield CounterMetricFamily("pbserv_imaging_images_sent", "Images delivered to one device.", now.images_sent)
        yield CounterMetricFamily("pbserv_imaging_images_received", "Images that were stored.", now.images_received)
