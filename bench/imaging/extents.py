"""How large a frame should be: compression, index, delta and speed for each size (``python -m bench.imaging.extents``).

One rule: the data is a real root file system before and after a real upgrade (``rootfs``), written by the server's own
cutter and writer; byte counts are exact, speeds are those of one core of this machine, busy or not (said in the JSON).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from bench.imaging.rootfs import MAKE, STEPS, Capture, Upgrade, changed_bytes, private_mounts, upgraded
from bench.page import text
from pbserv.imaging.frames.cut import PartcloneCutter
from pbserv.imaging.frames.delta import missing, unshared
from pbserv.imaging.frames.index import Index, Stream
from pbserv.imaging.frames.reader import OpenIndex
from pbserv.imaging.frames.writer import FrameWriter, Reuse, Shape

SIZES = tuple(kib * 1024 for kib in (64, 128, 256, 512, 1024))
LEVEL = 3
FOLDER = Path(tempfile.gettempdir()) / "pbserv-bench-rootfs"
_BLOCK = 1 << 20


@dataclass(frozen=True)
class Row:
    """One extent size on one file system. ``factor`` is delta_bytes by changed_bytes; speeds in MB/s."""

    file_system: str
    upgrade: str
    extent_bytes: int
    item_bytes: int
    stream_zstd_bytes: int
    index_bytes: int
    changed_bytes: int
    delta_bytes: int
    delta_stored_bytes: int
    sent_bytes: int
    factor: float
    write_mb_s: float
    read_mb_s: float


class Written:
    """A capture as item and index, below ``folder``."""

    def __init__(self, capture: Capture, folder: Path, extent: int, older: Written | None = None) -> None:
        name = capture.path.name
        self.item = os.open(folder / f"{name}.zst", os.O_RDWR | os.O_CREAT | os.O_TRUNC)
        self.pbx = os.open(folder / f"{name}.pbx", os.O_RDWR | os.O_CREAT | os.O_TRUNC)
        self.path = folder / f"{name}.zst"
        reuse = Reuse(older.index, older.item, lambda: None) if older else None
        writer = FrameWriter(self.item, self.pbx, Stream.PARTCLONE, LEVEL, charge=lambda _: None, reuse=reuse)
        cutter = PartcloneCutter(capture.head, capture.bitmap, extent)
        begun = time.thread_time()
        for piece in cutter.head_pieces():
            writer.put(piece)
        with capture.path.open("rb") as file:
            file.seek(capture.head.head_bytes)
            while block := file.read(_BLOCK):
                for piece in cutter.feed(block):
                    writer.put(piece)
        writer.flush()
        self.mb_s = capture.head.body_bytes / (time.thread_time() - begun) / 1e6
        head = capture.head
        writer.close(Shape(extent, cutter.extent, head.block_bytes, head.device_bytes))
        self.opened = OpenIndex(self.pbx)

    @property
    def index(self) -> Index:
        return self.opened.index

    def close(self) -> None:
        self.opened.close()
        os.close(self.item)
        os.close(self.pbx)


def measure(upgrade: Upgrade, extent: int, whole_bytes: int, changed: int, folder: Path) -> Row:
    """Write both versions with frames of this size and compare them."""
    old = Written(upgrade.old, folder, extent)
    new = Written(upgrade.new, folder, extent, old)
    difference = unshared(new.index, old.index)
    header = new.index.header
    row = Row(
        upgrade.file_system, upgrade.step, extent, header.stored_bytes, whole_bytes, os.fstat(new.pbx).st_size, changed,
        difference.plain_bytes, difference.stored_bytes, missing(new.index, old.index).sent_bytes,
        round(difference.plain_bytes / changed, 2), round(old.mb_s), round(_read_speed(new.path, header.stream_bytes)),
    )  # fmt: skip
    old.close()
    new.close()
    return row


def whole_stream(capture: Capture) -> int:
    """Bytes of the same stream as one frame of ``zstd -3``: what the frames cost is seen against it."""
    done = subprocess.run(f"zstd -3 -qc {capture.path} | wc -c", shell=True, capture_output=True, text=True, check=True)
    return int(done.stdout)


def _read_speed(item: Path, plain_bytes: int) -> float:
    begun = os.times().children_user + os.times().children_system
    subprocess.run(["zstd", "-dcq", str(item)], stdout=subprocess.DEVNULL, check=True)
    spent = os.times().children_user + os.times().children_system - begun
    return plain_bytes / max(spent, 0.01) / 1e6  # os.times counts hundredths


def table(rows: Sequence[Row]) -> str:
    """The rows as text, sizes in MB."""
    head = (
        "file system",
        "upgrade",
        "extent",
        "item",
        "to zstd -3",
        "index",
        "changed",
        "delta",
        "factor",
        "sent",
        "write",
        "read",
    )
    lines = [
        (
            row.file_system, row.upgrade, f"{row.extent_bytes >> 10} KiB", f"{row.item_bytes / 1e6:.1f}",
            f"{row.item_bytes / row.stream_zstd_bytes - 1:+.1%}", f"{row.index_bytes / 1e6:.2f}",
            f"{row.changed_bytes / 1e6:.1f}", f"{row.delta_bytes / 1e6:.1f}", f"{row.factor:.2f}",
            f"{row.sent_bytes / 1e6:.1f}", f"{row.write_mb_s:.0f} MB/s", f"{row.read_mb_s:.0f} MB/s",
        )
        for row in rows
    ]  # fmt: skip
    return text("Frames by extent size; sizes in MB", [("", [head, *lines])])


def result(rows: Sequence[Row], packages: Mapping[str, Sequence[str]]) -> dict[str, object]:
    """For the JSON: rows, what was upgraded, how busy the machine was."""
    return {"rows": [asdict(row) for row in rows], "packages": packages, "load": os.getloadavg(), "level": LEVEL}


def measured(
    folder: Path, file_systems: Sequence[str], sizes: Sequence[int], steps: Sequence[str] = ()
) -> tuple[list[Row], dict[str, Sequence[str]]]:
    """The rows of these (no ``steps``: of every upgrade), and the packages of each upgrade.

    What ``folder`` has of them is not measured again.
    """
    folder.mkdir(parents=True, exist_ok=True)
    state = folder / "extents.json"
    rows, packages = _before(state)
    for file_system in file_systems:
        for upgrade in upgraded(folder, file_system):
            packages[f"{file_system}, {upgrade.step}"] = upgrade.packages
            done = {row.extent_bytes for row in rows if (row.file_system, row.upgrade) == (file_system, upgrade.step)}
            missed = [size for size in sizes if size not in done]
            if not missed or (steps and upgrade.step not in steps):
                continue
            whole, changed = whole_stream(upgrade.new), changed_bytes(upgrade)
            for size in missed:
                with tempfile.TemporaryDirectory(dir=folder) as place:
                    rows.append(measure(upgrade, size, whole, changed, Path(place)))
                print(table(rows[-1:]), flush=True)
                state.write_text(json.dumps(result(rows, packages)))
    wanted = [row for row in rows if row.file_system in file_systems and row.extent_bytes in sizes]
    wanted = [row for row in wanted if not steps or row.upgrade in steps]
    wanted.sort(key=lambda row: (file_systems.index(row.file_system), row.upgrade == STEPS[-1], row.extent_bytes))
    return wanted, {name: of for name, of in packages.items() if name.partition(",")[0] in file_systems}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.imaging.extents", description=__doc__)
    parser.add_argument(
        "--folder", type=Path, default=FOLDER, help="keeps captures and rows; empty it to measure again (%(default)s)"
    )
    parser.add_argument("--file-systems", default="ext4,xfs", help=f"of {', '.join(MAKE)}; separated by commas")
    parser.add_argument("--upgrades", default=[], nargs="*", help=f"of {', '.join(map(repr, STEPS))}; all of them")
    parser.add_argument("--sizes", default=",".join(str(size >> 10) for size in SIZES), help="in KiB (%(default)s)")
    parser.add_argument("--json", type=Path, default=Path("bench/results/extents.json"))
    options = parser.parse_args()
    if os.geteuid():
        print("root rights are needed: loop devices", file=sys.stderr)
        return 2
    private_mounts()
    sizes = [int(size) << 10 for size in options.sizes.split(",")]
    rows, packages = measured(options.folder, options.file_systems.split(","), sizes, options.upgrades)
    print(table(rows))
    options.json.write_text(json.dumps(result(rows, packages), indent=1) + "\n")
    return 0


def _before(path: Path) -> tuple[list[Row], dict[str, Sequence[str]]]:
    """The rows of a run that did not come to its end; empty the folder to measure everything again."""
    if not path.exists():
        return [], {}
    found = json.loads(path.read_text())
    return [Row(**row) for row in found["rows"]], found["packages"]


if __name__ == "__main__":
    raise SystemExit(main())
