"""What commands print: tables by rich, JSON on request, times and sizes as people read them.

One rule: what comes from the network is shown as it is; no markup, no control characters.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any  # Any: JSON values as the API answers them

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from pbserv.errors import UsageError

Row = Mapping[str, Any]
WIDTH = 200
"""Columns of a table that goes into a file or a pipe."""


def print_json(value: object) -> None:
    print(json.dumps(value, ensure_ascii=False))


def said(value: object, sentence: str, as_json: bool) -> None:
    """What a change comes to: a value for programs, or a sentence."""
    print_json(value) if as_json else print(sentence)


def console(*, stderr: bool = False) -> Console:
    made = Console(highlight=False, stderr=stderr)
    if not made.is_terminal:
        made.width = WIDTH
    return made


def show_table(columns: Sequence[str], rows: Iterable[Sequence[str]], nothing: str) -> None:
    """``nothing``: the sentence that is printed where there are no rows."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for index, column in enumerate(columns):
        table.add_column(column, no_wrap=index == 0)
    for row in rows:
        table.add_row(*(escape(plain(cell)) for cell in row))
    if table.row_count:
        console().print(table)
    else:
        print(nothing)


def show_facts(facts: Iterable[tuple[str, str]]) -> None:
    """One line for each fact that has a value; the further lines of a text stand below its first one."""
    given = [(name, value.splitlines() or [value]) for name, value in facts if value]
    width = max((len(name) for name, _ in given), default=0)
    for name, lines in given:
        for number, line in enumerate(lines):
            print(f"{'' if number else name:{width}}  {plain(line)}")


def warn(warnings: Iterable[str]) -> None:
    for warning in warnings:
        print(f"warning: {plain(warning)}", file=sys.stderr)


def plain(text: object) -> str:
    """Without characters that would do something to a terminal."""
    return "".join(c if c.isprintable() else "?" for c in str(text))


def clock(text: str | None) -> str:
    """A time of the API as the clock on this host shows it."""
    return datetime.fromisoformat(text).astimezone().strftime("%Y-%m-%d %H:%M:%S") if text else ""


def size(count: int) -> str:
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if value < 1024 or unit == "TiB":
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return ""


def sure(question: str, yes: bool) -> None:
    """Ask before something is lost; raises UsageError where the answer is no, or where there is nobody to ask."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise UsageError(f"{question} Nobody can be asked here: say --yes")
    print(f"{plain(question)} [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise UsageError("nothing was changed")


def pairs(texts: Iterable[str], option: str) -> dict[str, str]:
    """``NAME=VALUE`` options; raises UsageError."""
    found = {}
    for text in texts:
        name, sign, value = text.partition("=")
        if not sign or not name:
            raise UsageError(f"{option} {text!r}: write NAME=VALUE")
        found[name] = value
    return found


def sentence(values: Mapping[str, str]) -> str:
    return ", ".join(f"{name}={value}" for name, value in values.items())
