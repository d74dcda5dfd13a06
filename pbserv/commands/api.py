"""The command line's way to the HTTP API: address and token of the server on this host, or of PBSERV_URL."""

from __future__ import annotations

import contextlib
import os
import ssl
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx

from pbserv.commands.locate import run_directory
from pbserv.commands.trust import trusting
from pbserv.conf.load import ConfigError
from pbserv.daemon.control import CONTROL_SOCKET_NAME, Request, ask
from pbserv.errors import PbservError, UsageError
from pbserv.settings import load_settings

TIMEOUT_S = 30.0
PAGE = 1000
_NO_URL = "PBSERV_URL or the token cannot be used: {!r}; write http://HOST:PORT or https://HOST:PORT"
Query = str | int | bool | Sequence[str] | None
"""A value of a query; None: it is left out, a sequence: the key stands once for each."""


class RefusedError(PbservError):
    """The server's own sentence, with the HTTP status it came with and, of a list, what is wrong in each row.

    ``elsewhere``: the address of the server that said it, where it is the one that ours referred to.
    """

    def __init__(self, message: str, status: int, errors: Sequence[Any] = ()) -> None:
        super().__init__(message)
        self.status = status
        self.errors = errors
        self.elsewhere = ""


class NoAnswerError(PbservError):
    """Nobody answered, or the connection ended in the middle: the same may be asked again."""


class Api:
    """JSON calls; raises PbservError with the server's own sentence."""

    def __init__(self, conf: Path) -> None:
        url, token = os.environ.get("PBSERV_URL"), os.environ.get("PBSERV_TOKEN")
        self._url = url or _local_url(conf)
        if not self._url.lower().startswith(("http://", "https://")):
            raise PbservError(_NO_URL.format(self._url))
        token = token or _local_token(run_directory(conf).parent)
        try:
            self._client = httpx.Client(
                base_url=self._url.rstrip("/") + "/api/v1",
                headers={"Authorization": f"Bearer {token}"},
                timeout=TIMEOUT_S,
                verify=_trust(self._url),
                trust_env=False,  # a proxy of the environment has no business between this command and its own server
            )
        except (httpx.InvalidURL, UnicodeError):
            raise PbservError(_NO_URL.format(self._url)) from None

    def get(self, path: str, **query: Query) -> Any:
        return self._call("GET", path, params=_given(query))

    def find(self, path: str) -> tuple[Any, str | None]:
        """The thing and its ETag; (None, None) where there is none."""
        with self._asking():
            answer = self._client.get(path)
        return (None, None) if answer.status_code == 404 else (self._body(answer), answer.headers.get("ETag"))

    def referred(self, method: str, path: str, body: dict[str, Any] | None = None) -> tuple[Api, Any]:
        """The answer, and who gave it: this server, or the one that it referred to, which knows us by a ticket."""
        with self._asking():
            answer = self._client.request(method, path, json=body)
        if answer.status_code != 307:
            return self, self._body(answer)
        there = Api._at(httpx.URL(self._url).join(answer.headers.get("Location", "")))
        try:
            return there, there._call(method, path, json=body)
        except RefusedError as fault:
            fault.elsewhere = there._url
            raise

    @classmethod
    def _at(cls, location: httpx.URL) -> Api:
        """Another server, with the ticket alone: our token is not shown to it."""
        made = cls.__new__(cls)
        made._url = str(location.copy_with(path="/", query=None)).rstrip("/")
        made._client = httpx.Client(
            base_url=f"{made._url}/api/v1", params={"ticket": location.params.get("ticket", "")}, timeout=TIMEOUT_S,
            verify=_trust(made._url), trust_env=False,
        )  # fmt: skip
        return made

    def pages(self, path: str, within: str = "", **query: Query) -> Iterator[Any]:
        """The elements of a list, however many pages it has; ``within``: the field of the answer that is the list."""
        after: str | None = None
        while True:
            with self._asking():
                answer = self._client.get(path, params=_given({**query, "limit": PAGE, "after": after}))
            body = self._body(answer)
            yield from body[within] if within else body
            after = answer.headers.get("X-Next-Cursor")
            if not after:
                return

    def post(self, path: str, body: dict[str, Any] | None = None, **query: Query) -> Any:
        return self._call("POST", path, json=body, params=_given(query))

    def put(self, path: str, body: dict[str, Any], etag: str | None) -> Any:
        """``etag``: of the state that the change was made for; None: there must be nothing yet."""
        return self._call("PUT", path, json=body, headers={"If-Match": etag} if etag else {"If-None-Match": "*"})

    def patch(self, path: str, body: dict[str, Any], etag: str | None = None) -> Any:
        return self._call("PATCH", path, json=body, headers={"If-Match": etag} if etag else {})

    def part(self, path: str, content: bytes, headers: Mapping[str, str], timeout_s: float, **query: Query) -> Any:
        """PUT of bytes; raises NoAnswerError where sending them again may help."""
        return self._call(
            "PUT", path, content=content, headers=dict(headers), params=_given(query), timeout=timeout_s
        )  # fmt: skip

    @contextlib.contextmanager
    def stream(self, path: str, headers: Mapping[str, str], **query: Query) -> Iterator[httpx.Response]:
        """An answer whose bytes are read within the block; a connection that breaks there is NoAnswerError."""
        with (
            self._asking(),
            self._client.stream(
                "GET", path, headers=dict(headers), params=_given(query), follow_redirects=True
            ) as answer,
        ):
            if not answer.is_success:
                answer.read()
                self._body(answer)
            yield answer

    def upload(self, path: str, content: bytes, media_type: str, **query: Query) -> Any:
        return self._call("POST", path, content=content, headers={"Content-Type": media_type}, params=_given(query))

    def delete(self, path: str, **query: Query) -> Any:
        return self._call("DELETE", path, params=_given(query))

    def download(self, path: str, **query: Query) -> bytes:
        """An answer that is no JSON."""
        with self._asking():
            answer = self._client.get(path, params=_given(query))
        if not answer.is_success:
            self._body(answer)
        return answer.content

    def lines(self, path: str, **query: Query) -> Iterator[str]:
        """The lines of an answer that goes on until the server ends it."""
        with self._asking(), self._client.stream("GET", path, params=_given(query), timeout=TIMEOUT_S) as answer:
            if not answer.is_success:
                answer.read()
                self._body(answer)
            yield from answer.iter_lines()

    def _call(self, method: str, path: str, **arguments: Any) -> Any:
        with self._asking():
            answer = self._client.request(method, path, **arguments)
        return self._body(answer)

    @contextlib.contextmanager
    def _asking(self) -> Iterator[None]:
        try:
            yield
        except httpx.ConnectError as fault:
            if "CERTIFICATE_VERIFY_FAILED" in str(fault):
                raise PbservError(
                    f"{self._url}: its certificate is not trusted here ({fault}); set PBSERV_CA to the file of the"
                    " certificate, or to the SHA-256 fingerprint that pbserv status shows on the server"
                ) from None
            if "[SSL" in str(fault):
                raise PbservError(f"{self._url}: {fault}; is this the port of HTTPS (HTTPSPort)?") from None
            raise NoAnswerError(f"nobody answers at {self._url}; is the server running? See: pbserv status") from None
        except httpx.HTTPError as fault:
            raise NoAnswerError(f"{self._url}: {str(fault) or type(fault).__name__}") from None

    def _body(self, answer: httpx.Response) -> Any:
        try:
            body = answer.json() if answer.content else None
        except ValueError:
            raise PbservError(f"{self._url}: the answer is not JSON; is this a pbserv server?") from None
        if not answer.is_success:
            reason = body.get("error") if isinstance(body, dict) else None
            request = answer.request
            message = str(reason or f"{request.method} {request.url.path}: HTTP {answer.status_code}")
            raise RefusedError(message, answer.status_code, body.get("errors", ()) if isinstance(body, dict) else ())
        return body


def _given(query: Mapping[str, Query]) -> dict[str, str | int | bool | Sequence[str]]:
    return {key: value for key, value in query.items() if value is not None}


def named(*parts: str) -> str:
    """A path below /api/v1 in which names are names, whatever characters they have."""
    if not all(parts):
        raise UsageError("an empty name or address is none")
    return "/" + "/".join(quote(part, safe="") for part in parts)


def _trust(url: str) -> ssl.SSLContext | bool:
    """Whom to believe at ``url``; plain HTTP has nobody to believe."""
    return trusting(url, os.environ.get("PBSERV_CA", ""), TIMEOUT_S) if url.lower().startswith("https:") else True


def _local_url(conf: Path) -> str:
    """From the files; when they are broken now, from the server itself."""
    try:
        settings = load_settings(conf)
    except ConfigError:
        answer = ask(run_directory(conf) / CONTROL_SOCKET_NAME, Request("status"))
        return str(answer.data.get("url", ""))
    address = settings.pbserv.http_address or settings.pbserv.ip_address or "127.0.0.1"
    return f"http://{'127.0.0.1' if address == '0.0.0.0' else address}:{settings.pbserv.http_port}"


def _local_token(state: Path) -> str:
    path = state / "admin.token"
    try:
        return path.read_text(encoding="ascii").strip()
    except FileNotFoundError:
        raise PbservError(
            f"{path} does not exist; the server makes it: pbserv restart (or start). Or set PBSERV_TOKEN"
        ) from None
    except PermissionError:
        raise PbservError(
            f"{path}: permission denied; run this as root or as the service user, or set PBSERV_TOKEN"
        ) from None
