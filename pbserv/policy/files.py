"""A policy as a file: TOML or JSON text to objects and devices, and back. Pure.

One rule: everything that is wrong with a file is said at once, each with the table it stands in.

Both forms have the same shape: tables ``bundle``, ``group``, ``folder``, ``assignment``, ``rule`` and ``menu`` of named
objects with the fields of :mod:`pbserv.policy.model`; ``device`` of MAC addresses; ``zone``, for trying a policy out;
and the tables of other services, which the caller brings with what checks them.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Final, Literal, get_args  # Any: values of TOML and JSON on their way into checked objects

import tomli_w

from pbserv.policy.documents import PolicyError, kind_of, read_object, values_of
from pbserv.policy.entries import Entry, device_of, read_entry
from pbserv.policy.model import KINDS, PolicyObject
from pbserv.policy.snapshot import Fallback, Zone
from pbserv.registry.records import Device

Form = Literal["toml", "json"]
BESIDE: Final = {"script_file": "script", "answer_file": "answer", "meta_file": "meta"}
"""Keys of a bundle that name a file beside the policy file, and the field that has its text."""


Named = Mapping[str, Mapping[str, Any]]
Check = Callable[[str, Mapping[str, Any]], tuple[str, Mapping[str, Any]]]
"""Name and fields of one thing, in their one spelling; raises ValueError."""


class PolicyFileError(PolicyError):
    """``problems``: one sentence each, with file, line where it is known, and table."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))


@dataclass(frozen=True, slots=True)
class PolicyFile:
    """What a file holds. ``entries``: MAC -> what it says of the device, from which ``devices`` are made.

    ``zone``: of the file, else the defaults of the configuration; ``zoned``: the file has one. ``others``: table ->
    name -> fields, of other services.
    """

    objects: tuple[PolicyObject, ...]
    devices: tuple[Device, ...]
    zone: Zone
    zoned: bool
    entries: Mapping[str, Entry]
    others: Mapping[str, Named]


def read_policy(
    text: str,
    form: Form,
    name: str,
    beside: Callable[[str], str] | None = None,
    others: Mapping[str, Check] | None = None,
) -> PolicyFile:
    """``name``: of the file, for messages. ``beside``: the text of a file that a bundle names, or ValueError.
    ``others``: tables of other services, and what checks each thing in them.

    Raises PolicyFileError with all that is wrong. Whether what objects name exists is asked of
    :func:`pbserv.policy.integrity.problems`.
    """
    reader = _Reader(name, _tables(text) if form == "toml" else {}, beside, others or {})
    policy = reader.policy(_plain(text, form, name))
    if reader.problems:
        raise PolicyFileError(reader.problems)
    return policy


def write_policy(
    objects: Iterable[PolicyObject],
    form: Form,
    entries: Mapping[str, Entry] | None = None,
    zone: Zone | None = None,
    others: Mapping[str, Named] | None = None,
) -> str:
    """The text that :func:`read_policy` reads as the same objects; sorted, so that equal policies are equal files."""
    tables: dict[str, dict[str, Any]] = {}
    if zone is not None:
        tables["zone"] = {key: value for key, value in asdict(zone).items() if value}
    named = {(kind_of(each), each.name): values_of(each) for each in objects}
    for kind in KINDS:
        of_kind = {name: named[key] for key in sorted(named) for name in key[1:] if key[0] == kind}
        if of_kind:
            tables[kind] = of_kind
    if entries:
        tables["device"] = {mac: dict(entries[mac]) for mac in sorted(entries)}
    for table, things in (others or {}).items():
        if things:
            tables[table] = {each: dict(things[each]) for each in sorted(things)}
    if form == "json":
        return json.dumps(tables, indent=2, ensure_ascii=False) + "\n"
    return tomli_w.dumps(tables, multiline_strings=True)


def _plain(text: str, form: Form, name: str) -> dict[str, Any]:
    try:
        values = tomllib.loads(text) if form == "toml" else json.loads(text)
    except tomllib.TOMLDecodeError as fault:
        raise PolicyFileError([f"{name}: {fault}"]) from None
    except json.JSONDecodeError as fault:
        raise PolicyFileError([f"{name}: line {fault.lineno}: {fault.msg}"]) from None
    except (RecursionError, ValueError) as fault:  # ValueError: a number of more digits than Python reads
        raise PolicyFileError([f"{name}: cannot be read: {fault}"]) from None
    if not isinstance(values, dict):
        raise PolicyFileError([f"{name}: an object with the tables {', '.join(KINDS)} was expected"])
    return values


class _Reader:
    def __init__(
        self,
        file: str,
        lines: Mapping[tuple[str, str], int],
        beside: Callable[[str], str] | None,
        others: Mapping[str, Check],
    ) -> None:
        self._file = file
        self._lines = lines
        self._beside = beside
        self._others = others
        self.problems: list[str] = []

    def policy(self, tables: Mapping[str, Any]) -> PolicyFile:
        objects: list[PolicyObject] = []
        known = ("zone", "device", *KINDS, *self._others)
        for table in tables.keys() - set(known):
            self._wrong(table, "", f"there is no such table; there are {', '.join(known)}")
        for kind in KINDS:
            for name, values in self._named(tables, kind):
                objects += self._object(kind, name, values)
        entries = dict(filter(None, (self._entry(*each) for each in self._named(tables, "device"))))
        devices = tuple(device_of(*each) for each in entries.items())
        others = {table: self._checked(tables, table, check) for table, check in self._others.items()}
        return PolicyFile(
            tuple(objects), devices, self._zone(tables.get("zone", {})), "zone" in tables, entries, others
        )

    def _checked(self, tables: Mapping[str, Any], table: str, check: Check) -> Named:
        found: dict[str, Mapping[str, Any]] = {}
        for name, values in self._named(tables, table):
            try:
                key, fields_ = check(name, values)
            except ValueError as fault:
                self._wrong(table, name, str(fault).removeprefix(f"{table} {name!r}: ").removeprefix(f"{table}: "))
                continue
            if key in found:
                self._wrong(table, name, f"{key} stands here twice")
            found[key] = fields_
        return found

    def _named(self, tables: Mapping[str, Any], kind: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
        table = tables.get(kind, {})
        if not isinstance(table, dict):
            self._wrong(kind, "", f"named tables were expected: [{kind}.NAME]")
            return
        for name, values in table.items():
            if isinstance(values, dict):
                yield name, values
            else:
                self._wrong(kind, "", f"{name}: a table was expected: [{kind}.NAME]")

    def _object(self, kind: str, name: str, values: Mapping[str, Any]) -> Iterator[PolicyObject]:
        try:
            values = self._with_files(values) if kind == "bundle" else values
            if "name" in values:
                raise ValueError("the name stands in the head of the table, not in it")
            yield read_object(kind, name, values)
        except (PolicyError, ValueError) as fault:
            self._wrong(kind, name, str(fault).removeprefix(f"{kind} {name!r}: "))

    def _with_files(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """The values with the texts of the files that they name."""
        found = dict(values)
        for key, field in BESIDE.items():
            if key not in found:
                continue
            path = found.pop(key)
            if field in found:
                raise ValueError(f"{field} and {key} are both given; one of the two is enough")
            if self._beside is None or not isinstance(path, str):
                raise ValueError(f"{key} is for policy files on disk, and names a file beside them")
            try:
                found[field] = self._beside(path)
            except ValueError as fault:
                raise ValueError(f"{key}: {fault}") from None
        return found

    def _entry(self, mac: str, values: Mapping[str, Any]) -> tuple[str, Entry] | None:
        try:
            return read_entry(mac, values)
        except ValueError as fault:
            self._wrong("device", mac, str(fault))
            return None

    def _zone(self, values: Any) -> Zone:
        zone = Zone()
        known = {entry.name for entry in fields(Zone)}
        if not isinstance(values, dict):
            self._wrong("zone", "", "a table was expected")
            return zone
        for key in values.keys() - known:
            self._wrong("zone", "", f"there is no {key}; there are {', '.join(sorted(known))}")
        for key in ("default", "unknown"):
            if values.get(key, zone.default) not in get_args(Fallback):
                self._wrong("zone", "", f"{key}: write one of {', '.join(get_args(Fallback))}")
                return zone
        engine = str(values.get("engine", ""))
        return Zone(values.get("default", zone.default), values.get("unknown", zone.unknown), engine)

    def _wrong(self, table: str, name: str, why: str) -> None:
        line = self._lines.get((table, name))
        where = f"line {line}: " if line else ""
        head = f"[{table}.{_quoted(name)}]" if name else f"[{table}]"
        self.problems.append(f"{self._file}: {where}{head}: {why}")


_HEAD: Final = re.compile(r"\s*\[(?!\[)")


def _tables(text: str) -> dict[tuple[str, str], int]:
    """Table and name -> the line of their first head. Only for messages: texts of several lines are passed over."""
    found: dict[tuple[str, str], int] = {}
    within = ""
    for number, line in enumerate(text.splitlines(), start=1):
        for quotes in ('"""', "'''"):
            if within in ("", quotes) and line.count(quotes) % 2:
                within = "" if within else quotes
        if within or not _HEAD.match(line):
            continue
        try:
            path = _path(tomllib.loads(line))
        except (tomllib.TOMLDecodeError, RecursionError):
            continue
        found.setdefault((path[0], path[1] if len(path) > 1 else ""), number)
    return found


def _path(head: Mapping[str, Any]) -> list[str]:
    path: list[str] = []
    while head:
        [(key, head)] = head.items()
        path.append(key)
    return path


def _quoted(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else f'"{name}"'
