"""The tokens of boots: what they prove, and for how long."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pbserv.policy.boots import SPAN_S, BootTokens, split_path

MAC = "52:54:00:12:34:56"
TOKENS = BootTokens(b"k" * 32)


def test_a_token_names_its_device() -> None:
    assert TOKENS.mac_of(TOKENS.mint(MAC, 1000.0), 1000.0) == MAC


def test_all_paths_of_one_boot_have_one_token() -> None:
    start = SPAN_S * 7
    assert TOKENS.mint(MAC, start) == TOKENS.mint(MAC, start + SPAN_S - 1)


def test_a_boot_that_runs_into_the_next_span_goes_on() -> None:
    token = TOKENS.mint(MAC, SPAN_S - 1)
    assert TOKENS.mac_of(token, SPAN_S + 1) == MAC
    assert TOKENS.mac_of(token, 2 * SPAN_S + 1) is None


def test_another_server_or_another_device_has_other_tokens() -> None:
    token = TOKENS.mint(MAC, 0.0)
    assert BootTokens(b"other" * 8).mac_of(token, 0.0) is None
    assert TOKENS.mac_of("525400123457" + token[12:], 0.0) is None


@given(st.text(max_size=40))
def test_nothing_made_up_is_a_token(text: str) -> None:
    assert TOKENS.mac_of(text, 0.0) is None


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("s/abc/pxelinux.cfg/default", ("abc", "pxelinux.cfg/default")),
        ("s/abc/", ("abc", "")),
        ("s/abc", ("", "s/abc")),
        ("snponly.efi", ("", "snponly.efi")),
        ("a/s/b", ("", "a/s/b")),
    ],
)
def test_the_token_is_the_second_part_of_a_path_that_begins_with_s(name: str, expected: tuple[str, str]) -> None:
    assert split_path(name) == expected
