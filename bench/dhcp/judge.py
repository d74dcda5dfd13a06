"""The targets of the DHCP measurements. What counts, and the ratio of paired rounds, is as in bench.tftp.judge. Pure.

One rule: packets that are lost do not make a run worthless (a storm is there to show them), wrong replies do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bench.dhcp.work import P99_LIMIT_MS
from bench.tftp.judge import AIM, MISSED, OURS, PASS, Round, Run, Verdict, faults, median_of, median_ratio, rate


def replies_per_s(run: Run) -> float:
    return rate(run, "replies")


def p99_ms(run: Run) -> float:
    return float(run["p99_ms"])


def lost(rounds: Sequence[Round], name: str) -> int:
    """Questions of all rounds that nobody answered in time."""
    return sum(one[name]["lost"] for one in rounds if name in one)


def asked(rounds: Sequence[Round], name: str) -> int:
    return sum(one[name]["asked"] for one in rounds if name in one)


def judge_row(row: Mapping[str, Any]) -> Verdict:
    """Without a target the word is empty, unless a reply of ours was wrong."""
    rounds, floor, aim = row["rounds"], row["floor"], row["aim"]
    ratio = median_ratio(rounds, replies_per_s)
    found = "no peer counts" if ratio is None else f"{ratio:.2f}"
    if floor is None and not row["strict"]:
        return Verdict(row["title"], found, "", MISSED if faults(rounds, OURS) else "")
    wanted = "" if floor is None else f">= {floor}" + (f", aim {aim}" if aim else "")
    missed = (floor is not None and (ratio is None or ratio < floor)) or bool(faults(rounds, OURS))
    if row["strict"]:
        wanted += (", " if wanted else "") + f"none lost, p99 < {P99_LIMIT_MS:.0f} ms"
        wait = median_of(rounds, OURS, p99_ms)
        found += f", {lost(rounds, OURS)} lost, " + ("no run counts" if wait is None else f"{wait:.1f} ms")
        missed = missed or lost(rounds, OURS) > 0 or wait is None or wait >= P99_LIMIT_MS
    reached = aim is not None and ratio is not None and ratio >= aim
    return Verdict(row["title"], found, wanted, MISSED if missed else AIM if reached else PASS)


def judge_replay(rounds: Sequence[Round]) -> Verdict:
    """Every machine of every round has its loader."""
    machines = sum(one[OURS]["machines"] for one in rounds)
    ready = sum(one[OURS]["ready"] for one in rounds)
    word = PASS if ready == machines and not faults(rounds, OURS) else MISSED
    about = f"{rounds[0][OURS]['machines']:,} machines at once: every one reaches its loader"
    return Verdict(about, f"{ready:,} of {machines:,}", "all", word)
