"""``python -m bench.imaging``: images and boot files over HTTP beside nginx, uploads, a scrub, a restore in QEMU.

Needs root, two cores, Debian, gcc; for the restore what the demo needs (``make packages``).
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench.imaging import machine as virtual
from bench.imaging import scrub, table, work
from bench.imaging.measure import Bench, Run
from bench.imaging.peers import EVERYBODY, Peer
from bench.imaging.work import GIB, Row
from bench.tftp.__main__ import RESULTS, load_average, machine, say
from bench.tftp.judge import OURS, fault, faults
from bench.tftp.measure import isolate
from bench.tftp.peers import ROOT

MEMORY_FILES = Path("/dev/shm")
NEEDED_BYTES = 5 * GIB
PARTS = ("rows", "uploads", "scrubs", "restores", "deltas")


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
    chosen = _chosen(given.rows, given.quick)
    peers = EVERYBODY if chosen.rows else EVERYBODY[:1]
    versions = {peer.name: peer.version() for peer in peers}  # unpacks what is missing, while there is a network
    results = json.loads(given.json.read_text()) if given.json.exists() and not given.quick else {}
    results |= {"date": time.strftime("%Y-%m-%d"), "machine": machine(), "rounds": given.rounds, "quick": given.quick}
    results["versions"] = results.get("versions", {}) | versions | scrub.versions(chosen.scrubs)
    if load_average():
        say(load_average())
    given.json.parent.mkdir(parents=True, exist_ok=True)

    def keep(part: str, each: Any, rounds: Sequence[Any]) -> None:
        results[part] = merged(results.get(part, ()), {**asdict(each), "rounds": rounds})
        given.json.write_text(json.dumps(results, indent=1))

    for restore in chosen.restores:  # while there is a network: the client is built from packages
        say(f"restore on a virtual machine: {restore.title}")
        keep("restores", restore, [{OURS: run} for run in virtual.measure(restore, min(given.rounds, 3))])
    for delta in chosen.deltas:  # for the same reason
        say(f"delta: {delta.title}")
        keep("deltas", delta, _upgrades(delta))
    isolate()
    with tempfile.TemporaryDirectory(prefix="pbserv-bench-", dir=scratch_place()) as scratch:
        _alone(Path(scratch), chosen, given.rounds, keep)
    print()
    print(table.text(results))
    return verdict(results, given.rows, given.quick)


@dataclass(frozen=True, slots=True)
class Chosen:
    """What of ``work`` is run."""

    rows: list[Row]
    uploads: list[work.Upload]
    scrubs: list[work.Scrub]
    restores: list[work.Restore]
    deltas: list[work.Delta]


def _chosen(keys: Sequence[str], quick: bool) -> Chosen:
    rows = [work.quick(row) if quick else row for row in work.ROWS if row.key in keys]
    uploads = [work.quick_upload(each) if quick else each for each in work.UPLOADS if each.key in keys]
    scrubs = [work.quick_scrub(each) if quick else each for each in work.SCRUBS if each.key in keys]
    restores = [work.quick_restore(each) if quick else each for each in work.RESTORES if each.key in keys]
    deltas = [each for each in work.DELTAS if each.key in keys and not quick]  # minutes of downloads
    return Chosen(rows, uploads, scrubs, restores, deltas)


def _upgrades(delta: work.Delta) -> list[Any]:
    """The rows of ``bench.imaging.delta``, in a process with mounts of its own. What it finds is judged by us."""
    with tempfile.NamedTemporaryFile(suffix=".json") as found:
        words = [sys.executable, "-m", "bench.imaging.delta", "--file-systems", ",".join(delta.file_systems)]
        subprocess.run([*words, "--json", found.name], check=False, cwd=ROOT)
        text = Path(found.name).read_text()
    if not text:
        raise SystemExit("bench.imaging.delta did not come to its end")
    rows: list[Any] = json.loads(text)["rows"]
    return rows


def _alone(scratch: Path, chosen: Chosen, rounds: int, keep: Callable[[str, Any, Sequence[Any]], None]) -> None:
    """All that is measured on the loopback, in a network namespace of our own."""
    if chosen.rows or chosen.uploads:
        bench = Bench(scratch, chosen.rows, chosen.uploads)
        for row in chosen.rows:
            say(row.title)
            keep("rows", row, compare(bench, EVERYBODY, row, rounds))
        for upload in chosen.uploads:
            say(upload.title)
            keep("uploads", upload, [{OURS: bench.upload(upload)} for _ in range(min(rounds, 3))])
    if chosen.scrubs:
        place = scratch / "scrub"
        place.mkdir()
        verified = scrub.Bench(place, chosen.scrubs[0].copies)
        for each in chosen.scrubs:
            say(f"scrub: {each.title}")
            keep("scrubs", each, scrub.compare(verified, each, rounds))


def verdict(results: dict[str, Any], keys: Sequence[str], quick: bool) -> int:
    """Of what was run now, not of what the file still holds."""
    judged = {part: [row for row in results.get(part, ()) if row["key"] in keys] for part in PARTS}
    if quick:
        return int(bool(faults([one for part in judged.values() for row in part for one in row["rounds"]], OURS)))
    missed = [one for one in table.verdicts(judged) if one.missed]
    for one in missed:
        print(f"MISSED: {one.about}: {one.found}, wanted {one.wanted}")
    return int(bool(missed))


if __name__ == "__main__":
    raise SystemExit(main())
