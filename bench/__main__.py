"""`make bench`: every side-by-side measurement, one after the other; JSON goes to bench/results."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
RESULTS = HERE / "results"
BENCHES = {"tftp": HERE / "tftp" / "run.py"}


def main() -> int:
    """Run all, or those named on the command line; 1 when one failed."""
    names = sys.argv[1:] or list(BENCHES)
    unknown = [name for name in names if name not in BENCHES]
    if unknown:
        print(f"no bench {', '.join(unknown)}; there are {', '.join(BENCHES)}", file=sys.stderr)
        return 2
    RESULTS.mkdir(exist_ok=True)
    failed = 0
    for name in names:
        print(f"== {name}", flush=True)
        command = [sys.executable, str(BENCHES[name]), "--json", str(RESULTS / f"{name}.json")]
        failed |= subprocess.run(command, check=False).returncode != 0
    return failed


if __name__ == "__main__":
    raise SystemExit(main())
