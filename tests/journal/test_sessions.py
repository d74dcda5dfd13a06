"""Which step belongs to which session, and the bounds: devices, steps, bytes, what waits to be written."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pbserv.journal.sessions import GAP_S, MOST_DEVICES, MOST_STEPS, Session, SessionTable
from pbserv.journal.steps import DhcpLine, DhcpStep, Step, glance, source_of
from tests.journal.samples import MAC, T0, asks, event, offered

STEP = offered()
OTHER = bytes.fromhex("525400aabbdd")


def table() -> SessionTable:
    return SessionTable(lambda: None)


def at(seconds: float, step: DhcpStep = STEP) -> DhcpStep:
    return step._replace(at=T0 + seconds)


def settled(found: SessionTable, session: Session, packets: int = 32) -> list[object]:
    found.settle(session, glance, lambda ifindex: f"eth{ifindex}", packets)
    return list(session.lines)


def number(count: int) -> bytes:
    return count.to_bytes(6, "big")


def test_a_gap_of_five_minutes_begins_a_new_session() -> None:
    sessions = table()
    for seconds in (0.0, GAP_S, 2 * GAP_S, 3 * GAP_S + 0.5):
        sessions.dhcp(MAC, at(seconds))
    assert [(s.started - T0, round(s.last - T0)) for s in sessions.unwritten(MAC)] == [(0, 600), (900.5, 900)]
    assert len(sessions) == 1


def test_events_and_packets_share_a_session() -> None:
    sessions = table()
    sessions.add(MAC, event("asked by dhcp", "local: x"))
    sessions.dhcp(MAC, at(0.1))
    sessions.add(MAC, event("tftp", "snponly.efi: completed, 9 bytes", 2))
    [session] = sessions.unwritten(MAC)
    assert [type(line) for line in settled(sessions, session)] == [Step, DhcpLine, Step]
    assert session.lines[1].interface == "eth2"  # type: ignore[union-attr]


def test_imaging_belongs_to_the_boot_that_began_it() -> None:
    sessions = table()
    sessions.dhcp(MAC, at(0))
    sessions.add(MAC, event("job", "1: restore debian started", 60))
    sessions.add(MAC, event("job", "1: restore debian done: ok", 60 + 4 * GAP_S))
    [session] = sessions.unwritten(MAC)
    assert session.last == T0 + 60 + 4 * GAP_S
    sessions.dhcp(MAC, at(60 + 6 * GAP_S))
    assert len(sessions.unwritten(MAC)) == 2


def test_an_administrator_alone_begins_no_session() -> None:
    sessions = table()
    sessions.add(MAC, event("state", "known by an administrator"))
    assert sessions.unwritten() == []
    sessions.dhcp(MAC, at(0))
    sessions.add(MAC, event("state", "known by an administrator", 5))
    assert sessions.unwritten()[0].seen == 2


@pytest.mark.parametrize(
    ("what", "source"),
    [("tftp", "tftp"), ("http", "http"), ("asked by dhcp", "policy"), ("registered", "registry"), ("state", "registry"),
     ("job", "imaging"), ("image", "imaging"), ("next strategy", "dhcp"), ("loop", "dhcp"), ("sneezed", "registry")],
)  # fmt: skip
def test_sources(what: str, source: str) -> None:
    assert source_of(what) == source


def test_steps_are_bounded_and_counted() -> None:
    sessions = table()
    for count in range(MOST_STEPS + 50):
        sessions.dhcp(MAC, at(count / 10))
    [session] = sessions.unwritten()
    assert len(settled(sessions, session)) == MOST_STEPS
    assert session.lost == 50
    for count in range(30):
        sessions.dhcp(MAC, at(30 + count / 10))
    assert len(settled(sessions, session)) == MOST_STEPS
    assert session.lost == 80


def test_the_newest_packets_keep_their_bytes_and_all_keep_their_place() -> None:
    sessions = table()
    for count in range(10):
        sessions.dhcp(MAC, at(count))
    [session] = sessions.unwritten()
    for packets in (4, 4, 0):
        steps = [line.step for line in settled(sessions, session, packets) if isinstance(line, DhcpLine)]
        assert len(steps) == 10
        assert [bool(step.data) for step in steps] == [False] * (10 - packets) + [True] * packets
        assert all(step.reply is not None for step in steps), "that there was a reply is known"
        assert {line.text.kind for line in session.lines if isinstance(line, DhcpLine)} == {"DISCOVER"}
        assert sessions.size_bytes == packets * (len(STEP.data) + len(STEP.reply or b""))


def test_all_bytes_together_are_bounded_and_the_oldest_device_gives_first(monkeypatch: pytest.MonkeyPatch) -> None:
    size = len(STEP.data) + len(STEP.reply or b"")
    monkeypatch.setattr("pbserv.journal.sessions.MOST_BYTES", 100 * size)
    monkeypatch.setattr("pbserv.journal.sessions._ROOM_BYTES", 2 * size)
    sessions = table()
    for count in range(150):
        sessions.dhcp(number(count), at(count / 1000))
        assert sessions.size_bytes <= 100 * size
    kept = [sum(bool(step.data) for step in _steps(sessions, session)) for session in sessions.unwritten()]
    assert len(kept) == 150
    assert kept == sorted(kept), "the oldest have none, the newest have theirs"
    assert sum(kept) * size == sessions.size_bytes > 90 * size


def _steps(sessions: SessionTable, session: Session) -> list[DhcpStep]:
    settled(sessions, session)
    return [line.step for line in session.lines if isinstance(line, DhcpLine)]


def test_written_devices_go_when_there_are_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pbserv.journal.sessions.MOST_DEVICES", 10)
    sessions = table()
    for count in range(15):
        sessions.dhcp(number(count), at(count))
    assert len(sessions) == 15, "what is not written stays"
    sessions.take(100)
    assert len(sessions) == 10
    assert sessions.dropped == 0
    sessions.dhcp(number(3), at(20))
    assert len(sessions.unwritten()) == 1, "the device that went begins anew"


def test_a_flood_of_devices_is_bounded_and_counted() -> None:
    sessions = table()
    for count in range(5 * MOST_DEVICES):
        sessions.dhcp(number(count), STEP)
    assert len(sessions) == sessions.waiting == 2 * MOST_DEVICES
    assert sessions.dropped == 3 * MOST_DEVICES
    assert sessions.size_bytes == 2 * MOST_DEVICES * (len(STEP.data) + len(STEP.reply or b""))


def test_sessions_that_ended_unwritten_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pbserv.journal.sessions.MOST_DEVICES", 10)
    sessions = table()
    for count in range(30):
        sessions.dhcp(MAC, at(count * 400.0))
    assert sessions.waiting == 11
    assert sessions.dropped == 19


def test_what_was_written_is_not_written_again_unless_it_goes_on() -> None:
    sessions = table()
    sessions.dhcp(MAC, at(0))
    sessions.dhcp(OTHER, at(0))
    assert [session.mac for session in sessions.take(1)] == [MAC]
    sessions.take(10)
    assert sessions.take(10) == []
    sessions.dhcp(MAC, at(5))
    [session] = sessions.take(10)
    assert len(settled(sessions, session)) == 2


def test_what_could_not_be_written_is_kept() -> None:
    sessions = table()
    sessions.dhcp(MAC, at(0))
    sessions.dhcp(MAC, at(1000))
    taken = sessions.take(10)
    assert len(taken) == 2
    for session in taken:
        settled(sessions, session)
    sessions.put_back(taken)
    assert sessions.unwritten(MAC) == taken
    assert sessions.size_bytes == 2 * (len(STEP.data) + len(STEP.reply or b""))
    assert len(sessions.take(10)) == 2
    assert sessions.size_bytes == len(STEP.data) + len(STEP.reply or b""), "the ended one is not needed any more"


def test_a_forgotten_device_leaves_nothing() -> None:
    sessions = table()
    for seconds in (0, 1000):
        sessions.dhcp(MAC, at(seconds))
    sessions.dhcp(OTHER, at(0))
    sessions.forget(MAC)
    assert [session.mac for session in sessions.unwritten()] == [OTHER]
    assert sessions.size_bytes == len(STEP.data) + len(STEP.reply or b"")
    sessions.forget(MAC)


def test_a_glance_takes_any_bytes() -> None:
    assert glance(asks(secs=4)).secs == 4
    for length in range(len(STEP.data)):
        glance(STEP.data[:length])


@given(
    st.lists(
        st.tuples(st.sampled_from(["dhcp", "add", "take", "put", "settle", "forget", "later"]), st.integers(0, 5))
    ),
    st.integers(0, 3),
)
def test_the_books_are_right_whatever_happens(actions: list[tuple[str, int]], packets: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pbserv.journal.sessions.MOST_DEVICES", 3)
        patch.setattr("pbserv.journal.sessions.MOST_BYTES", 6000)
        patch.setattr("pbserv.journal.sessions._ROOM_BYTES", 1000)
        sessions, now = table(), 0.0
        taken: list[Session] = []
        for action, device in actions:
            now += 1
            match action:
                case "dhcp":
                    sessions.dhcp(number(device), at(now))
                case "add":
                    sessions.add(number(device), event("tftp", "x", now))
                case "take":
                    taken = sessions.take(device)
                case "put":
                    sessions.put_back(taken)
                    taken = []
                case "settle":
                    for session in (*sessions.unwritten(), *taken):
                        settled(sessions, session, packets)
                case "forget":
                    sessions.forget(number(device))
                    taken = [session for session in taken if session.mac != number(device)]
                case "later":
                    now += GAP_S
            held = {*sessions.unwritten(), *sessions._live.values()}
            for session in held:
                counted = session.size
                session.weigh()
                assert session.size == counted
            assert sum(session.size for session in held) == sessions.size_bytes <= 6000
            assert len(sessions) <= 6
            assert sessions.waiting <= 9
            assert all(session in sessions.unwritten() for session in sessions._live.values() if session.hot)
