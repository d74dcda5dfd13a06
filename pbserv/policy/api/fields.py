"""The values that requests carry, each with its bounds.

One rule: what passes here can be stored and shown anywhere: it is printable, and its length is bounded.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Annotated, Final

from fastapi import Path, Query
from pydantic import AfterValidator, Field, StringConstraints

from pbserv.policy.labels import MAX_LABELS, MAX_VALUE
from pbserv.policy.model import check_folder, check_name, check_place
from pbserv.types import ClientArch, MacAddress

NAME_PATTERN: Final = r"^[A-Za-z0-9]([A-Za-z0-9._ -]{0,62}[A-Za-z0-9])?$"
FOLDER_PATTERN: Final = r"^(/|(/[A-Za-z0-9]([A-Za-z0-9._ -]{0,62}[A-Za-z0-9])?){1,8})$"
_MAC_PATTERN: Final = r"^[0-9A-Fa-f][02468ACEace]([:-]?[0-9A-Fa-f]{2}){5}$"
_LABEL: Final = re.compile(r"[a-z][a-z0-9_]{0,31}")
_DURATION: Final = re.compile(r"([1-9][0-9]{0,5})([smhdw])")
_SECONDS: Final = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}
LONGEST: Final = timedelta(days=366)
"""From now, until work expires."""
MAX_GROUPS: Final = 64
"""Of one device."""
MAX_NUMBER: Final = 2**31 - 1
"""Of work and jobs; PostgreSQL counts no further."""


def canonical_mac(text: str) -> str:
    """``aa:bb:cc:dd:ee:ff`` of any spelling. Raises ValueError for what is no device's address."""
    address = MacAddress.parse(text)
    if address.octets[0] & 1 or not any(address.octets):
        raise ValueError(f"{address} is no device's address: it is a group's, or empty")
    return str(address)


def arch_of(text: str) -> ClientArch:
    """A number of option 93, or its name as pbserv prints it, such as ``UEFI x64``. Raises ValueError."""
    if text.isascii() and text.isdecimal() and int(text[:6]) <= 0xFFFF:
        return ClientArch(int(text[:6]))
    for number in range(_ARCHES):
        if str(ClientArch(number)).lower() == text.lower():
            return ClientArch(number)
    raise ValueError(f"{text!r} is no architecture: write its number of DHCP option 93, or its name, such as UEFI x64")


_ARCHES: Final = 64


def moment_of(text: str, now: datetime) -> datetime:
    """``8h`` (s, m, h, d, w) from ``now``, or a time with its zone (ISO 8601), to come. Raises ValueError."""
    found = _DURATION.fullmatch(text)
    try:
        moment = now + timedelta(seconds=int(found[1]) * _SECONDS[found[2]]) if found else _time_of(text)
        if moment.tzinfo is None:
            raise ValueError(f"{text!r} has no zone; write it at the end, such as +01:00 or Z")
        moment = moment.astimezone(now.tzinfo)
    except OverflowError:
        raise ValueError(f"{text!r} is too far away") from None
    if not now < moment <= now + LONGEST:
        raise ValueError(f"{text!r} is not in the next {LONGEST.days} days")
    return moment


def _time_of(text: str) -> datetime:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        example = "8h (s, m, h, d, w), or a time with its zone: 2027-01-31T18:00+01:00"
        raise ValueError(f"{text!r} is no time; write {example}") from None


def _line(text: str) -> str:
    if not text.isprintable():
        raise ValueError("printable characters only")
    return text


def _checked(check: Callable[[str], None], *, empty: bool = False) -> AfterValidator:
    def validate(text: str) -> str:
        if text or not empty:
            check(text)
        return text

    return AfterValidator(validate)


def _loader(text: str) -> None:
    if "://" in text:
        raise ValueError(f"loader {text!r}: write a path below TFTPDirectory without a leading /")
    check_place(text, "loader")


def _labels(labels: dict[str, str]) -> dict[str, str]:
    for name in labels:
        if not _LABEL.fullmatch(name):
            raise ValueError(f"{name!r} is no name of a label: a small letter, then small letters, digits and _ (32)")
    return labels


def _different(names: list[str]) -> list[str]:
    return list(dict.fromkeys(names))


_MAC: Final = {"pattern": _MAC_PATTERN, "examples": ["52:54:00:12:34:56"]}
MacText = Annotated[str, AfterValidator(canonical_mac), Field(max_length=32, json_schema_extra=_MAC)]
MacPath = Annotated[
    str,
    AfterValidator(canonical_mac),
    Path(max_length=32, json_schema_extra=_MAC, description="any of the device's addresses, however it is written"),
]
Text128 = Annotated[str, StringConstraints(strip_whitespace=True, max_length=128), AfterValidator(_line)]
Title = Annotated[str, StringConstraints(strip_whitespace=True, max_length=64), AfterValidator(_line)]
Line = Annotated[str, StringConstraints(strip_whitespace=True, max_length=1024), AfterValidator(_line)]
Name = Annotated[
    str, _checked(lambda text: check_name(text, "group")), Field(json_schema_extra={"pattern": NAME_PATTERN})
]
NamePath = Annotated[str, Path(max_length=64, json_schema_extra={"pattern": NAME_PATTERN})]
MenuName = Annotated[str, _checked(lambda text: check_name(text, "menu"), empty=True), Field(max_length=64)]
FolderText = Annotated[str, _checked(check_folder), Field(json_schema_extra={"pattern": FOLDER_PATTERN})]
Loader = Annotated[str, _checked(_loader, empty=True), Field(max_length=512)]
GroupNames = Annotated[list[Name], Field(max_length=MAX_GROUPS), AfterValidator(_different)]
LabelValue = Annotated[
    str, StringConstraints(strip_whitespace=True, min_length=1, max_length=MAX_VALUE), AfterValidator(_line)
]
LabelMap = Annotated[dict[str, LabelValue], Field(max_length=MAX_LABELS), AfterValidator(_labels)]
Number = Annotated[int, Path(ge=1, le=MAX_NUMBER)]
Wanted = Annotated[str, Query(max_length=128), AfterValidator(_line)]
"""Text that is looked for, or a cursor."""
Cursor = Annotated[str, Query(max_length=600), AfterValidator(_line)]
"""That of objects: folders have long names."""
