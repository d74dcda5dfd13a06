"""``make bench``: every measurement, one after the other; JSON goes to bench/results.

``python -m bench [NAME ...] [OPTION ...]``: the options go to each of them (``python -m bench.tftp --help``; likewise
``bench.dhcp``, ``bench.policy`` and ``bench.imaging``). Where none is named, those are run that know all the options.
"""

from __future__ import annotations

import itertools
import subprocess
import sys
from collections.abc import Sequence

from bench.dhcp.work import KEYS
from bench.imaging.work import KEYS as IMAGING_KEYS
from bench.tftp.work import ROWS

BENCHES = {"tftp": "bench.tftp", "dhcp": "bench.dhcp", "policy": "bench.policy", "imaging": "bench.imaging"}
EVERYBODY = {"--quick", "--rounds", "--rows", "--json"}
OPTIONS = {
    "tftp": EVERYBODY | {"--parts", "--gro"},
    "dhcp": EVERYBODY,
    "policy": EVERYBODY - {"--rows"},
    "imaging": EVERYBODY,
}
ROW_KEYS: dict[str, set[str]] = {
    "tftp": {row.key for row in ROWS},
    "dhcp": set(KEYS),
    "policy": set(),
    "imaging": set(IMAGING_KEYS),
}


def meant(options: Sequence[str]) -> list[str]:
    """The benches that know these options and rows; all of them where it is not for us to say (--help, a mistake).

    A file for the results is one bench's, the first's.
    """
    words = [part for option in options for part in option.split("=", 1)]
    named = {word for word in words if word.startswith("--")}
    keys = {key for word, value in itertools.pairwise(words) if word == "--rows" for key in value.split(",")}
    found = [name for name in BENCHES if named <= OPTIONS[name] and (not keys or keys & ROW_KEYS[name])]
    return found[: 1 if "--json" in named else None] or list(BENCHES)


def main() -> int:
    """Run those that are meant or named on the command line; 1 when one missed a target or failed."""
    names = list(itertools.takewhile(lambda word: not word.startswith("-"), sys.argv[1:]))
    options = sys.argv[1 + len(names) :]
    unknown = [name for name in names if name not in BENCHES]
    if unknown:
        print(f"no bench {', '.join(unknown)}; there are {', '.join(BENCHES)}", file=sys.stderr)
        return 2
    failed = 0
    for name in names or meant(options):
        print(f"== {name}", flush=True)
        failed |= subprocess.run([sys.executable, "-m", BENCHES[name], *options], check=False).returncode != 0
    return failed


if __name__ == "__main__":
    raise SystemExit(main())
