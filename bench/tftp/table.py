"""The results as tables for people: text for the terminal, Markdown for the README. Measures nothing.

``python -m bench.tftp.table [--markdown] [--readme README.md] bench/results/tftp.json``; ``--readme`` replaces what
stands between the two markers in that file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from bench import page
from bench.tftp import judge
from bench.tftp.judge import OURS, SINGLE, Round, Run, Verdict, cpu_per_gb, idle, median_of, rate, speed
from bench.tftp.work import BLOCK, MEMORY_EACH_KB, PROBE_LIMIT_MS

BEGIN, END = "<!-- bench:tftp -->", "<!-- /bench:tftp -->"
SERVERS = (OURS, "dnsmasq", "tftpd-hpa", "atftpd")
Results = Mapping[str, Any]
Lines = list[list[str]]


def verdicts(results: Results) -> list[Verdict]:
    """Every target that was measured."""
    found = [judge.judge_row(row) for row in results.get("rows", ())]
    found += [judge.judge_loss(case) for case in results.get("loss", ())]
    if results.get("probe"):
        found.append(judge.judge_probe(results["probe"], PROBE_LIMIT_MS))
    return found + [judge.judge_memory(case, MEMORY_EACH_KB) for case in results.get("memory", ())]


def tables(results: Results) -> list[tuple[str, Lines]]:
    """Title and lines (the first is the head) of every table that the results have something for."""
    found: list[tuple[str, Lines]] = []
    if results.get("rows"):
        found.append(("Throughput: median of the rounds; negotiated block and window size", _rows(results["rows"])))
        found.append(("CPU seconds of the server per GB sent; idle share of the load generator", _cpu(results["rows"])))
    if results.get("loss"):
        found.append(("Packets lost: seconds until the last of 16 clients had 256 KiB", _loss(results["loss"])))
    if results.get("probe"):
        found.append(
            ("Time to the first DATA of a new client while 64 windowed transfers run", _probe(results["probe"]))
        )
    if results.get("memory"):
        found.append(("Peak memory (growth), MB", _memory(results["memory"])))
    if results.get("scale"):
        found.append(("MB/s by number of clients", _scale(results["scale"])))
    if results.get("ceiling"):
        found.append(
            (
                "What the load generator can drive: a C program that does nothing but answer",
                _ceiling(results["ceiling"]),
            )
        )
    return found


def _cells(rounds: Sequence[Round], show: Callable[[Run], str], value: Callable[[Run], float],
           names: Iterable[str] = SERVERS) -> list[str]:  # fmt: skip
    """One cell for each server: the median, or why nothing of it counts."""
    found = []
    for name in names:
        middle = median_of(rounds, name, value)
        if middle is None:
            found.append(f"- ({judge.faults(rounds, name)})" if any(name in one for one in rounds) else "")
            continue
        run = min((one[name] for one in rounds if name in one and not judge.fault(one[name])),
                  key=lambda run: abs(value(run) - middle))  # fmt: skip
        out = judge.faults(rounds, name)
        found.append(show(run) + (f"; {out}" if out else ""))
    return found


def _rows(rows: Sequence[Mapping[str, Any]]) -> Lines:
    lines = [["work, blksize 1428", *SERVERS, SINGLE, "ratio", "target", ""]]
    for row in rows:

        def value(run: Run, per: str = row["per"]) -> float:
            return rate(run, per)

        def show(run: Run, per: str = row["per"]) -> str:
            amount = f"{rate(run, 'files'):.0f} files/s" if per == "files" else f"{rate(run) / 1e6:.0f} MB/s"
            return f"{amount} ({run['blksize']}/{run['windowsize']})"

        verdict = judge.judge_row(row)
        cells = _cells(row["rounds"], show, value)
        lines.append([row["title"], *cells, _single(row, show, value), verdict.found, verdict.wanted, verdict.word])
    return lines


def _single(row: Mapping[str, Any], show: Callable[[Run], str], value: Callable[[Run], float]) -> str:
    """Our other mode, with its own ratio; said when the server did not really use one port."""
    rounds = [one for one in row["rounds"] if SINGLE in one]
    if not rounds:
        return ""
    if not all(one[SINGLE]["single_port"] for one in rounds):
        return "- (not in effect)"
    ratio = judge.median_ratio(rounds, value, SINGLE)
    return _cells(rounds, show, value, (SINGLE,))[0] + (f", ratio {ratio:.2f}" if ratio is not None else "")


def _cpu(rows: Sequence[Mapping[str, Any]]) -> Lines:
    lines = [["work", *SERVERS, "generator idle beside " + OURS, "beside the busiest"]]
    for row in rows:
        cells = _cells(row["rounds"], lambda run: f"{cpu_per_gb(run):.2f}", cpu_per_gb)
        ours = median_of(row["rounds"], OURS, idle)
        least = min((idle(run) for one in row["rounds"] for run in one.values()), default=0.0)
        lines.append([row["title"], *cells, "-" if ours is None else f"{ours:.0%}", f"{least:.0%}"])
    return lines


def _loss(cases: Sequence[Mapping[str, Any]]) -> Lines:
    lines = [["lost each way", *SERVERS, "ratio", "target", ""]]
    for case in cases:
        verdict = judge.judge_loss(case)
        cells = _cells(case["rounds"], lambda run: f"{run['all_seconds']:.1f} s", speed)
        about = f"{case['loss']:.1%}, windowsize {case['window']} asked"
        lines.append([about, *cells, verdict.found, verdict.wanted, verdict.word])
    return lines


def _probe(rounds: Sequence[Round]) -> Lines:
    lines = [["", *SERVERS]]
    for name, key in (("median", "p50_ms"), ("p99", "p99_ms"), ("longest", "max_ms")):

        def value(run: Run, key: str = key) -> float:
            return float(run["probe"][key])

        def show(run: Run, key: str = key) -> str:
            return f"{run['probe'][key]:.2f} ms"

        lines.append([name, *_cells(rounds, show, value)])
    verdict = judge.judge_probe(rounds, PROBE_LIMIT_MS)
    lines.append([f"target: p99 {verdict.wanted}", verdict.word, "", "", ""])
    return lines


def _memory(cases: Sequence[Mapping[str, Any]]) -> Lines:
    lines = [["transfers at once", *SERVERS, "target", ""]]
    for case in cases:

        def show(run: Run) -> str:
            return f"{run['memory_peak_kb'] / 1024:.0f} (+{_grown(run) / 1024:.0f}), {run['peak_active']} at once"

        verdict = judge.judge_memory(case, MEMORY_EACH_KB)
        cells = _cells(case["rounds"], show, _grown)
        lines.append([f"{case['clients']} of {case['title']}", *cells, f"growth {verdict.wanted}", verdict.word])
    return lines


def _grown(run: Run) -> float:
    return float(run["memory_peak_kb"] - run["memory_before_kb"])


def _scale(cases: Sequence[Mapping[str, Any]]) -> Lines:
    lines = [["clients", *SERVERS]]
    for case in cases:
        cells = _cells(case["rounds"], lambda run: f"{rate(run) / 1e6:.0f}", rate)
        lines.append([f"{case['clients']}, windowsize {case['window']} asked", *cells])
    return lines


def _ceiling(cases: Sequence[Mapping[str, Any]]) -> Lines:
    lines = [["work", "reflector", "generator, CPU per block", "reflector, CPU per block"]]
    for case in cases:
        cells = _cells(case["rounds"], lambda run: f"{rate(run) / 1e6:.0f} MB/s", rate, ("reflector",))
        runs = [one["reflector"] for one in case["rounds"] if one["reflector"]["blocks"]]
        generator = min((run["cpu_seconds"] / run["blocks"] for run in runs), default=0.0)
        server = min((run["server_cpu_seconds"] / run["all_bytes"] * BLOCK for run in runs), default=0.0)
        lines.append([case["title"], *cells, f"{generator * 1e6:.2f} us", f"{server * 1e6:.2f} us"])
    return lines


def preface(results: Results) -> str:
    machine = results["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in results["versions"].items())
    return (
        f"{results['date']}, {machine['cpu']}, {machine['cores']} cores, {machine['memory_gb']} GB, Linux"
        f" {machine['kernel']}, Python {machine['python']}. {versions}. {results['rounds']} rounds"
        + (", the generator takes flights uncut (UDP_GRO)" if results.get("gro") else "")
        + (" (quick: these figures mean nothing)." if results["quick"] else ".")
    )


def text(results: Results) -> str:
    return page.text(preface(results), tables(results))


def markdown(results: Results) -> str:
    return page.markdown(preface(results), tables(results))


def replace_block(whole: str, block: str) -> str:
    return page.replace_block(whole, BEGIN, END, block)


if __name__ == "__main__":
    page.main(__doc__, text, markdown, replace_block)
