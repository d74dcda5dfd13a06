"""API tokens and counters as the registry keeps them; on both databases."""

from __future__ import annotations

import asyncio

import pytest

from pbserv.registry.engine import Place
from pbserv.registry.records import Role
from pbserv.registry.registry import ConflictError, NotFoundError, Registry


async def test_tokens_have_roles(registry: Registry) -> None:
    admin = await registry.add_token("first", Role.ADMIN, "a" * 64)
    viewer = await registry.add_token("wall", Role.VIEWER, "b" * 64)
    assert await registry.tokens() == [admin, viewer]
    assert (viewer.name, viewer.role) == ("wall", Role.VIEWER)
    assert await registry.token_digests() == {"a" * 64: "admin", "b" * 64: "viewer"}
    with pytest.raises(ConflictError, match="named 'wall' already"):
        await registry.add_token("wall", Role.SITE, "c" * 64)


async def test_the_last_administrators_token_stays(registry: Registry) -> None:
    first = await registry.add_token("first", Role.ADMIN, "a" * 64)
    viewer = await registry.add_token("wall", Role.VIEWER, "b" * 64)
    assert await registry.revoke_token(viewer.id) == "b" * 64
    with pytest.raises(ConflictError, match="the last one"):
        await registry.revoke_token(first.id)
    second = await registry.add_token("second", Role.ADMIN, "c" * 64)
    outcomes = await asyncio.gather(*(registry.revoke_token(t.id) for t in (first, second)), return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [str, ConflictError]
    with pytest.raises(NotFoundError):
        await registry.revoke_token(first.id)
    assert [token.name for token in await registry.tokens()] == ["second"]


async def test_numbers_are_given_out_once(registry: Registry, place: Place) -> None:
    other = Registry.open(place)
    numbers = await asyncio.gather(*(each.next_number("device") for each in (registry, other) * 10))
    assert sorted(numbers) == list(range(1, 21))
    assert await registry.next_number("other") == 1
    await other.close()
    again = Registry.open(place)
    assert await again.next_number("device") == 21
    await again.close()
