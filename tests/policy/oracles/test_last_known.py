"""What was last said about each device, in a file that is whole or absent."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pbserv.policy.decide import Ruling
from pbserv.policy.oracles.last_known import MOST_BYTES, MOST_DEVICES, Known, LastKnown
from pbserv.policy.oracles.wire import write_ruling
from pbserv.types import Decision, Verdict

MAC = "52:54:00:12:34:56"
TEXT = write_ruling(Ruling(Decision(Verdict.LOCAL, "because")))


def kept(path: Path, server: str = "a:80") -> LastKnown:
    found = LastKnown(path, server)
    assert found.load() == ""
    return found


def test_it_survives(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file"
    first = kept(path)
    first.put(MAC, Known(1000.5, TEXT))
    assert first.changed
    first.save(first.take())
    assert (first.changed, stat.S_IMODE(path.stat().st_mode)) == (False, 0o600)
    second = kept(path)
    assert (second.get(MAC), len(second), second.changed) == (Known(1000.5, TEXT), 1, False)
    second.drop(MAC)
    assert second.changed
    second.save(second.take())
    assert len(kept(path)) == 0
    assert [each.name for each in path.parent.iterdir()] == ["file"]


def test_what_another_server_said_does_not_count(tmp_path: Path) -> None:
    first = kept(tmp_path / "file")
    first.put(MAC, Known(1000, TEXT))
    first.save(first.take())
    assert len(kept(tmp_path / "file", "b:80")) == 0


def test_in_memory_alone() -> None:
    found = LastKnown(None, "a:80")
    found.put(MAC, Known(1, TEXT))
    found.save(found.take())
    assert (found.load(), found.get(MAC)) == ("", Known(1, TEXT))


def test_it_is_bounded_in_number_and_in_bytes() -> None:
    found = LastKnown(None, "a:80")
    for number in range(MOST_DEVICES + 5):
        found.put(str(number), Known(number, TEXT))
    assert (len(found), found.get("4"), found.get("5")) == (MOST_DEVICES, None, Known(5, TEXT))
    large = "x" * (MOST_BYTES // 4)
    for number in range(6):
        found.put(f"large {number}", Known(1, large))
        found.put(f"large {number}", Known(2, large))
    assert [found.get(f"large {number}") is not None for number in range(6)] == [False, False, True, True, True, True]
    assert len(found) == 4


@pytest.mark.parametrize(
    "text",
    [
        "", "x", "[]\n", '{"server": "a:80"}\nx', '{"server": "a:80"}\n{}', '{"server": "a:80"}\n7',
        '{"server": "a:80"}\n{"mac": "x", "at": 1, "ruling": "{}"}',
        '{"server": "a:80"}\n{"mac": "52:54:00:12:34:56", "at": [], "ruling": "{}"}',
        '{"server": "a:80"}\n{"mac": "52:54:00:12:34:56", "at": 1, "ruling": "{\\"verdict\\": \\"boot\\"}"}',
        "[" * 100_000,
    ],
)  # fmt: skip
def test_a_file_that_is_broken_costs_what_was_known_and_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "file").write_text(text)
    found = LastKnown(tmp_path / "file", "a:80")
    fault = found.load()
    assert len(found) == 0
    assert (str(tmp_path / "file") in fault) == (text != "[]\n")


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    assert str(tmp_path) in LastKnown(tmp_path, "a:80").load()


@given(data=st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any"
    path.write_bytes(b'{"server": "a:80"}\n' + data)
    found = LastKnown(path, "a:80")
    found.load()
    assert len(found) <= data.count(b"\n") + 1
