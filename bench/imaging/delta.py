"""What an upgrade costs with the frames as they are configured (``python -m bench.imaging.delta``): must be <= 3.

The figure: uncompressed bytes of the extents that are not shared, by the bytes of the 4 KiB used blocks that changed.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

from bench.imaging.extents import FOLDER, measured, result, table
from bench.imaging.rootfs import MAKE, private_mounts
from bench.imaging.work import DELTA_LIMIT
from pbserv.imaging.reframe import EXTENT_BYTES


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.imaging.delta", description=__doc__)
    parser.add_argument("--folder", type=Path, default=FOLDER, help="keeps the captures for the next run (%(default)s)")
    parser.add_argument("--file-systems", default=",".join(MAKE))
    parser.add_argument("--json", type=Path, default=Path("bench/results/delta.json"))
    options = parser.parse_args()
    if os.geteuid():
        print("root rights are needed: loop devices", file=sys.stderr)
        return 2
    private_mounts()
    rows, packages = measured(options.folder, options.file_systems.split(","), [EXTENT_BYTES])
    print(table(rows))
    options.json.write_text(json.dumps(result(rows, packages), indent=1) + "\n")
    worst = max(rows, key=lambda row: row.factor)
    if worst.factor > DELTA_LIMIT:
        what = f"{worst.file_system}, {worst.upgrade}"
        print(f"{what}: {worst.factor} times the blocks that changed; the limit is {DELTA_LIMIT}")
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
