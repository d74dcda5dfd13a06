"""``python -m bench.policy``: decisions on a large zone. PostgreSQL is measured where Debian's package is installed."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.policy import table, zone
from bench.policy.fill import fill
from bench.tftp.__main__ import RESULTS, load_average, machine
from bench.tftp.peers import EVERYBODY
from pbserv.registry.migrate import migrate
from tests.support.postgres import programs, running_postgres


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.policy", description=__doc__)
    parser.add_argument("--rounds", type=int, default=0, help="5, or 1 with --quick")
    parser.add_argument("--quick", action="store_true", help="does it work? 5,000 devices; judges nothing")
    parser.add_argument("--json", type=Path, help="where the results go")
    given = parser.parse_args()
    given.rounds = given.rounds or (1 if given.quick else 5)
    given.json = given.json or RESULTS / ("policy-quick.json" if given.quick else "policy.json")
    return given


@contextlib.contextmanager
def postgresql(count: int) -> Iterator[str]:
    """The URL of a filled registry; empty where there is no PostgreSQL."""
    if programs() is None:
        print("PostgreSQL is not measured: apt-get install postgresql", flush=True)
        yield ""
        return
    with running_postgres() as server:
        url = server.new_database()
        migrate(url)
        asyncio.run(fill(url, zone.devices(count), zone.objects()))
        server.sql(url.rpartition("/")[2], "ANALYZE")
        yield url


def rounds(given: argparse.Namespace, scratch: Path) -> Iterator[dict[str, float]]:
    count = 5_000 if given.quick else zone.DEVICES
    filled = scratch / "filled.db"
    migrate(filled)
    asyncio.run(fill(filled, zone.devices(count), zone.objects()))
    with postgresql(count) as url:
        for number in range(given.rounds):
            print(f"round {number + 1} of {given.rounds}", flush=True)
            mine = Path(shutil.copy(filled, scratch / "round.db"))
            short = ["--seconds", "1", "--decisions", "2000"] if given.quick else []
            yield measured("--sqlite", str(mine), *short) | (measured("--postgresql", url) if url else {})


def measured(*options: str) -> dict[str, float]:
    """In a new process."""
    words = [sys.executable, "-m", "bench.policy.measure", *options]
    done = subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True, timeout=300)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def main() -> int:
    """0; 1 when a figure is beyond its limit, which ``--quick`` does not judge."""
    given = arguments()
    if load_average():
        print(load_average(), flush=True)
    size = {"devices": zone.DEVICES, "groups": zone.GROUPS, "folders": zone.FOLDERS,
            "assignments": zone.ASSIGNMENTS, "rules": zone.RULES}  # fmt: skip
    versions = {peer.name: peer.version() for peer in EVERYBODY if peer.ours}
    results: dict[str, Any] = {
        "date": time.strftime("%Y-%m-%d"), "machine": machine(), "versions": versions,
        "rounds": given.rounds, "quick": given.quick, "size": size,
    }  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="pbserv-bench-") as scratch:
        results["figures"] = list(rounds(given, Path(scratch)))
    given.json.parent.mkdir(parents=True, exist_ok=True)
    given.json.write_text(json.dumps(results, indent=1) + "\n")
    print(table.text(results))
    if given.quick:
        return 0
    for said in table.missed(results):
        print(f"MISSED: {said}")
    return int(bool(table.missed(results)))


if __name__ == "__main__":
    raise SystemExit(main())
