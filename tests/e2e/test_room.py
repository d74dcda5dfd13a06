"""The room itself: a run that was killed leaves namespaces behind, and the next run removes them."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

from tests.e2e.marks import MARKS
from tests.support.netns import remove_stale, room, run, stop
from tests.support.server import CHECKOUT

pytestmark = MARKS

_BUILD_AND_WAIT = """
import signal
from tests.support.netns import room
with room() as made:
    made.host("left", 9)
    print(made.name, flush=True)
    signal.pause()
"""

_CONNECT = """
import contextlib, socket, sys, time
end = time.monotonic() + 10
while time.monotonic() < end:
    with contextlib.suppress(ConnectionRefusedError):
        socket.create_connection((sys.argv[1], 7), 5).close()
        sys.exit(0)
sys.exit("nobody answers")
"""


def test_what_a_killed_run_left_is_removed_by_the_next() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", _BUILD_AND_WAIT], stdout=subprocess.PIPE, text=True, cwd=CHECKOUT
    ) as maker:
        assert maker.stdout is not None
        name = maker.stdout.readline().strip()
        assert f"{name}-left" in run("ip", "netns", "list")
        maker.send_signal(signal.SIGKILL)
    assert f"{name}-left" in remove_stale()
    assert name not in run("ip", "netns", "list")


def test_hosts_of_a_room_reach_each_other_and_vanish_with_it(tmp_path: Path) -> None:
    with room() as made:
        one, two = made.host("one", 1), made.host("two", 2)
        listen = f"import socket; socket.create_server(('{two.address}', 7)).accept()"
        listener = two.popen(sys.executable, "-c", listen, log=tmp_path / "listener.log")
        try:
            one.run(sys.executable, "-c", _CONNECT, two.address)
        finally:
            stop(listener)
        name = made.name
    assert name not in run("ip", "netns", "list")
