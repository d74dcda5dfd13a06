"""The results as tables for people: text for the terminal, Markdown for the README. Measures nothing.

``python -m bench.imaging.table [--markdown] [--readme README.md] bench/results/imaging.json``; ``--readme`` replaces
what stands between the two markers in that file.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from bench import page
from bench.imaging.work import DELTA_LIMIT, MEMORY_LIMIT_MB, PROBE_LIMIT_MS
from bench.tftp import judge
from bench.tftp.judge import OURS, Round, Run, Verdict, cpu_per_gb, fault, faults, idle, median_of, rate
from bench.tftp.table import preface

BEGIN, END = "<!-- bench:imaging -->", "<!-- /bench:imaging -->"
SERVERS = (OURS, "nginx")
Results = Mapping[str, Any]
Lines = list[list[str]]


def verdicts(results: Results) -> list[Verdict]:
    """Every target that was measured."""
    found = [judge.judge_row(row) for row in results.get("rows", ())]
    uploads = results.get("uploads", ())
    found += [_memory_verdict(upload) for upload in uploads if not upload["probe"]]
    found += [judge.judge_probe(upload["rounds"], PROBE_LIMIT_MS) for upload in uploads if upload["probe"]]
    others = (*results.get("scrubs", ()), *results.get("restores", ()))
    return found + [_sound(row) for row in others] + [_delta_verdict(one) for one in _upgrades(results)]


def tables(results: Results) -> list[tuple[str, Lines]]:
    """Title and lines (the first is the head) of every table that the results have something for."""
    found: list[tuple[str, Lines]] = []
    if results.get("rows"):
        found.append(
            ("Downloads over HTTP: median of the rounds; small files with p50 and p99", _rows(results["rows"]))
        )
        title = "CPU time of the server, per GB or per file; idle share of the load generator; memory of pbserv"
        found.append((title, _cpu(results["rows"])))
    if results.get("uploads"):
        found.append(("Uploads in parts of 64 MiB: taken, hashed and cut into frames", _uploads(results["uploads"])))
    if results.get("scrubs"):
        found.append(("Scrub: stored bytes read and verified, on one core; median of the rounds", _scrubs(results)))
    if results.get("restores"):
        accelerator = results["restores"][0]["rounds"][0][OURS].get("accelerator", "")
        found.append((f"Restore on a virtual machine ({accelerator}): the run in the middle", _restores(results)))
    if results.get("deltas"):
        found.append(("Upgrades of packages: what two captures of a root file system do not share", _deltas(results)))
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


def _uploads(uploads: Sequence[Mapping[str, Any]]) -> Lines:
    lines = [["work", "MB/s uncompressed", "MB/s per core", "memory (growth), MB", "p99 of TFTP", "target", ""]]
    for upload in uploads:
        rounds = upload["rounds"]
        cells = [
            _cell(rounds, OURS, lambda run: f"{rate(run) / 1e6:,.0f}", rate),
            _cell(rounds, OURS, lambda run: f"{_per_core(run) / 1e6:,.0f}", _per_core),
            _cell(rounds, OURS, _memory, _grown),
        ]
        if upload["probe"]:
            verdict = judge.judge_probe(rounds, PROBE_LIMIT_MS)
            lines.append([upload["title"], *cells, verdict.found, verdict.wanted, verdict.word])
        else:
            verdict = _memory_verdict(upload)
            lines.append([upload["title"], *cells, "", verdict.wanted, verdict.word])
    return lines


def _scrubs(results: Results) -> Lines:
    lines = [["work", "MB/s", "MB/s per core", "programs beside", "MB/s per core", "ratio"]]
    for row in results["scrubs"]:
        rounds, peer = row["rounds"], row["peer"]
        ratio = judge.median_ratio(rounds, _per_core)
        ours = _cell(rounds, OURS, lambda run: f"{rate(run) / 1e6:,.0f}", rate)
        cores = [_cell(rounds, name, lambda run: f"{_per_core(run) / 1e6:,.0f}", _per_core) for name in (OURS, peer)]
        lines.append([row["title"], ours, cores[0], peer, cores[1], "-" if ratio is None else f"{ratio:.2f}"])
    return lines


def _restores(results: Results) -> Lines:
    lines = [
        ["work", "used on disk, MB", "sent, MB", "of used", "job, s", "waited for the server", "power-on to restart, s"]
    ]
    for row in results["restores"]:
        shows: tuple[Callable[[Run], str], ...] = (
            lambda run: f"{run['used_bytes'] / 1e6:,.1f}",
            lambda run: f"{run['bytes'] / 1e6:,.1f}",
            lambda run: f"{run['bytes'] / run['used_bytes']:.0%}",
            lambda run: f"{run['seconds']:.1f}",
            lambda run: f"{run['waited_seconds']:.1f} s, {_waited(run):.1%}",
            lambda run: f"{run['machine_seconds']:.0f}",
        )
        lines.append([row["title"], *(_cell(row["rounds"], OURS, show, _waited) for show in shows)])
    return lines


def _waited(run: Run) -> float:
    """The share of the job in which the device had nothing to read from the server."""
    return float(run["waited_seconds"] / run["seconds"])


def _upgrades(results: Results) -> list[Mapping[str, Any]]:
    return [one for row in results.get("deltas", ()) for one in row["rounds"]]


def _deltas(results: Results) -> Lines:
    lines = [["file system, upgrade", "4 KiB blocks changed, MB", "extents not shared, MB", "compressed, MB",
              "MB/s per core, cut and compressed", "factor", "target", ""]]  # fmt: skip
    for one in _upgrades(results):
        verdict = _delta_verdict(one)
        sizes = [f"{one[name] / 1e6:,.1f}" for name in ("changed_bytes", "delta_bytes", "delta_stored_bytes")]
        speed = f"{one['write_mb_s']:,.0f}"
        lines.append([verdict.about, *sizes, speed, verdict.found, verdict.wanted, verdict.word])
    return lines


def _delta_verdict(one: Mapping[str, Any]) -> Verdict:
    word = judge.PASS if one["factor"] <= DELTA_LIMIT else judge.MISSED
    return Verdict(f"{one['file_system']}, {one['upgrade']}", f"{one['factor']:.2f}", f"<= {DELTA_LIMIT}", word)


def _sound(row: Mapping[str, Any]) -> Verdict:
    """What has no target: every byte must be right all the same."""
    out = faults(row["rounds"], OURS)
    return Verdict(row["title"], out or "nothing wrong", "nothing wrong", judge.MISSED if out else judge.PASS)


def _per_core(run: Run) -> float:
    """Bytes per second of CPU time."""
    return float(run["all_bytes"] / run["server_cpu_seconds"]) if run["server_cpu_seconds"] else 0.0


def _memory_verdict(upload: Mapping[str, Any]) -> Verdict:
    most = max(_grown(one[OURS]) for one in upload["rounds"]) / 1024
    out = faults(upload["rounds"], OURS)
    word = judge.MISSED if out or most > MEMORY_LIMIT_MB else judge.PASS
    found = f"{most:.0f} MB more" + (f"; {out}" if out else "")
    return Verdict(f"memory for {upload['title']}", found, f"<= {MEMORY_LIMIT_MB} MB more", word)


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
