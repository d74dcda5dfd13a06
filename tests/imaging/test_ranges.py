from http import HTTPStatus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pbserv.imaging.ranges import plan

TAG = '"abc"'


def decide(size=100, method="GET", **headers):
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return plan(named, size_bytes=size, etag=TAG, method=method)


@pytest.mark.parametrize(
    ("header", "start", "end"),
    [("bytes=0-0", 0, 1), ("bytes=10-", 10, 100), ("bytes=-7", 93, 100), ("bytes=-1000", 0, 100),
     ("bytes=90-1000", 90, 100), ("Bytes = 1-2 ", 1, 3)],
)  # fmt: skip
def test_parts(header, start, end):
    found = decide(range=header)
    assert (found.status, found.start, found.end) == (206, start, end)
    assert found.content_range == f"bytes {start}-{end - 1}/100"


@pytest.mark.parametrize("header", ["bytes=100-", "bytes=100-200", "bytes=-0"])
def test_unsatisfiable(header):
    assert decide(range=header) == decide(range="bytes=500-")
    assert decide(range=header).status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE
    assert decide(range=header).content_range == "bytes */100"


@pytest.mark.parametrize("header", ["bytes=5-4", "bytes=0-1,4-5", "items=0-1", "bytes=", "bytes=-", "bytes=a-b", "x"])
def test_what_is_not_understood_gets_the_whole(header):
    assert (decide(range=header).status, decide(range=header).end) == (200, 100)


def test_if_range():
    assert decide(range="bytes=5-", if_range=TAG).status == 206
    assert decide(range="bytes=5-", if_range='"other"').status == 200
    assert decide(range="bytes=5-", if_range=f"W/{TAG}").status == 200
    assert decide(range="bytes=5-", if_range="Wed, 21 Oct 2015 07:28:00 GMT").status == 200


def test_if_none_match_and_head():
    assert decide(if_none_match=TAG).status == 304
    assert decide(if_none_match=f'"x", W/{TAG}').status == 304
    assert decide(if_none_match='"x"').status == 200
    assert decide(method="HEAD", range="bytes=5-").status == 200


def test_an_empty_file_has_no_ranges():
    assert decide(size=0, range="bytes=0-").status == 416
    assert decide(size=0).status == 200


@given(st.text(max_size=40), st.integers(0, 1000))
def test_any_range_stays_inside(text, size):
    for header in (text, f"bytes={text}"):
        found = decide(size=size, range=header)
        assert 0 <= found.start <= found.end <= size
