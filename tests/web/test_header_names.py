"""The spelling of a header's name on the wire, as GRUB wants it."""

from __future__ import annotations

import asyncio

import pytest
import uvicorn
from fastapi import FastAPI
from fastapi.responses import PlainTextResponse
from uvicorn.protocols.http.h11_impl import H11Protocol

from pbserv.web.header_names import HeaderNames


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_content_length_has_its_capitals(method: str) -> None:
    app = FastAPI()
    app.add_middleware(HeaderNames)
    app.add_api_route("/file", lambda: PlainTextResponse("five5"), methods=["GET", "HEAD"])
    server = uvicorn.Server(uvicorn.Config(app, port=0, lifespan="off", log_config=None, http=H11Protocol, ws="none"))
    async with asyncio.TaskGroup() as tasks:
        serving = tasks.create_task(server.serve())
        while not server.started:
            await asyncio.sleep(0)
        port = server.servers[0].sockets[0].getsockname()[1]
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(f"{method} /file HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        answer = await reader.read()
        writer.close()
        server.should_exit = True
        await serving
    assert b"\r\nContent-Length: 5\r\n" in answer
    assert answer.endswith(b"five5") == (method == "GET")
