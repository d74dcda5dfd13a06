"""No restart loses work: the real server is killed between a device's question and its report."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.support.process import Installed

MAC = "52:54:00:00:00:01"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Installed]:
    installed = Installed(tmp_path)
    installed.ok("start")
    installed.ok("device", "accept", MAC)
    yield installed
    installed.finish()


def killed(server: Installed) -> None:
    os.kill(server.pid, signal.SIGKILL)
    server.ok("start")


def boot(server: Installed) -> tuple[str, str]:
    """The device's script, and where it is to report; empty: nowhere."""
    text = httpx.get(f"{server.url}/boot/{MAC}.ipxe", trust_env=False, timeout=10).text
    found = re.search(r"(http://\S+/boot/done/[0-9.a-f]+)\?ok=1", text)
    return text, found[1] if found else ""


def report(url: str, *, ok: bool) -> None:
    answer = httpx.get(url, params={"ok": int(ok), "reason": "" if ok else "no disk"}, trust_env=False, timeout=10)
    assert answer.status_code == 200


def test_work_is_done_by_the_report_alone(server: Installed) -> None:
    server.ok("bundle", "set", "memory", "--kind", "memtest")
    server.ok("assign", "add", "memory", "--zone", "--schedule", "once")
    _, first = boot(server)
    assert first
    killed(server)
    assert boot(server)[1] == first, "the same work, the same token"
    [work] = server.json("work", "list")
    assert work["state"] == "queued"
    killed(server)
    report(first, ok=True)
    killed(server)
    text, again = boot(server)
    assert (again, "booting from the local disk" in text) == ("", True), "once is once"
    [work] = server.json("work", "list", "--all")
    assert (work["state"], work["assignment"]) == ("done", "memory for the zone")


def test_failed_runs_are_tried_again_and_then_held(server: Installed) -> None:
    server.ok("bundle", "set", "memory", "--kind", "memtest")
    server.ok("work", "bundle", "memory", MAC, "--retries", "2")
    _, url = boot(server)
    for left in (1, 0):
        report(url, ok=False)
        killed(server)
        [work] = server.json("work", "list")
        assert (work["state"], work["retries"], work["reason"]) == ("queued", left, "no disk")
        assert boot(server)[1] == url
    report(url, ok=False)
    killed(server)
    assert boot(server)[1] == ""
    [work] = server.json("work", "list", "--all")
    assert (work["state"], work["reason"]) == ("held", "no disk")
    server.ok("work", "retry", str(work["id"]))
    killed(server)
    assert boot(server)[1] == url
    report(url, ok=True)
    assert server.json("work", "list") == []
