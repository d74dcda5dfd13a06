"""The log of a service: levels, lines, the capped file, and what happens when there is no place to write."""

from __future__ import annotations

import json
import os
import stat
import threading
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pbserv.errors import StartError
from pbserv.log import CappedFile, ServiceLog
from pbserv.types import ClientArch, MacAddress

LEVELS = ("critical", "warning", "transaction", "request", "debug")


class Unprintable:
    """Whoever formats it fails the test."""

    def __str__(self) -> str:
        raise AssertionError("formatted below its level")

    __repr__ = __str__


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "log" / "tftp.log"


def make(path: Path | None, level: int = 2, **more: bool) -> ServiceLog:
    log = ServiceLog("tftp")
    log.configure(level, path, 15, "text", **more)
    return log


def bodies(path: Path) -> list[str]:
    """Lines without their time."""
    return [line.split(" ", 1)[1] for line in path.read_text().splitlines()]


@pytest.mark.parametrize("level", range(5))
def test_levels(path: Path, level: int) -> None:
    log = make(path, level)
    for name in LEVELS:
        getattr(log, name)("event")
    assert bodies(path) == [f"tftp {name}: event" for name in LEVELS[: level + 1]]


def test_below_its_level_nothing_is_formatted(path: Path) -> None:
    log = make(path, 0)
    for name in LEVELS[1:]:
        getattr(log, name)("event", client=Unprintable())
    assert not path.exists()
    with pytest.raises(AssertionError):
        log.critical("event", client=Unprintable())


def test_a_line_in_text(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = make(path)
    mac = MacAddress.parse("aa:bb:cc:dd:ee:ff")
    log.transaction(
        "sent",
        client=mac,
        arch=ClientArch(7),
        file="pxelinux.cfg\\a",
        reason="",
        note='a "b"',
        none=None,
        seconds=1 / 3,
    )
    (line,) = bodies(path)
    assert line == (
        "tftp transaction: sent client=aa:bb:cc:dd:ee:ff arch=\"UEFI x64\" file=pxelinux.cfg\\a reason=\"\""
        ' note="a \\"b\\"" seconds=0.333333'
    )  # fmt: skip
    time = path.read_text().split(" ", 1)[0]
    assert len(time) == len("2025-01-01T00:00:00.000+00:00")
    assert capsys.readouterr().err == ""


def test_a_line_in_json(path: Path) -> None:
    log = ServiceLog("imaging")
    log.configure(4, path, 15, "json")
    log.request("asked\n", client=MacAddress(bytes(6)), file="a\nb\u2028", count=3, ok=True, items=["x", Path("/y")])
    (line,) = path.read_text().splitlines()
    assert line.isascii()
    found = json.loads(line)
    assert list(found)[:4] == ["time", "level", "service", "event"]
    del found["time"]
    assert found == {
        "level": "request", "service": "imaging", "event": "asked\n", "client": "00:00:00:00:00:00",
        "file": "a\nb\u2028", "count": 3, "ok": True, "items": ["x", "/y"],
    }  # fmt: skip


def test_fields_cannot_take_the_place_of_ours(path: Path) -> None:
    make(path).transaction("sent", event="other", service="x", level=9, time="never", self="s")
    assert bodies(path) == ["tftp transaction: sent event_=other service_=x level_=9 time_=never self=s"]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(name=st.text(st.characters(exclude_categories=())))
def test_no_value_makes_a_second_line_or_a_second_field(tmp_path: Path, name: str) -> None:
    path = tmp_path / "log"
    path.unlink(missing_ok=True)
    make(path).transaction("sent", file=name, result="ok")
    text = path.read_bytes().decode()
    assert text.endswith(" result=ok\n")
    assert text[:-1].isprintable()
    value = text.split(" file=", 1)[1].removesuffix(" result=ok\n")
    if value.startswith('"'):
        inner = value[1:-1].replace("\\\\", "").replace('\\"', "")
        assert value.endswith('"')
        assert '"' not in inner
    else:
        assert value == name


def test_a_traceback_stays_on_one_line(path: Path) -> None:
    log = make(path, quiet=True)
    try:
        raise StartError("no\nport")
    except StartError as fault:
        log.critical("bug", exc_info=fault)
    (line,) = bodies(path)
    assert 'exception="Traceback' in line
    assert "\\nport" in line


def test_a_full_file_is_deleted_and_the_new_one_says_so(path: Path) -> None:
    log = ServiceLog("tftp")
    log.configure(2, path, 1)
    log.transaction("first")
    inode = path.stat().st_ino
    with path.open("a") as stream:
        stream.write("x" * ((1 << 20) - path.stat().st_size - 10))
    keep = os.open(path, os.O_RDONLY)  # so that its inode number is not given out again
    log.transaction("second")
    os.close(keep)
    assert path.stat().st_ino != inode
    assert bodies(path) == [
        'tftp critical: log restarted reason="the file reached 1 MB and was deleted"',
        "tftp transaction: second",
    ]


def test_the_file_never_exceeds_its_limit(path: Path) -> None:
    log = ServiceLog("tftp")
    log.configure(2, path, 1)
    largest = 0
    for number in range(600):
        log.transaction("sent", number=number, filler="x" * 4000)
        largest = max(largest, path.stat().st_size)
    assert 1_000_000 < largest <= 1 << 20
    assert "number=599" in path.read_text()


def test_the_file_is_private_and_its_parents_are_made(path: Path) -> None:
    before = os.umask(0)
    try:
        make(path / "deeper").transaction("sent")
    finally:
        os.umask(before)
    assert stat.S_IMODE((path / "deeper").stat().st_mode) == 0o640
    assert stat.S_IMODE(path.stat().st_mode) & 0o007 == 0


def test_it_appends(path: Path) -> None:
    path.parent.mkdir()
    path.write_text("old line\n")
    make(path).transaction("sent")
    assert path.read_text().startswith("old line\n")


@pytest.mark.parametrize("how", ["moved", "deleted"])
def test_a_file_that_was_taken_away_is_begun_again(path: Path, how: str) -> None:
    log = make(path)
    log.transaction("one")
    if how == "moved":
        path.rename(path.with_suffix(".1"))
    else:
        path.unlink()
    log.transaction("two")
    assert bodies(path) == ["tftp transaction: two"]


def test_two_logs_may_share_a_file(path: Path) -> None:
    one, two = make(path), make(path)
    one.transaction("one")
    two.transaction("two")
    path.write_text("x" * (15 << 20))
    one.transaction("three")
    two.transaction("four")
    assert [line.rsplit(" ", 1)[1] for line in bodies(path)[1:]] == ["three", "four"]


def test_critical_events_go_to_stderr_too_unless_quiet(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make(path).critical("started", listen="udp 0.0.0.0:69")
    assert capsys.readouterr().err == path.read_text()
    make(path, quiet=True).critical("started")
    assert capsys.readouterr().err == ""
    assert len(bodies(path)) == 2


def test_without_a_file_only_critical_events_are_written(capsys: pytest.CaptureFixture[str]) -> None:
    for log in (make(None, 4), ServiceLog("tftp")):
        assert log.level == 0
        log.warning("event", client=Unprintable())
        log.critical("stopped")
        assert capsys.readouterr().err.endswith(" tftp critical: stopped\n")


def test_echo_sends_every_line_to_stderr(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = make(None, 3, echo=True)
    log.request("asked")
    log.debug("packet", data=Unprintable())
    assert capsys.readouterr().err.endswith(" tftp request: asked\n")
    make(path, 3, echo=True).request("asked")
    assert capsys.readouterr().err == path.read_text()


def test_an_unwritable_file_is_said_once_and_the_log_goes_on(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path.parent.write_text("a file where the directory should be")
    log = make(path, quiet=True)
    log.transaction("one")
    log.transaction("two")
    lines = [line.split(" ", 1)[1] for line in capsys.readouterr().err.splitlines()]
    assert lines[0].startswith(f"tftp critical: log file cannot be written path={path} reason=")
    assert lines[1:] == ["tftp transaction: one", "tftp transaction: two"]
    path.parent.unlink()
    log.transaction("three")
    assert bodies(path) == ["tftp transaction: three"]
    assert capsys.readouterr().err == ""


def test_a_full_disk(capsys: pytest.CaptureFixture[str]) -> None:
    log = make(Path("/dev/full"))
    log.transaction("one")
    log.transaction("two")
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3
    assert 'reason="No space left on device"' in lines[0]


def test_devices_are_written_to_and_never_deleted(capsys: pytest.CaptureFixture[str]) -> None:
    make(Path("/dev/null")).transaction("sent")
    assert Path("/dev/null").is_char_device()
    assert capsys.readouterr().err == ""


def test_a_pipe_without_a_reader_does_not_hold_up_the_service(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path.parent.mkdir()
    os.mkfifo(path)
    make(path).transaction("sent")
    assert "log file cannot be written" in capsys.readouterr().err


def test_a_directory_that_forbids_deleting_gets_an_emptied_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = make(path)
    log.transaction("one")
    path.write_text("x" * (15 << 20))

    def refuse(_path: object) -> None:  # the kernel's answer to an unprivileged user, which root cannot provoke
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "unlink", refuse)
    log.transaction("two")
    assert [line.split(": ")[1].split(" ")[0] for line in bodies(path)] == ["log", "two"]


def test_a_new_configuration_takes_effect_at_once(path: Path, tmp_path: Path) -> None:
    log = make(path, 2)
    log.transaction("one")
    log.configure(3, tmp_path / "other.log", 15, "json")
    log.request("two")
    assert bodies(path) == ["tftp transaction: one"]
    assert json.loads((tmp_path / "other.log").read_text())["event"] == "two"
    log.close()
    log.request("three")
    assert len(bodies(tmp_path / "other.log")) == 2


def test_no_stderr_is_not_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr", None)
    ServiceLog("tftp").critical("stopped")


def test_lines_of_many_threads_stay_whole(path: Path) -> None:
    log = make(path)

    def work() -> None:
        for _ in range(50):
            log.transaction("sent", f="x" * 50)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert bodies(path) == [f"tftp transaction: sent f={'x' * 50}"] * 400


def test_the_file_is_closed(path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    file = CappedFile(path, 100)
    assert file.over(10) is False
    file.append(b"line\n")
    file.close()
    file.close()
    assert len(os.listdir("/proc/self/fd")) == before
