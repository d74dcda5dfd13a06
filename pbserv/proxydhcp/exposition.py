"""The proxyDHCP counters as Prometheus metric families, made when they are asked for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from prometheus_client.core import CounterMetricFamily, Metric

from pbserv.proxydhcp.outcome import Reason

_OTHERS = ("offer", "ack", "send_failed", "fault", "loops", "waited")


class ProxyDhcpCollector:
    """``counters`` are those of the service: what became of each packet."""

    def __init__(self, counters: Mapping[str, int]) -> None:
        self._counters = counters

    def collect(self) -> Iterator[Metric]:
        text = "DHCP packets by what became of them: answered, or the reason why not."
        family = CounterMetricFamily("pbserv_proxydhcp_packets", text, labels=("result",))
        for result in (*_OTHERS, *(reason.value for reason in Reason)):
            family.add_metric((result,), self._counters.get(result, 0))
        yield family
