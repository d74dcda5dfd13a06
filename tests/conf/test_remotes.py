from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pbserv.conf.remotes import Remotes, RemoteStore

NAMES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_-]{0,31}", fullmatch=True)
STORES = st.builds(
    RemoteStore, NAMES, st.tuples(st.sampled_from(("http", "https")), st.integers(1, 65535)).map(
        lambda given: f"{given[0]}://10.0.0.2:{given[1]}"
    )
)  # fmt: skip


@given(st.lists(STORES, min_size=1, max_size=5, unique_by=lambda store: store.name))
def test_what_is_shown_is_read_again(stores: list[RemoteStore]) -> None:
    assert Remotes().parse(Remotes().show(tuple(stores))) == tuple(stores)


def test_spaces_and_a_slash_at_the_end_are_nothing() -> None:
    assert Remotes().parse(" lab = HTTP://lab.example:8067/ ; b=https://10.0.0.9:8443;") == (
        RemoteStore("lab", "http://lab.example:8067"), RemoteStore("b", "https://10.0.0.9:8443"),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "names no store"), (";", "names no store"), ("lab", "NAME="), ("lab=10.0.0.2:80", "NAME="),
        ("lab=ftp://10.0.0.2:80", "NAME="), ("l.b=http://10.0.0.2:80", "NAME="), ("lab=http://10.0.0.2", "no port"),
        ("lab=http://10.0.0.2:80/x", "80/x"), ("a=http://h:1; a=http://h:2", "twice"),
    ],
)  # fmt: skip
def test_refusals(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Remotes().parse(text)


@given(st.text())
def test_any_text_is_stores_or_a_refusal(text: str) -> None:
    with contextlib.suppress(ValueError):
        Remotes().parse(text)
