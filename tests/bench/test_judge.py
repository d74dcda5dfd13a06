from __future__ import annotations

import json
from typing import Any

import pytest

from bench.tftp import judge, table, work
from bench.tftp.judge import AIM, MISSED, OURS, PASS, SINGLE, fault, judge_row, median_ratio, paired_ratio, rate


def run(mb_per_s: float, **changes: Any) -> dict[str, Any]:
    return {
        "seconds": 2.0, "bytes": mb_per_s * 2e6, "files": mb_per_s * 2, "all_bytes": mb_per_s * 3e6, "all_seconds": 3.0,
        "bad": 0, "failed": 0, "unfinished": 0, "error": "", "blksize": 1428, "windowsize": 1, "single_port": False,
        "cpu_seconds": 0.5, "server_cpu_seconds": 2.9, "memory_before_kb": 20_000, "memory_peak_kb": 60_000,
        "peak_active": 1000, "probe": {"asked": 9, "answered": 9, "p50_ms": 1.0, "p99_ms": 5.0, "max_ms": 7.0},
        **changes,
    }  # fmt: skip


def row(rounds: list[dict[str, Any]], floor: float = 1.0, aim: float | None = 1.2) -> dict[str, Any]:
    return {"key": "r", "title": "a row", "floor": floor, "aim": aim, "per": "bytes", "rounds": rounds}


def test_the_ratio_is_that_to_the_best_peer_of_the_same_round_and_the_median_of_the_rounds():
    # the machine got slower and slower: medians of the rates would say 300/200 = 1.5
    rounds = [
        {OURS: run(600), "dnsmasq": run(500), "atftpd": run(100)},
        {OURS: run(300), "dnsmasq": run(200), "atftpd": run(240)},
        {OURS: run(150), "dnsmasq": run(100), "atftpd": run(75)},
    ]
    assert [paired_ratio(one, rate) for one in rounds] == [1.2, 1.25, 1.5]
    assert median_ratio(rounds, rate) == 1.25


@pytest.mark.parametrize(
    "changes",
    [{"bad": 1}, {"failed": 2, "error": "busy"}, {"unfinished": 1}, {"all_bytes": 0}],
    ids=lambda one: str(one),
)
def test_a_peer_that_failed_does_not_count_in_that_round(changes):
    failing = run(900, **changes)
    assert fault(failing)
    assert paired_ratio({OURS: run(100), "dnsmasq": run(80), "atftpd": failing}, rate) == 1.25
    assert paired_ratio({OURS: run(100), "atftpd": failing}, rate) is None


def test_rounds_without_a_peer_that_counts_are_left_out_and_a_row_of_them_is_missed():
    nobody = {OURS: run(100), "dnsmasq": run(900, failed=1)}
    assert median_ratio([nobody, {OURS: run(100), "dnsmasq": run(50)}, nobody], rate) == 2.0
    verdict = judge_row(row([nobody]))
    assert (verdict.found, verdict.word) == ("no peer counts", MISSED)


def test_a_fault_of_ours_is_a_miss_however_fast_we_are():
    good = {OURS: run(300), "dnsmasq": run(100)}
    assert judge_row(row([good, good, good])).word == AIM
    verdict = judge_row(row([good, {OURS: run(300, bad=1), "dnsmasq": run(100)}, good]))
    assert (verdict.found, verdict.word) == ("3.00", MISSED)


def test_floor_and_aim():
    def word(ours: float) -> str:
        return judge_row(row([{OURS: run(ours), "dnsmasq": run(100)}])).word

    assert [word(99), word(100), word(119), word(120)] == [MISSED, PASS, PASS, AIM]


def test_our_second_mode_is_no_competitor_and_has_a_ratio_of_its_own():
    rounds = [{OURS: run(100), SINGLE: run(150, single_port=True), "dnsmasq": run(50)}]
    assert (median_ratio(rounds, rate), median_ratio(rounds, rate, SINGLE)) == (2.0, 3.0)


def test_loss_is_won_by_who_finishes_first_and_whoever_does_not_finish_has_lost():
    def case(ours: float, theirs: float, **changes: Any) -> dict[str, Any]:
        peer = run(1, all_seconds=theirs, **changes)
        return {"loss": 0.01, "window": 1, "rounds": [{OURS: run(1, all_seconds=ours), "dnsmasq": peer}]}

    assert judge.judge_loss(case(2.0, 3.0)).word == PASS
    assert judge.judge_loss(case(3.0, 2.0)).word == MISSED
    assert judge.judge_loss(case(3.0, 1.0, unfinished=1)).word == PASS


def test_memory_may_grow_by_the_cache_and_so_much_for_each():
    def word(grown_mb: int, **changes: Any) -> str:
        ours = run(1, memory_peak_kb=20_000 + grown_mb * 1024, **changes)
        case = {"title": "t", "clients": 1000, "cache_mb": 64, "rounds": [{OURS: ours}]}
        return judge.judge_memory(case, 50).word

    assert [word(112), word(113), word(50, peak_active=999)] == [PASS, MISSED, MISSED]


def test_newcomers_must_all_be_answered_in_time():
    def word(**changes: Any) -> str:
        probe = {**run(1)["probe"], **changes}
        return judge.judge_probe([{OURS: run(1, probe=probe)}], 20.0).word

    assert [word(), word(p99_ms=20.0), word(answered=8)] == [PASS, MISSED, MISSED]


@pytest.fixture
def results() -> dict[str, Any]:
    one = {
        OURS: run(300),
        SINGLE: run(400),
        "dnsmasq": run(100),
        "tftpd-hpa": run(50),
        "atftpd": run(90, failed=3, error="no"),
    }
    return {
        "date": "2026-01-02", "rounds": 1, "quick": False, "versions": {"pbserv": "1", "dnsmasq": "2.90"},
        "machine": {"cpu": "C", "cores": 2, "memory_gb": 4, "kernel": "6.1", "python": "3.11"},
        "rows": [row([one])], "loss": [{"loss": 0.01, "window": 16, "rounds": [one]}], "probe": [one],
        "memory": [{"title": "t", "clients": 1000, "cache_mb": 64, "rounds": [one]}],
        "scale": [{"clients": 64, "window": 1, "rounds": [one]}],
    }  # fmt: skip


def test_tables_name_versions_terms_targets_and_who_does_not_count(results):
    for text in (table.text(results), table.markdown(results)):
        for words in (
            "dnsmasq 2.90",
            "300 MB/s (1428/1)",
            "3 refused: no",
            ">= 1.0, aim 1.2",
            AIM,
            "not in effect",
        ):
            assert words in text
    assert json.dumps(results)


def test_the_block_between_the_markers_is_replaced(results):
    page = f"# Title\n\n{table.BEGIN}\nold\n{table.END}\n\nmore\n"
    found = table.replace_block(page, "new")
    assert found == f"# Title\n\n{table.BEGIN}\nnew\n{table.END}\n\nmore\n"
    with pytest.raises(SystemExit):
        table.replace_block("no markers", "new")


def test_the_rows_are_those_that_were_demanded():
    assert [(row.work.clients, row.work.size, row.work.window, row.floor) for row in work.ROWS] == [
        (64, 1 << 20, 1, 1.0), (256, 1 << 20, 1, 1.0), (64, 64 << 10, 1, 1.0), (1, 32 << 20, 1, 0.97),
        (64, 1 << 20, 4, 2.0), (64, 1 << 20, 16, 3.5), (64, 1 << 20, 45, 4.0), (1, 32 << 20, 16, 1.3),
        (16, 1 << 30, 16, 2.5),
    ]  # fmt: skip
