from dataclasses import dataclass, field
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pbserv.imaging.coverage import Coverage, IntervalSet, Recipient


@dataclass(frozen=True)
class Image:
    name: str = "win"
    version: int = 1
    sizes: dict[str, int] = field(default_factory=lambda: {"a": 10, "b": 5})


JOB = Recipient.job(7)
DESK = Recipient.address("10.0.0.9")

ranges = st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60)).map(lambda pair: tuple(sorted(pair))), max_size=40)


@given(ranges)
def test_intervals_are_the_set_of_their_bytes(pairs):
    intervals, model = IntervalSet(), set()
    for start, end in pairs:
        intervals.add(start, end)
        model |= set(range(start, end))
        found = intervals.ranges()
        assert {byte for low, high in found for byte in range(low, high)} == model
        assert all(low < high for low, high in found)
        assert all(left[1] < right[0] for left, right in pairwise(found))
        for size in (0, 1, 30, 60):
            assert intervals.covers(size) == (set(range(size)) <= model)


@given(ranges)
def test_a_bounded_interval_set_never_claims_more(pairs):
    intervals, model = IntervalSet(limit=3), set()
    for start, end in pairs:
        intervals.add(start, end)
        model |= set(range(start, end))
    assert len(intervals.ranges()) <= 3
    assert {byte for low, high in intervals.ranges() for byte in range(low, high)} <= model


@given(
    st.lists(
        st.tuples(st.sampled_from(["a", "b"]), st.integers(0, 10), st.integers(0, 10), st.sampled_from([JOB, DESK])),
        max_size=60,
    )
)
def test_true_exactly_when_the_last_byte_of_all_items_went_out(deliveries):
    image, coverage = Image(), Coverage()
    model: dict[Recipient, dict[str, set[int]]] = {}
    jobs_done = set()
    for item, low, high, recipient in deliveries:
        size = image.sizes[item]
        start, end = sorted((min(low, size), min(high, size)))
        got = coverage.delivered(recipient, image, item, start, end)
        if recipient in jobs_done:
            assert not got
            continue
        bytes_of = model.setdefault(recipient, {"a": set(), "b": set()})
        bytes_of[item] |= set(range(start, end))
        assert got == all(len(bytes_of[name]) == size for name, size in image.sizes.items())
        if got:
            del model[recipient]
            if recipient.kind == "job":
                jobs_done.add(recipient)


def test_a_job_counts_once_and_an_address_each_time():
    coverage, image = Coverage(), Image(sizes={"a": 4})
    assert [coverage.delivered(JOB, image, "a", 0, 4) for _ in range(3)] == [True, False, False]
    assert [coverage.delivered(DESK, image, "a", 0, 4) for _ in range(3)] == [True, True, True]


def test_versions_and_recipients_are_apart():
    coverage = Coverage()
    assert not coverage.delivered(JOB, Image(version=1), "a", 0, 10)
    assert not coverage.delivered(JOB, Image(version=2), "b", 0, 5)
    assert not coverage.delivered(DESK, Image(version=1), "b", 0, 5)
    assert coverage.delivered(JOB, Image(version=1), "b", 0, 5)


def test_empty_items_need_no_delivery():
    coverage, image = Coverage(), Image(sizes={"a": 4, "empty": 0})
    assert coverage.delivered(JOB, image, "a", 0, 4)
    assert coverage.delivered(JOB, Image(name="nothing", sizes={"empty": 0}), "empty", 0, 0)


@pytest.mark.parametrize(("item", "start", "end"), [("c", 0, 1), ("a", 0, 11), ("a", -1, 2), ("a", 3, 2)])
def test_bytes_that_the_image_does_not_have_are_a_bug(item, start, end):
    with pytest.raises(ValueError):
        Coverage().delivered(JOB, Image(), item, start, end)


def test_memory_is_bounded_and_the_oldest_delivery_goes_first():
    coverage, image = Coverage(max_deliveries=3, max_finished=3), Image()
    for number in range(5):
        coverage.delivered(Recipient.job(number), image, "a", 0, 10)
    assert len(coverage) == 3
    assert not coverage.delivered(Recipient.job(0), image, "b", 0, 5)
    assert coverage.delivered(Recipient.job(4), image, "b", 0, 5)
    for number in range(10, 20):
        coverage.delivered(Recipient.job(number), Image(sizes={"a": 1}), "a", 0, 1)
    assert len(coverage) <= 6


def test_a_deleted_image_is_forgotten():
    coverage, image = Coverage(), Image()
    coverage.delivered(DESK, image, "a", 0, 10)
    coverage.forget("win")
    assert len(coverage) == 0
    assert not coverage.delivered(DESK, image, "b", 0, 5)
