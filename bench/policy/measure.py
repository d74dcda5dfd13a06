"""One round of measurements in a process of its own, printed as JSON.

``python -m bench.policy.measure --sqlite FILE [--seconds S]``, or ``--postgresql URL`` for the read of that one alone;
the registries are filled by ``python -m bench.policy``, which runs this. Beside all stands the time of a fixed loop,
which says how fast the machine was just then.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import uvloop

from bench.policy import zone
from pbserv.garbage import held_off
from pbserv.policy.decide import Query, decide
from pbserv.policy.documents import decode
from pbserv.policy.model import Assignment
from pbserv.policy.snapshot import Snapshot
from pbserv.registry.engine import Place
from pbserv.registry.orders import DeviceChange
from pbserv.registry.records import Device
from pbserv.registry.registry import Registry

GARBAGE = (20_000, 20, 20)
"""As pbserv.app sets it; not imported, so that the memory is that of the policy alone."""
ASKED_PER_S = 1_000
CHANGED_PER_S = 50
LIVE = {"arch": "UEFI x64", "client_kind": "uefi", "interface": "eth0", "vendor_class": "PXEClient:Arch:00007"}
Figures = dict[str, float]


def calibration_ms() -> float:
    """A loop of plain Python: numbers, a dictionary, texts. Of three."""
    times = []
    for _ in range(3):
        began = time.perf_counter()
        known: dict[str, int] = {}
        for number in range(200_000):
            name = f"{number & 4095:x}"
            known[name] = known.get(name, 0) + number
        times.append((time.perf_counter() - began) * 1e3)
    return sorted(times)[1]


def rss_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


@contextmanager
def taking(figures: Figures, name: str) -> Iterator[None]:
    """Seconds; under ``NAME_cpu_s`` those that this process had a processor."""
    began, worked = time.perf_counter(), time.process_time()
    yield
    figures[f"{name}_s"] = time.perf_counter() - began
    figures[f"{name}_cpu_s"] = time.process_time() - worked


def spread(figures: Figures, name: str, values: Sequence[float]) -> None:
    ordered = sorted(values)
    figures[f"{name}_p50"] = ordered[len(ordered) // 2]
    figures[f"{name}_p99"] = ordered[len(ordered) * 99 // 100]
    figures[f"{name}_max"] = ordered[-1]


async def read(place: Place) -> Snapshot:
    """As the policy service does at its start."""
    registry = Registry.open(place)
    try:
        with held_off():
            devices = await registry.devices()
            return Snapshot.of(devices, [decode(document) for document in await registry.documents()])
    finally:
        await registry.close()


def timed_us(calls: Sequence[Callable[[], object]]) -> list[float]:
    times = []
    for call in calls:
        began = time.perf_counter_ns()
        call()
        times.append((time.perf_counter_ns() - began) / 1e3)
    return times


def changes(figures: Figures, snapshot: Snapshot, chance: random.Random) -> None:
    """One device; one object of the policy, as ``Register.documents_changed`` does it."""
    some = chance.sample(list(snapshot.devices.values()), 2_000)
    renamed = [replace(device, name="renamed", macs=(*device.macs, "02:00:00:00:00:01")) for device in some]
    spread(figures, "with_device_us", timed_us([lambda d=d: snapshot.with_device(d) for d in renamed]))
    changed = replace(snapshot.objects.assignments["assignment 1"], priority=7)

    def one_object() -> Snapshot:
        kept = [each for each in snapshot.objects.everything() if not _same(each, changed)]
        return snapshot.with_objects([*kept, changed])

    spread(figures, "with_objects_us", timed_us([one_object] * 20))


def _same(each: object, other: Assignment) -> bool:
    return isinstance(each, Assignment) and each.name == other.name


def decisions(figures: Figures, snapshot: Snapshot, chance: random.Random, count: int) -> None:
    queries = [Query(device.mac, device, LIVE) for device in chance.choices(list(snapshot.devices.values()), k=count)]
    for query in queries[: count // 10]:  # caches of folders and schedules fill as they do in the first seconds
        decide(query, snapshot, zone.NOW)
    with taking(figures, "decisions"):
        for query in queries:
            decide(query, snapshot, zone.NOW)
    figures["decisions_per_s"] = count / figures["decisions_s"]
    spread(figures, "decide_us", timed_us([lambda q=q: decide(q, snapshot, zone.NOW) for q in queries]))


class Busy:
    """Decisions, changes that go through the registry, and a watch over the loop, for some seconds."""

    def __init__(self, registry: Registry, snapshot: Snapshot, seconds: float) -> None:
        self.snapshot = snapshot
        self._registry = registry
        self._macs = list(snapshot.devices)
        self._chance = random.Random(4)
        self._seconds = seconds
        self._asked_us: list[float] = []
        self._changed_ms: list[float] = []
        self._late_ms: list[float] = []
        registry.subscribe(self._changed)

    def _changed(self, device: Device) -> None:
        self.snapshot = self.snapshot.with_device(device)

    async def run(self, figures: Figures) -> None:
        async with asyncio.TaskGroup() as tasks:
            for work in (self._watch, self._ask):
                tasks.create_task(work())
            await self._change(tasks)
        spread(figures, "loop_late_ms", self._late_ms)
        spread(figures, "busy_decide_us", self._asked_us)
        spread(figures, "change_ms", self._changed_ms)
        figures["busy_asked_per_s"] = len(self._asked_us) / self._seconds
        figures["busy_changed_per_s"] = len(self._changed_ms) / self._seconds

    async def _watch(self) -> None:
        """How much later than asked for the loop goes on."""
        end = time.perf_counter() + self._seconds
        while (began := time.perf_counter()) < end:
            await asyncio.sleep(0.001)
            self._late_ms.append((time.perf_counter() - began) * 1e3 - 1)

    async def _ask(self) -> None:
        began = time.perf_counter()
        while (since := time.perf_counter() - began) < self._seconds:
            for _ in range(int(since * ASKED_PER_S) - len(self._asked_us)):
                mac = self._chance.choice(self._macs)
                started = time.perf_counter_ns()
                decide(Query(mac, self.snapshot.device(mac), LIVE), self.snapshot, zone.NOW)
                self._asked_us.append((time.perf_counter_ns() - started) / 1e3)
            await asyncio.sleep(0.001)

    async def _change(self, tasks: asyncio.TaskGroup) -> None:
        began = time.perf_counter()
        for number in range(int(self._seconds * CHANGED_PER_S)):
            await asyncio.sleep(max(0.0, began + number / CHANGED_PER_S - time.perf_counter()))
            tasks.create_task(self._one(self._chance.choice(self._macs), f"renamed {number}"))

    async def _one(self, mac: str, name: str) -> None:
        """From the call to the snapshot that has it."""
        began = time.perf_counter()
        await self._registry.change_device(mac, DeviceChange(name=name))
        device = self.snapshot.device(mac)
        if device is None or device.name != name:
            raise SystemExit(f"{mac} was changed and the snapshot does not know")
        self._changed_ms.append((time.perf_counter() - began) * 1e3)


async def measured(given: argparse.Namespace) -> Figures:
    if given.postgresql:
        figures: Figures = {}
        with taking(figures, "postgresql"):
            await read(given.postgresql)
        return figures
    figures = {"calibration_ms": calibration_ms(), "rss_before_mb": rss_mb()}
    with taking(figures, "sqlite"):
        snapshot = await read(given.sqlite)
    figures["rss_after_mb"] = rss_mb()
    devices, objects = list(snapshot.devices.values()), list(snapshot.objects.everything())
    with taking(figures, "records"), held_off():
        Snapshot.of(devices, objects)
    gc.freeze()  # as pbserv does when it has started
    gc.set_threshold(*GARBAGE)
    changes(figures, snapshot, random.Random(5))
    decisions(figures, snapshot, random.Random(6), given.decisions)
    registry = Registry.open(given.sqlite)
    await Busy(registry, snapshot, given.seconds).run(figures)
    await registry.close()
    figures["rss_end_mb"] = rss_mb()
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sqlite", type=Path)
    parser.add_argument("--postgresql", default="")
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--decisions", type=int, default=50_000)
    given = parser.parse_args()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        print(json.dumps(runner.run(measured(given))))


if __name__ == "__main__":
    main()
