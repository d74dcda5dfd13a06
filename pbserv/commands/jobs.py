"""`pbserv job`: runs of work on devices, live, and the queue. All through the HTTP API."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Final

from rich.progress import BarColumn, Progress, TaskID, TextColumn

from pbserv.commands.api import Api, named
from pbserv.commands.tables import Row, clock, console, plain, print_json, show_facts, show_table, size
from pbserv.commands.work import progress

LOOK_S: Final = 2.0
"""Devices report that often."""
LINES_S: Final = 15.0
"""Between two lines of a job where there is no terminal."""


def listed(conf: Path, mac: str | None, state: str | None, limit: int, as_json: bool) -> None:
    found = Api(conf).get("/jobs", mac=mac, state=state, limit=limit)
    if as_json:
        return print_json(found)
    rows = (
        (str(job["id"]), job["mac"], job["kind"], image_of(job), job["state"], progress(job), ends(job),
         clock(job["started"]), job["reason"])
        for job in found
    )  # fmt: skip
    columns = ("Job", "Device", "Kind", "Image", "State", "Progress", "Left", "Started", "Reason")
    return show_table(columns, rows, "no jobs: no device has begun any work" if state is None else f"no job is {state}")


def show(conf: Path, number: int, as_json: bool) -> None:
    job = Api(conf).get(f"/jobs/{number}")
    if as_json:
        return print_json(job)
    show_facts((
        ("job", f"{job['id']} of work {job['work_id']}"), ("device", job["mac"]), ("address", job["address"]),
        ("what", f"{job['kind']} {image_of(job)}".rstrip()), ("store", job["store"]), ("state", job["state"]),
        ("reason", job["reason"]), ("progress", progress(job)), ("left", ends(job)),
        ("verified", job["verified"]), ("started", clock(job["started"])), ("ended", clock(job["finished"])),
        ("took", duration(job["seconds"])), ("waited for a place", job["queued_s"] and duration(job["queued_s"])),
        ("waited for data", job["waited_ms"] and duration(job["waited_ms"] / 1000)),
        ("sent", job["bytes_sent"] and size(job["bytes_sent"])),
    ))  # fmt: skip
    if job["log"]:
        print()
        for line in job["log"].splitlines():
            print(plain(line))
    return None


def cancel(conf: Path, number: int, as_json: bool) -> None:
    job = Api(conf).post(f"/jobs/{number}/cancel")
    print_json(job) if as_json else print(f"job {job['id']} on {job['mac']} is told to stop")


def retry(conf: Path, number: int, as_json: bool) -> None:
    """Its work is queued again."""
    api = Api(conf)
    work = api.post(f"/work/{api.get(f'/jobs/{number}')['work_id']}/retry")
    print_json(work) if as_json else print(f"work {work['id']} waits for {work['mac']} again")


def queue(conf: Path, as_json: bool) -> None:
    found = Api(conf).get("/queue")
    if as_json:
        return print_json(found)
    rows = [
        (str(each["position"] or ""), each["mac"], str(each["work_id"]), f"{each['direction']} {each['image']}",
         each["store"], each["site"], str(each["priority"] or ""), clock(each["since"]), each["reason"] or "at work")
        for each in (*found["running"], *found["waiting"])
    ]  # fmt: skip
    columns = ("Place", "Device", "Work", "What", "Store", "Site", "Priority", "Since", "Why")
    show_table(columns, rows, "nobody restores or captures now, and nobody waits")
    limited = {name: each for name, each in found["limits"].items() if any(each.values())}
    for name, each in limited.items():
        said = [f"{each[what]} {what}" for what in ("restores", "captures") if each[what]]
        print(f"store {plain(name)}: at most {' and '.join(said)} at a time")
    return None


def watch(conf: Path, numbers: Sequence[int], as_json: bool, look_s: float = LOOK_S) -> int:
    """Follow jobs until they are over; none: all that run. The exit code: 1 when one of them did not succeed."""
    api = Api(conf)
    over: dict[int, Row] = {}
    running = _running(api)
    following = list(numbers) or list(running)
    if not following and not as_json:
        print("no job runs; what waits: pbserv work list, pbserv job queue")
    with Screen() as screen:
        while following:
            for number in following:
                job = running.get(number) or api.get(f"/jobs/{number}")
                if job["state"] == "running":
                    screen.show(job)
                else:
                    over[number] = job
                    screen.ended(job)
            following = [number for number in following if number not in over]
            if following:
                time.sleep(look_s)
            running = _running(api)
            following += [] if numbers else [number for number in running if number not in following]
    if as_json:
        print_json(list(over.values()))
    return 0 if all(job["state"] == "done" for job in over.values()) else 1


def _running(api: Api) -> dict[int, Row]:
    """By their numbers, the oldest first."""
    return {job["id"]: job for job in reversed(api.get("/jobs", state="running", limit=1000))}


class Screen:
    """A bar for each job on a terminal; a line for each job now and then elsewhere. All on stderr."""

    def __init__(self) -> None:
        screen = console(stderr=True)
        columns = (TextColumn("{task.fields[device]}", markup=False), TextColumn("{task.description}", markup=False),
                   BarColumn(), TextColumn("{task.fields[said]}", markup=False))  # fmt: skip
        self._bars = Progress(*columns, console=screen) if screen.is_terminal else None
        self._tasks: dict[int, TaskID] = {}
        self._told: dict[int, tuple[float, str]] = {}

    def __enter__(self) -> Screen:
        if self._bars is not None:
            self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bars is not None:
            self._bars.stop()

    def show(self, job: Row) -> None:
        said = f"{progress(job)}, {ends(job)} left" if ends(job) else progress(job)
        if self._bars is None:
            now = time.monotonic()
            last, stage = self._told.get(job["id"], (-LINES_S, ""))
            if now - last >= LINES_S or stage != job["stage"]:
                self._told[job["id"]] = (now, job["stage"])
                self._line(job, said)
        else:
            self._bar(self._bars, job, said, job["bytes_done"], job["bytes_total"] or None)

    def ended(self, job: Row) -> None:
        took = duration(job["seconds"])
        said = f"{job['state']} after {took}" + (f": {job['reason']}" if job["reason"] else "")
        if self._bars is None:
            self._line(job, said)
        else:
            self._bar(self._bars, job, said, max(1, job["bytes_done"]), max(1, job["bytes_total"]))

    def _bar(self, bars: Progress, job: Row, said: str, done: int, total: int | None) -> None:
        if job["id"] not in self._tasks:
            self._tasks[job["id"]] = bars.add_task(_what(job), total=None, device=job["mac"], said="")
        bars.update(self._tasks[job["id"]], completed=done, total=total, said=plain(said))

    def _line(self, job: Row, said: str) -> None:
        print(f"{job['mac']} {_what(job)}: {plain(said)}", file=sys.stderr, flush=True)


def _what(job: Row) -> str:
    return plain(f"job {job['id']}: {job['kind']} {image_of(job)}".rstrip())


def image_of(job: Row) -> str:
    """``classroom 3``: image and version."""
    return f"{job['image']} {job['version'] or ''}".rstrip()


def ends(job: Row) -> str:
    """In how long, by what came in the last seconds; empty: nobody can say."""
    return "" if job["eta_s"] is None else duration(job["eta_s"])


def duration(seconds: float) -> str:
    """``1:02:03``, ``2:03`` or ``45 s``."""
    whole = round(seconds)
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}:{minutes:02}:{rest:02}"
    return f"{minutes}:{rest:02}" if minutes else f"{whole} s"


def images_of_device(conf: Path, mac: str, as_json: bool) -> None:
    """What was written to a device and taken of it."""
    found = Api(conf).get(named("devices", mac, "images"))
    if as_json:
        return print_json(found)
    current = found["current"]
    if current is not None:
        print(f"device {found['mac']}: {plain(image_of(current))} since {clock(current['finished'])}")
    rows = (
        (clock(each["started"]), each["direction"], image_of(each), each["store"], each["state"], each["verified"],
         duration(each["seconds"]), each["reason"])
        for each in found["history"]
    )  # fmt: skip
    columns = ("Time", "What", "Image", "Store", "State", "Verified", "Took", "Reason")
    return show_table(columns, rows, "no image was written to this device or taken of it")


def wake(conf: Path, mac: str, as_json: bool) -> None:
    answer = Api(conf).post(named("devices", mac, "wake"))
    if as_json:
        return print_json(answer)
    for fault in answer["faults"]:
        print(f"warning: {plain(fault)}", file=sys.stderr)
    to = ", ".join(answer["sent"])
    return print(
        f"device {answer['mac']}: magic packets sent to {to}" if to else "no interface has a broadcast address"
    )
