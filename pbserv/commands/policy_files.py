"""Policy files on disk: reading them with the files that stand beside them.

One rule: a policy file takes in nothing from outside of its own directory.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pbserv.commands.policy_others import CHECKS
from pbserv.errors import PbservError, UsageError
from pbserv.policy.files import Form, PolicyFile, read_policy
from pbserv.policy.integrity import problems, warnings
from pbserv.policy.model import MAX_TEXT
from pbserv.policy.snapshot import Objects
from pbserv.policy.texts import text_problems

MOST = 64 * 1024 * 1024
"""Bytes of a policy file."""


def form_of(file: Path) -> Form:
    match file.suffix.lower():
        case ".toml":
            return "toml"
        case ".json":
            return "json"
    raise UsageError(f"{file}: the name of a policy file ends in .toml or .json")


def load(file: Path) -> PolicyFile:
    """Raises PolicyFileError with all that is wrong in it, or PbservError when it cannot be read."""
    form = form_of(file)
    return read_policy(_text(file, MOST), form, str(file), lambda path: _beside(file.parent, path), CHECKS)


def judged(file: Path, policy: PolicyFile) -> tuple[Sequence[str], Sequence[str]]:
    """What names nothing that there is or cannot be rendered, and what is odd; each with the file's name."""
    objects = Objects.of(policy.objects)
    found = [*problems(objects, policy.devices), *text_problems(objects.bundles.values())]
    wrong = [f"{file}: {each}" for each in found]
    return wrong, [f"{file}: {each}" for each in warnings(objects, policy.devices)]


def _beside(directory: Path, name: str) -> str:
    """Raises ValueError."""
    place = directory.resolve()
    path = (place / name).resolve()
    if not path.is_relative_to(place):
        raise ValueError(f"{name!r} leads out of the policy file's directory")
    if not path.is_file():
        raise ValueError(f"there is no file {name!r} beside the policy file")
    try:
        return _text(path, 4 * MAX_TEXT)
    except PbservError as fault:
        raise ValueError(str(fault)) from None


def _text(file: Path, most: int) -> str:
    try:
        with file.open("rb") as opened:
            content = opened.read(most + 1)
    except OSError as fault:
        raise PbservError(f"{file}: {fault.strerror}") from None
    if len(content) > most:
        raise PbservError(f"{file} has more than {most} bytes")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as fault:
        raise PbservError(f"{file}: byte {fault.start} is no UTF-8") from None
