"""Texts of bundles are templates of administrators, rendered in the event loop: what one may do, and how much. Pure but
for the clock that bounds its time.

One rule: what is large is refused before it is made; every pass of a loop and every call costs a step.
"""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextvars import ContextVar
from functools import lru_cache, wraps
from typing import Any, Final  # Any: what Jinja2 hands to its hooks

from jinja2 import StrictUndefined, Template, nodes
from jinja2.runtime import Context, markup_join, str_join
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.visitor import NodeTransformer

MAX_OUTPUT: Final = 256 * 1024
"""Characters that a text of a bundle may become."""
MAX_STEPS: Final = 100_000
"""Passes of all loops, calls and numbers of ``range`` of one rendering together."""
MAX_WORK: Final = 16 * 1024 * 1024
"""Characters of all that one rendering makes, also on its way to the text."""
MAX_SECONDS: Final = 1.0
_MAX_BITS: Final = 4096
_METHODS: Final = frozenset((
    "capitalize", "casefold", "center", "count", "endswith", "find", "index", "isalnum", "isalpha", "isascii",
    "isdecimal", "isdigit", "islower", "isnumeric", "isspace", "isupper", "join", "ljust", "lower", "lstrip",
    "partition", "removeprefix", "removesuffix", "replace", "rfind", "rindex", "rjust", "rpartition", "rsplit",
    "rstrip", "split", "splitlines", "startswith", "strip", "swapcase", "title", "upper", "zfill",
))  # fmt: skip
"""Of texts; numbers have none."""
_NO_FILTERS: Final = ("format", "random", "urlize")
_NO_GLOBALS: Final = ("lipsum", "cycler", "joiner")
_PLAIN_TYPES: Final = (str, bytes, int, float)


class _Budget:
    """What one rendering may still take. Everything raises OverflowError when there is no more."""

    def __init__(self) -> None:
        self._steps, self._work = MAX_STEPS, MAX_WORK
        self._end = time.monotonic() + MAX_SECONDS

    def step(self, count: int = 1) -> None:
        self._steps -= count
        if self._steps < 0:
            raise OverflowError(f"the loops and ranges of a text have {MAX_STEPS} steps at most")
        if time.monotonic() > self._end:
            raise OverflowError(f"rendering takes longer than {MAX_SECONDS:.0f} s")

    def take(self, characters: int) -> None:
        self._work -= characters
        if self._work < 0:
            raise OverflowError(f"a text makes {MAX_WORK} characters at most on its way")

    def range(self, *bounds: int) -> range:
        """``range``, for all loops of one rendering together."""
        steps = range(*bounds)
        self.step(len(steps))
        return steps


_budget: ContextVar[_Budget] = ContextVar("budget")


def _size(value: object) -> int:
    """Characters of ``value`` as a text, roughly; counting ends where it is too much. What is in it twice is twice
    there."""
    size, waiting = 0, [value]
    while waiting and size <= MAX_WORK:
        each = waiting.pop()
        if isinstance(each, (str, bytes)):
            size += len(each)
        elif isinstance(each, Mapping):
            size += 1
            waiting += [*each.keys(), *each.values()]
        elif isinstance(each, (list, tuple, set, frozenset)):
            size += 1
            waiting += each
        else:
            size += 1
    return size


def _factor(value: object) -> int:
    """How many times as long a text may become by an argument: a width, or what is put into it."""
    return abs(value) if isinstance(value, int) else _size(value)


class _Counting(NodeTransformer):
    """Puts a step into the body of each loop, macro and block that is kept, and ``~`` into our hands."""

    def visit_For(self, node: nodes.For) -> nodes.Node:
        if node.test is not None:
            node.test = nodes.And(_step(node, 0), node.test, lineno=node.lineno)
        return self._stepping(node)

    def visit_Macro(self, node: nodes.Macro) -> nodes.Node:
        return self._stepping(node)

    def visit_CallBlock(self, node: nodes.CallBlock) -> nodes.Node:
        return self._stepping(node)

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
        self.generic_visit(node)
        return nodes.Call(nodes.EnvironmentAttribute("joined"), node.nodes, [], None, None, lineno=node.lineno)

    def _stepping(self, node: nodes.For | nodes.Macro | nodes.CallBlock) -> nodes.Node:
        self.generic_visit(node)
        said = [data for part in node.body for data in _data(part)]
        node.body.insert(0, nodes.ExprStmt(_step(node, sum(map(len, said))), lineno=node.lineno))
        return node


def _data(part: nodes.Node) -> Iterator[str]:
    if isinstance(part, nodes.TemplateData):
        yield part.data
    for found in part.find_all(nodes.TemplateData):
        yield found.data


def _step(node: nodes.Node, characters: int) -> nodes.Expr:
    arguments: list[nodes.Expr] = [nodes.Const(characters, lineno=node.lineno)]
    return nodes.Call(nodes.EnvironmentAttribute("step"), arguments, [], None, None, lineno=node.lineno)


class _Sandbox(ImmutableSandboxedEnvironment):
    intercepted_binops = frozenset(("+", "*", "**", "%"))

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        tree: nodes.Template = _Counting().visit(super()._parse(source, name, filename))
        return tree.set_environment(self)  # type: ignore[return-value]  # it returns what it was called of

    def step(self, characters: int) -> bool:
        """Called by templates: one pass of a loop or one call, of a body with so many characters."""
        budget = _budget.get()
        budget.step()
        budget.take(characters)
        return True

    def joined(self, *parts: object) -> str:
        """What ``~`` does."""
        _budget.get().take(sum(map(_size, parts)))
        return markup_join(parts) if self.autoescape else str_join(parts)

    def wrap_str_format(self, value: Any) -> None:
        """``format`` of texts is none of their methods here."""

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        if isinstance(obj, _PLAIN_TYPES):
            return isinstance(obj, str) and attr in _METHODS
        return super().is_safe_attribute(obj, attr, value)

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:
        owner = getattr(__obj, "__self__", None)
        if isinstance(owner, str):
            _admit(owner, [*args, *kwargs.values()])
        result = super().call(__context, __obj, *args, **kwargs)
        if isinstance(owner, str):
            _budget.get().take(_size(result))
        return result

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        sized = [each for each in (left, right) if hasattr(each, "__len__")]
        if operator == "%" and sized:
            raise OverflowError("format strings with % are not allowed here; use ~")
        if operator == "+" and sized:
            _budget.get().take(_size(left) + _size(right))
        if operator == "*" and sized:
            times = max((each for each in (left, right) if isinstance(each, int)), default=0)
            if _size(sized[0]) * times > MAX_OUTPUT:
                raise OverflowError("the product is too long")
        if operator == "*" and sum(each.bit_length() for each in (left, right) if isinstance(each, int)) > _MAX_BITS:
            raise OverflowError("the product is too large")
        if operator == "**" and (abs(right) > 64 or abs(left) > 2**64):
            raise OverflowError("the power is too large")
        return super().call_binop(context, operator, left, right)


def _admit(value: object, arguments: Iterable[object]) -> None:
    """Before a method or filter makes something of ``value``: not more than may be made."""
    budget = _budget.get()
    budget.step()
    if (_size(value) + 1) * max(map(_factor, arguments), default=1) > MAX_WORK:
        raise OverflowError(f"a text makes {MAX_WORK} characters at most on its way")


def _bounded(filter_: Callable[..., Any]) -> Callable[..., Any]:
    """A filter that looks at what it is given; Jinja2's mark for those that want more than the value stays."""
    at = 1 if hasattr(filter_, "jinja_pass_arg") else 0

    @wraps(filter_)
    def bounded(*args: Any, **kwargs: Any) -> Any:
        _admit(args[at] if len(args) > at else None, [*args[at + 1 :], *kwargs.values()])
        result = filter_(*args, **kwargs)
        _budget.get().take(_size(result))
        return result

    return bounded


def _shown(value: Any) -> Any:
    """Each value on its way into the text."""
    _budget.get().take(_size(value))
    return value


def _sandbox(*, xml: bool) -> _Sandbox:
    sandbox = _Sandbox(undefined=StrictUndefined, keep_trailing_newline=True, autoescape=xml, finalize=_shown)
    sandbox.filters["shell"] = shlex.quote
    sandbox.filters["yaml"] = json.dumps
    for name in _NO_FILTERS:
        del sandbox.filters[name]
    for name, filter_ in sandbox.filters.items():
        sandbox.filters[name] = _bounded(filter_)
    for name in _NO_GLOBALS:
        del sandbox.globals[name]
    return sandbox


_PLAIN: Final = _sandbox(xml=False)
_XML: Final = _sandbox(xml=True)


@lru_cache(maxsize=128)
def _compiled(text: str, xml: bool) -> Template:
    return (_XML if xml else _PLAIN).from_string(text)


def rendered(text: str, values: Mapping[str, object], *, xml: bool) -> str:
    """``text`` with ``values``; ``xml``: values are escaped. Raises what a template may raise, and OverflowError."""
    budget = _Budget()
    before = _budget.set(budget)
    try:
        chunks = _compiled(text, xml).generate({**values, "range": budget.range})
        return "".join(_cut_off(chunks, budget))
    finally:
        _budget.reset(before)


def _cut_off(chunks: Iterable[str], budget: _Budget) -> Iterator[str]:
    size = 0
    for chunk in chunks:
        size += len(chunk)
        if size > MAX_OUTPUT:
            raise OverflowError(f"the text becomes longer than {MAX_OUTPUT} characters")
        budget.step(0)
        yield chunk
