"""HTTPS with real TLS on 127.0.0.1: certificates given and self-made, changed under way, refused with the reason."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
import subprocess
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from fastapi import APIRouter

from pbserv.commands.api import Api
from pbserv.errors import PbservError, StartError
from pbserv.log import ServiceLog
from pbserv.supervisor import Supervisor
from pbserv.web.app import create_app
from pbserv.web.server import WebServer, WebSettings
from pbserv.web.tls import LIFETIME, TlsSettings, _self_signed, fingerprint_of, pair_of
from tests.support.process import free_port


def make_pair(directory: Path, name: str, *, now: datetime | None = None) -> tuple[Path, Path]:
    key = ec.generate_private_key(ec.SECP256R1())
    made = _self_signed(key, "boot.example", ["127.0.0.1"], now or datetime.now(UTC))
    certificate, secret = directory / f"{name}.pem", directory / f"{name}.key"
    certificate.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    secret.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return certificate, secret


def fingerprint(path: Path) -> str:
    return fingerprint_of(x509.load_pem_x509_certificate(path.read_bytes()))


class Site:
    """A web server with one route, and its settings."""

    def __init__(self, place: Path) -> None:
        self.log = ServiceLog("pbserv")
        self.supervisor = Supervisor((), self.log)
        routes = APIRouter()

        @routes.get("/api/v1/hello")
        @routes.get("/boot.ipxe")
        async def hello() -> dict[str, str]:
            return {"hello": "you"}

        app = create_app(
            [("", routes)], running=lambda name: True, log=self.log, tls_required=lambda: self.web.tls_required
        )
        self.web = WebServer(app, self.supervisor.spawn, lambda: False)
        self.tls = TlsSettings(free_port(), None, None, place / "tls")
        self.settings = WebSettings("127.0.0.1", free_port(), self.tls)

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.settings.tls.port if self.settings.tls else 0}"

    @property
    def own(self) -> Path:
        return self.tls.directory / "certificate.pem"

    async def reload(self, settings: WebSettings) -> None:
        (await self.web.prepare(settings)).commit()
        self.settings = settings

    async def get(self, path: str = "/api/v1/hello", ca: Path | None = None, url: str = "") -> httpx.Response:
        context = ssl.create_default_context(cafile=ca or self.own)
        async with httpx.AsyncClient(timeout=60, verify=context, trust_env=False) as client:
            return await client.get((url or self.url) + path)


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    made = Site(tmp_path)
    yield made
    await made.web.stop()
    await made.supervisor.close()


async def curl(*arguments: str) -> tuple[int, str]:
    done = await asyncio.to_thread(
        subprocess.run, ["curl", "-sS", *arguments], capture_output=True, text=True, check=False
    )
    return done.returncode, done.stdout + done.stderr


async def test_a_certificate_of_its_own(site: Site) -> None:
    await site.web.start(site.settings)
    assert not site.web.tls_fault
    answer = await site.get()
    assert (answer.status_code, answer.json()) == (200, {"hello": "you"})
    assert (await site.get("/boot.ipxe", url=f"http://127.0.0.1:{site.settings.port}")).status_code == 200
    assert await curl("--cacert", str(site.own), f"{site.url}/api/v1/hello") == (0, '{"hello":"you"}')
    assert (await curl(f"{site.url}/api/v1/hello"))[0] == 60, "nobody believes it without being told to"
    made = x509.load_pem_x509_certificate(site.own.read_bytes())
    key = site.tls.directory / "key.pem"
    assert key.stat().st_mode & 0o777 == 0o600
    assert isinstance(made.public_key(), ec.EllipticCurvePublicKey)
    assert isinstance(made.public_key().curve, ec.SECP256R1)
    names = made.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert socket.gethostname() in names.get_values_for_type(x509.DNSName)
    assert {"127.0.0.1", "::1"} <= {str(each) for each in names.get_values_for_type(x509.IPAddress)}
    assert timedelta(days=824) < made.not_valid_after_utc - datetime.now(UTC) <= timedelta(days=825)
    assert site.web.fingerprint == fingerprint_of(made)
    assert site.web.listeners == (f"tcp 127.0.0.1:{site.settings.port}", f"tcp 127.0.0.1:{site.tls.port}")


async def test_only_tls_1_2_and_newer(site: Site) -> None:
    await site.web.start(site.settings)
    for version, good in (("TLSv1_1", False), ("TLSv1_2", True), ("TLSv1_3", True)):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(site.own)
        with contextlib.nullcontext() if good else pytest.warns(DeprecationWarning, match="TLSv1_1"):
            context.minimum_version = context.maximum_version = ssl.TLSVersion[version]
        context.set_ciphers("ALL:@SECLEVEL=0")
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", site.tls.port, ssl=context)
        except (ssl.SSLError, ConnectionError):
            assert not good, version
        else:
            writer.close()
            with contextlib.suppress(ssl.SSLError, ConnectionError):
                await writer.wait_closed()
            assert good, version


def test_our_own_is_kept_and_renewed_in_time(tmp_path: Path) -> None:
    settings, now = TlsSettings(443, None, None, tmp_path / "tls"), datetime.now(UTC)
    first = pair_of(settings, now)
    assert pair_of(settings, now + timedelta(days=700)) == first
    over = now + LIFETIME
    assert pair_of(settings, over - timedelta(days=31)) == first
    renewed = pair_of(settings, over - timedelta(days=29))
    assert renewed.fingerprint != first.fingerprint
    assert pair_of(settings, over + timedelta(days=1)) == renewed
    (tmp_path / "tls" / "key.pem").write_text("damaged")
    assert pair_of(settings, over).fingerprint != renewed.fingerprint
    assert sorted(path.name for path in (tmp_path / "tls").iterdir()) == ["certificate.pem", "key.pem"]


async def test_a_reload_changes_the_certificate_and_keeps_connections(site: Site, tmp_path: Path) -> None:
    first, second = make_pair(tmp_path, "first"), make_pair(tmp_path, "second")
    site.settings = replace(site.settings, tls=replace(site.tls, certificate=first[0], key=first[1]))
    await site.web.start(site.settings)
    assert site.web.fingerprint == fingerprint(first[0])
    context = ssl.create_default_context(cafile=first[0])
    async with httpx.AsyncClient(timeout=60, verify=context, trust_env=False) as client:
        assert (await client.get(f"{site.url}/api/v1/hello")).status_code == 200
        for old, new in zip(first, second, strict=True):
            old.write_bytes(new.read_bytes())  # the same names, as tools that renew certificates do it
        await site.reload(site.settings)
        assert (await client.get(f"{site.url}/api/v1/hello")).status_code == 200, "the connection is still there"
    assert (await site.get(ca=second[0])).status_code == 200
    with pytest.raises(httpx.ConnectError):
        async with httpx.AsyncClient(timeout=60, verify=context, trust_env=False) as client:
            await client.get(f"{site.url}/api/v1/hello")
    assert site.web.fingerprint == fingerprint(second[0])


async def test_a_reload_brings_moves_and_ends_https(site: Site) -> None:
    await site.web.start(replace(site.settings, tls=None))
    assert len(site.web.listeners) == 1
    await site.reload(site.settings)
    assert (await site.get()).status_code == 200
    old = site.url
    await site.reload(replace(site.settings, tls=replace(site.tls, port=free_port())))
    assert (await site.get()).status_code == 200
    assert (await site.get("/boot.ipxe", url=f"http://127.0.0.1:{site.settings.port}")).status_code == 200
    await site.reload(replace(site.settings, tls=None))
    assert (len(site.web.listeners), site.web.fingerprint) == (1, "")
    async with asyncio.timeout(10):
        while True:
            try:
                await site.get(url=old)
            except httpx.ConnectError:
                break
            await asyncio.sleep(0.05)


async def test_https_that_cannot_be_leaves_http_alone(site: Site, tmp_path: Path) -> None:
    site.settings = replace(site.settings, tls=replace(site.tls, certificate=tmp_path / "none.pem"))
    await site.web.start(site.settings)
    assert "TLSCertificate" in site.web.tls_fault
    assert "none.pem" in site.web.tls_fault
    plain = f"http://127.0.0.1:{site.settings.port}"
    assert (await site.get("/boot.ipxe", make_pair(tmp_path, "x")[0], plain)).is_success
    with pytest.raises(StartError, match=r"none\.pem"):
        await site.web.prepare(site.settings)


def test_what_is_wrong_is_named(tmp_path: Path) -> None:
    certificate, key = make_pair(tmp_path, "good")
    other = make_pair(tmp_path, "other")[1]
    now = datetime.now(UTC)
    old, old_key = make_pair(tmp_path, "old", now=now - LIFETIME - timedelta(days=1))
    young, young_key = make_pair(tmp_path, "young", now=now + timedelta(days=1))
    locked = tmp_path / "locked.key"
    loaded = serialization.load_pem_private_key(key.read_bytes(), None)
    locked.write_bytes(
        loaded.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"x")
        )
    )
    both = tmp_path / "both.pem"
    both.write_bytes(certificate.read_bytes() + key.read_bytes())
    for files, words in (
        ((certificate, other), ("TLSKey", "other.key", "good.pem", "not the key")),
        ((old, old_key), ("TLSCertificate", "old.pem", "expired on")),
        ((young, young_key), ("TLSCertificate", "young.pem", "not valid before")),
        ((key, key), ("TLSCertificate", "good.key", "no certificate")),
        ((certificate, certificate), ("TLSKey", "good.pem", "no private key")),
        ((certificate, None), ("TLSKey", "good.pem", "no private key")),
        ((certificate, locked), ("TLSKey", "locked.key", "encrypted")),
        ((certificate, tmp_path / "gone.key"), ("TLSKey", "gone.key", "No such file")),
        ((None, key), ("TLSKey", "good.key", "TLSCertificate")),
    ):
        with pytest.raises(StartError) as caught:
            pair_of(TlsSettings(443, *files, tmp_path / "tls"))
        assert all(word in str(caught.value) for word in words), str(caught.value)
    assert pair_of(TlsSettings(443, both, None, tmp_path / "tls")).fingerprint == fingerprint(certificate)


@pytest.mark.root
def test_a_key_that_the_service_user_may_not_read(tmp_path: Path) -> None:
    certificate, key = make_pair(tmp_path, "good")
    for path in (tmp_path, *tmp_path.parents):
        if path.stat().st_uid == os.geteuid() and str(path).startswith("/tmp/pytest"):
            path.chmod(0o755)
    key.chmod(0o600)
    os.seteuid(65534)
    try:
        with pytest.raises(StartError, match=r"TLSKey: .*good\.key: permission denied; .* user nobody"):
            pair_of(TlsSettings(443, certificate, key, tmp_path / "tls"))
    finally:
        os.seteuid(0)


@pytest.mark.parametrize(
    ("client", "path", "status"),
    [
        ("192.0.2.9", "/api/v1/hello", 403),
        ("192.0.2.9", "/api/v1/nothing", 403),
        ("192.0.2.9", "/api/docs", 403),
        ("192.0.2.9", "/", 403),
        ("192.0.2.9", "/boot.ipxe", 200),
        ("192.0.2.9", "/healthz", 200),
        ("127.0.0.1", "/api/v1/hello", 200),
        ("127.0.0.8", "/", 200),
        ("192.0.2.1", "/api/v1/hello", 200),
    ],
)
async def test_tokens_go_over_tls_alone_where_that_is_said(site: Site, client: str, path: str, status: int) -> None:
    """``192.0.2.1`` is the server: who asks it from its own address is on the host itself."""
    await site.web.start(replace(site.settings, require_tls=True))
    answer: dict[str, object] = {}

    async def receive() -> dict[str, object]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: dict[str, object]) -> None:
        if message["type"] == "http.response.start":
            answer["status"] = message["status"]
        else:
            answer["body"] = bytes(answer.get("body", b"")) + bytes(message.get("body", b""))

    scope = {
        "type": "http", "http_version": "1.1", "method": "GET", "scheme": "http", "path": path, "query_string": b"",
        "raw_path": path.encode(), "root_path": "", "headers": [], "client": (client, 5), "server": ("192.0.2.1", 80),
    }  # fmt: skip
    await site.web._app(scope, receive, send)
    assert answer["status"] == status
    if status == 403:
        assert f"https://192.0.2.1:{site.tls.port}{path}".encode() in bytes(answer["body"])
    assert (await site.get(path)).status_code in (200, 404), "over TLS everything is as it was"


async def test_require_tls_comes_and_goes_with_a_reload(site: Site) -> None:
    await site.web.start(replace(site.settings, tls=None))
    assert site.web.tls_required is None
    await site.reload(replace(site.settings, tls=None, require_tls=True))
    assert site.web.tls_required == 0
    await site.reload(replace(site.settings, tls=site.tls))
    assert site.web.tls_required == site.tls.port


async def test_the_command_line_over_tls(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    await site.web.start(site.settings)
    monkeypatch.setenv("PBSERV_URL", site.url)
    monkeypatch.setenv("PBSERV_TOKEN", "x")
    right = fingerprint(site.own)
    wrong = fingerprint(make_pair(tmp_path, "other")[0])

    def hello(trust: str | None) -> object:
        monkeypatch.delenv("PBSERV_CA", raising=False)
        if trust is not None:
            monkeypatch.setenv("PBSERV_CA", trust)
        api = Api(tmp_path)
        with contextlib.closing(api._client):
            return api.get("/hello")

    for trust in (str(site.own), right, right.lower(), f"sha256:{right}", right.replace(":", "")):
        assert await asyncio.to_thread(hello, trust) == {"hello": "you"}
    for trust, words in (
        (None, "PBSERV_CA"),
        (str(tmp_path / "other.pem"), "not trusted"),
        (str(tmp_path / "gone.pem"), "No such file"),
        (str(tmp_path / "other.key"), "no certificates in it"),
        (wrong, "another certificate than PBSERV_CA names"),
    ):
        with pytest.raises(PbservError, match=words):
            await asyncio.to_thread(hello, trust)
    monkeypatch.setenv("PBSERV_URL", f"https://127.0.0.1:{site.settings.port}")
    with pytest.raises(PbservError, match="is this the port of HTTPS"):
        await asyncio.to_thread(hello, right)
    monkeypatch.setenv("PBSERV_URL", f"http://127.0.0.1:{site.settings.port}")
    assert await asyncio.to_thread(hello, None) == {"hello": "you"}
