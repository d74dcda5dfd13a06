"""Reads tftp-hpa's map files: one rule a line, ``operation regex [replacement]``, and labels, ``:label``.

One rule: a file with a fault is refused whole; the message names each faulty place and the way out.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pbserv.errors import StartError
from pbserv.tftp.posix import BadPattern, Pattern
from pbserv.tftp.rewrite import Rewrite, Rule, Then

_SPACE = b" \t\n\v\f\r"
_THEN = {"e": Then.STOP, "E": Then.STOP_IF_FILE, "s": Then.RESTART, "a": Then.DENY, "j": Then.JUMP}
_LETTERS = frozenset("rgi~46GP") | frozenset(_THEN)
_CLASHES = ("r~", "ra", "rj", "aj", "as", "ej", "ae", "es", "eE", "Ej", "aE", "Es")
_FAULTS_SHOWN = 3


class _Fault(Exception):
    """``column`` counts from 1."""

    def __init__(self, line: int, column: int, text: str) -> None:
        super().__init__(f"line {line}, column {column}: {text}")


def load(path: Path) -> Rewrite:
    """The rules in a file; raises StartError."""
    try:
        data = path.read_bytes()
    except OSError as fault:
        raise StartError(f"map file {path}: {fault.strerror}; create it, or change TFTPMapFile") from None
    return parse(data, str(path))


def parse(data: bytes, source: str) -> Rewrite:
    """The rules in ``data``; ``source`` is its name in messages. Raises StartError."""
    rules: list[Rule] = []
    faults: list[str] = []
    columns: dict[int, int] = {}
    for number, line in enumerate(data.replace(b"\r", b"").replace(b"\0", b"").split(b"\n"), 1):
        try:
            words = list(_words(line))
            rule = _rule(number, words)
        except _Fault as fault:
            faults.append(str(fault))
            continue
        if rule is not None:
            rules.append(rule)
            columns[number] = words[-1][0]
    labels = {rule.replacement for rule in rules if rule.pattern is None}
    faults += [text for rule in rules if (text := _jump_fault(rule, labels, columns))]
    if faults:
        more = f"; and {len(faults) - _FAULTS_SHOWN} more" if len(faults) > _FAULTS_SHOWN else ""
        raise StartError(f"map file {source}: {'; '.join(faults[:_FAULTS_SHOWN])}{more}")
    return Rewrite(tuple(rules))


def _words(line: bytes) -> Iterator[tuple[int, bytes]]:
    """Column and text of up to three words; a backslash keeps the next character from ending the word."""
    at = 0
    for _ in range(3):
        while at < len(line) and line[at] in _SPACE:
            at += 1
        start, escaped = at, False
        while at < len(line) and (escaped or (line[at] not in _SPACE and line[at] != 0x23)):
            escaped = not escaped and line[at] == 0x5C
            at += 1
        if start == at:  # the end, or a comment
            return
        yield start + 1, line[start:at]


def _rule(number: int, words: list[tuple[int, bytes]]) -> Rule | None:
    if not words:
        return None
    column, operation = words[0]
    text = " ".join(word.decode("utf-8", "backslashreplace") for _, word in words)
    if operation.startswith(b":"):
        label = operation[1:] or (words[1][1] if len(words) > 1 else b"")
        return Rule(number, text, None, label)
    letters = _operation(number, column, operation)
    if len(words) == 1:
        raise _Fault(number, column + len(operation), f"{letters!r} has no regex; write ^ to match every name")
    rewrites = "r" in letters
    return Rule(
        number,
        text,
        _pattern(number, words[1], ignore_case="i" in letters),
        words[2][1] if len(words) > 2 else b"",
        next((then for letter, then in _THEN.items() if letter in letters), Then.GO_ON),
        rewrites=rewrites,
        repeats=rewrites and "g" in letters,
        onwards=rewrites and letters.count("g") > 1,
        inverted="~" in letters,
        gets="P" not in letters,
        puts="G" not in letters,
        ipv4="6" not in letters,
        ipv6="4" not in letters,
    )


def _operation(number: int, column: int, operation: bytes) -> str:
    letters = operation.decode("ascii", "replace")
    for at, letter in enumerate(letters):
        if letter not in _LETTERS:
            known = "".join(sorted(_LETTERS))
            raise _Fault(number, column + at, f"{letter!r} is no operation; use letters of {known}")
    for one, other in map(tuple, _CLASHES):
        if one in letters and other in letters:
            raise _Fault(number, column, f"{one!r} and {other!r} cannot stand in one rule; write two rules")
    return letters


def _pattern(number: int, word: tuple[int, bytes], *, ignore_case: bool) -> Pattern:
    column, source = word
    try:
        return Pattern(source, ignore_case=ignore_case)
    except BadPattern as fault:
        shown = source[:60].decode("utf-8", "backslashreplace")
        raise _Fault(number, column, f"{shown}: {fault}; correct the regex (see regex(7))") from None


def _jump_fault(rule: Rule, labels: set[bytes], columns: dict[int, int]) -> str:
    """A label with escapes in it is only known when a name has matched."""
    if rule.then is not Then.JUMP or rule.replacement in labels or b"\\" in rule.replacement:
        return ""
    if not rule.replacement:
        return str(_Fault(rule.line, columns[rule.line], "'j' names no label; write the label after the regex"))
    label = rule.replacement.decode("utf-8", "backslashreplace")
    return str(_Fault(rule.line, columns[rule.line], f"there is no label {label!r}; add the line :{label}"))
