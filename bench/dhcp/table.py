"""The results as tables for people: text for the terminal, Markdown for the README. Measures nothing.

``python -m bench.dhcp.table [--markdown] [--readme README.md] bench/results/dhcp.json``; ``--readme`` replaces what
stands between the two markers in that file.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from bench import page
from bench.dhcp.judge import asked, judge_replay, judge_row, lost, replies_per_s
from bench.tftp.judge import OURS, Round, Run, Verdict, fault, faults, idle, median_of
from bench.tftp.table import preface

BEGIN, END = "<!-- bench:dhcp -->", "<!-- /bench:dhcp -->"
SERVERS = (OURS, "dnsmasq")
Results = Mapping[str, Any]
Lines = list[list[str]]


def verdicts(results: Results) -> list[Verdict]:
    """Every target that was measured."""
    found = [judge_row(row) for row in results.get("rows", ())]
    return found + ([judge_replay(results["replay"])] if results.get("replay") else [])


def tables(results: Results) -> list[tuple[str, Lines]]:
    """Title and lines (the first is the head) of every table that the results have something for."""
    found: list[tuple[str, Lines]] = []
    if results.get("rows"):
        found.append(("Replies per second; wait, median and p99; lost: medians of the rounds", _rows(results["rows"])))
        title = "CPU time of the server per reply; idle share of the load generator; p99 of the warm-up (left out)"
        found.append((title, _cpu(results["rows"])))
    if results.get("replay"):
        found.append(("Machines switched on within a second, until the last one has ...", _replay(results["replay"])))
    if results.get("ceiling"):
        title = "What the load generator can drive: a C program that does nothing but answer"
        found.append((title, _ceiling(results["ceiling"])))
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


def _speed(rounds: Sequence[Round], name: str) -> str:
    def middle(key: str) -> float:
        return median_of(rounds, name, lambda run: float(run[key])) or 0.0

    def show(run: Run) -> str:
        return f"{replies_per_s(run):,.0f}/s ({middle('p50_ms'):.2f}, {middle('p99_ms'):.2f} ms)"

    missing = lost(rounds, name)
    share = f"; {missing / asked(rounds, name):.2%} lost" if missing else ""
    return _cell(rounds, name, show, replies_per_s) + share


def _warming_ms(run: Run) -> float:
    """The first packets of each device, while a registry is written and a journal begun."""
    return float(run.get("warming_p99_ms", 0.0))


def _warming(run: Run) -> str:
    return f"{_warming_ms(run):.1f} ms" if _warming_ms(run) else ""


def _rows(rows: Sequence[Mapping[str, Any]]) -> Lines:
    lines = [["work", *SERVERS, "ratio", "target", ""]]
    for row in rows:
        verdict = judge_row(row)
        cells = [_speed(row["rounds"], name) for name in SERVERS]
        lines.append([row["title"], *cells, verdict.found, verdict.wanted, verdict.word])
    return lines


def _us_per_reply(run: Run) -> float:
    return float(run["server_cpu_seconds"] / run["all_replies"] * 1e6) if run["all_replies"] else 0.0


def _cpu(rows: Sequence[Mapping[str, Any]]) -> Lines:
    sides = [*(f"idle beside {name}" for name in SERVERS), *(f"warm-up of {name}" for name in SERVERS)]
    lines = [["work", *SERVERS, *sides]]
    for row in rows:
        costs = [_cell(row["rounds"], name, lambda run: f"{_us_per_reply(run):.1f} us", _us_per_reply)
                 for name in SERVERS]  # fmt: skip
        shares = [_cell(row["rounds"], name, lambda run: f"{idle(run):.0%}", idle) for name in SERVERS]
        warming = [_cell(row["rounds"], name, _warming, _warming_ms) for name in SERVERS]
        lines.append([row["title"], *costs, *shares, *warming])
    return lines


def _replay(rounds: Sequence[Round]) -> Lines:
    lines = [["", *SERVERS]]
    for title, key, form in (
        ("its OFFER", "last_offer_s", "{:.3f} s"),
        ("its ACK from 4011", "last_ack_s", "{:.3f} s"),
        ("its first TFTP DATA", "last_first_data_s", "{:.3f} s"),
        ("its loader", "last_loader_s", "{:.3f} s"),
        ("wait for the OFFER: p99", "offer_p99_ms", "{:.1f} ms"),
        ("longest", "offer_max_ms", "{:.1f} ms"),
        ("packets lost", "lost", "{:.0f}"),
        ("DISCOVERs repeated", "discover_retries", "{:.0f}"),
        ("4011 requests repeated", "request_retries", "{:.0f}"),
        ("TFTP packets repeated", "tftp_retries", "{:.0f}"),
    ):

        def value(run: Run, key: str = key) -> float:
            return float(run[key])

        def show(run: Run, key: str = key, form: str = form) -> str:
            return form.format(run[key])

        lines.append([title, *(_cell(rounds, name, show, value) for name in SERVERS)])
    verdict = judge_replay(rounds)
    lines.append([verdict.about, f"{verdict.found}: {verdict.word}", ""])
    return lines


def _ceiling(cases: Sequence[Mapping[str, Any]]) -> Lines:
    lines = [["work", "reflector", "CPU per reply", "generator idle"]]
    for case in cases:
        rounds = case["rounds"]
        lines.append(
            [
                case["title"],
                _speed(rounds, "reflector"),
                _cell(rounds, "reflector", lambda run: f"{_us_per_reply(run):.1f} us", _us_per_reply),
                _cell(rounds, "reflector", lambda run: f"{idle(run):.0%}", idle),
            ]
        )
    return lines


def head(results: Results) -> str:
    return f"{preface(results)} net.core.rmem_max is {results['machine']['rmem_max']:,}."


def text(results: Results) -> str:
    return page.text(head(results), tables(results))


def markdown(results: Results) -> str:
    return page.markdown(head(results), tables(results))


def replace_block(whole: str, block: str) -> str:
    return page.replace_block(whole, BEGIN, END, block)


if __name__ == "__main__":
    page.main(__doc__, text, markdown, replace_block)
