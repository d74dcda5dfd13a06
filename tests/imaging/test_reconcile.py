import os
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pbserv.imaging import session_file
from pbserv.imaging.faults import DamagedImage, InUse, StoreClosed, StoreFull
from pbserv.imaging.frames.checkpoint import Received, StoredItem
from pbserv.imaging.locks import Locks
from pbserv.imaging.reconcile import Found, Keep, Remove, Tell, plan
from pbserv.imaging.session_file import SessionFacts
from pbserv.imaging.usage import Usage

NOW = datetime(2026, 1, 2, tzinfo=UTC)
creators = st.sampled_from(["", "token:anna", "job:1", "job:2", "job:x", "job:99999999999999999999"])
ages = st.integers(0, 100).map(lambda hours: NOW - timedelta(hours=hours))
sessions = st.builds(SessionFacts, st.sampled_from(["a", "b"]), creators, ages, st.booleans())
disks = st.lists(st.none() | sessions, max_size=6).map(
    lambda some: [Found(f"x.{number}", session) for number, session in enumerate(some)]
)
jobs = st.dictionaries(st.integers(1, 3), st.none() | st.integers(1, 2))
made = st.dictionaries(st.integers(1, 3), st.tuples(st.sampled_from(["a", "b"]), st.integers(1, 2)))


def session(creator: str, hours: int = 0, image: str = "win") -> SessionFacts:
    return SessionFacts(image, creator, NOW - timedelta(hours=hours))


@given(disks, made, jobs)
def test_everything_is_kept_or_removed_once_and_a_name_has_one_upload(found, made, jobs):
    actions = plan(found, made, jobs, NOW)
    named = [action.name for action in actions if not isinstance(action, Tell)]
    assert sorted(named) == sorted(one.name for one in found)
    kept = [one for one in found if Keep(one.name) in actions]
    assert all(one.session is not None for one in kept)
    assert len({one.session.image for one in kept}) == len(kept)
    told = [action.job for action in actions if isinstance(action, Tell)]
    assert told == sorted(job for job, version in jobs.items() if version is None and job in made)
    assert all(action.why for action in actions if isinstance(action, Remove))


@pytest.mark.parametrize(
    ("creator", "hours", "made", "jobs", "why"),
    [
        ("job:1", 99, {}, {1: None}, ""),
        ("job:1", 0, {}, {2: None}, "job 1 does not run any more"),
        ("job:1", 0, {1: ("win", 1)}, {1: None}, "job 1 committed its image"),
        ("job:one", 0, {}, {1: None}, "job one does not run any more"),
        ("token:anna", 47, {}, {}, ""),
        ("token:anna", 48, {}, {}, "nobody went on with it for two days"),
    ],
)
def test_who_may_go_on(creator, hours, made, jobs, why):
    action = plan([Found("win.1", session(creator, hours))], made, jobs, NOW)[0]
    assert action == (Remove("win.1", why) if why else Keep("win.1"))


def test_an_upload_that_takes_days_is_kept_while_something_arrives():
    begun = session("token:anna", 300)
    touched = [NOW - timedelta(hours=hours) for hours in (47, 49)]
    found = [Found("win.1", begun, touched[0]), Found("lab.2", session("referred:1", 300, "lab"), touched[1])]
    assert set(plan(found, {}, {}, NOW)) == {Keep("win.1"), Remove("lab.2", "nobody went on with it for two days")}


def test_the_younger_upload_of_an_image_goes_on():
    found = [Found("win.1", session("token:a", 3)), Found("win.2", session("token:b", 2)), Found("x", None)]
    assert set(plan(found, {}, {}, NOW)) == {
        Keep("win.2"), Remove("win.1", "a younger upload of image win goes on"), Remove("x", "a crash left it"),
    }  # fmt: skip


digests = st.from_regex(r"[0-9a-f]{64}", fullmatch=True)
texts = st.text(max_size=10)
counts = st.integers(0, 2**60)
items = st.builds(
    StoredItem, st.just("p1"), counts, digests, texts, texts, counts, st.builds(Received, counts, digests, counts),
    st.dictionaries(texts, texts, max_size=3),
)  # fmt: skip
noted = st.builds(
    SessionFacts, texts, texts, st.datetimes(timezones=st.just(UTC)), st.booleans(),
    items.map(lambda item: {item.name: item}) | st.just({}),
)  # fmt: skip


@given(noted)
def test_what_an_upload_remembers_is_read_back(facts):
    assert session_file.decode(session_file.encode(facts)) == facts


@given(st.binary(max_size=200))
def test_any_bytes_are_an_upload_or_damage(data):
    with pytest.raises(DamagedImage):
        session_file.decode(data)


def test_several_read_and_one_alone_changes():
    locks = Locks()
    one = locks.share("win", 1, "is being read")
    locks.share("win", 1, "is being verified")
    assert locks.users("win", None) == ("is being read", "is being verified")
    assert (locks.users("win", 2), locks.users("other", None)) == ((), ())
    with pytest.raises(InUse, match="image win version 1 is being read"):
        locks.take("win", None, "is being purged")
    with locks.taken("win", 2, "is being purged"):
        for version in (2, None):
            with pytest.raises(InUse, match="is being purged; try again"):
                locks.share("win", version, "is being read")
        locks.share("win", 1, "is being read")
    locks.release(one)
    locks.release(one)
    assert len(locks.holds) == 2


def test_room(tmp_path):
    usage = Usage("main", 0, lambda: -1)
    with pytest.raises(StoreClosed):
        usage.check()
    root = os.open(tmp_path, os.O_RDONLY)
    usage = Usage("main", 0, lambda: root)
    usage.quota_bytes = 100
    usage.charge(60)
    with pytest.raises(StoreFull, match="quota"):
        usage.charge(60)
    usage.count(-200)
    assert usage.used_bytes == 0
    usage.floor_bytes = usage.free_bytes * 2
    with pytest.raises(StoreFull, match="stay free"):
        usage.check(1)
    os.close(root)
