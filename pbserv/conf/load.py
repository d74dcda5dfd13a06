"""Read a configuration directory into frozen models, or say everything that is wrong with it.

One rule: all errors of all files are reported at once, each as ``file:line: key: reason``. Services are not known here:
which files there are is an argument.
"""

from __future__ import annotations

import difflib
import os
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pbserv.conf import grammar
from pbserv.conf.model import ConfFile, ConfModel, M, keys_by_name, keys_of
from pbserv.errors import PbservError

MAX_FILE_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Problem:
    """Something about one file, line or key. ``line`` is 0 and ``key`` empty where there is none."""

    file: str
    line: int
    key: str
    reason: str

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}" if self.line else self.file
        return f"{where}: {self.key}: {self.reason}" if self.key else f"{where}: {self.reason}"


class ConfigError(PbservError):
    """The configuration cannot be used; ``problems`` holds every reason, one line each in the message."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = tuple(problems)


@dataclass(frozen=True, slots=True)
class Loaded:
    """A valid configuration. ``paths`` has the files that exist; ``lines`` has, per model and key name in lower case,
    the line in which the file sets the key (an empty value that means the default does not set it)."""

    directory: Path
    models: Mapping[type[ConfModel], ConfModel]
    paths: Mapping[type[ConfModel], Path]
    lines: Mapping[type[ConfModel], Mapping[str, int]]
    warnings: tuple[Problem, ...] = ()

    def get(self, model: type[M]) -> M:
        """The settings of one file."""
        found = self.models[model]
        assert isinstance(found, model)  # noqa: S101 - what load() put there
        return found

    def is_set(self, model: type[ConfModel], key: str) -> bool:
        """Whether the file itself sets ``key`` (as spelt in the file, in any case)."""
        return self.line(model, key) > 0

    def line(self, model: type[ConfModel], key: str) -> int:
        """Where the file sets ``key``; 0 when it does not. Raises KeyError for a key that the model has not."""
        keys_by_name(model)[key.lower()]
        return self.lines.get(model, {}).get(key.lower(), 0)

    def problem(self, model: type[ConfModel], key: str, reason: str) -> Problem:
        """A complaint about a value that is well-formed but cannot hold on this host, with file and line."""
        path = self.paths.get(model, self.directory)
        return Problem(str(path), self.line(model, key), keys_by_name(model)[key.lower()].name, reason)


@dataclass(slots=True)
class _Reading:
    """What is being collected while one file is read."""

    values: dict[str, Any] = field(default_factory=dict)
    lines: dict[str, int] = field(default_factory=dict)
    errors: list[Problem] = field(default_factory=list)
    warnings: list[Problem] = field(default_factory=list)


def load(directory: Path, files: Sequence[ConfFile[Any]]) -> Loaded:
    """Read every file of ``files`` in ``directory``; a missing file or directory means defaults. Raises ConfigError."""
    models: dict[type[ConfModel], ConfModel] = {}
    paths: dict[type[ConfModel], Path] = {}
    lines: dict[type[ConfModel], Mapping[str, int]] = {}
    errors: list[Problem] = []
    warnings: list[Problem] = []
    _refuse_non_directory(directory)
    for file in files:
        reading = _Reading()
        path = _locate(directory, file, reading)
        text = _read(path, reading) if path else None
        if path and text is not None:
            paths[file.model] = path
            _interpret(text, str(path), file, files, reading)
        errors += reading.errors
        warnings += reading.warnings
        if not reading.errors:
            models[file.model] = file.model(**reading.values)
            lines[file.model] = reading.lines
    if errors:
        raise ConfigError(errors)
    return Loaded(directory, models, paths, lines, tuple(warnings))


def _refuse_non_directory(directory: Path) -> None:
    try:
        mode = os.stat(directory).st_mode
    except FileNotFoundError:
        return
    except OSError as fault:
        raise ConfigError([Problem(str(directory), 0, "", _unreadable(fault))]) from None
    if not stat.S_ISDIR(mode):
        raise ConfigError([Problem(str(directory), 0, "", "is not a directory; configuration files stand in one")])


def _locate(directory: Path, file: ConfFile[Any], reading: _Reading) -> Path | None:
    """The one path that exists under any of the file's names; a dangling link exists, and fails later."""
    found: list[Path] = []
    for name in file.names:
        try:
            os.lstat(directory / name)
        except FileNotFoundError:
            continue
        except OSError as fault:
            reading.errors.append(Problem(str(directory / name), 0, "", _unreadable(fault)))
            return None
        found.append(directory / name)
    if len(found) > 1:
        others = " and ".join(path.name for path in found[:-1])
        reason = f"is the same file as {others} in this directory; keep one of them"
        reading.errors.append(Problem(str(found[-1]), 0, "", reason))
        return None
    return found[0] if found else None


def _read(path: Path, reading: _Reading) -> str | None:
    try:
        # O_NONBLOCK: a FIFO of this name must not hold up the start
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as stream:
            if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
                raise OSError("it is not a regular file")
            data = stream.read(MAX_FILE_BYTES + 1)
    except OSError as fault:
        reading.errors.append(Problem(str(path), 0, "", _unreadable(fault)))
        return None
    if len(data) > MAX_FILE_BYTES:
        reason = f"is larger than {MAX_FILE_BYTES} bytes; this is not a configuration file"
        reading.errors.append(Problem(str(path), 0, "", reason))
        return None
    return grammar.decode(data)


def _unreadable(fault: OSError) -> str:
    return f"cannot be read: {fault.strerror or fault}"


def _interpret(text: str, name: str, file: ConfFile[Any], files: Sequence[ConfFile[Any]], reading: _Reading) -> None:
    """Turn the entries of one file into values, errors and warnings, ordered by line."""
    parsed = grammar.parse(text)
    reading.errors += [Problem(name, fault.line, fault.key, fault.reason) for fault in parsed.faults]
    known = keys_by_name(file.model)
    for entry in parsed.entries:
        bound = known.get(entry.key.lower())
        if bound is None:
            reason = _unknown(entry.key, file, files)
            if not entry.has_value:
                reason = f"has no '='; write key = value; the key {reason}"
            reading.errors.append(Problem(name, entry.line, entry.key, reason))
            continue
        if not entry.has_value:  # the bare name of a known key, as table D-10 prints one: no value, so the default
            continue
        try:
            reading.values[bound.attribute] = bound.parse(entry.value)
        except ValueError as fault:
            reading.errors.append(Problem(name, entry.line, bound.name, str(fault)))
            continue
        if entry.value or bound.key.empty_is_value:
            reading.lines[bound.name.lower()] = entry.line
        warning = bound.warning(entry.value)
        if warning:
            reading.warnings.append(Problem(name, entry.line, bound.name, warning))
    reading.errors.sort(key=lambda problem: problem.line)


def _unknown(key: str, file: ConfFile[Any], files: Sequence[ConfFile[Any]]) -> str:
    """Why ``key`` is refused: it belongs elsewhere, or which name is nearest (of equals, this file's own)."""
    homes = [other for other in files if key.lower() in keys_by_name(other.model)]
    if homes:
        return f"belongs in {homes[0].name}, not in {file.name}"
    nearest: tuple[float, str] = (0.0, "")
    for candidate in (file, *(other for other in files if other is not file)):
        for match in difflib.get_close_matches(key.lower(), keys_by_name(candidate.model), n=1):
            ratio = difflib.SequenceMatcher(None, key.lower(), match).ratio()
            where = "" if candidate is file else f" (in {candidate.name})"
            if ratio > nearest[0]:
                nearest = ratio, f"is unknown; did you mean {keys_by_name(candidate.model)[match].name}{where}?"
    return nearest[1] or f"is unknown; {file.name} knows {', '.join(bound.name for bound in keys_of(file.model))}"
