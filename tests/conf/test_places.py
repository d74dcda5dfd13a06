from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pbserv.conf.places import Directories, StorePlace, Stores

names = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_-]{0,31}", fullmatch=True)
paths = st.from_regex(r"/[A-Za-z0-9 ,=_.:-]{0,20}[a-z]", fullmatch=True).filter(lambda text: ".." not in text).map(Path)
counts = st.integers(0, 1000)
sizes = st.integers(0, 10**9 - 1)
places = st.builds(StorePlace, names, paths, sizes, st.none() | sizes, counts, counts, counts)


def test_a_list_of_stores():
    text = "main=/srv/images quota:500G floor:10G keep:3; fast = /mnt/nvme disk,2  restores:20 captures:4 ;"
    assert Stores().parse(text) == (
        StorePlace("main", Path("/srv/images"), 500 << 30, 10 << 30, 3),
        StorePlace("fast", Path("/mnt/nvme disk,2"), restores=20, captures=4),
    )


@given(st.lists(places, min_size=1, max_size=3, unique_by=(lambda p: p.name, lambda p: p.directory)))
def test_what_is_shown_is_read_back(some):
    if not any(f" {word}:" in str(place.directory) for place in some for word in ("quota", "keep", "floor")):
        assert Stores().parse(Stores().show(tuple(some))) == tuple(some)


@given(st.text(max_size=60))
def test_any_text_is_a_value_or_refused(text):
    for kind in (Stores(), Directories()):
        try:
            value = kind.parse(text)
        except ValueError:
            continue
        assert kind.parse(kind.show(value)) == value


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("/srv/images", "does not begin with NAME="),
        ("a b=/srv", "does not begin with NAME="),
        ("main=srv", "not an absolute path"),
        ("main=/srv/../etc", "not an absolute path"),
        ("main=/a; main=/b", "name 'main' stands there twice"),
        ("main=/a; fast=/a", "directory '/a' stands there twice"),
        ("main=/a quota:much", "is not a size"),
        ("main=/a keep:1 keep:2", "keep stands there twice"),
        ("main=/a keep:2000", "out of range"),
        (";", "names no store"),
    ],
)
def test_refusals(text, says):
    with pytest.raises(ValueError, match=says):
        Stores().parse(text)


def test_directories():
    assert Directories().parse("/a b; /c,d") == (Path("/a b"), Path("/c,d"))
    assert Directories().show((Path("/a b"), Path("/c"))) == "/a b; /c"
    for text in ("relative", ";"):
        with pytest.raises(ValueError, match=r"director|absolute"):
            Directories().parse(text)
