"""Devices as the lines of a CSV file or the elements of a JSON list: read with every fault named, and written.

One rule: what is written here reads back as the same. A cell that a spreadsheet would take for a formula gets an
apostrophe before it; reading takes it away again.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final  # Any: JSON values on their way into a checked shape

from pydantic import ValidationError

from pbserv.policy.api.bodies import StatedDevice, said
from pbserv.policy.api.fields import canonical_mac
from pbserv.registry.records import Device

COLUMNS: Final = (
    "mac", "name", "serial", "asset", "folder", "groups", "labels", "menu", "loader", "arguments", "state",
)  # fmt: skip
MAX_ROWS: Final = 50_000
_FORMULA: Final = re.compile(r"'*[=+\-@]")
_DEFUSED: Final = re.compile(r"'+[=+\-@]")
_PART: Final = re.compile(r"(?:[^|\\]|\\.?)+", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Row:
    """``number`` counts as a spreadsheet does: the header of a CSV file is row 1, the first element of a list too."""

    number: int
    mac: str
    device: StatedDevice


@dataclass(frozen=True, slots=True)
class Table:
    """What a file says; ``faults``: row number and what is wrong there."""

    rows: tuple[Row, ...]
    faults: tuple[tuple[int, str], ...] = ()


def read_csv(text: str) -> Table:
    """A column that is there says what holds, with empty cells too; of a column that is missing nothing is changed.

    Several ``groups`` and ``labels`` (name=value) of a device have ``|`` between them; a backslash before a ``|`` or a
    backslash takes it as it is.
    """
    lines = csv.reader(io.StringIO(text.removeprefix("\ufeff"), newline=""), strict=True)
    try:
        header = [cell.strip().lower() for cell in next(lines, [])]
        fault = _header_fault(header)
        if fault:
            return Table((), ((1, fault),))
        return _table((number, _cells(header, line)) for number, line in enumerate(lines, 2) if any(line))
    except csv.Error as fault:
        return Table((), ((lines.line_num, f"this is no CSV: {fault}"),))


def read_json(text: str) -> Table:
    """A list of objects with the names of :data:`COLUMNS`; what an object does not have is not changed."""
    try:
        listed = json.loads(text)
    except (ValueError, RecursionError):
        return Table((), ((1, "this is no JSON"),))
    if not isinstance(listed, list):
        return Table((), ((1, 'write a list of objects: [{"mac": ...}, ...]'),))
    return _table(
        (number, each if isinstance(each, dict) else "write an object") for number, each in enumerate(listed, 1)
    )


def write_csv(devices: Iterable[Device]) -> str:
    """With a header; ordered as given."""
    out = io.StringIO(newline="")
    writer = csv.writer(out)
    writer.writerow(COLUMNS)
    for device in devices:
        values = plain(device)
        values["groups"] = "|".join(values["groups"])
        values["labels"] = "|".join(f"{name}={_escaped(value)}" for name, value in values["labels"].items())
        writer.writerow(_defused(values[column]) for column in COLUMNS)
    return out.getvalue()


def write_json(devices: Iterable[Device]) -> str:
    return json.dumps([plain(device) for device in devices], ensure_ascii=False, indent=1)


def plain(device: Device) -> dict[str, Any]:
    """What :func:`read_json` reads of a device."""
    values: dict[str, Any] = {column: getattr(device, column) for column in COLUMNS}
    return {**values, "groups": list(device.groups), "labels": dict(device.labels), "state": device.state.value}


def _header_fault(header: Sequence[str]) -> str:
    strange = [name for name in header if name not in COLUMNS]
    if strange:
        return f"there is no column {', '.join(repr(name[:40]) for name in strange)}; there are {', '.join(COLUMNS)}"
    if len(set(header)) != len(header):
        return "a column is there twice"
    return "" if "mac" in header else f"the first line has to name the columns, mac among them: {','.join(COLUMNS)}"


def _cells(header: Sequence[str], line: Sequence[str]) -> dict[str, Any] | str:
    if len(line) != len(header):
        return f"{len(line)} cells, where the header has {len(header)}"
    values: dict[str, Any] = dict(zip(header, map(_restored, line), strict=True))
    if not values.get("state"):
        values.pop("state", None)
    if values.get("folder") == "":
        values["folder"] = "/"
    if "groups" in values:
        values["groups"] = _parts(values["groups"])
    if "labels" in values:
        pairs = [part.partition("=") for part in _parts(values["labels"])]
        values["labels"] = {name.strip(): value.strip() for name, _, value in pairs}
    return values


def _table(lines: Iterable[tuple[int, Mapping[str, Any] | str]]) -> Table:
    rows: list[Row] = []
    faults: list[tuple[int, str]] = []
    seen: dict[str, int] = {}
    for number, values in lines:
        if len(rows) + len(faults) >= MAX_ROWS:
            return Table((), ((number, f"more than {MAX_ROWS} rows; import them in several files"),))
        try:
            row = _row(number, values)
            if seen.setdefault(row.mac, number) != number:
                raise ValueError(f"{row.mac} is in row {seen[row.mac]} too")
            rows.append(row)
        except ValidationError as fault:
            faults.append((number, said(fault)))
        except ValueError as fault:
            faults.append((number, str(fault)))
    return Table(tuple(rows), tuple(faults))


def _row(number: int, values: Mapping[str, Any] | str) -> Row:
    if isinstance(values, str):
        raise ValueError(values)
    mac = values.get("mac")
    if not isinstance(mac, str):
        raise ValueError("the MAC address is missing")
    fields = {key: value for key, value in values.items() if key != "mac"}
    return Row(number, canonical_mac(mac), StatedDevice.model_validate(fields))


def _parts(text: str) -> list[str]:
    return [re.sub(r"\\(.)", r"\1", part).strip() for part in _PART.findall(text) if part.strip()]


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace("|", "\\|")


def _defused(cell: str) -> str:
    return f"'{cell}" if _FORMULA.match(cell) else cell


def _restored(cell: str) -> str:
    text = cell.strip()
    return text[1:] if _DEFUSED.match(text) else text


def numbered(faults: Iterable[tuple[int, str]]) -> Iterator[str]:
    return (f"row {number}: {text}" for number, text in faults)
