"""Models to documents: the commented sample of a file, the reference of all files, and the edit of one key.

One rule: a comment begins with ``# ``, a key that is commented out with ``#`` and no space, so that every key line can
be made active by taking one character away.
"""

from __future__ import annotations

import enum
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from pbserv.conf.grammar import split_line
from pbserv.conf.model import BoundKey, ConfFile, ConfModel, keys_by_name, keys_of

_WIDTH = 100
_SAMPLE_HEAD = (
    "One `key = value` per line; a line that begins with '#' or ';' is a comment. A key that is commented out, or"
    " present but empty, has its default; where empty is a value of its own, the key says so. The lines below show"
    " every key with its default."
)
_EXTENSION_HEAD = "Extensions of pbserv, which the manual does not have"
_MANUAL_HEAD = "Parameters of the manual"


def render_sample(model: type[ConfModel], overrides: Mapping[str, object] | None = None) -> str:
    """The sample file of ``model``. Keys of ``overrides`` (any case) stand active with the given value, a text as it
    would stand in a file or a value of the field's type; ValueError when it is not allowed, KeyError for no key."""
    active = {keys_by_name(model)[name.lower()].name: value for name, value in (overrides or {}).items()}
    lines = [f"# pbserv: {model.title}", "#", *_comment(_SAMPLE_HEAD)]
    for head, extension in ((_MANUAL_HEAD, False), (_EXTENSION_HEAD, True)):
        bounds = [bound for bound in keys_of(model) if bound.key.extension is extension]
        if not bounds:
            continue
        lines += ["", f"# ---- {head} ----"]
        for bound in bounds:
            lines += ["", *_comment(_sentence(bound)), *_comment(_facts(bound))]
            set_here = bound.name in active
            value = _text(bound, active[bound.name]) if set_here else bound.show(bound.default)
            lines.append(f"{'' if set_here else '#'}{bound.name} = {value}".rstrip())
    return "\n".join(lines) + "\n"


def render_reference(files: Sequence[ConfFile[Any]]) -> str:
    """The reference of all files as Markdown."""
    lines = [
        "# Configuration reference",
        "",
        "Generated from the declarations in `pbserv/*/config.py`; change it there.",
        "",
        *textwrap.wrap(
            "Each file holds one `key = value` per line, with or without spaces. A line that begins with `#` or `;` is"
            " a comment. Keys, and words such as YES and NO, are read without regard to case. A file that is missing,"
            " a key that is commented out and a key without a value mean the default. A key that is unknown, set"
            " twice or out of range is an error, and then nothing of the configuration is used.",
            _WIDTH,
        ),
    ]
    for file in files:
        also = ", ".join(f"`{name}`" for name in file.names[1:])
        lines += ["", f"## {file.name}", "", f"{file.model.title}." + (f" Also accepted as {also}." if also else "")]
        for head, extension in ((_MANUAL_HEAD, False), (_EXTENSION_HEAD, True)):
            bounds = [bound for bound in keys_of(file.model) if bound.key.extension is extension]
            if bounds:
                lines += [
                    "",
                    f"### {head}",
                    "",
                    "| Key | Default | Allowed | Unit | Meaning |",
                    "|---|---|---|---|---|",
                ]
                lines += [_row(bound) for bound in bounds]
    return "\n".join(lines) + "\n"


def set_key(text: str, key: str, value: str) -> str:
    """``text`` with ``key`` active and set to ``value``, everything else as it was: comments, order, line ends.

    An active line gets the new value; else a line is added below the commented-out one, else at the end. Read the file
    with ``newline=""`` so that CRLF survives. The value is not checked; load() does that.
    """
    body = text.removeprefix("\ufeff")
    lines = [f"{line}\n" for line in body.split("\n")]
    lines[-1] = lines[-1][:-1]
    end = "\r\n" if "\r\n" in body else "\n"
    places = [_place(line, key) for line in lines]
    best = max(places)
    if best is _Place.ACTIVE:
        index = places.index(best)
        lines[index] = _with_value(lines[index], key, value)
    else:
        index = places.index(best) + 1 if best else len(lines)
        if lines[index - 1] and not lines[index - 1].endswith("\n"):
            lines[index - 1] += end
        lines.insert(index, f"{key} = {value}{end}")
    return text[: len(text) - len(body)] + "".join(lines)


class _Place(enum.IntEnum):
    """What a line is to an editor that looks for one key; the highest is the best place."""

    ELSEWHERE = 0
    PROSE = 1  # "# Key = value": perhaps a key that was commented out, perhaps a sentence
    HIDDEN = 2  # "#Key = value"
    ACTIVE = 3


def _place(line: str, key: str) -> _Place:
    body = line.strip()
    if (split_line(body) or ("", body, ""))[1].lower() == key.lower():
        return _Place.ACTIVE
    hidden = split_line(body[1:]) if body[:1] in ("#", ";") else None
    if not hidden or hidden[1].lower() != key.lower():
        return _Place.ELSEWHERE
    return _Place.PROSE if body[1].isspace() else _Place.HIDDEN


def _with_value(line: str, key: str, value: str) -> str:
    body = line.rstrip("\r\n")
    found = split_line(body)
    if not found:  # the bare name of the key
        return f"{key} = {value}{line[len(body) :]}"
    before, name, after = found
    gap, _, old = after.partition("=")
    space = " " if gap or old[:1].isspace() else ""
    return f"{before}{name}{gap}={space}{value}{line[len(body) :]}"


def _text(bound: BoundKey, value: object) -> str:
    text = value if isinstance(value, str) else bound.show(value)
    if any(ord(mark) < 0x20 for mark in text):
        raise ValueError(f"{bound.name}: a value is one line without control characters")
    try:
        bound.parse(text.strip())
    except ValueError as fault:
        raise ValueError(f"{bound.name}: {fault}") from None
    return text.strip()


def _sentence(bound: BoundKey) -> str:
    return f"{bound.key.help} No effect yet." if bound.key.later else bound.key.help


def _facts(bound: BoundKey) -> str:
    unit = f" {bound.key.unit}" if bound.key.unit else ""
    default = bound.show(bound.default)
    default += unit.removesuffix("s") if default == "1" else unit if default else bound.key.unset or "none"
    return f"Valid: {bound.key.kind.allowed}{unit}. Default: {default}."


def _row(bound: BoundKey) -> str:
    shown = bound.show(bound.default)
    default = f"`{shown}`" if shown else bound.key.unset or "none"
    cells = (f"`{bound.name}`", default, bound.key.kind.allowed, bound.key.unit, _sentence(bound))
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _comment(text: str) -> list[str]:
    return [f"# {line}" for line in textwrap.wrap(text, _WIDTH - 2, break_long_words=False, break_on_hyphens=False)]
