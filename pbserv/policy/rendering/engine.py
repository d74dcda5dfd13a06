"""Templates: the shipped ones, those of the administrator in their place, and texts of bundles in a sandbox.

One rule: a template that fails costs its own text, never a boot; the fault names the file and the line.
"""

from __future__ import annotations

import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final  # Any: what Jinja2 hands to its hooks

from jinja2 import ChoiceLoader, Environment, FileSystemLoader, PackageLoader, StrictUndefined, TemplateError

from pbserv.errors import PbservError
from pbserv.policy.rendering.sandbox import MAX_OUTPUT, rendered

__all__ = ["MAX_OUTPUT", "RenderError", "Templates", "Values", "render_text"]

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


def render_text(text: str, values: Values, where: str, *, xml: bool = False) -> str:
    """A text of a bundle, in a sandbox, at most ``MAX_OUTPUT`` characters long. ``xml``: values are escaped.

    Raises RenderError with ``where`` and the line of the text.
    """
    try:
        return rendered(text, values, xml=xml)
    except Exception as fault:
        raise _named(fault, where, "<template>") from fault
