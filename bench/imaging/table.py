"""The results as tables for people: text for the terminal, Markdown for the README. Measures nothing.

``python -m bench.imaging.table [--markdown] [--readme README.md] bench/results/imaging.json``; ``--readme`` replaces
what stands between the two markers in that file.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from bench import page
from bench.tftp import judge
from bench.tftp.judge import OURS, Round, Run, Verdict, cpu_per_gb, fault, faults, idle, median_of, rate
from bench.tftp.table import preface

BEGIN, END = "<!-- bench:imaging -->", "<!-- /bench:imaging -->"
SERVERS = (OURS, "nginx")
Results = Mapping[str, Any]
Lines = list[list[str]]


def verdicts(results: Results) -> list[Verdict]:
    """Every target that was measured."""
    return [judge.judge_row(row) for row in results.get("rows", ())]


def tables(results: Results) -> list[tuple[str, Lines]]:
    """Title and lines (the first is the head) of every table that the results have something for."""
    found: list[tuple[str, Lines]] = []
    if results.get("rows"):
        found.append(
            ("Downloads over HTTP: median of the rounds; small files with p50 and p99", _rows(results["rows"]))
        )
        title = "CPU time of the server, per GB or per file; idle share of the load generator; memory of pbserv"
        found.append((title, _cpu(results["rows"])))
    return found


def _cell(rounds: Sequence[Round], name: str, show: Callable[[Run], str], value: Callable[[Run], float]) -> str:
    """The run in the middle, or why nothing of this server counts."""
    out = faults(rounds, name)
    middle = median_of(rounds, name, value)
    if middle is None:
        return f"- ({out})" if any(name in one for one in rounds) else ""
    counting = (one[name] for one in rounds if name in one and not fault(one[name]))
    run = min(counting, key=lambda run: abs(value(run) - middle))
    return show(run) + (f"; {out}" if out else "")


def _rows(rows: Sequence[Mapping[str, Any]]) -> Lines:
    lines = [["work", *SERVERS, "ratio", "target", ""]]
    for row in rows:
        per = row["per"]

        def value(run: Run, per: str = per) -> float:
            return rate(run, per)

        def show(run: Run, per: str = per) -> str:
            if per == "files":
                return f"{rate(run, 'files'):,.0f}/s ({run['p50_ms']:.0f}, {run['p99_ms']:.0f} ms)"
            return f"{rate(run) / 1e6:,.0f} MB/s"

        verdict = judge.judge_row(row)
        cells = [_cell(row["rounds"], name, show, value) for name in SERVERS]
        lines.append([row["title"], *cells, verdict.found, verdict.wanted, verdict.word])
    return lines


def us_per_file(run: Run) -> float:
    return float(run["server_cpu_seconds"] / run["all_files"] * 1e6) if run["all_files"] else 0.0


def _cpu(rows: Sequence[Mapping[str, Any]]) -> Lines:
    lines = [["work", *SERVERS, *(f"idle beside {name}" for name in SERVERS), "memory (growth), MB"]]
    for row in rows:
        value = us_per_file if row["per"] == "files" else cpu_per_gb
        form = "{:.1f} us" if row["per"] == "files" else "{:.3f} s"

        def show(run: Run, value: Callable[[Run], float] = value, form: str = form) -> str:
            return form.format(value(run))

        costs = [_cell(row["rounds"], name, show, value) for name in SERVERS]
        shares = [_cell(row["rounds"], name, lambda run: f"{idle(run):.0%}", idle) for name in SERVERS]
        lines.append([row["title"], *costs, *shares, _cell(row["rounds"], OURS, _memory, _grown)])
    return lines


def _grown(run: Run) -> float:
    return float(run["memory_peak_kb"] - run["memory_before_kb"])


def _memory(run: Run) -> str:
    return f"{run['memory_peak_kb'] / 1024:.0f} (+{_grown(run) / 1024:.0f})"


def text(results: Results) -> str:
    return page.text(preface(results), tables(results))


def markdown(results: Results) -> str:
    return page.markdown(preface(results), tables(results))


def replace_block(whole: str, block: str) -> str:
    return page.replace_block(whole, BEGIN, END, block)


if __name__ == "__main__":
    page.main(__doc__, text, markdown, replace_block)
