"""The CPU time of a server and of all its children, from a control group (version 2, or the cpuacct of version 1).

One rule: children that ended count. tftpd-hpa forks for each request and never waits for a child, so its own times say
nothing; where there is no control group the times of the processes that live are all there is.
"""

from __future__ import annotations

import os
from pathlib import Path

ROOTS = (
    (Path("/sys/fs/cgroup/cpuacct"), "cpuacct.usage"),
    (Path("/sys/fs/cgroup/unified"), "cpu.stat"),
    (Path("/sys/fs/cgroup"), "cpu.stat"),
)


class ControlGroup:
    """One group, for one server. ``cpu_seconds`` is None where there are no control groups."""

    def __init__(self, pid: int) -> None:
        self._folder: Path | None = None
        for root, name in ROOTS:
            folder = root / f"pbserv-bench-{os.getpid()}-{pid}"
            try:
                folder.mkdir()
                (folder / "cgroup.procs").write_text(str(pid))
                self._read(folder / name)
            except (OSError, ValueError):
                _remove(folder)
                continue
            self._folder, self._name = folder, name
            return

    def cpu_seconds(self) -> float | None:
        return self._read(self._folder / self._name) if self._folder else None

    def close(self) -> None:
        """After the last process has ended."""
        if self._folder:
            _remove(self._folder)

    @staticmethod
    def _read(path: Path) -> float:
        words = path.read_text().split()
        if path.name == "cpu.stat":
            return int(words[words.index("usage_usec") + 1]) / 1e6
        return int(words[0]) / 1e9


def _remove(folder: Path) -> None:
    try:
        folder.rmdir()
    except OSError:
        return
