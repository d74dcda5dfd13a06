"""One question to another server, with a ticket in its address.

One rule: no redirect is followed, no proxy asked, and no more is read than the longest manifest makes.
"""

from __future__ import annotations

import asyncio
import ssl
from functools import cache
from http import HTTPStatus
from typing import Final

import httpx
from pydantic import BaseModel, ValidationError

from pbserv.imaging.faults import ImagingFault

ANSWER_S: Final = 10.0
"""For the whole answer of another server."""
_CONNECT_S: Final = 5.0
_MOST_BYTES: Final = 4 * 1024 * 1024
_MOST_SAID: Final = 300
_TROUBLE: Final = (
    HTTPStatus.INTERNAL_SERVER_ERROR, HTTPStatus.BAD_GATEWAY, HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.GATEWAY_TIMEOUT
)  # fmt: skip
"""What passes by itself, most of the time."""


class NotReferred(ImagingFault):
    """An image of another server that a device of this one cannot be referred to."""

    status = HTTPStatus.CONFLICT


class NoAnswer(ImagingFault):
    """The server that an image belongs to does not answer now."""

    status = HTTPStatus.SERVICE_UNAVAILABLE


class Refused(ImagingFault):
    """The other server says no; its own words and status."""

    def __init__(self, message: str, status: HTTPStatus) -> None:
        super().__init__(message)
        self.status = status


class _Said(BaseModel):
    """How every refusal of a server looks."""

    error: str = ""


async def ask(
    method: str, location: str, *, json: object = None, text: str | None = None, answer_s: float = ANSWER_S
) -> tuple[int, bytes]:
    """Status and body. Raises httpx.HTTPError, httpx.InvalidURL, ssl.SSLError or TimeoutError where none comes within
    ``answer_s``."""
    trust = await asyncio.to_thread(_trust) if location.startswith("https:") else False
    content = None if text is None else text.encode()
    timeout = httpx.Timeout(answer_s, connect=_CONNECT_S)
    async with (
        asyncio.timeout(answer_s),
        httpx.AsyncClient(verify=trust, trust_env=False, timeout=timeout) as client,
        client.stream(
            method, location, json=json, content=content, headers={"Accept-Encoding": "identity"}
        ) as answer,
    ):  # fmt: skip
        body = bytearray()
        async for chunk in answer.aiter_raw():
            body += chunk
            if len(body) > _MOST_BYTES:
                raise httpx.DecodingError(f"more than {_MOST_BYTES} bytes")
        return answer.status_code, bytes(body)


async def asked(
    method: str, location: str, what: str, url: str, *, json: object = None, text: str | None = None,
    answer_s: float = ANSWER_S,
) -> bytes:  # fmt: skip
    """The body of a good answer. ``what`` and ``url`` are for the fault: NoAnswer, NotReferred or Refused."""
    try:
        status, body = await ask(method, location, json=json, text=text, answer_s=answer_s)
    except (httpx.HTTPError, httpx.InvalidURL, ssl.SSLError, TimeoutError) as fault:
        raise NoAnswer(f"{what}: {url} does not answer: {str(fault) or type(fault).__name__}") from None
    if status // 100 == HTTPStatus.OK // 100:
        return body
    said = _said(body)
    if status in _TROUBLE:
        raise NoAnswer(f"{what}: {url} answers {status}{said}")
    if status == HTTPStatus.UNAUTHORIZED:
        raise NotReferred(
            f"{what}: {url} answers {status}; RemoteStoreToken must hold a token of role images of that server, and "
            "the clocks of both must be right"
        )
    known = status in {each.value for each in HTTPStatus} and status >= HTTPStatus.BAD_REQUEST
    raise Refused(f"{what}: {url} answers {status}{said}", HTTPStatus(status) if known else HTTPStatus.CONFLICT)


def _said(body: bytes) -> str:
    try:
        text = _Said.model_validate_json(body).error
    except ValidationError:
        return ""
    return f": {text[:_MOST_SAID]}" if text else ""


@cache
def _trust() -> ssl.SSLContext:
    """The certificates of this host, so that those of a site can be added to them."""
    return ssl.create_default_context()
