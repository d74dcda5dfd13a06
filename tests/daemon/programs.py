"""Small programs that the tests run as processes of their own, and how to run them."""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]


def run_python(program: str, *arguments: str | Path, timeout_s: float = 60) -> subprocess.CompletedProcess[str]:
    """Run to the end; the caller looks at the exit code."""
    command = [sys.executable, "-W", "error", "-c", textwrap.dedent(program), *map(str, arguments)]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=timeout_s, cwd=ROOT, stdin=subprocess.DEVNULL
    )


def report_of(program: str, *arguments: str | Path) -> dict[str, object]:
    """Run a program whose last line of output is a JSON object."""
    result = run_python(program, *arguments)
    assert result.returncode == 0, result.stderr
    report = json.loads(result.stdout.splitlines()[-1])
    assert isinstance(report, dict)
    return report


@contextlib.contextmanager
def python_process(program: str, *arguments: str | Path) -> Iterator[subprocess.Popen[str]]:
    """A running program whose first line of output says that it is set up; killed at the end."""
    command = [sys.executable, "-W", "error", "-c", textwrap.dedent(program), *map(str, arguments)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, cwd=ROOT) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            yield process
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)


@contextlib.contextmanager
def public_directory() -> Iterator[Path]:
    """A directory that other users reach too, which pytest's own are not."""
    path = Path(tempfile.mkdtemp(prefix="pbserv-test-"))
    path.chmod(0o755)
    try:
        yield path
    finally:
        shutil.rmtree(path)
