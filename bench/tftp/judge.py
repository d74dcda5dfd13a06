"""What the measurements are worth: which of them count, the ratio of paired rounds, the targets. Pure.

One rule: a run in which the server refused or failed a client, or sent a wrong byte, does not count; for a peer that is
one competitor less in that round, for us it is a ratio of 0.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

OURS = "pbserv"
SINGLE = "pbserv single-port"
Run = Mapping[str, Any]
Round = Mapping[str, Run]
PASS, AIM, MISSED = "ok", "ok, aim reached", "MISSED"


@dataclass(frozen=True, slots=True)
class Verdict:
    """One target: what it is about, what was found and wanted, and whether it was reached."""

    about: str
    found: str
    wanted: str
    word: str

    @property
    def missed(self) -> bool:
        return self.word == MISSED


def fault(run: Run) -> str:
    """Why a run does not count: wrong blocks or sizes, clients that got an ERROR, too little, or nothing."""
    if run["bad"]:
        return f"{run['bad']} wrong"
    if run["failed"]:
        return f"{run['failed']} refused: {run['error'] or 'no text'}"
    if run["unfinished"]:
        return f"{run['unfinished']} not served"
    return "" if run["all_bytes"] else "nothing was sent"


def faults(rounds: Iterable[Round], name: str) -> str:
    """The first reason for which runs of this server do not count, and how often there was one."""
    found = [text for one in rounds if name in one and (text := fault(one[name]))]
    return found[0] + (f" (and in {len(found) - 1} more rounds)" if len(found) > 1 else "") if found else ""


def all_rounds(results: Mapping[str, Any]) -> Iterator[Round]:
    """Every round of the parts that are lists of cases, and of the probe, which is a list of rounds."""
    for part in results.values():
        for case in part:
            yield from case.get("rounds", [case])


def rate(run: Run, per: str = "bytes") -> float:
    """Bytes or files per second inside the time box."""
    return float(run[per] / run["seconds"]) if run["seconds"] else 0.0


def speed(run: Run) -> float:
    """For a fixed amount: one over the time until the last client was ready."""
    return 1 / float(run["all_seconds"])


def competitors(one: Round) -> list[str]:
    return [name for name in one if not name.startswith(OURS)]


def paired_ratio(one: Round, value: Callable[[Run], float], ours: str = OURS) -> float | None:
    """Ours to the best peer that counts, in one round; None when no peer counts."""
    best = max((value(one[name]) for name in competitors(one) if not fault(one[name])), default=0.0)
    if not best:
        return None
    return 0.0 if fault(one[ours]) else value(one[ours]) / best


def median_ratio(rounds: Iterable[Round], value: Callable[[Run], float], ours: str = OURS) -> float | None:
    """The median over the rounds in which a peer counts; None when there is no such round."""
    found = [ratio for one in rounds if ours in one and (ratio := paired_ratio(one, value, ours)) is not None]
    return statistics.median(found) if found else None


def median_of(rounds: Sequence[Round], name: str, value: Callable[[Run], float]) -> float | None:
    found = [value(one[name]) for one in rounds if name in one and not fault(one[name])]
    return statistics.median(found) if found else None


def cpu_per_gb(run: Run) -> float:
    return float(run["server_cpu_seconds"] / run["all_bytes"] * 1e9) if run["all_bytes"] else 0.0


def idle(run: Run) -> float:
    """The share of the time box in which the load generator had nothing to do."""
    return max(0.0, 1 - run["cpu_seconds"] / run["seconds"]) if run["seconds"] else 0.0


def judge_row(row: Mapping[str, Any]) -> Verdict:
    rounds, floor, aim = row["rounds"], row["floor"], row["aim"]
    ratio = median_ratio(rounds, lambda run: rate(run, row["per"]))
    wanted = f">= {floor}" + (f", aim {aim}" if aim else "")
    if ratio is None:
        return Verdict(row["title"], "no peer counts", wanted, MISSED)
    word = MISSED if ratio < floor or faults(rounds, OURS) else AIM if aim and ratio >= aim else PASS
    return Verdict(row["title"], f"{ratio:.2f}", wanted, word)


def judge_loss(case: Mapping[str, Any]) -> Verdict:
    """We finish first. A peer that did not finish at all was later than we were."""
    about = f"{case['loss']:.1%} lost, windowsize {case['window']}: finish first"
    ratio = median_ratio(case["rounds"], speed)
    if faults(case["rounds"], OURS):
        return Verdict(about, "not finished", ">= 1.0", MISSED)
    if ratio is None:
        return Verdict(about, "no peer finished", ">= 1.0", PASS)
    return Verdict(about, f"{ratio:.2f}", ">= 1.0", PASS if ratio >= 1 else MISSED)


def judge_probe(rounds: Sequence[Round], limit_ms: float) -> Verdict:
    found = median_of(rounds, OURS, lambda run: run["probe"]["p99_ms"])
    answered = all(one[OURS]["probe"]["asked"] == one[OURS]["probe"]["answered"] for one in rounds)
    word = PASS if found is not None and found < limit_ms and answered else MISSED
    shown = "no run counts" if found is None else f"{found:.1f} ms" + ("" if answered else ", some never answered")
    return Verdict("p99 to the first DATA of a new client", shown, f"< {limit_ms:.0f} ms", word)


def judge_memory(case: Mapping[str, Any], each_kb: int) -> Verdict:
    """Growth beyond what the idle server had: the cache as configured, and so much for each transfer."""
    run = case["rounds"][0][OURS]
    limit = case["cache_mb"] * 1024 + case["clients"] * each_kb
    grown = run["memory_peak_kb"] - run["memory_before_kb"]
    word = PASS if grown <= limit and not fault(run) and run["peak_active"] >= case["clients"] else MISSED
    about = f"memory for {case['clients']} transfers of {case['title']}"
    found = f"{grown / 1024:.0f} MB more, {run['peak_active']} at once" + (f"; {fault(run)}" if fault(run) else "")
    return Verdict(about, found, f"<= {limit / 1024:.0f} MB", word)
