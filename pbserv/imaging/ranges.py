"""What to answer to a GET or HEAD of bytes that never change: whole, part, nothing new, or unsatisfiable. Pure.

RFC 9110 sections 13 (conditions) and 14 (ranges). One rule: what we do not understand is answered with the whole,
which is always correct.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus

_RANGE = re.compile(r"bytes[ \t]*=[ \t]*(?:([0-9]{1,19})-([0-9]{0,19})|-([0-9]{1,19}))[ \t]*", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Plan:
    """The answer: ``status``, the bytes ``[start, end)`` of the item, and Content-Range if there is one."""

    status: HTTPStatus
    start: int
    end: int
    content_range: str | None = None


def plan(headers: Mapping[str, str], *, size_bytes: int, etag: str, method: str) -> Plan:
    """Decide from the request's headers (lower-case names). ``etag`` is the strong tag with its quotes."""
    if _matches(headers.get("if-none-match"), etag):
        return Plan(HTTPStatus.NOT_MODIFIED, 0, 0)
    whole = Plan(HTTPStatus.OK, 0, size_bytes)
    wanted = headers.get("range")
    if wanted is None or method != "GET":  # RFC 9110 14.2: "Range" is only defined for GET
        return whole
    if_range = headers.get("if-range")
    if if_range is not None and if_range.strip() != etag:  # 13.1.5: a strong comparison; a date never matches here
        return whole
    found = _RANGE.fullmatch(wanted.strip())
    if found is None:  # several ranges, another unit, or nonsense: 14.2 lets us ignore it
        return whole
    bounds = _bounds(found, size_bytes)
    if bounds is None:
        return whole
    start, end = bounds
    if start >= end:
        return Plan(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, 0, 0, f"bytes */{size_bytes}")
    return Plan(HTTPStatus.PARTIAL_CONTENT, start, end, f"bytes {start}-{end - 1}/{size_bytes}")


def _bounds(found: re.Match[str], size_bytes: int) -> tuple[int, int] | None:
    first, last, suffix = found.groups()
    if suffix is not None:
        return max(0, size_bytes - int(suffix)), size_bytes
    start = int(first)
    if not last:
        return start, size_bytes
    if int(last) < start:  # 14.1.1: invalid, so it is ignored
        return None
    return start, min(int(last) + 1, size_bytes)


def _matches(if_none_match: str | None, etag: str) -> bool:
    if if_none_match is None:
        return False
    tags = [tag.strip().removeprefix("W/") for tag in if_none_match.split(",")]
    return etag in tags or "*" in tags
