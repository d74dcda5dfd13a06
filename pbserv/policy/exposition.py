"""What the policy decides and on what, as Prometheus metric families.

One rule: a scrape never walks over the devices in the event loop; the database counts them, at most every few seconds.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final, Protocol

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from sqlalchemy.exc import SQLAlchemyError

from pbserv.policy.oracles.ports import RESULTS, Oracle
from pbserv.policy.snapshot import Snapshot
from pbserv.registry.counts import Counts
from pbserv.registry.records import Device, Document
from pbserv.types import Verdict

FRESH_S: Final = 10.0
PATIENCE_S: Final = 2.0
"""A scrape does not wait longer for the database: it goes on without these figures."""


class Policy(Protocol):
    """What is asked of the policy service."""

    @property
    def snapshot(self) -> Snapshot: ...

    @property
    def decided(self) -> Mapping[Verdict, int]:
        """Decisions that were made since the start, by their verdict."""

    @property
    def oracle(self) -> Oracle | None:
        """The other server that is asked about devices."""


class Registry(Protocol):
    async def counts(self) -> Counts:
        """Raises SQLAlchemyError."""

    def subscribe(self, changed: Callable[[Device], None]) -> None: ...

    def subscribe_documents(self, changed: Callable[[Sequence[Document], Sequence[tuple[str, str]]], None]) -> None: ...


class PolicyCollector:
    """Call :meth:`refresh` before a scrape. ``clock`` is monotonic, ``calendar`` gives seconds since the epoch."""

    def __init__(
        self,
        policy: Policy,
        registry: Registry,
        clock: Callable[[], float] = time.monotonic,
        calendar: Callable[[], float] = time.time,
    ) -> None:
        self._policy = policy
        self._registry = registry
        self._clock = clock
        self._calendar = calendar
        self._changed = {"device": 0.0, "object": 0.0}
        registry.subscribe(lambda _device: self._note("device"))
        registry.subscribe_documents(lambda _changed, _deleted: self._note("object"))
        self._counts: Counts | None = None
        self._due = float("-inf")

    async def refresh(self) -> None:
        """Count again when the last figures are older than ``FRESH_S``; without a database there are none."""
        now = self._clock()
        if now < self._due:
            return
        self._due = now + FRESH_S
        try:
            async with asyncio.timeout(PATIENCE_S):
                self._counts = await self._registry.counts()
        except (SQLAlchemyError, TimeoutError):
            self._counts = None

    def _note(self, what: str) -> None:
        self._changed[what] = self._calendar()

    def collect(self) -> Iterator[Metric]:
        if self._counts is not None:
            yield _by_state("pbserv_policy_devices", "Devices in the registry by state.", self._counts.devices)
            yield _by_state("pbserv_policy_work", "One-shot work by state, also what has ended.", self._counts.work)
        text = "Decisions that were made; a question that was answered before is not decided again."
        decisions = CounterMetricFamily("pbserv_policy_decisions", text, labels=("verdict",))
        for verdict in Verdict:
            decisions.add_metric((verdict.value,), self._policy.decided.get(verdict, 0))
        yield decisions
        yield _questions(self._policy.oracle)
        yield from _objects(self._policy.snapshot)
        text = "When the registry last took a change of a device or its work, or of an object; 0: not since the start."
        changed = GaugeMetricFamily("pbserv_policy_last_change_timestamp_seconds", text, labels=("of",))
        for what, at in self._changed.items():
            changed.add_metric((what,), at)
        yield changed


def _questions(oracle: Oracle | None) -> Metric:
    text = "Questions to the other server that decides, by the key that names it, and what came of them."
    family = CounterMetricFamily("pbserv_policy_questions", text, labels=("key", "result"))
    for key in ("PolicyHook", "PrebootServer"):
        counters = oracle.counters if oracle is not None and oracle.name.startswith(f"{key} ") else {}
        for result in RESULTS:
            family.add_metric((key, result), counters.get(result, 0))
    return family


def _by_state(name: str, text: str, counts: Mapping[str, int]) -> Metric:
    family = GaugeMetricFamily(name, text, labels=("state",))
    for state, count in counts.items():
        family.add_metric((str(state),), count)
    return family


def _objects(snapshot: Snapshot) -> Iterator[Metric]:
    objects = snapshot.objects
    family = GaugeMetricFamily("pbserv_policy_objects", "Objects that decisions are made on.", labels=("kind",))
    for kind, there in (
        ("bundle", objects.bundles), ("group", objects.groups), ("folder", objects.folders),
        ("assignment", objects.assignments), ("rule", objects.rules), ("menu", objects.menus),
    ):  # fmt: skip
        family.add_metric((kind,), len(there))
    yield family
    text = "Devices that decisions are made on."
    yield GaugeMetricFamily("pbserv_policy_snapshot_devices", text, len(snapshot))
