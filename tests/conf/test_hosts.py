"""Hosts with ports, and URLs with a place for a MAC address."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pbserv.conf.kinds import HostPort, Kind
from pbserv.conf.servers import MacUrl, Server, Trust


@pytest.mark.parametrize("text", ["10.0.0.5", "10.0.0.5:8067", "zen.example", "zen.example:1", "zen.example.:65535"])
def test_hosts(text: str) -> None:
    assert HostPort().parse(text) == text


@pytest.mark.parametrize(
    "text", ["10.0.0.500", "zen:", "zen:0", "zen:65536", "zen:8o", ":80", "a b", "[::1]:80", "a:1:2"]
)
def test_no_hosts(text: str) -> None:
    with pytest.raises(ValueError):
        HostPort().parse(text)


@pytest.mark.parametrize(
    "text",
    ["http://10.0.0.7:8080/v1/boot/{mac}", "https://hook.example/?mac={mac}&zone=1", "http://h/{mac}/{mac}"],
)
def test_urls_for_a_mac(text: str) -> None:
    assert MacUrl().parse(text) == text


@pytest.mark.parametrize(
    "text",
    [
        "http://10.0.0.7/v1/boot/", "ftp://10.0.0.7/{mac}", "http://{mac}/", "http://{mac}.example/", "http:///{mac}",
        "http://10.0.0.7/{mac}/{uuid}", "http://10.0.0.7/{mac}#top", "http://u:p@10.0.0.7/{mac}", "http://h:99999/{mac}",
        "http://10.0.0.7/{mac", "http://[::1/{mac}", "{mac}",
    ],
)  # fmt: skip
def test_no_urls_for_a_mac(text: str) -> None:
    with pytest.raises(ValueError):
        MacUrl().parse(text)


@pytest.mark.parametrize("text", ["zen.example", "10.0.0.7:80", "https://zen.example:8443", "https://10.0.0.7:8443"])
def test_servers(text: str) -> None:
    assert Server().parse(text) == text
    assert Server().parse(text.replace("https", "HTTPS")) == text
    assert Server().parse("https://zen.example:8443/") == "https://zen.example:8443"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("https://zen.example", "names no port"),
        ("http://zen.example:80", "https://HOST:PORT"),
        ("https://zen.example:8443/api", "out of range|not a whole|valid"),
        ("https://", "host name"),
        ("https://user@zen.example:1", "host name"),
        ("zen.example:0", "out of range"),
    ],
)
def test_what_is_no_server(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Server().parse(text)


def test_trust() -> None:
    fingerprint = ":".join(["AB"] * 32)
    for text in (fingerprint, fingerprint.lower(), "ab" * 32, f"sha256:{fingerprint}"):
        assert Trust().parse(text) == fingerprint
    assert Trust().parse("/etc/pbserv/zen.pem") == "/etc/pbserv/zen.pem"
    for text in ("zen.pem", "ab" * 31, f"{fingerprint}:AB", "sha1:" + "ab" * 20):
        with pytest.raises(ValueError, match="absolute path, or a SHA-256 fingerprint"):
            Trust().parse(text)


@pytest.mark.parametrize("kind", [HostPort(), MacUrl(), Server(), Trust()])
@given(text=st.text(st.characters(codec="utf-8"), min_size=1))
def test_any_text_is_allowed_or_refused(kind: Kind, text: str) -> None:
    with contextlib.suppress(ValueError):
        assert kind.show(kind.parse(text)) == text
