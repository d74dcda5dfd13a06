"""Entity tags: which state of a thing a caller has seen, and whether it still is that one (RFC 9110 8.8.3, 13.1).

One rule: a change that names the state it was made for never falls on another one.
"""

from __future__ import annotations

import hashlib
import re
from typing import Annotated, Any, Final  # Any: FastAPI's description of answers

from fastapi import Header, Response
from pydantic import BaseModel

from pbserv.httpapi import ApiError

NOT_MODIFIED: Final[dict[int | str, dict[str, Any]]] = {304: {"description": "it is as If-None-Match says"}}
_TAG: Final = re.compile(r'(?P<weak>W/)?(?P<tag>"[^"]*")')
IfMatch = Annotated[str | None, Header(max_length=1000, description="ETag of the state that is to be changed; *: any")]
IfNoneMatch = Annotated[str | None, Header(max_length=1000, description="*: only where there is nothing yet")]
Seen = Annotated[
    str | None, Header(alias="If-None-Match", max_length=1000, description="ETag that the caller has: 304 if it holds")
]


def of_revision(revision: int) -> str:
    return f'"{revision}"'


def of_view(view: BaseModel) -> str:
    """A digest of all that the answer says."""
    return f'"{hashlib.sha256(view.model_dump_json().encode()).hexdigest()[:32]}"'


def demand(if_match: str | None, if_none_match: str | None, tag: str | None) -> None:
    """Raises 412 unless the headers' conditions hold of the thing with ``tag``; None: there is no such thing."""
    if if_match is not None and not _matches(if_match, tag, weak=False):
        now = "there is none any more" if tag is None else f"its ETag is {tag} now"
        raise ApiError(412, f"it was changed since, {now}; fetch it and make the change again")
    if if_none_match is not None and _matches(if_none_match, tag, weak=True):
        raise ApiError(412, f"there is one already, its ETag is {tag}")


def known(seen: str | None, response: Response, tag: str) -> Response | None:
    """Sets the ETag; an answer 304 where the caller has this state."""
    response.headers["ETag"] = tag
    return Response(status_code=304, headers={"ETag": tag}) if seen and _matches(seen, tag, weak=True) else None


def _matches(header: str, tag: str | None, *, weak: bool) -> bool:
    if tag is None:
        return False
    if header.strip() == "*":
        return True
    return any(found["tag"] == tag and (weak or not found["weak"]) for found in _TAG.finditer(header))
