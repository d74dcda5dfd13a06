"""The help of every verb, as a terminal of 80 columns shows it, and the options that verbs share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, get_type_hints

import pytest
import typer
from typer.core import TyperCommand, TyperGroup

from pbserv.cli import command
from pbserv.cli.options import Booting, Once, Restoring, Target, Texts, spread, stated
from pbserv.cli.shared import FinishName
from pbserv.errors import PbservError

ROOT = command()


def verbs(verb: TyperCommand | TyperGroup, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    yield path
    for name, each in getattr(verb, "commands", {}).items():
        yield from verbs(each, (*path, name))


@pytest.mark.parametrize("path", list(verbs(ROOT)), ids=" ".join)
def test_nothing_of_the_help_is_cut_off(
    path: tuple[str, ...], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    ROOT.main([*path, "--help"], prog_name="pbserv", standalone_mode=False)
    text = capsys.readouterr().out
    assert " ".join(("Usage: pbserv", *path)) in text
    assert "…" not in text
    assert all(len(line) <= 80 for line in text.splitlines())


@pytest.mark.parametrize("path", list(verbs(ROOT)), ids=" ".join)
def test_everything_has_a_help(path: tuple[str, ...]) -> None:
    verb: TyperCommand | TyperGroup = ROOT
    for name in path:
        assert isinstance(verb, TyperGroup)
        found = verb.commands[name]
        assert isinstance(found, (TyperCommand, TyperGroup))
        verb = found
    assert verb.help
    assert [each.name for each in verb.params if not getattr(each, "help", None)] == []


def test_a_group_of_options_is_many_parameters_of_the_verb() -> None:
    told: list[object] = []

    @spread
    def verb(name: str, *, target: Target, once: Once, quiet: Annotated[bool, typer.Option()] = False) -> None:
        told.extend((name, target, once, quiet))

    assert list(get_type_hints(verb)) == [
        "name", "target_disk", "finish", "dry_run", "priority", "retries", "wake", "expires", "quiet",
    ]  # fmt: skip
    given = dict.fromkeys(("target_disk", "dry_run", "priority", "retries", "expires"))
    verb(name="a", finish=FinishName.NONE, wake=True, quiet=False, **given)
    assert told == ["a", Target(finish=FinishName.NONE), Once(wake=True), False]


def test_what_was_not_given_is_not_said(tmp_path: Path) -> None:
    (tmp_path / "before.sh").write_text("exit 0\n")
    target = Target(finish=FinishName.POWEROFF, dry_run=False)
    restoring = Restoring(partitions=[], addons=["drivers"], target_partition=0)
    assert stated(target, restoring, Booting(arguments=""), Texts(before=tmp_path / "before.sh")) == {
        "finish": "poweroff", "dry_run": False, "addons": ["drivers"], "target_partition": 0, "arguments": "",
        "before": "exit 0\n",
    }  # fmt: skip
    with pytest.raises(PbservError, match=r"after\.sh: No such file"):
        stated(Texts(after=tmp_path / "after.sh"))
