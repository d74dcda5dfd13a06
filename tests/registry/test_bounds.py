"""What made-up MAC addresses can leave in the registry is bounded in all, not only for each of them."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from pbserv.registry import history as module
from pbserv.registry.records import Event
from pbserv.registry.registry import Registry

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def _mac(number: int) -> str:
    return f"52:54:00:00:00:{number:02x}"


async def test_the_oldest_events_of_all_devices_go_first(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_EVENTS", 5)
    for number in range(8):
        await registry.record([Event(NOW, _mac(number), "http", "x")])
    assert [len(await registry.history(_mac(number))) for number in range(8)] == [0, 0, 0, 1, 1, 1, 1, 1]


async def test_the_strategies_that_were_learned_last_stay(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_STRATEGIES", 3)
    for number in range(6):
        await registry.remember_strategies({_mac(number): "binl"})
    assert set(await registry.strategies()) == {_mac(3), _mac(4), _mac(5)}
