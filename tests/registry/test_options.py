"""Options of work: as JSON and back; what is not understood is said, never guessed at."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pbserv.registry.options import NO_OPTIONS, WorkOptions

NAMES = st.text(st.characters(codec="ascii", categories=("L", "N")), min_size=1, max_size=64)
OPTIONS = st.builds(
    WorkOptions,
    partitions=st.lists(st.integers(1, 1024), max_size=8).map(tuple),
    target_partition=st.integers(0, 1024),
    verify=st.sampled_from(["stream", "read"]),
    resize=st.booleans(),
    dry_run=st.booleans(),
    store=st.one_of(st.just(""), NAMES),
    addons=st.lists(NAMES, max_size=16).map(tuple),
    cache=st.sampled_from(["", "use", "give-up"]),
    efi_entry=st.booleans(),
    version=st.integers(0, 10**9),
)


@given(OPTIONS)
def test_what_is_written_is_read(options: WorkOptions) -> None:
    assert WorkOptions.from_json(options.to_json()) == options


def test_defaults_take_no_room() -> None:
    assert NO_OPTIONS.to_json() == ""
    assert WorkOptions.from_json("") == NO_OPTIONS


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("{", "no JSON"),
        ("[]", "not an object"),
        ('{"teleport": true}', "'teleport' is unknown to this version"),
        ('{"partitions": [0]}', "partitions cannot be"),
        ('{"partitions": [true]}', "partitions cannot be"),
        ('{"dry_run": 1}', "dry_run cannot be"),
        ('{"verify": "twice"}', "verify cannot be"),
        ('{"version": -1}', "version cannot be"),
        ('{"unreadable": "x"}', "is unknown"),
    ],
)
def test_what_is_not_understood_is_refused(text: str, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        WorkOptions.from_json(text)
    assert named in WorkOptions.read(text).unreadable


@given(st.text())
def test_any_text_is_read_or_refused(text: str) -> None:
    assert isinstance(WorkOptions.read(text), WorkOptions)
