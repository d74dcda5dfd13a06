"""PrebootServer over TLS: who is believed, and that nobody else sees the token."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from pbserv.log import ServiceLog
from pbserv.policy.oracles.preboot_server import PrebootServer, ServerSettings
from pbserv.web.tls import Pair, TlsSettings, new_context, pair_of
from tests.policy.oracles.host import Host, answer, owned
from tests.policy.oracles.test_preboot_server import SIGHTING, STANDING, says


def made(place: Path) -> Pair:
    """A certificate as a server makes it for itself; it names 127.0.0.1."""
    place.mkdir()
    return pair_of(TlsSettings(0, None, None, place))


@contextlib.asynccontextmanager
async def asking(server: str, trust: str) -> AsyncIterator[PrebootServer]:
    async with owned() as supervisor:
        oracle = PrebootServer(ServerSettings(server, "the token", None, trust), supervisor.spawn, ServiceLog("policy"))
        yield oracle
        await oracle.close()


@pytest.mark.parametrize("by", ["file", "fingerprint", "digits"])
async def test_a_server_that_is_believed(tmp_path: Path, by: str) -> None:
    pair = made(tmp_path / "tls")
    digits = pair.fingerprint.replace(":", "").lower()
    trust = {"file": pair.certificate.read_text(), "fingerprint": pair.fingerprint, "digits": f"sha256:{digits}"}[by]
    async with Host(says(STANDING), tls=new_context(pair)).serving() as host:
        async with asking(f"https://127.0.0.1:{host.port}", trust) as server:
            found = await server.wait(SIGHTING, 5.0)
        assert (found.failed, found.ruling and found.ruling.decision.reason) == (False, STANDING.decision.reason)
        (question,) = host.asked
        assert question.headers["authorization"] == "Bearer the token"


@pytest.mark.parametrize("by", ["file", "fingerprint", "system"])
async def test_one_that_is_not_sees_no_token(tmp_path: Path, by: str) -> None:
    pair, other = made(tmp_path / "tls"), made(tmp_path / "other")
    trust = {"file": other.certificate.read_text(), "fingerprint": other.fingerprint, "system": ""}[by]
    async with Host(says(STANDING), tls=new_context(pair)).serving() as host:
        async with asking(f"https://127.0.0.1:{host.port}", trust) as server:
            found = await server.wait(SIGHTING, 5.0)
        assert found.failed
        assert "cannot be reached" in found.why
        assert "certificate" in found.why
        if by == "fingerprint":
            assert pair.fingerprint in found.why, "what it shows can be compared"
        assert host.asked == []


async def test_a_port_without_tls(tmp_path: Path) -> None:
    async with Host(says(STANDING)).serving() as host:
        async with asking(f"https://127.0.0.1:{host.port}", made(tmp_path / "tls").fingerprint) as server:
            assert (await server.wait(SIGHTING, 5.0)).failed
        assert host.asked == []


async def test_the_reason_of_a_refusal_is_told(tmp_path: Path) -> None:
    why = "this server takes no tokens over plain HTTP (RequireTLS = YES in pbserv.conf)"
    async with Host(answer(403, {"error": why})).serving() as host, asking(f"127.0.0.1:{host.port}", "") as server:
        assert why in (await server.wait(SIGHTING, 5.0)).why
