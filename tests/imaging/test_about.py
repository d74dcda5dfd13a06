import json
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pbserv.imaging import about as about_file
from pbserv.imaging import version_facts
from pbserv.imaging.about import About, AboutChange, VersionAbout, checked
from pbserv.imaging.faults import DamagedImage, InvalidRequest
from pbserv.imaging.states import ImageKind, VersionState
from pbserv.imaging.version_facts import Received, VersionFacts

times = st.none() | st.datetimes(timezones=st.just(UTC))
texts = st.text(max_size=20)
digests = st.from_regex(r"[0-9a-f]{64}", fullmatch=True)
versions = st.builds(
    VersionAbout, st.sampled_from(VersionState), times, texts, digests | st.just(""), texts, times, texts
)  # fmt: skip
abouts = st.builds(
    About, texts, st.none() | st.sampled_from(ImageKind), texts, texts, texts, times, st.none() | st.integers(0, 1000),
    texts, st.none() | st.integers(1, 128), texts, st.integers(10, 99), st.dictionaries(st.integers(1, 9), versions),
)  # fmt: skip
facts = st.builds(
    VersionFacts, texts, st.none() | st.integers(1, 2**40), texts, times, texts, texts, texts,
    st.dictionaries(texts, st.builds(Received, st.integers(0, 2**60), digests)),
)  # fmt: skip
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(abouts)
def test_what_is_said_of_an_image_is_read_back(about):
    assert about_file.decode(about_file.encode(about)) == about


@given(facts)
def test_where_a_version_came_from_is_read_back(value):
    assert version_facts.decode(version_facts.encode(value)) == value


@pytest.mark.parametrize("decode", [about_file.decode, version_facts.decode])
@given(data=st.binary(max_size=300))
def test_any_bytes_are_a_value_or_damage(decode, data):
    try:
        decode(data)
    except DamagedImage:
        return


FIELDS = [
    "title", "kind", "comment", "created", "keep", "last", "versions", "format", "job", "origin", "received",
    "partition",
]  # fmt: skip


@pytest.mark.parametrize("decode", [about_file.decode, version_facts.decode])
@given(fields=st.dictionaries(st.sampled_from(FIELDS), json_values))
def test_any_json_is_a_value_or_damage(decode, fields):
    try:
        decode(json.dumps({"format": 1, **fields}).encode())
    except DamagedImage:
        return


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"format":2}', "format 2 is not known"),
        ('{"format":1,"versions":{"1":{"state":"deleted"}}}', "state 'deleted' is none of validated"),
        ('{"format":1,"versions":{"01":{}}}', "'01' is not the number"),
        ('{"format":1,"keep":-1}', "keep is not a number"),
        ('{"format":1,"title":7}', "title is not text"),
        ("[" * 100_000, "is not JSON"),
        ("[]", "is not a JSON object"),
    ],
)
def test_damage_names_the_field(text, says):
    with pytest.raises(DamagedImage, match=says):
        about_file.decode(text.encode())


def test_changes():
    about = About(title="old", keep=3)
    assert AboutChange(title="new").of(about) == replace(about, title="new")
    assert AboutChange(keep=-1).of(about).keep is None
    assert AboutChange().of(about).etag == about.etag
    assert AboutChange(comment="two\nlines").of(about).etag != about.etag
    for change in (AboutChange(title="a\nb"), AboutChange(title="x" * 257), AboutChange(comment="x" * 4097),
                   AboutChange(keep=1001), AboutChange(profile="\ud800")):  # fmt: skip
        with pytest.raises(InvalidRequest):
            change.of(about)
    assert checked(about) is about


def test_damage_is_kept_until_a_clean_scrub_and_an_older_file_says_nothing_of_it():
    at = datetime(2026, 1, 2, tzinfo=UTC)
    about = About().with_version(3, VersionAbout(VersionState.ENABLED))
    damaged = about.with_verified(3, at, "x" * 2000)
    assert (damaged.version(3).damage, damaged.version(3).verified) == ("x" * 1000, None)
    assert damaged.moved({3: VersionState.DISABLED}, "", at).version(3).damage
    clean = damaged.with_verified(3, at).version(3)
    assert (clean.damage, clean.verified) == ("", at)
    older = b'{"format":1,"versions":{"3":{"state":"enabled"}}}'
    assert about_file.decode(older).version(3).damage == ""


def test_a_move_says_who_and_when():
    at = datetime(2026, 1, 2, tzinfo=UTC)
    about = About().with_version(3, VersionAbout(VersionState.ENABLED))
    moved = about.moved({3: VersionState.DISABLED}, "token:anna", at)
    assert moved.versions[3] == VersionAbout(VersionState.DISABLED, at, "token:anna")
    assert (moved.last, moved.without(3).versions, moved.without(3).last) == (3, {}, 3)
    assert moved.moved({3: VersionState.DISABLED}, "other", at) == moved
