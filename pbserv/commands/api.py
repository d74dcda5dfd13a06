"""The command line's way to the HTTP API: address and token of the server on this host, or of PBSERV_URL."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import httpx

from pbserv.errors import PbservError
from pbserv.settings import Settings, load_settings

TIMEOUT_S = 30.0


class Api:
    """JSON calls; raises PbservError with the server's own sentence."""

    def __init__(self, conf: Path) -> None:
        settings = load_settings(conf)
        self._url = os.environ.get("PBSERV_URL") or _local_url(settings)
        token = os.environ.get("PBSERV_TOKEN") or _local_token(settings)
        self._client = httpx.Client(
            base_url=self._url.rstrip("/") + "/api/v1",
            headers={"Authorization": f"Bearer {token}"},
            timeout=TIMEOUT_S,
            trust_env=False,  # a proxy of the environment has no business between this command and its own server
        )

    def get(self, path: str, **query: str | int | bool | None) -> Any:
        return self._call("GET", path, params={key: value for key, value in query.items() if value is not None})

    def post(self, path: str, body: dict[str, Any] | None = None) -> Any:
        return self._call("POST", path, json=body)

    def delete(self, path: str) -> Any:
        return self._call("DELETE", path)

    def _call(self, method: str, path: str, **arguments: Any) -> Any:
        try:
            answer = self._client.request(method, path, **arguments)
        except httpx.ConnectError:
            raise PbservError(f"nobody answers at {self._url}; is the server running? See: pbserv status") from None
        except httpx.HTTPError as fault:
            raise PbservError(f"{self._url}: {fault}") from None
        try:
            body = answer.json() if answer.content else None
        except ValueError:
            raise PbservError(f"{self._url}: the answer is not JSON; is this a pbserv server?") from None
        if answer.is_error:
            reason = body.get("error") if isinstance(body, dict) else None
            raise PbservError(str(reason or f"{method} {path}: HTTP {answer.status_code}"))
        return body


def _local_url(settings: Settings) -> str:
    conf = settings.pbserv
    address = conf.http_address or conf.ip_address or "127.0.0.1"
    return f"http://{'127.0.0.1' if address == '0.0.0.0' else address}:{conf.http_port}"


def _local_token(settings: Settings) -> str:
    path = settings.pbserv.state_directory / "admin.token"
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
