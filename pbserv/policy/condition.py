"""The conditions of hardware rules: ``manufacturer == "Dell Inc." and memory_mb >= 8192``. Pure.

One rule: a condition is read once into closures that hold constants alone; nothing of the text is ever evaluated.

Python's own parser reads the text, and this module takes a few of its nodes: labels (a missing one is the empty text,
which is false), texts, numbers, ``== != < <= > >=``, ``in`` and ``not in`` a list of constants, ``and``, ``or``,
``not``, parentheses, ``true``, ``false`` and the functions of ``FUNCTIONS``.
"""

from __future__ import annotations

import ast
import math
import operator
import re
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fnmatch import translate
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final

MAX_CONDITION: Final = 2_000
"""Characters of a condition."""
MAX_DEPTH: Final = 40
"""How deep operators may be nested; far below what the stack takes."""
FUNCTIONS: Final[Mapping[str, str]] = {
    "like": 'like(label, "GLOB*")',
    "has": "has(label)",
    "within": 'within(label, "10.0.0.0/8")',
}
_ALLOWED: Final = (
    'allowed are labels, "texts", numbers, == != < <= > >=, in and not in ["a", "b"], and, or, not, (), true, false, '
    + ", ".join(FUNCTIONS.values())
)
_LABEL: Final = re.compile(r"[a-z][a-z0-9_]{0,31}")
_TRUTH: Final = {"true": True, "false": False, "True": True, "False": False}

Labels = Mapping[str, str]
Test = Callable[[Labels], bool]
Anchors = frozenset[tuple[str, str]]
_Choices = tuple[Anchors, ...]
_Value = Callable[[Labels], str]
_UNSAID: Final[_Choices] = ()
_NEVER: Final[_Choices] = (frozenset(),)


class ConditionError(ValueError):
    """What is wrong with a condition, with the column (the first is 1), and what is allowed."""


@dataclass(frozen=True, slots=True)
class Condition:
    """``test``: whether labels fulfil it; they are not changed. ``names``: the labels that it asks for.

    ``choices``: each is pairs of label and value in lower case, of which at least one must hold for the condition to be
    true; none where that cannot be said.
    """

    text: str
    test: Test = field(compare=False, repr=False)
    names: frozenset[str] = field(compare=False)
    choices: tuple[Anchors, ...] = field(compare=False, repr=False)

    @property
    def anchors(self) -> Anchors | None:
        """The smallest of ``choices``; None: any labels may make it true."""
        return min(self.choices, key=len) if self.choices else None


@lru_cache(maxsize=2_048)
def parse_condition(text: str) -> Condition:
    """Raises ConditionError."""
    if len(text) > MAX_CONDITION:
        raise ConditionError(f"a condition has at most {MAX_CONDITION} characters, not {len(text)}")
    if not text.strip():
        raise ConditionError("a condition is empty; write true for one that every device fulfils")
    reader = _Reader(text)
    test, choices = reader.condition(_tree(text), 0)
    return Condition(text, test, frozenset(reader.names), choices)


def _tree(text: str) -> ast.expr:
    start = len(text) - len(text.lstrip())
    try:
        with warnings.catch_warnings():  # of escapes that Python does not know; they stand for themselves
            warnings.simplefilter("ignore")
            return ast.parse(text.strip(), mode="eval").body
    except SyntaxError as fault:
        column = fault.offset + start if fault.offset else len(text.rstrip()) + 1  # 0: more should follow
        raise ConditionError(f"column {column}: {fault.msg}; {_ALLOWED}") from None
    except (ValueError, RecursionError, MemoryError) as fault:
        raise ConditionError(f"cannot be read ({fault or 'nested too deep'}); {_ALLOWED}") from None


class _Reader:
    """Closures of one text. ``names``: the labels that were met."""

    def __init__(self, text: str) -> None:
        self.names: set[str] = set()
        self._start = len(text) - len(text.lstrip())
        self._lines = text.strip().splitlines()

    def fault(self, node: ast.expr, why: str) -> ConditionError:
        row = self._lines[node.lineno - 1] if node.lineno <= len(self._lines) else ""
        column = len(row.encode()[: node.col_offset].decode(errors="replace")) + 1
        where = f"line {node.lineno}, column {column}" if node.lineno > 1 else f"column {column + self._start}"
        return ConditionError(f"{where}: {why}; {_ALLOWED}")

    def condition(self, node: ast.expr, depth: int) -> tuple[Test, _Choices]:
        if depth > MAX_DEPTH:
            raise self.fault(node, f"nested more than {MAX_DEPTH} deep")
        match node:
            case ast.BoolOp(op, values):
                parts = [self.condition(each, depth + 1) for each in values]
                return _all(parts) if isinstance(op, ast.And) else _any(parts)
            case ast.UnaryOp(ast.Not(), operand):
                test = self.condition(operand, depth + 1)[0]
                return (lambda labels: not test(labels)), _UNSAID
            case ast.Compare(left, operators, others):
                pairs = zip([left, *others[:-1]], operators, others, strict=True)
                parts = [self._compared(*pair) for pair in pairs]
                return parts[0] if len(parts) == 1 else _all(parts)
            case ast.Call(ast.Name(name), arguments, []) if name in FUNCTIONS:
                return self._called(node, name, arguments), _UNSAID
            case ast.Constant(bool() as constant):
                return _constant(constant)
            case ast.Name(name) if name in _TRUTH:
                return _constant(_TRUTH[name])
            case ast.Name():
                return _holds(self.label(node)), _UNSAID
        raise self.fault(node, "this is no condition")

    def label(self, node: ast.expr) -> str:
        if not isinstance(node, ast.Name) or node.id in FUNCTIONS or node.id in _TRUTH:
            raise self.fault(node, "here belongs the name of a label")
        if not _LABEL.fullmatch(node.id):
            raise self.fault(node, f"{node.id!r} is no label: a to z, 0 to 9 and _, 32 at most")
        self.names.add(node.id)
        return node.id

    def constant(self, node: ast.expr) -> str | None:
        """A text or number as text; None for anything else."""
        match node:
            case ast.Constant(str() as text):
                return text
            case ast.Constant(int() | float() as number) if not isinstance(number, bool):
                return str(number)
            case ast.UnaryOp(ast.USub(), ast.Constant(int() | float() as number)) if not isinstance(number, bool):
                return f"-{number}"
        return None

    def _text(self, node: ast.expr) -> str:
        text = self.constant(node)
        if text is None:
            raise self.fault(node, 'here belongs a "text" or a number')
        return text

    def _compared(self, left: ast.expr, what: ast.cmpop, right: ast.expr) -> tuple[Test, _Choices]:
        match what:
            case ast.In():
                return self._member(left, right)
            case ast.NotIn():
                test = self._member(left, right)[0]
                return (lambda labels: not test(labels)), _UNSAID
            case ast.Eq():
                return self._equal(left, right)
            case ast.NotEq():
                test = self._equal(left, right)[0]
                return (lambda labels: not test(labels)), _UNSAID
            case ast.Lt() | ast.LtE() | ast.Gt() | ast.GtE():
                return self._ordered(left, _ORDER[type(what)], right), _UNSAID
        raise self.fault(left, "is and is not are not known; write == or !=")

    def _equal(self, left: ast.expr, right: ast.expr) -> tuple[Test, _Choices]:
        one, other = self.constant(left), self.constant(right)
        if one is not None and other is not None:
            return _constant(one.lower() == other.lower())
        if one is None and other is None:
            first, second = self.label(left), self.label(right)
            return (lambda labels: labels.get(first, "").lower() == labels.get(second, "").lower()), _UNSAID
        name = self.label(left if one is None else right)
        value = (one if one is not None else other or "").lower()
        choices = (frozenset(((name, value),)),) if value else _UNSAID
        return (lambda labels: labels.get(name, "").lower() == value), choices

    def _member(self, left: ast.expr, right: ast.expr) -> tuple[Test, _Choices]:
        if not isinstance(right, (ast.List, ast.Tuple, ast.Set)):
            raise self.fault(
                right, f'after in belongs a list such as ["a", "b"]; for a part of a text: {FUNCTIONS["like"]}'
            )
        values = frozenset(self._text(each).lower() for each in right.elts)
        name = self.label(left)
        choices = _UNSAID if "" in values else (frozenset((name, value) for value in values),)
        return (lambda labels: labels.get(name, "").lower() in values), choices

    def _ordered(self, left: ast.expr, compare: Callable[[float, float], bool], right: ast.expr) -> Test:
        if self.constant(right) is not None and isinstance(left, ast.Name):
            return _beside(self.label(left), compare, number_of(self._value(right)({})))
        one, other = self._value(left), self._value(right)

        def test(labels: Labels) -> bool:
            first, second = number_of(one(labels)), number_of(other(labels))
            return first is not None and second is not None and compare(first, second)

        return test

    def _value(self, node: ast.expr) -> _Value:
        text = self.constant(node)
        if text is not None:
            if number_of(text) is None:
                raise self.fault(node, f"{text!r} is no number; < and > compare numbers")
            return lambda labels: text
        name = self.label(node)
        return lambda labels: labels.get(name, "")

    def _called(self, node: ast.expr, function: str, arguments: list[ast.expr]) -> Test:
        if len(arguments) != (1 if function == "has" else 2):
            raise self.fault(node, f"write {FUNCTIONS[function]}")
        name = self.label(arguments[0])
        if function == "has":
            return _holds(name)
        text = self._text(arguments[1])
        if function == "like":
            matches = _glob(text)
            return lambda labels: matches(labels.get(name, ""))
        try:
            network = ip_network(text, strict=False)
        except ValueError:
            raise self.fault(arguments[1], f'{text!r} is no network; write it as "10.0.0.0/8"') from None
        return _within(name, network)


_ORDER: Final[Mapping[type[ast.cmpop], Callable[[float, float], bool]]] = {
    ast.Lt: operator.lt, ast.LtE: operator.le, ast.Gt: operator.gt, ast.GtE: operator.ge,
}  # fmt: skip


@lru_cache(maxsize=8_192)
def number_of(text: str) -> float | None:
    """A finite number, or None."""
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _constant(truth: bool) -> tuple[Test, _Choices]:
    return (lambda labels: truth), _UNSAID if truth else _NEVER


def _holds(name: str) -> Test:
    return lambda labels: bool(labels.get(name))


def _beside(name: str, compare: Callable[[float, float], bool], number: float | None) -> Test:
    """A label compared with a constant: what most conditions with numbers are."""

    def test(labels: Labels) -> bool:
        value = number_of(labels.get(name, ""))
        return value is not None and number is not None and compare(value, number)

    return test


def _all(parts: list[tuple[Test, _Choices]]) -> tuple[Test, _Choices]:
    """All must hold, so any part's anchors do."""
    tests = tuple(test for test, _ in parts)
    choices = tuple(choice for _, choices in parts for choice in choices)
    if len(tests) == 2:
        one, other = tests
        return (lambda labels: one(labels) and other(labels)), choices

    def test(labels: Labels) -> bool:
        for each in tests:  # noqa: SIM110 - twice as fast as all()
            if not each(labels):
                return False
        return True

    return test, choices


def _any(parts: list[tuple[Test, _Choices]]) -> tuple[Test, _Choices]:
    """Each part may be the one that holds: all must have anchors."""
    tests = tuple(test for test, _ in parts)
    known = [min(choices, key=len) for _, choices in parts if choices]

    def test(labels: Labels) -> bool:
        for each in tests:  # noqa: SIM110 - twice as fast as any()
            if each(labels):
                return True
        return False

    return test, (frozenset().union(*known),) if len(known) == len(parts) else _UNSAID


def _glob(pattern: str) -> Callable[[str], bool]:
    """Any case. The standard library's translation never goes back behind a star, so the time is bounded."""
    matches = re.compile(translate(pattern.lower())).match
    return lambda value: matches(value.lower()) is not None


@lru_cache(maxsize=8_192)
def _address(text: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(text)
    except ValueError:
        return None


def _within(name: str, network: IPv4Network | IPv6Network) -> Test:
    def test(labels: Labels) -> bool:
        address = _address(labels.get(name, ""))
        return address is not None and address in network

    return test
