"""`pbserv status`: where the HTTP server listens, and by what its certificate is known."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509

from pbserv.web.tls import fingerprint_of
from tests.support.process import Installed, free_port


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Installed]:
    installed = Installed(tmp_path)
    yield installed
    installed.finish()


def test_http_alone(place: Installed) -> None:
    place.ok("start", "imaging")
    lines = place.ok("status", "imaging").splitlines()
    assert f"  http: tcp 127.0.0.1:{place.http_port}  {place.url}/" in lines
    assert not any("https" in line or "SHA-256" in line for line in lines)
    assert place.json("status", "imaging")["https"] is None


def test_https_with_its_fingerprint(place: Installed) -> None:
    port = free_port()
    place.set("pbserv.conf", HTTPSPort=str(port))
    started = place.ok("start", "imaging")
    made = x509.load_pem_x509_certificate((place.state / "tls" / "certificate.pem").read_bytes())
    wanted = fingerprint_of(made)
    assert wanted in started
    lines = place.ok("status", "imaging").splitlines()
    assert f"  http: tcp 127.0.0.1:{place.http_port}  {place.url}/" in lines
    assert f"  https: tcp 127.0.0.1:{port}  https://127.0.0.1:{port}/" in lines
    assert f"  certificate: SHA-256 {wanted}" in lines
    assert place.json("status", "imaging")["https"] == {
        "url": f"https://127.0.0.1:{port}/", "fingerprint": wanted, "fault": "",
    }  # fmt: skip


def test_https_that_did_not_start(place: Installed) -> None:
    port = free_port()
    place.set("pbserv.conf", HTTPSPort=str(port), TLSCertificate="/nonexistent/certificate.pem")
    place.call("start", "imaging")
    lines = place.ok("status", "imaging").splitlines()
    assert any("TLSCertificate: /nonexistent/certificate.pem" in line for line in lines)
    assert not any(line.startswith("  https:") for line in lines)
    assert place.json("status", "imaging")["https"]["fingerprint"] == ""
