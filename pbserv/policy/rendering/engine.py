"""Templates: the shipped ones, those of the administrator in their place, and texts of bundles in a sandbox.

One rule: a template that fails costs its own text, never a boot; the fault names the file and the line.
"""

from __future__ import annotations

import json
import shlex
import time
import traceback
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, Final  # Any: what Jinja2 hands to its hooks

from jinja2 import ChoiceLoader, Environment, FileSystemLoader, PackageLoader, StrictUndefined, Template, TemplateError
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment

from pbserv.errors import PbservError

MAX_OUTPUT: Final = 256 * 1024
"""Characters that a text of a bundle may become."""
MAX_STEPS: Final = 100_000
"""How many numbers all ``range`` of one rendering give out together."""
MAX_SECONDS: Final = 1.0
Values = Mapping[str, object]
_SHIPPED: Final = PackageLoader("pbserv.policy.rendering")
_TEXT: Final[dict[str, Any]] = {"undefined": StrictUndefined, "keep_trailing_newline": True, "autoescape": False}


class RenderError(PbservError):
    """``where`` is the template's file or the bundle, ``line`` counts from 1; 0: not known."""

    status = 500

    def __init__(self, where: str, line: int, why: str) -> None:
        super().__init__(f"{where}{f', line {line}' if line else ''}: {why}")
        self.where = where
        self.line = line


class Templates:
    """``overrides``: a directory whose files take the place of shipped ones of the same name."""

    def __init__(self, overrides: Path | None) -> None:
        self.overrides = overrides
        self._shipped = _environment(_SHIPPED)
        self._own = None if overrides is None else _environment(ChoiceLoader([FileSystemLoader(overrides), _SHIPPED]))

    @staticmethod
    def names() -> list[str]:
        """Of the shipped templates."""
        return _SHIPPED.list_templates()

    def shipped(self, name: str, values: Values) -> str:
        """Raises RenderError."""
        return _render(self._shipped, name, values)

    def own(self, name: str, values: Values) -> str:
        """With the administrator's files where there are any. Raises RenderError."""
        return _render(self._own or self._shipped, name, values)

    def check_names(self) -> None:
        """Raises RenderError for a directory that cannot be read, and for files that would never be used."""
        if self.overrides is None:
            return
        try:
            found = sorted(path.name for path in self.overrides.iterdir() if path.suffix == ".j2")
        except OSError as fault:
            raise RenderError(str(self.overrides), 0, f"cannot be read: {fault.strerror}") from None
        for name in found:
            if name not in self.names() and not name.startswith("_"):
                raise RenderError(
                    str(self.overrides / name), 0, f"no template has this name; there are {', '.join(self.names())}"
                    " (a name that begins with _ is for files that others include)"
                )  # fmt: skip


def _environment(loader: PackageLoader | ChoiceLoader) -> Environment:
    # Not HTML: values are cleaned for the loader's language before they come here.
    return Environment(loader=loader, trim_blocks=True, lstrip_blocks=True, auto_reload=False, **_TEXT)  # noqa: S701


def _render(environment: Environment, name: str, values: Values) -> str:
    try:
        return environment.get_template(name).render(values)
    except Exception as fault:
        raise _named(fault, name) from fault


def _named(fault: Exception, name: str, start: str = ".j2") -> RenderError:
    """The fault with the template's file and line: of a syntax error itself, else of the last frame in a template."""
    if isinstance(fault, TemplateError) and hasattr(fault, "lineno"):
        return RenderError(getattr(fault, "filename", None) or name, int(fault.lineno or 0), fault.message or "error")
    frames = [frame for frame in traceback.extract_tb(fault.__traceback__) if frame.filename.endswith(start)]
    why = str(fault) or type(fault).__name__
    if not frames:
        return RenderError(name, 0, why)
    where = name if frames[-1].filename == start else frames[-1].filename
    return RenderError(where, frames[-1].lineno or 0, why)


class _Sandbox(ImmutableSandboxedEnvironment):
    """Products and powers that would fill the memory are refused."""

    intercepted_binops = frozenset(("*", "**", "%"))

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        sized = [each for each in (left, right) if hasattr(each, "__len__")]
        times = max((each for each in (left, right) if isinstance(each, int)), default=0)
        if operator == "%" and sized:
            raise OverflowError("format strings with % are not allowed here; use ~")
        if operator == "*" and sized and len(sized[0]) * times > MAX_OUTPUT:
            raise OverflowError("the product is too long")
        if operator == "**" and (abs(right) > 64 or abs(left) > 2**64):
            raise OverflowError("the power is too large")
        return super().call_binop(context, operator, left, right)


def _sandbox(*, xml: bool) -> _Sandbox:
    sandbox = _Sandbox(**(_TEXT | {"autoescape": xml}))
    sandbox.filters["shell"] = shlex.quote
    sandbox.filters["yaml"] = json.dumps
    for name in ("lipsum", "cycler", "joiner"):
        del sandbox.globals[name]
    return sandbox


_PLAIN: Final = _sandbox(xml=False)
_XML: Final = _sandbox(xml=True)


@lru_cache(maxsize=128)
def _compiled(text: str, xml: bool) -> Template:
    return (_XML if xml else _PLAIN).from_string(text)


class _Steps:
    """``range``, for all loops of one rendering together."""

    def __init__(self) -> None:
        self._left = MAX_STEPS

    def range(self, *bounds: int) -> range:
        steps = range(*bounds)
        self._left -= len(steps)
        if self._left < 0:
            raise OverflowError(f"the ranges of a text have {MAX_STEPS} numbers at most")
        return steps


def render_text(text: str, values: Values, where: str, *, xml: bool = False) -> str:
    """A text of a bundle, in a sandbox, at most ``MAX_OUTPUT`` characters long. ``xml``: values are escaped.

    Raises RenderError with ``where`` and the line of the text.
    """
    try:
        chunks = _compiled(text, xml).generate({**values, "range": _Steps().range})
        return "".join(_bounded(chunks))
    except Exception as fault:
        raise _named(fault, where, "<template>") from fault


def _bounded(chunks: Iterable[str]) -> Iterable[str]:
    size, end = 0, time.monotonic() + MAX_SECONDS
    for chunk in chunks:
        size += len(chunk)
        if size > MAX_OUTPUT:
            raise OverflowError(f"the text becomes longer than {MAX_OUTPUT} characters")
        if time.monotonic() > end:
            raise OverflowError(f"rendering takes longer than {MAX_SECONDS:.0f} s")
        yield chunk
