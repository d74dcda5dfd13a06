"""``python -m bench.tftp``: TFTP servers side by side on the loopback. Needs root, two cores, Debian, gcc and ip."""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
import time
from pathlib import Path
from typing import Any

from bench.tftp import judge, table, work
from bench.tftp.measure import Bench, isolate
from bench.tftp.parts import PARTS, Plan
from bench.tftp.peers import EVERYBODY

RESULTS = Path(__file__).parents[1] / "results"


def arguments() -> argparse.Namespace:
    def names(known: list[str]) -> Any:
        def read(text: str) -> list[str]:
            unknown = [name for name in text.split(",") if name not in known]
            if unknown:
                raise argparse.ArgumentTypeError(f"no {', '.join(unknown)}; there are {', '.join(known)}")
            return text.split(",")

        return read

    parser = argparse.ArgumentParser(prog="python -m bench.tftp", description=__doc__)
    parser.add_argument("--parts", type=names(list(PARTS)), default=list(PARTS), help=",".join(PARTS))
    parser.add_argument("--rows", type=names([row.key for row in work.ROWS]), default=[])
    parser.add_argument("--rounds", type=int, default=0, help="paired rounds of each row; 5, or 1 with --quick")
    parser.add_argument("--quick", action="store_true", help="does it work? About a minute; judges no target")
    parser.add_argument("--gro", action="store_true", help="the generator takes flights uncut (UDP_GRO); see work.py")
    parser.add_argument("--json", type=Path, help="where the results go; what is not run again stays in it")
    given = parser.parse_args()
    given.rounds = given.rounds or (1 if given.quick else 5)
    given.json = given.json or RESULTS / ("tftp-quick.json" if given.quick else "tftp.json")
    return given


def machine() -> dict[str, Any]:
    cpu = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "cpu": cpu[0].partition(":")[2].strip() if cpu else platform.machine(),
        "cores": os.cpu_count(),
        "memory_gb": round(memory / 1e9),
        "kernel": platform.release(),
        "python": platform.python_version(),
    }


def load_average() -> str:
    one, cores = os.getloadavg()[0], os.cpu_count() or 1
    return (
        f"the machine is busy already (load {one:.1f} on {cores} cores): do not trust the figures" if one > 0.5 else ""
    )


def say(words: str) -> None:
    print(words, flush=True)


def main() -> int:
    """0; 1 when a target is missed (with --quick: when a run of ours had a fault)."""
    given = arguments()
    if os.geteuid() != 0:
        raise SystemExit("the bench needs root: dnsmasq serves TFTP on port 69 only, and it makes a network namespace")
    versions = {peer.name: peer.version() for peer in EVERYBODY}  # unpacks what is missing, while there is a network
    isolate()
    results = json.loads(given.json.read_text()) if given.json.exists() and not given.quick else {}
    results |= {"date": time.strftime("%Y-%m-%d"), "machine": machine(), "versions": versions, "rounds": given.rounds}
    results |= {"quick": given.quick, "gro": given.gro}
    if load_average():
        say(load_average())
    given.json.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="pbserv-bench-") as scratch:
        bench = Bench(Path(scratch))
        plan = Plan(bench, given.rounds, given.rows, say, quick=given.quick, gro=given.gro)
        for name in given.parts:
            results[name] = merged(results.get(name, []), PARTS[name](plan), given.rows if name == "rows" else [])
            given.json.write_text(json.dumps(results, indent=1))
    print()
    print(table.text(results))
    return verdict(results, given.parts, given.quick)


def merged(old: list[Any], new: list[Any], only: list[str]) -> list[Any]:
    """Rows that were not run again stay as they were."""
    if not only:
        return new
    found = {row["key"]: row for row in (*old, *new)}
    return [found[row.key] for row in work.ROWS if row.key in found]


def verdict(results: dict[str, Any], parts: list[str], quick: bool) -> int:
    judged = {name: results[name] for name in parts}
    if quick:
        return int(bool(judge.faults(judge.all_rounds(judged), judge.OURS)))
    missed = [one for one in table.verdicts(judged) if one.missed]
    for one in missed:
        print(f"MISSED: {one.about}: {one.found}, wanted {one.wanted}")
    return int(bool(missed))


if __name__ == "__main__":
    raise SystemExit(main())
