"""RequireTLS, and whose address it is: what a header says of the client counts for nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest
from fastapi import APIRouter, Request

from pbserv.log import ServiceLog
from pbserv.supervisor import Supervisor
from pbserv.web.app import create_app
from pbserv.web.server import WebServer, WebSettings
from tests.support.process import free_port


def routes() -> APIRouter:
    made = APIRouter()

    @made.get("/v1/boot/{mac}")
    @made.get("/api/v1/who")
    async def who(request: Request) -> dict[str, str]:
        return {"who": request.client.host if request.client else "", "scheme": request.url.scheme}

    return made


@pytest.mark.parametrize(
    ("client", "token", "status"),
    [("192.0.2.9", "", 200), ("192.0.2.9", "Bearer x", 403), ("192.0.2.9", "Basic eDp5", 403),
     ("127.0.0.1", "Bearer x", 200)],
)  # fmt: skip
async def test_pixiecore_needs_tls_for_its_token(client: str, token: str, status: int) -> None:
    app = create_app(
        [("", routes())], running=lambda _: True, log=ServiceLog("pbserv"), tls_required=lambda: 8443
    )  # fmt: skip
    transport = httpx.ASGITransport(app, client=(client, 1))
    headers = {"Authorization": token} if token else {}
    async with httpx.AsyncClient(timeout=60, transport=transport, base_url="http://192.0.2.1") as http:
        answer = await http.get("/v1/boot/52:54:00:00:00:01", headers=headers)
    assert answer.status_code == status
    assert ("https://192.0.2.1:8443/v1/boot/" in answer.text) is (status == 403)


@pytest.fixture
async def url() -> AsyncIterator[str]:
    supervisor = Supervisor((), ServiceLog("pbserv"))
    app = create_app([("", routes())], running=lambda _: True, log=ServiceLog("pbserv"))
    web, port = WebServer(app, supervisor.spawn, lambda: False), free_port()
    await web.start(WebSettings("127.0.0.1", port))
    yield f"http://127.0.0.1:{port}"
    await web.stop()
    await supervisor.close()


async def test_nobody_says_another_address_than_his_own(url: str) -> None:
    headers = {"X-Forwarded-For": "10.0.0.7", "X-Forwarded-Proto": "https", "Forwarded": "for=10.0.0.7"}
    async with httpx.AsyncClient(timeout=60, base_url=url, trust_env=False) as http:
        answer = await http.get("/api/v1/who", headers=headers)
    assert answer.json() == {"who": "127.0.0.1", "scheme": "http"}
