"""The load generator against the real service in a process of its own: the benchmark must not rot."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bench.tftp import measure, process
from bench.tftp.peers import PBSERV
from bench.tftp.work import Work

pytestmark = pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc is missing; make packages installs it as root")
SIZE = 200_000  # neither a multiple of the block size nor of the pattern


@pytest.fixture(scope="module")
def load(tmp_path_factory) -> Path:
    return measure.build(tmp_path_factory.mktemp("load") / "load")


@pytest.fixture
def files(tmp_path: Path) -> Path:
    folder = tmp_path / "files"
    folder.mkdir()
    (tmp_path / "pattern").write_bytes(measure.pattern())
    (folder / "probe").write_bytes(b"small")
    measure.write_file(folder / f"f{SIZE}", SIZE)
    return folder


@pytest.fixture
def fetch(load: Path, files: Path) -> Iterator[Any]:
    with process.running(PBSERV, files, 100, min(os.sched_getaffinity(0))) as server:

        def run(work: Work) -> dict[str, Any]:
            command = [str(load), "--port", str(server.port), "--pattern", str(files.parent / "pattern")]
            done = subprocess.run([*command, *work.arguments()], capture_output=True, check=True, timeout=60)
            return json.loads(done.stdout)

        yield run
        assert server.cpu_seconds() > 0
        assert server.peak_kb() > 0


@pytest.mark.parametrize("window", [1, 16])
def test_two_clients_get_their_files_with_and_without_loss(fetch, window):
    work = Work(2, SIZE, window, files=3, limit=30)
    whole = fetch(work)
    assert (whole["all_files"], whole["all_bytes"], whole["dropped"]) == (6, 6 * SIZE, 0)
    lossy = fetch(replace(work, files=1, loss=0.02))
    assert (lossy["all_files"], lossy["all_bytes"]) == (2, 2 * SIZE)
    assert lossy["dropped"] > 0
    for found in (whole, lossy):
        assert (found["bad"], found["failed"], found["unfinished"]) == (0, 0, 0)
        assert (found["blksize"], found["windowsize"]) == (1428, window)


def test_a_time_box_with_newcomers(fetch):
    found = fetch(Work(2, SIZE, 4, seconds=0.4, warmup=0.1, leave=True, probe=True))
    assert found["bytes"] > 0
    assert (found["bad"], found["failed"], found["unfinished"], found["peak_active"]) == (0, 0, 0, 2)
    assert found["probe"]["asked"] >= 10
    assert 0 < found["probe"]["p50_ms"] <= found["probe"]["p99_ms"] <= found["probe"]["max_ms"]


def test_wrong_bytes_short_files_and_refusals_are_seen(fetch, files):
    path = files / f"f{SIZE}"
    right = path.read_bytes()
    work = Work(2, SIZE, files=1, limit=10)
    path.write_bytes(right[:150_000] + bytes([right[150_000] ^ 1]) + right[150_001:])
    assert fetch(work)["bad"] == 2
    path.write_bytes(right[:-1])
    assert fetch(work)["bad"] == 2
    path.unlink()
    found = fetch(work)
    assert (found["failed"], found["all_files"]) == (2, 0)
    assert found["error"]


def test_the_command_line_names_what_there_is():
    done = subprocess.run(
        [sys.executable, "-m", "bench.tftp", "--parts", "nonsense"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "rows, loss, probe, memory, scale, ceiling" in done.stderr
