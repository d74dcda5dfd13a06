"""One bounded exchange over HTTP with the one server that was configured.

One rule: no byte goes to, and none comes from, another host than the one in the settings; proxies of the environment
are not asked.
"""

from __future__ import annotations

import json
import ssl
from dataclasses import dataclass
from typing import Final

import httpx
from pydantic import JsonValue

from pbserv.policy.oracles.questions import AT_A_TIME, NoAnswer

MOST_REDIRECTS: Final = 3
MOST_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class Reply:
    """``url`` is where it came from, after redirects: relative URLs in it mean that place."""

    status: int
    body: bytes
    url: str


class Unreachable(NoAnswer):
    """Nobody could be asked: what holds for one device holds for all, for the moment."""


def new_client(connect_s: float, trust: ssl.SSLContext | None = None) -> httpx.AsyncClient:
    """``connect_s``: for a connection; the caller has a limit of its own for the time of the whole exchange.

    ``trust``: whom to believe over https; None: the certificates that httpx comes with.
    """
    limits = httpx.Limits(max_connections=AT_A_TIME, max_keepalive_connections=4, keepalive_expiry=30.0)
    return httpx.AsyncClient(
        verify=True if trust is None else trust, trust_env=False, follow_redirects=False,
        timeout=httpx.Timeout(MOST_S, connect=connect_s), limits=limits,
        headers={"Accept": "application/json", "Accept-Encoding": "identity", "User-Agent": "pbserv"},
    )  # fmt: skip


async def exchange(client: httpx.AsyncClient, request: httpx.Request, most_bytes: int) -> Reply:
    """Raises NoAnswer for what is no answer: connections that fail, redirects elsewhere, bodies that are too long."""
    origin = _origin(request.url)
    for _hop in range(MOST_REDIRECTS + 1):
        try:
            response = await client.send(request, stream=True)
        except (httpx.ConnectError, httpx.ConnectTimeout) as fault:
            raise Unreachable(f"cannot be reached: {_said(fault)}") from None
        except httpx.TransportError as fault:
            raise NoAnswer(f"does not answer as HTTP has it: {_said(fault)}") from None
        try:
            if response.next_request is None:
                return Reply(response.status_code, await _body(response, most_bytes), str(request.url))
            request = response.next_request
        except httpx.TransportError as fault:
            raise NoAnswer(f"broke off its answer: {_said(fault)}") from None
        finally:
            await response.aclose()
        if _origin(request.url) != origin:
            raise NoAnswer(f"redirects to another server ({request.url.host}), which is not asked")
    raise NoAnswer(f"redirects more than {MOST_REDIRECTS} times")


async def _body(response: httpx.Response, most_bytes: int) -> bytes:
    if response.headers.get("content-encoding", "identity") != "identity":
        raise NoAnswer("answers with a compressed body, which was not asked for")
    parts, size = [], 0
    async for part in response.aiter_raw():
        size += len(part)
        if size > most_bytes:
            raise NoAnswer(f"answers with more than {most_bytes // 1024} KiB")
        parts.append(part)
    return b"".join(parts)


def json_of(reply: Reply) -> dict[str, JsonValue]:
    """The JSON object in the body; raises NoAnswer."""
    try:
        values = json.loads(reply.body)
    except (ValueError, RecursionError):
        raise NoAnswer("answers with what is no JSON") from None
    if not isinstance(values, dict):
        raise NoAnswer("answers with JSON that is no object")
    return values


def _origin(url: httpx.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port


def _said(fault: Exception) -> str:
    """One line; httpx leaves some of its faults without a word."""
    return " ".join(str(fault).split())[:200] or type(fault).__name__
