"""``make bench``: every side-by-side measurement, one after the other; JSON goes to bench/results.

``python -m bench [NAME ...] [OPTION ...]``: the options go to each of them (``python -m bench.tftp --help``).
"""

from __future__ import annotations

import itertools
import subprocess
import sys

BENCHES = {"tftp": "bench.tftp"}


def main() -> int:
    """Run all, or those named on the command line; 1 when one missed a target or failed."""
    names = list(itertools.takewhile(lambda word: not word.startswith("-"), sys.argv[1:]))
    options = sys.argv[1 + len(names) :]
    unknown = [name for name in names if name not in BENCHES]
    if unknown:
        print(f"no bench {', '.join(unknown)}; there are {', '.join(BENCHES)}", file=sys.stderr)
        return 2
    failed = 0
    for name in names or BENCHES:
        print(f"== {name}", flush=True)
        failed |= subprocess.run([sys.executable, "-m", BENCHES[name], *options], check=False).returncode != 0
    return failed


if __name__ == "__main__":
    raise SystemExit(main())
