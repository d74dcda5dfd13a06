"""A note of where the server of a configuration directory keeps its state, should the files say something else by now.

One rule: the note is only a hint; it is believed while the pid file that it leads to is locked by a living process.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

from pbserv.daemon.pidfile import PID_FILE_NAME, read_state


def leave_note(conf: Path, run: Path) -> None:
    """Called at the start, still as root if we are; where no note can be written, the files alone count."""
    for path in _places(conf):
        with contextlib.suppress(OSError):
            path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            draft = path.with_name(f".{path.name}.{os.getpid()}")
            draft.write_text(f"{run}\n", encoding="utf-8")
            draft.chmod(0o644)
            draft.replace(path)
            return


def noted(conf: Path) -> Path | None:
    """The run directory of a server that lives and was started with ``conf``."""
    for path in _places(conf):
        with contextlib.suppress(OSError, UnicodeError):
            text = path.read_text(encoding="utf-8").strip()
            if text.startswith("/") and read_state(Path(text) / PID_FILE_NAME).running:
                return Path(text)
    return None


def _places(conf: Path) -> Iterator[Path]:
    name = hashlib.sha256(os.fsencode(conf.resolve())).hexdigest()[:16]
    yield Path("/run/pbserv") / name
    yield Path(f"/run/user/{os.geteuid()}/pbserv") / name
