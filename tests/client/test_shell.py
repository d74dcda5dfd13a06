"""Single functions of the client, with busybox's own tools in place of the usual ones."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.client.machine import SCRIPT

TOOLS = "".join(f'{tool}() {{ busybox {tool} "$@"; }}\n' for tool in ("awk", "sed", "tr", "head"))


def shell(code: str, folder: Path, stdin: str = "") -> str:
    """What the code prints that stands behind the client's functions; ``folder`` is its $WORK."""
    script = f"PB_PARTS_ONLY=yes\n. '{SCRIPT}'\nWORK='{folder}'\n{TOOLS}{code}\n"
    done = subprocess.run(["dash", "-c", script, str(SCRIPT)], input=stdin, capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_more_than_two_gibibytes_are_counted(tmp_path: Path) -> None:
    block = bytes(1 << 26)
    with open("/dev/null", "wb", buffering=0) as nowhere:
        for _ in range(40):
            nowhere.write(block)
    (tmp_path / "meter").write_text(f"{os.getpid()} 1 server\n")
    assert int(shell("progress_bytes", tmp_path)) >= 40 << 26


def test_progress_stays_when_the_meter_has_ended_and_counts_no_byte_twice(tmp_path: Path) -> None:
    code = "import sys; open('/dev/null', 'wb').write(bytes(300_000)); print(); sys.stdout.flush(); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as meter:
        assert meter.stdout is not None
        meter.stdout.readline()
        (tmp_path / "meter").write_text(f"{meter.pid} 1 server\n")
        metered = int(shell("progress_bytes", tmp_path))
        assert metered >= 300_000
        meter.communicate()
    assert int(shell("progress_bytes", tmp_path)) == metered
    assert shell("add_done 500000; progress_bytes; done_bytes", tmp_path) == "500000\n500000\n"
    (tmp_path / "meter").write_text(f"{os.getpid()} 2 server\n")
    assert int(shell("progress_bytes", tmp_path)) > 500_000


def test_quotes_in_the_answer_of_the_server_come_through(tmp_path: Path) -> None:
    (tmp_path / "work").write_text("ONE='it'\\''s'\nTWO='a'\"'\"'b'\nTHREE=plain\n")
    assert shell("value ONE; value TWO; value THREE", tmp_path) == "it's\na'b\nplain\n"


def test_the_name_of_a_partition_is_not_read_as_its_place(tmp_path: Path) -> None:
    line = '/dev/sda1 : start= 2048, size= 40960, type=0FC63DAF, name="x, start=7, size=8, type=9 : start=3"\n'
    assert shell("table_parts", tmp_path, line) == "1 2048 40960 0FC63DAF\n"


def test_the_second_table_of_a_gpt_takes_fewer_large_sectors(tmp_path: Path) -> None:
    assert shell("gpt_behind 512; gpt_behind 4096", tmp_path) == "33\n5\n"
