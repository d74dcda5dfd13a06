"""Tables of results as a page: text for the terminal, Markdown for the README. Measures nothing."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

Tables = Sequence[tuple[str, Sequence[Sequence[str]]]]


def text(preface: str, tables: Tables) -> str:
    """Title and lines of each table; the first line is the head."""
    parts = [preface]
    for title, lines in tables:
        widths = [max(len(line[n]) for line in lines) for n in range(len(lines[0]))]
        rows = ("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines)
        parts.append("\n".join([title, *(row.rstrip() for row in rows)]))
    return "\n\n".join(parts)


def markdown(preface: str, tables: Tables) -> str:
    parts = [preface]
    for title, (head, *lines) in tables:
        cells = ([cell.replace("|", "\\|") for cell in line] for line in (head, ["---"] * len(head), *lines))
        table = ["| " + " | ".join(line) + " |" for line in cells]
        parts.append("\n".join([f"**{title}**", "", *table]))
    return "\n\n".join(parts)


def replace_block(page: str, begin: str, end: str, block: str) -> str:
    """``page`` with ``block`` between the two markers; SystemExit when they are not there."""
    before, found, rest = page.partition(begin)
    _old, stop, after = rest.partition(end)
    if not found or not stop:
        raise SystemExit(f"the file has no {begin} ... {end}")
    return f"{before}{begin}\n{block}\n{end}{after}"


def main(
    description: str | None,
    as_text: Callable[[Mapping[str, Any]], str],
    as_markdown: Callable[[Mapping[str, Any]], str],
    replaced: Callable[[str, str], str],
) -> None:
    """The command line of a table module. ``replaced(page, block)`` is the page with the block in its place."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("results", type=Path)
    parser.add_argument("--markdown", action="store_true")
    parser.add_argument("--readme", type=Path)
    given = parser.parse_args()
    results = json.loads(given.results.read_text())
    if given.readme:
        given.readme.write_text(replaced(given.readme.read_text(), as_markdown(results)))
    else:
        print(as_markdown(results) if given.markdown else as_text(results))
