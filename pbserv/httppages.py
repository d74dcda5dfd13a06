"""Lists in pages: an answer names the cursor with which the next page begins.

One rule: a cursor is the key of the last thing that was given out, so that nothing is lost or shown twice when others
change the list meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Any, Final, TypeVar  # Any: FastAPI's description of answers
from urllib.parse import quote, urlencode

from fastapi import Query, Request, Response

T = TypeVar("T")
MOST: Final = 1000
Limit = Annotated[
    int, Query(ge=1, le=MOST, description="so many at most; Link and X-Next-Cursor lead to the next ones")
]
PAGED: Final[dict[int | str, dict[str, Any]]] = {
    200: {
        "headers": {
            "Link": {"description": '`<...>; rel="next"` when there is more', "schema": {"type": "string"}},
            "X-Next-Cursor": {"description": "the value of `after` for the next page", "schema": {"type": "string"}},
        }
    }
}
"""``responses`` of a route that answers a page."""


def cut(
    found: Sequence[T], limit: int, key: Callable[[T], object], request: Request, response: Response
) -> Sequence[T]:
    """The page of ``found``, which was asked for one more than ``limit``; its headers are set."""
    if len(found) <= limit:
        return found
    page = found[:limit]
    cursor = str(key(page[-1]))
    query = [(name, value) for name, value in request.query_params.multi_items() if name not in ("after", "limit")]
    query += [("limit", str(limit)), ("after", cursor)]
    response.headers["Link"] = f'<{quote(request.url.path)}?{urlencode(query)}>; rel="next"'
    response.headers["X-Next-Cursor"] = cursor
    return page
