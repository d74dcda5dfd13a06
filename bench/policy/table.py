"""The results as tables for people: text for the terminal, Markdown for the README. Measures nothing.

``python -m bench.policy.table [--markdown] [--readme README.md] bench/results/policy.json``; ``--readme`` replaces what
stands between the two markers in that file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from bench import page
from bench.tftp.table import preface

BEGIN, END = "<!-- bench:policy -->", "<!-- /bench:policy -->"
Results = Mapping[str, Any]


@dataclass(frozen=True)
class Line:
    """``aim``: the limit; of rates (``least``) the smallest that will do. None: reported only."""

    title: str
    key: str
    form: str
    aim: float | None = None
    least: bool = False

    def found(self, rounds: Sequence[Mapping[str, float]]) -> float | None:
        values = [each[self.key] for each in rounds if self.key in each]
        return median(values) if values else None

    def missed(self, found: float) -> bool:
        return self.aim is not None and (found < self.aim if self.least else found >= self.aim)


LINES = (
    Line("snapshot from SQLite, with the read", "sqlite_s", "{:.2f} s", 3),
    Line("of which this process worked", "sqlite_cpu_s", "{:.2f} s"),
    Line("snapshot from PostgreSQL, with the read", "postgresql_s", "{:.2f} s", 3),
    Line("of which this process worked", "postgresql_cpu_s", "{:.2f} s"),
    Line("snapshot from records alone", "records_s", "{:.2f} s", 3),
    Line("one device changed: new snapshot, median", "with_device_us_p50", "{:.0f} us"),
    Line("one device changed, p99", "with_device_us_p99", "{:,.0f} us", 100_000),
    Line("one object changed: new snapshot, median", "with_objects_us_p50", "{:,.0f} us"),
    Line("one object changed, longest", "with_objects_us_max", "{:,.0f} us", 100_000),
    Line("decision, median", "decide_us_p50", "{:.1f} us"),
    Line("decision, p99", "decide_us_p99", "{:.1f} us", 100),
    Line("decisions per second, one after the other", "decisions_per_s", "{:,.0f}"),
    Line("busy: decisions per second asked and given", "busy_asked_per_s", "{:,.0f}", 990, least=True),
    Line("busy: devices per second changed in SQLite", "busy_changed_per_s", "{:.1f}", 49.5, least=True),
    Line("busy: decision, p99", "busy_decide_us_p99", "{:.0f} us"),
    Line("busy: from a change's call to the snapshot, median", "change_ms_p50", "{:.1f} ms"),
    Line("busy: from a change's call to the snapshot, p99", "change_ms_p99", "{:.1f} ms", 100),
    Line("busy: the loop goes on late, median", "loop_late_ms_p50", "{:.2f} ms"),
    Line("busy: the loop goes on late, p99", "loop_late_ms_p99", "{:.2f} ms", 10),
    Line("memory of the process before the read", "rss_before_mb", "{:.0f} MB"),
    Line("memory with the snapshot", "rss_after_mb", "{:.0f} MB"),
    Line("fixed loop of plain Python beside all this", "calibration_ms", "{:.0f} ms"),
)


def missed(results: Results) -> list[str]:
    """What lies beyond its limit, in words."""
    said = []
    for line in LINES:
        found = line.found(results["figures"])
        if found is not None and line.missed(found):
            said.append(f"{line.title} ({line.key}): {line.form.format(found)}, wanted {_aim(line)}")
    return said


def _aim(line: Line) -> str:
    if line.aim is None:
        return ""
    return f"{'>=' if line.least else '<'} {line.form.format(line.aim)}"


def tables(results: Results) -> list[tuple[str, list[list[str]]]]:
    size = results["size"]
    title = "{devices:,} devices, {groups:,} groups, {folders} folders, {assignments:,} assignments, {rules} rules"
    lines = [["", "median of the rounds", "least to most", "limit", ""]]
    for line in LINES:
        found = line.found(results["figures"])
        values = [each[line.key] for each in results["figures"] if line.key in each]
        if found is None:
            continue
        between = f"{line.form.format(min(values))} to {line.form.format(max(values))}"
        word = "" if line.aim is None else "MISSED" if line.missed(found) else "pass"
        lines.append([line.title, line.form.format(found), between, _aim(line), word])
    return [(title.format(**size), lines)]


def text(results: Results) -> str:
    return page.text(preface(results), tables(results))


def markdown(results: Results) -> str:
    return page.markdown(preface(results), tables(results))


def replace_block(whole: str, block: str) -> str:
    return page.replace_block(whole, BEGIN, END, block)


if __name__ == "__main__":
    page.main(__doc__, text, markdown, replace_block)
