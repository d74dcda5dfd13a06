"""``python -m bench.imaging``: images and boot files over HTTP, beside nginx. Needs root, two cores, Debian and gcc."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench.imaging import table, work
from bench.imaging.measure import Bench, Run
from bench.imaging.peers import EVERYBODY, Peer
from bench.imaging.work import GIB, Row
from bench.tftp.__main__ import RESULTS, load_average, machine, say
from bench.tftp.judge import OURS, fault, faults
from bench.tftp.measure import isolate

MEMORY_FILES = Path("/dev/shm")
NEEDED_BYTES = 5 * GIB


def arguments() -> argparse.Namespace:
    def keys(text: str) -> list[str]:
        unknown = [key for key in text.split(",") if key not in work.KEYS]
        if unknown:
            raise argparse.ArgumentTypeError(f"no {', '.join(unknown)}; there are {', '.join(work.KEYS)}")
        return text.split(",")

    parser = argparse.ArgumentParser(prog="python -m bench.imaging", description=__doc__)
    parser.add_argument("--rows", type=keys, default=list(work.KEYS), help=",".join(work.KEYS))
    parser.add_argument("--rounds", type=int, default=0, help="paired rounds of each row; 5, or 1 with --quick")
    parser.add_argument("--quick", action="store_true", help="does it work? About a minute; judges no target")
    parser.add_argument("--json", type=Path, help="where the results go; what is not run again stays in it")
    given = parser.parse_args()
    given.rounds = given.rounds or (1 if given.quick else 5)
    given.json = given.json or RESULTS / ("imaging-quick.json" if given.quick else "imaging.json")
    return given


def compare(bench: Bench, peers: Sequence[Peer], row: Row, rounds: int) -> list[dict[str, Run]]:
    """Paired rounds; who begins changes from round to round."""
    found = []
    for number in range(rounds):
        turn = number % len(peers)
        one = {}
        for peer in (*peers[turn:], *peers[:turn]):
            one[peer.name] = bench.run(peer, row.work)
            if fault(one[peer.name]):
                say(f"  round {number + 1}, {peer.name}: {fault(one[peer.name])} {one[peer.name]['error']}")
        found.append(one)
    return found


def merged(old: Sequence[Any], new: Any) -> list[Any]:
    """The rows with one of them new, in the order of the table."""
    found = {row["key"]: row for row in (*old, new)}
    return [found[key] for key in work.KEYS if key in found]


def scratch_place() -> Path | None:
    """Memory where there is room; else the usual place, where the page cache has to do."""
    roomy = MEMORY_FILES.is_dir() and shutil.disk_usage(MEMORY_FILES).free >= NEEDED_BYTES
    return MEMORY_FILES if roomy else None


def main() -> int:
    """0; 1 when a target is missed (with --quick: when a run of ours had a fault)."""
    given = arguments()
    if os.geteuid() != 0:
        raise SystemExit("the bench needs root: it makes a network namespace")
    versions = {peer.name: peer.version() for peer in EVERYBODY}  # unpacks what is missing, while there is a network
    isolate()
    results = json.loads(given.json.read_text()) if given.json.exists() and not given.quick else {}
    results |= {"date": time.strftime("%Y-%m-%d"), "machine": machine(), "versions": versions, "rounds": given.rounds}
    results |= {"quick": given.quick}
    if load_average():
        say(load_average())
    given.json.parent.mkdir(parents=True, exist_ok=True)
    rows = [work.quick(row) if given.quick else row for row in work.ROWS if row.key in given.rows]
    uploads = [each for each in work.UPLOADS if each.key in given.rows]
    uploads = [work.quick_upload(each) for each in uploads] if given.quick else uploads
    with tempfile.TemporaryDirectory(prefix="pbserv-bench-", dir=scratch_place()) as scratch:
        bench = Bench(Path(scratch), rows, uploads)
        for row in rows:
            say(row.title)
            found = {**asdict(row), "rounds": compare(bench, EVERYBODY, row, given.rounds)}
            results["rows"] = merged(results.get("rows", ()), found)
            given.json.write_text(json.dumps(results, indent=1))
        for upload in uploads:
            say(upload.title)
            taken = {**asdict(upload), "rounds": [{OURS: bench.upload(upload)} for _ in range(min(given.rounds, 3))]}
            results["uploads"] = merged(results.get("uploads", ()), taken)
            given.json.write_text(json.dumps(results, indent=1))
    print()
    print(table.text(results))
    return verdict(results, given.rows, given.quick)


def verdict(results: dict[str, Any], keys: Sequence[str], quick: bool) -> int:
    """Of what was run now, not of what the file still holds."""
    judged = {part: [row for row in results.get(part, ()) if row["key"] in keys] for part in ("rows", "uploads")}
    if quick:
        return int(bool(faults([one for part in judged.values() for row in part for one in row["rounds"]], OURS)))
    missed = [one for one in table.verdicts(judged) if one.missed]
    for one in missed:
        print(f"MISSED: {one.about}: {one.found}, wanted {one.wanted}")
    return int(bool(missed))


if __name__ == "__main__":
    raise SystemExit(main())
