"""Who is believed over TLS, by asyncio, uvloop and plain sockets: a real server with a certificate of its own."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import uvloop

from pbserv.net.trust import fingerprint_of, pinning, trusting
from pbserv.web.tls import Pair, TlsSettings, new_context, pair_of


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    return pair_of(TlsSettings(0, None, None, tmp_path))


@contextlib.asynccontextmanager
async def serving(pair: Pair) -> AsyncIterator[int]:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            writer.write(await reader.read(100))
            writer.close()
            await writer.wait_closed()

    server = await asyncio.start_server(echo, "127.0.0.1", 0, ssl=new_context(pair))
    async with server:
        yield server.sockets[0].getsockname()[1]


async def over_the_loop(port: int, context: ssl.SSLContext) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    writer.write(b"secret")
    said = await reader.read(100)
    writer.close()
    with contextlib.suppress(ConnectionError, ssl.SSLError):
        await writer.wait_closed()
    return said


def over_a_socket(port: int, context: ssl.SSLContext) -> bytes:
    with (
        socket.create_connection(("127.0.0.1", port), 5) as raw,
        context.wrap_socket(raw, server_hostname="127.0.0.1") as connection,
    ):
        connection.sendall(b"secret")
        return connection.recv(100)


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_the_one_that_was_meant(pair: Pair, new_loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    async def ask() -> None:
        wrong = "00" * 32
        good = [pinning(fingerprint_of(pair.fingerprint)), trusting(pair.certificate.read_text())]
        async with serving(pair) as port:
            for context in good:
                assert await over_the_loop(port, context) == b"secret"
                assert await asyncio.to_thread(over_a_socket, port, context) == b"secret"
            for context in (pinning(wrong), trusting()):
                with pytest.raises(ssl.SSLCertVerificationError):
                    await over_the_loop(port, context)
                with pytest.raises(ssl.SSLCertVerificationError):
                    await asyncio.to_thread(over_a_socket, port, context)

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(ask())


def test_fingerprints_as_people_write_them(pair: Pair) -> None:
    digits = pair.fingerprint.replace(":", "").lower()
    for text in (pair.fingerprint, digits, f"sha256:{digits}", f" SHA256:{pair.fingerprint} "):
        assert fingerprint_of(text) == digits
    for text in ("", digits[:-2], f"{digits}00", "/etc/ssl/certificate.pem", "sha1:" + digits[:40]):
        assert fingerprint_of(text) == ""
