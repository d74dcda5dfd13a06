"""The journal with a real registry: written in turns, kept when that fails, told to those who follow."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from pbserv.journal.follow import MOST_FOLLOWERS, MOST_WAITING, TooManyFollowersError
from pbserv.journal.journal import Journal
from pbserv.journal.record import unpack
from pbserv.journal.steps import DhcpLine
from pbserv.proxydhcp.reading import text_of
from pbserv.registry.migrate import migrate
from pbserv.registry.records import DeviceState
from pbserv.registry.registry import DeviceChange, Registry
from tests.journal.samples import MAC, T0, acknowledged, asks, dhcp_request, offered

NAME = MAC.hex(":")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    migrate(tmp_path / "registry.db")
    return tmp_path / "registry.db"


@pytest.fixture
async def registry(path: Path) -> AsyncIterator[Registry]:
    opened = Registry.open(path)
    yield opened
    await opened.close()


class Clock:
    def __init__(self) -> None:
        self.now = T0

    def __call__(self) -> float:
        return self.now


def journal_of(registry: Registry, clock: Clock | None = None, **limits: int) -> Journal:
    return Journal(
        registry, text_of, days=limits.get("days", 36500), packets=limits.get("packets", 32), clock=clock or Clock()
    )


@contextlib.contextmanager
def unwritable(path: Path, *tables: str) -> Iterator[None]:
    """A registry that refuses at once, as a broken disk does."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        for table in tables:
            other.execute(f"ALTER TABLE {table} RENAME TO {table}_away")
        yield
        for table in tables:
            other.execute(f"ALTER TABLE {table}_away RENAME TO {table}")


async def test_a_boot_is_kept_with_its_result_and_goes_on_in_its_place(registry: Registry) -> None:
    clock = Clock()
    journal = journal_of(registry, clock)
    journal.add(NAME, "asked by dhcp", "local: nothing assigned")
    journal.dhcp(MAC, offered(0.5))
    journal.dhcp(MAC, dhcp_request(1))
    assert await journal.flush()
    [kept] = await registry.sessions(mac=NAME)
    assert (kept.result, kept.packets, kept.ended - kept.started) == (
        "stopped after the offer",
        2,
        kept.ended - kept.started,
    )
    journal.dhcp(MAC, acknowledged(2))
    clock.now += 3
    journal.add(NAME, "tftp", "snponly.efi: completed, 268288 bytes")
    assert await journal.flush()
    [grown] = await registry.sessions(mac=NAME)
    assert (grown.started, grown.result, grown.packets) == (kept.started, "loader fetched, no boot script asked", 3)
    lines, lost = unpack(grown.steps)
    assert (len(lines), lost) == (5, 0)
    assert [line.text.kind for line in lines if isinstance(line, DhcpLine)] == ["DISCOVER", "REQUEST", "REQUEST"]
    assert [(e.what, e.detail) for e in await registry.history(NAME)] == [
        ("asked by dhcp", "local: nothing assigned"), ("tftp", "snponly.efi: completed, 268288 bytes"),
    ]  # fmt: skip


async def test_todo_names_the_device(registry: Registry) -> None:
    journal = journal_of(registry)
    journal.add(NAME, "asked by dhcp", "silent: device is pending; accept it")
    [session] = await journal.sessions(NAME)
    assert session.todo == f"pbserv device accept {NAME}"


async def test_readers_see_what_is_not_written_yet(registry: Registry) -> None:
    journal = journal_of(registry)
    journal.dhcp(MAC, offered())
    await journal.flush()
    journal.dhcp(MAC, dhcp_request(1))
    other = bytes.fromhex("525400aabb01")
    journal.dhcp(other, offered(2))
    found = await journal.sessions()
    assert [(session.mac, len(unpack(session.steps)[0])) for session in found] == [(other.hex(":"), 1), (NAME, 2)]
    assert [session.mac for session in await journal.sessions(limit=1)] == [other.hex(":")]
    assert [session.mac for session in await journal.sessions(NAME)] == [NAME]
    assert len(unpack((await registry.sessions())[0].steps)[0]) == 1, "reading writes nothing"


async def test_a_device_of_several_addresses(registry: Registry) -> None:
    other, stranger = bytes.fromhex("525400aabb01"), bytes.fromhex("525400aabb02")
    for mac in (MAC, other):
        await registry.change_device(mac.hex(":"), DeviceChange(state=DeviceState.KNOWN))
    journal = journal_of(registry)
    journal.dhcp(MAC, offered())
    await journal.flush()
    await registry.join_devices(NAME, other.hex(":"))
    journal.dhcp(other, offered(1))
    journal.dhcp(stranger, offered(2))
    for named in (MAC, other):
        assert await journal.addresses(named.hex(":")) == (NAME, other.hex(":"))
        assert [session.mac for session in await journal.sessions(named.hex(":"))] == [other.hex(":"), NAME]
    await journal.flush()
    assert [session.mac for session in await journal.sessions(other.hex(":"))] == [other.hex(":"), NAME]
    assert [session.mac for session in await journal.sessions(NAME, limit=1)] == [other.hex(":")]
    assert [session.mac for session in await journal.sessions(stranger.hex(":"))] == [stranger.hex(":")]
    with journal.follow(await journal.addresses(NAME)) as follower:
        for mac in (MAC, other, stranger):
            journal.dhcp(mac, offered(3))
        steps = await follower.next(1)
    assert steps is not None
    assert [mac for mac, _ in steps[0]] == [MAC, other]


async def test_a_session_is_open_for_five_minutes(registry: Registry) -> None:
    clock = Clock()
    journal = journal_of(registry, clock)
    journal.dhcp(MAC, offered())
    [session] = await journal.sessions()
    assert journal.still_open(session)
    clock.now += 301
    assert not journal.still_open(session)


async def test_new_limits_hold_from_the_next_write(registry: Registry) -> None:
    journal = journal_of(registry, packets=3)
    for at in range(5):
        journal.dhcp(MAC, offered(at))
    assert (await journal.sessions())[0].packets == 3
    journal.configure(days=30, packets=1)
    assert (await journal.sessions())[0].packets == 1
    await journal.flush()
    assert await registry.sessions() == [], "what is older than JournalDays is removed"


async def test_a_registry_that_cannot_be_written_loses_nothing(registry: Registry, path: Path) -> None:
    journal = journal_of(registry)
    journal.dhcp(MAC, offered())
    journal.add(NAME, "tftp", "x: completed, 1 bytes")
    journal.strategy_learned(NAME, "binl")
    with unwritable(path, "event", "strategy"):
        assert await journal.flush_events() is False
        assert await journal.flush() is False
    with unwritable(path, "strategy"):
        assert await journal.flush() is False
    journal.dhcp(MAC, dhcp_request(1))
    assert await journal.flush() is True
    assert len(unpack((await registry.sessions())[0].steps)[0]) == 3
    assert len(await registry.history(NAME)) == 1
    assert await registry.strategies() == {NAME: "binl"}
    assert journal.dropped == 0


async def test_sessions_that_could_not_be_written_are_kept(registry: Registry, path: Path) -> None:
    journal = journal_of(registry)
    journal.dhcp(MAC, offered())
    journal.dhcp(MAC, offered(1000))
    with unwritable(path, "boot_session"):
        assert await journal.flush() is False
    assert await journal.flush() is True
    assert len(await registry.sessions()) == 2


async def test_strategies_are_learned_and_forgotten(registry: Registry) -> None:
    journal = journal_of(registry)
    journal.strategy_learned(NAME, "binl")
    journal.strategy_learned(NAME, "two-item")
    await journal.flush()
    assert await registry.strategies() == {NAME: "two-item"}
    journal.strategy_learned(NAME, "")
    await journal.flush()
    assert await registry.strategies() == {}


async def test_a_forgotten_device_is_not_written_any_more(registry: Registry) -> None:
    journal = journal_of(registry)
    for mac in (NAME, "52:54:00:00:00:02"):
        journal.add(mac, "asked by dhcp", "local: x")
        journal.strategy_learned(mac, "binl")
    journal.forget(NAME)
    await journal.flush()
    assert [session.mac for session in await registry.sessions()] == ["52:54:00:00:00:02"]
    assert await registry.history(NAME) == []
    assert list(await registry.strategies()) == ["52:54:00:00:00:02"]


async def test_the_writer_writes_by_itself(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pbserv.journal.journal.EVERY_S", 0.02)
    journal = journal_of(registry)
    async with asyncio.timeout(20), asyncio.TaskGroup() as tasks:
        writer = tasks.create_task(journal.run())
        for at in (0, 1000):
            journal.dhcp(MAC, offered(at))
            while not any(s.started.timestamp() == T0 + at for s in await registry.sessions()):
                await asyncio.sleep(0.01)
        writer.cancel()


async def test_a_storm_of_a_thousand_devices_does_not_hold_the_loop(registry: Registry) -> None:
    journal = journal_of(registry)
    for number in range(1000):
        mac = bytes([2, 0, 0, 1, number >> 8, number & 255])
        for step in (
            offered(number / 1000, mac=mac),
            dhcp_request(1 + number / 1000, mac=mac),
            acknowledged(3, mac=mac),
        ):
            journal.dhcp(mac, step)
    turns = 0

    async def watch() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    async with asyncio.timeout(60), asyncio.TaskGroup() as tasks:
        watcher = tasks.create_task(watch())
        assert await journal.flush()
        watcher.cancel()
    assert len(await registry.sessions(limit=2000)) == 1000
    assert turns > 100, "others get the loop again and again meanwhile"


async def test_steps_come_to_those_who_follow(registry: Registry) -> None:
    journal = journal_of(registry)
    other = "52:54:00:00:00:02"
    with journal.follow(None) as everything, journal.follow([NAME]) as one:
        journal.dhcp(MAC, offered())
        journal.add(other, "tftp", "x: completed, 1 bytes")
        assert [mac.hex(":") for mac, _ in (await everything.next(5) or ([], 0))[0]] == [NAME, other]
        assert [mac.hex(":") for mac, _ in (await one.next(5) or ([], 0))[0]] == [NAME]
        assert await one.next(0.01) == ([], 0)
    journal.dhcp(MAC, offered(1))
    assert await one.next(0.01) == ([], 0), "nobody follows any more"


async def test_a_slow_follower_loses_steps_and_is_told(registry: Registry) -> None:
    journal = journal_of(registry)
    with journal.follow([NAME]) as follower:
        for number in range(MOST_WAITING + 10):
            journal.dhcp(MAC, offered(number / 1000))
        steps, lost = await follower.next(5) or ([], 0)
        assert (len(steps), lost) == (MOST_WAITING, 10)
        journal.dhcp(MAC, offered(2))
        assert await follower.next(5) == ([(MAC, offered(2))], 0)


async def test_followers_are_bounded_and_let_go_at_the_end(registry: Registry) -> None:
    journal = journal_of(registry)
    with contextlib.ExitStack() as stack:
        followers = [stack.enter_context(journal.follow(None)) for _ in range(MOST_FOLLOWERS)]
        with pytest.raises(TooManyFollowersError, match="16 watch"):
            journal.refuse_when_full()
        journal.dhcp(MAC, offered())
        await journal.end_following()
        for follower in followers:
            assert await follower.next(5) == ([(MAC, offered())], 0)
            assert await follower.next(5) is None
    journal.refuse_when_full()


async def test_addresses_of_devices_are_remembered_and_bounded(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pbserv.journal.journal.REMEMBERED_ADDRESSES", 2)
    journal = journal_of(registry)
    for address in ("", "0.0.0.0", "10.0.0.1", "10.0.0.2", "10.0.0.3"):
        journal.learn(address, NAME)
    assert [journal.mac_of(a) for a in ("", "0.0.0.0", "10.0.0.1", "10.0.0.3")] == [None, None, None, NAME]


async def test_any_bytes_are_kept(registry: Registry) -> None:
    journal = journal_of(registry)
    for length in range(0, len(asks()), 7):
        journal.dhcp(MAC, offered()._replace(data=asks()[:length], verdict="bad_packet", reply=None))
    assert await journal.flush()
    assert len(await registry.sessions()) == 1
