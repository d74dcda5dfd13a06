from __future__ import annotations

import json
from typing import Any

import pytest

from bench.__main__ import meant
from bench.dhcp import table, work
from bench.dhcp.judge import judge_replay, judge_row
from bench.tftp.judge import AIM, MISSED, OURS, PASS


def run(replies_per_s: float, **changes: Any) -> dict[str, Any]:
    return {
        "seconds": 2.0, "replies": replies_per_s * 2, "all_replies": replies_per_s * 2.5, "asked": replies_per_s * 2.5,
        "all_bytes": replies_per_s * 600, "lost": 0, "bad": 0, "failed": 0, "unfinished": 0, "error": "",
        "p50_ms": 1.0, "p99_ms": 9.0, "cpu_seconds": 0.5, "server_cpu_seconds": 2.0, **changes,
    }  # fmt: skip


def replay(**changes: Any) -> dict[str, Any]:
    times = dict.fromkeys(("last_offer_s", "last_ack_s", "last_first_data_s", "last_loader_s"), 5.0)
    repeated = dict.fromkeys(("discover_retries", "request_retries", "tftp_retries"), 0)
    waits = {"offer_p99_ms": 3.0, "offer_max_ms": 4.0}
    return {**run(1), **times, **repeated, **waits, "machines": 1000, "ready": 1000, **changes}


def row(
    rounds: list[dict[str, Any]], floor: float | None = 1.2, aim: float | None = 2.0, strict: bool = False
) -> dict[str, Any]:
    return {"key": "r", "title": "a row", "floor": floor, "aim": aim, "strict": strict, "rounds": rounds}


def test_floor_and_aim_are_of_the_paired_ratio():
    def word(ours: float) -> str:
        return judge_row(row([{OURS: run(ours), "dnsmasq": run(100)}])).word

    assert [word(119), word(120), word(200)] == [MISSED, PASS, AIM]


def test_a_storm_may_lose_nobody_and_keep_nobody_waiting():
    def word(**changes: Any) -> str:
        return judge_row(row([{OURS: run(400, **changes), "dnsmasq": run(100, lost=99)}], 4.0, None, strict=True)).word

    assert [word(), word(lost=1), word(p99_ms=50.0), word(bad=1)] == [PASS, MISSED, MISSED, MISSED]


def test_what_a_peer_lost_does_not_put_it_out_but_wrong_replies_do():
    assert judge_row(row([{OURS: run(150), "dnsmasq": run(100, lost=9)}])).found == "1.50"
    assert judge_row(row([{OURS: run(150), "dnsmasq": run(100, bad=1)}])).word == MISSED


def test_without_a_target_only_a_fault_is_a_miss():
    def word(**changes: Any) -> str:
        return judge_row(row([{OURS: run(10, **changes), "dnsmasq": run(100)}], None, None)).word

    assert [word(), word(bad=1)] == ["", MISSED]


def test_every_machine_of_every_round_has_its_loader():
    good = {OURS: replay()}
    assert judge_replay([good, good]).word == PASS
    assert judge_replay([good, {OURS: replay(ready=999, unfinished=1)}]).word == MISSED
    assert judge_replay([good, {OURS: replay(bad=1)}]).word == MISSED


def test_tables_say_rates_waits_losses_and_targets():
    one = {OURS: run(50_000), "dnsmasq": run(10_000, lost=250)}
    results = {
        "date": "2026-01-02", "rounds": 1, "quick": False, "versions": {"pbserv": "1", "dnsmasq": "2.90"},
        "machine": {"cpu": "C", "cores": 2, "memory_gb": 4, "kernel": "6.1", "python": "3.11", "rmem_max": 212_992},
        "rows": [row([one], 4.0, None, strict=True)], "replay": [{OURS: replay(), "dnsmasq": replay(failed=1)}],
        "ceiling": [{"title": "a row", "rounds": [{"reflector": run(90_000)}]}],
    }  # fmt: skip
    for text in (table.text(results), table.markdown(results)):
        for words in (
            "50,000/s (1.00, 9.00 ms)",
            "1.00% lost",
            "5.00, 0 lost, 9.0 ms",
            "1,000 of 1,000: ok",
            "1 refused",
            "212,992",
            "90,000/s",
            "75%",
        ):
            assert words in text
    assert len(table.verdicts(results)) == 2
    assert json.dumps(results)


def test_the_block_between_the_markers_is_replaced():
    page = f"# Title\n\n{table.BEGIN}\nold\n{table.END}\n\nmore\n"
    assert table.replace_block(page, "new") == f"# Title\n\n{table.BEGIN}\nnew\n{table.END}\n\nmore\n"
    with pytest.raises(SystemExit):
        table.replace_block("no markers", "new")


def test_the_rows_are_those_that_were_demanded():
    offers = {(row.work.kind, row.work.outstanding, row.floor) for row in work.ROWS if not row.work.bursts}
    assert offers == {
        *((kind, *pair) for kind in ("bios", "uefi") for pair in ((1, None), (32, 1.2), (256, None), (1000, None))),
        ("uefi-4011", 32, 1.2), ("ipxe-4011", 32, 1.2),
    }  # fmt: skip
    bursts = {(row.work.kind, row.work.outstanding, row.floor) for row in work.ROWS if row.work.bursts}
    assert bursts == {("bios", 1000, 4.0), ("uefi", 1000, 4.0)}
    assert all(row.strict == (row.work.outstanding == 1000) for row in work.ROWS)


def test_every_device_has_a_mac_and_an_address_of_its_own():
    macs, addresses = zip(*work.population(), strict=True)
    assert len(set(macs)) == len(set(addresses)) == 4096
    assert not {address.rsplit(".", 1)[1] for address in addresses} & {"0", "255"}


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ([], ["tftp", "dhcp", "policy", "imaging"]),
        (["--quick", "--rounds", "2"], ["tftp", "dhcp", "policy", "imaging"]),
        (["--parts", "rows", "--quick"], ["tftp"]),
        (["--rows", "lock-64,window-4"], ["tftp"]),
        (["--rows=uefi-32,replay", "--rounds", "1"], ["dhcp"]),
        (["--rows", "big-1"], ["imaging"]),
        (["--json", "here"], ["tftp"]),
        (["--rows", "bios-1", "--json", "here"], ["dhcp"]),
        (["--help"], ["tftp", "dhcp", "policy", "imaging"]),
    ],
)
def test_a_bench_is_meant_when_it_knows_all_the_options(options, names):
    assert meant(options) == names
