"""Hosts with ports, and URLs with a place for a MAC address."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pbserv.conf.kinds import HostPort, Kind, MacUrl


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


@pytest.mark.parametrize("kind", [HostPort(), MacUrl()])
@given(text=st.text(st.characters(codec="utf-8"), min_size=1))
def test_any_text_is_allowed_or_refused(kind: Kind, text: str) -> None:
    with contextlib.suppress(ValueError):
        assert kind.show(kind.parse(text)) == text
