"""``python -m bench.dhcp``: proxyDHCP servers side by side over a veth pair. Needs root, two cores, gcc and dnsmasq."""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench.dhcp import table, work
from bench.dhcp.measure import Bench, Run
from bench.dhcp.peers import EVERYBODY, REFLECTOR, Peer
from bench.dhcp.wires import wires
from bench.dhcp.work import Work
from bench.tftp.__main__ import RESULTS, load_average, machine, say
from bench.tftp.judge import OURS, fault, faults
from bench.tftp.measure import isolate


def arguments() -> argparse.Namespace:
    def keys(text: str) -> list[str]:
        unknown = [key for key in text.split(",") if key not in work.KEYS]
        if unknown:
            raise argparse.ArgumentTypeError(f"no {', '.join(unknown)}; there are {', '.join(work.KEYS)}")
        return text.split(",")

    parser = argparse.ArgumentParser(prog="python -m bench.dhcp", description=__doc__)
    parser.add_argument("--rows", type=keys, default=list(work.KEYS), help=",".join(work.KEYS))
    parser.add_argument("--rounds", type=int, default=0, help="paired rounds of each row; 5, or 1 with --quick")
    parser.add_argument("--quick", action="store_true", help="does it work? About a minute; judges no target")
    parser.add_argument("--json", type=Path, help="where the results go; what is not run again stays in it")
    given = parser.parse_args()
    given.rounds = given.rounds or (1 if given.quick else 5)
    given.json = given.json or RESULTS / ("dhcp-quick.json" if given.quick else "dhcp.json")
    return given


def compare(bench: Bench, peers: Sequence[Peer], asked: Work, rounds: int) -> list[dict[str, Run]]:
    """Paired rounds; who begins changes from round to round."""
    found = []
    for number in range(rounds):
        turn = number % len(peers)
        one = {}
        for peer in (*peers[turn:], *peers[:turn]):
            one[peer.name] = bench.run(peer, asked)
            if fault(one[peer.name]):
                say(f"  round {number + 1}, {peer.name}: {fault(one[peer.name])} {one[peer.name]['error']}")
        found.append(one)
    return found


def parts(bench: Bench, given: argparse.Namespace) -> Iterator[tuple[str, Any]]:
    """Name and value of each part of the results as soon as there is one more; rows come one by one."""
    pace: Callable[[Work], Work] = work.quick if given.quick else lambda asked: asked
    few = min(given.rounds, 3)
    for row in work.ROWS:
        if row.key in given.rows:
            say(row.title)
            yield "rows", {**asdict(row), "rounds": compare(bench, EVERYBODY, pace(row.work), given.rounds)}
    if work.REPLAY in given.rows:
        say("machines switched on at once")
        yield "replay", compare(bench, EVERYBODY, pace(work.storm()), few)
    if work.CEILING in given.rows:
        say("the load generator against a reflector")
        rows = [row for row in work.ROWS if row.key in work.CEILING_ROWS]
        yield (
            "ceiling",
            [{"title": row.title, "rounds": compare(bench, [REFLECTOR], pace(row.work), few)} for row in rows],
        )


def merged(old: Sequence[Any], new: Any) -> list[Any]:
    """The rows with one of them new, in the order of the table."""
    found = {row["key"]: row for row in (*old, new)}
    return [found[row.key] for row in work.ROWS if row.key in found]


def receive_limit() -> int:
    """How large a receive buffer an unprivileged process may have; bursts are lost where it is small."""
    return int(Path("/proc/sys/net/core/rmem_max").read_text())


def main() -> int:
    """0; 1 when a target is missed (with --quick: when a run of ours had a fault)."""
    given = arguments()
    if os.geteuid() != 0:
        raise SystemExit("the bench needs root: it makes network namespaces")
    versions = {peer.name: peer.version() for peer in EVERYBODY}
    isolate()
    results = json.loads(given.json.read_text()) if given.json.exists() and not given.quick else {}
    results |= {"date": time.strftime("%Y-%m-%d"), "machine": machine() | {"rmem_max": receive_limit()}}
    results |= {"versions": versions, "rounds": given.rounds, "quick": given.quick}
    if load_average():
        say(load_average())
    given.json.parent.mkdir(parents=True, exist_ok=True)
    with wires() as room, tempfile.TemporaryDirectory(prefix="pbserv-bench-") as scratch:
        for name, value in parts(Bench(Path(scratch), room), given):
            results[name] = merged(results.get(name, ()), value) if name == "rows" else value
            given.json.write_text(json.dumps(results, indent=1))
    print()
    print(table.text(results))
    return verdict(results, given.rows, given.quick)


def verdict(results: dict[str, Any], keys: Sequence[str], quick: bool) -> int:
    """Of what was run now, not of what the file still holds."""
    rows = [row for row in results.get("rows", ()) if row["key"] in keys]
    replay = results["replay"] if work.REPLAY in keys else []
    if quick:
        rounds = [one for row in rows for one in row["rounds"]] + replay
        return int(bool(faults(rounds, OURS)))
    missed = [one for one in table.verdicts({"rows": rows, "replay": replay}) if one.missed]
    for one in missed:
        print(f"MISSED: {one.about}: {one.found}, wanted {one.wanted}")
    return int(bool(missed))


if __name__ == "__main__":
    raise SystemExit(main())
