"""How far something is: a bar where somebody looks, lines where nobody does."""

from __future__ import annotations

import os
import pty
import subprocess
import sys

CODE = """
import pbserv.commands.progress as progress
progress._EVERY_S = 0
with progress.Bar("image [x]\\x1b", 4 * 1024 * 1024) as bar:
    bar.add(1024 * 1024)
    bar.at(3 * 1024 * 1024)
    bar.at(8 * 1024 * 1024, 16 * 1024 * 1024)
"""


def test_lines_where_there_is_no_terminal() -> None:
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    assert done.stdout == ""
    assert done.stderr.splitlines() == [
        "image [x]?: 1.0 MiB of 4.0 MiB, 25 %",
        "image [x]?: 3.0 MiB of 4.0 MiB, 75 %",
        "image [x]?: 8.0 MiB of 16.0 MiB, 50 %",
    ]


def test_a_bar_on_a_terminal() -> None:
    ours, theirs = pty.openpty()
    try:
        environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100"}
        subprocess.run([sys.executable, "-c", CODE], stderr=theirs, env=environment, check=True)
        seen = os.read(ours, 65536).decode()
    finally:
        os.close(ours)
        os.close(theirs)
    assert "image [x]?" in seen
    assert "16.8" not in seen
    assert "8.0/16.0 MiB" in seen
