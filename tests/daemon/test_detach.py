"""Starting in the background: what the caller is told, and what kind of process remains."""

from __future__ import annotations

import os
import select
import signal
import textwrap
from pathlib import Path

import pytest

from pbserv.daemon.detach import TerminalReady
from pbserv.daemon.process import wait_for_end
from tests.daemon.programs import report_of, run_python

FRAME = """
import dataclasses, json, os, signal, sys, time
from pbserv.daemon.detach import daemonize
from pbserv.errors import PbservError

def run(pipe):
{body}

inherited = os.open("/etc/passwd", os.O_RDONLY)
os.set_inheritable(inherited, True)
before = time.monotonic()
report = daemonize(run, {timeout_s})
try:
    os.waitpid(-1, os.WNOHANG)
    children = True
except ChildProcessError:
    children = False
facts = dict(seconds=time.monotonic() - before, children=children, sid=os.getsid(0))
print(json.dumps(dataclasses.asdict(report) | facts))
"""


def start(body: str, timeout_s: float = 30) -> dict[str, object]:
    report = report_of(FRAME.format(body=textwrap.indent(textwrap.dedent(body), "    "), timeout_s=timeout_s))
    assert report["children"] is False, "a zombie was left behind"
    return report


def gone(report: dict[str, object]) -> bool:
    """Whether the background process has ended (it is waited for)."""
    pid = report["pid"]
    assert isinstance(pid, int)
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return wait_for_end(pidfd, 10)
    finally:
        os.close(pidfd)


def end(report: dict[str, object]) -> None:
    pid = report["pid"]
    assert isinstance(pid, int)
    os.kill(pid, signal.SIGTERM)
    assert gone(report)


def test_ready_server_runs_on_alone(tmp_path: Path) -> None:
    report = start("""
        pipe.line("listening")
        pipe.service("tftp", True)
        pipe.service("policy", True)
        print("noise before it is ready")
        sys.stdout.flush()
        pipe.done()
        print("noise after it", flush=True)
        signal.pause()
        return 0
    """)
    try:
        assert report["exit_code"] == 0
        assert report["lines"] == ["listening"]
        assert [service["name"] for service in report["services"]] == ["tftp", "policy"]  # type: ignore[attr-defined]
        assert report["output"] == "noise before it is ready\n"
        pid = report["pid"]
        assert isinstance(pid, int)
        process = Path(f"/proc/{pid}")
        fields = (process / "stat").read_text().rpartition(") ")[2].split()
        parent, session, terminal = int(fields[1]), int(fields[3]), int(fields[4])
        assert session not in (report["sid"], pid)
        assert parent != os.getpid()
        assert terminal == 0
        assert os.readlink(process / "cwd") == "/"
        open_files = {int(entry.name): os.readlink(entry) for entry in (process / "fd").iterdir()}
        assert open_files == {0: "/dev/null", 1: "/dev/null", 2: "/dev/null"}
    finally:
        end(report)


def test_one_failed_service_is_named_and_the_others_stay() -> None:
    report = start("""
        pipe.service("tftp", False, "/srv/tftp is missing")
        pipe.service("policy", True)
        pipe.done()
        signal.pause()
        return 0
    """)
    try:
        assert report["exit_code"] == 1
        assert report["lines"] == ["tftp: not started: /srv/tftp is missing"]
    finally:
        end(report)


def test_fault_of_the_user_is_one_line() -> None:
    report = start('raise PbservError("tftp.conf:3: TransferBlockSize: 99 is too small")')
    assert report["exit_code"] == 1
    assert report["lines"] == ["tftp.conf:3: TransferBlockSize: 99 is too small"]
    assert gone(report)


def test_crash_is_shown_with_its_traceback() -> None:
    report = start("return 1 // 0")
    assert report["exit_code"] == 70
    lines = report["lines"]
    assert isinstance(lines, list)
    assert lines[0].startswith("pbserv crashed while it started: ZeroDivisionError")
    assert lines[1] == "Traceback (most recent call last):"
    assert any(line.endswith("in run") for line in lines)
    assert gone(report)


def test_death_without_a_word_is_reported_with_what_stderr_said() -> None:
    report = start("""
        print("the last words", file=sys.stderr, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    """)
    assert report["exit_code"] == 1
    assert report["lines"] == ["pbserv ended before it was ready", "the last words"]
    assert gone(report)


def test_return_before_ready_is_a_failure() -> None:
    report = start("return 0")
    assert report["exit_code"] == 1
    assert report["lines"] == ["pbserv ended before it was ready"]


def test_exit_code_of_a_start_that_refused() -> None:
    report = start("""
        pipe.line("refused")
        pipe.done(6)
        return 6
    """)
    assert (report["exit_code"], report["lines"]) == (6, ["refused"])


def test_server_that_never_gets_ready_is_ended() -> None:
    report = start("signal.pause()", timeout_s=0.3)
    assert report["exit_code"] == 1
    assert report["lines"] == ["pbserv was not ready after 0.3 s and was ended; its log says how far it came"]
    assert gone(report)


def test_long_reports_arrive_whole() -> None:
    report = start("""
        for number in range(3000):
            pipe.line(f"{number} " + "ä" * 100)
        pipe.done()
        return 0
    """)
    lines = report["lines"]
    assert isinstance(lines, list)
    assert len(lines) == 3000
    assert lines[-1] == "2999 " + "ä" * 100


def test_server_outlives_a_killed_caller(tmp_path: Path) -> None:
    """The caller dies between the fork and ``done``: the start goes on, nothing breaks on the closed pipe."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    program = """
        import os, signal, sys
        from pbserv.daemon.detach import daemonize
        caller = os.getpid()
        def run(pipe):
            pidfd = os.pidfd_open(caller)
            os.kill(caller, signal.SIGKILL)
            from pbserv.daemon.process import wait_for_end
            assert wait_for_end(pidfd, 10)
            pipe.line("nobody reads this")
            pipe.done()
            with open(sys.argv[1], "w") as stream:
                stream.write("alive")
            return 0
        daemonize(run)
    """
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    try:
        assert run_python(program, fifo).returncode == -signal.SIGKILL
        poller = select.poll()
        poller.register(reader, select.POLLIN)
        assert poller.poll(20_000)
        assert os.read(reader, 100) == b"alive"
    finally:
        os.close(reader)


def test_terminal_gets_the_same_words(capsys: pytest.CaptureFixture[str]) -> None:
    ready = TerminalReady()
    ready.line("listening")
    ready.service("policy", True)
    ready.service("tftp", False, "no directory")
    ready.done()
    captured = capsys.readouterr()
    assert captured.out == "listening\n"
    assert captured.err == "tftp: not started: no directory\n"
