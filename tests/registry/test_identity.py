"""Image-safe data and pools in the registry: a value is one device's alone; on both databases."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence

import pytest

from pbserv.registry.engine import Place
from pbserv.registry.identity import BY_HAND, Claim, Decide, IdentityRecord, IdentityWrite, mark_imaged
from pbserv.registry.pools import PoolRecord
from pbserv.registry.records import Device, DeviceState
from pbserv.registry.registry import ConflictError, DeviceChange, NotFoundError, Registry, RevisionError

MACS = [f"52:54:00:00:00:{number:02x}" for number in range(24)]
A, B, C = MACS[:3]
NAMES = [f"lab{number:02}" for number in range(1, 31)]


async def known(registry: Registry, *macs: str) -> None:
    await registry.change_devices({mac: DeviceChange(state=DeviceState.KNOWN) for mac in macs})


def claiming(values: Iterable[str], pool: str = "lab", *, body: str = "{}") -> Decide:
    """Keeps what there is, and wants one more."""

    def decide(_: Device, before: IdentityRecord, __: Sequence[PoolRecord]) -> IdentityWrite:
        kept = frozenset(value for _, value in before.given)
        return IdentityWrite(body, kept, [[Claim(pool, values)]], ["none is free: {holder} has it, {n}"])

    return decide


async def given(registry: Registry, mac: str) -> tuple[tuple[str, str], ...]:
    return (await registry.identity(mac))[1].given


async def test_a_device_without_an_identity(registry: Registry) -> None:
    with pytest.raises(NotFoundError, match="no device"):
        await registry.identity(A)
    await known(registry, A)
    device, record, pools = await registry.identity(A)
    assert (device.mac, record, pools) == (A, IdentityRecord(A), [])
    assert (await registry.change_identity(A, lambda *_: None))[1] == IdentityRecord(A)


async def test_what_is_written_is_there_by_every_address_and_after_a_restart(registry: Registry, place: Place) -> None:
    await known(registry, A, B)
    await registry.join_devices(A, B)
    _, record, _ = await registry.change_identity(B, claiming(NAMES, body='{"hostname": "é"}'))
    assert (record.mac, record.body, record.given) == (A, '{"hostname": "é"}', (("lab", "lab01"),))
    assert record.changed is not None
    again = Registry.open(place)
    assert (await again.identity(A))[1] == record
    await again.close()


async def test_concurrent_devices_never_get_the_same(registry: Registry, place: Place) -> None:
    """Also when they ask two processes: another registry on the same database stands for one."""
    await known(registry, *MACS)
    other = Registry.open(place)
    await asyncio.gather(
        *((registry, other)[number % 2].change_identity(mac, claiming(NAMES)) for number, mac in enumerate(MACS))
    )
    names = [value for mac in MACS for _, value in await given(registry, mac)]
    assert sorted(names) == NAMES[: len(MACS)]
    await other.close()


async def test_a_pool_that_is_used_up(registry: Registry) -> None:
    await known(registry, A, B)
    await registry.change_identity(A, claiming(["only"]))
    with pytest.raises(ConflictError, match=r"none is free: device 52:54:00:00:00:00 \(pool 'lab'\) has it, \{n\}"):
        await registry.change_identity(B, claiming(["ONLY"], body='{"x": 1}'))
    assert (await registry.identity(B))[1] == IdentityRecord(B)


async def test_the_next_pool_when_the_first_is_used_up(registry: Registry) -> None:
    await known(registry, A, B)
    await registry.change_identity(A, claiming(["a1"], "a"))
    both = [[Claim("a", ["a1"]), Claim("b", ["b1"])]]
    await registry.change_identity(B, lambda *_: IdentityWrite("{}", claims=both, none_left=["none"]))
    assert await given(registry, B) == (("b", "b1"),)


async def test_values_are_apart_across_pools_and_by_hand(registry: Registry) -> None:
    await known(registry, A, B, C)
    await registry.change_identity(A, claiming(["LAB01"], BY_HAND))
    await registry.change_identity(B, claiming(["lab02"], "other"))
    await registry.change_identity(C, claiming(NAMES))
    assert await given(registry, C) == (("lab", "lab03"),)


async def test_what_is_not_kept_is_free_again(registry: Registry) -> None:
    await known(registry, A, B)
    await registry.change_identity(A, claiming(NAMES))
    await registry.change_identity(A, lambda *_: IdentityWrite("", empty=True))
    assert (await registry.identity(A))[1] == IdentityRecord(A)
    await registry.change_identity(B, claiming(NAMES))
    assert await given(registry, B) == (("lab", "lab01"),)


async def test_what_decide_raises_changes_nothing(registry: Registry) -> None:
    def refuse(*_: object) -> IdentityWrite:
        raise ConflictError("no")

    await known(registry, A)
    with pytest.raises(ConflictError, match=r"^no$"):
        await registry.change_identity(A, refuse)
    assert (await registry.identity(A))[1] == IdentityRecord(A)


async def test_retired_devices_give_back_what_pools_gave(registry: Registry) -> None:
    await known(registry, A)
    await registry.change_identity(A, claiming(NAMES))
    await registry.change_identity(A, claiming(["mine"], BY_HAND, body='{"hostname": "mine"}'))
    await registry.change_device(A, DeviceChange(state=DeviceState.DENIED))
    assert len(await given(registry, A)) == 2
    await registry.change_device(A, DeviceChange(state=DeviceState.RETIRED))
    assert await given(registry, A) == ((BY_HAND, "mine"),)
    assert (await registry.identity(A))[1].body == '{"hostname": "mine"}'


async def test_a_device_that_is_forgotten_gives_back_all(registry: Registry) -> None:
    await known(registry, A, B)
    await registry.change_identity(A, claiming(["mine"], BY_HAND, body='{"hostname": "mine"}'))
    await registry.forget(A)
    await registry.change_identity(B, claiming(["mine"], BY_HAND))
    assert await given(registry, B) == ((BY_HAND, "mine"),)


async def test_devices_that_become_one(registry: Registry) -> None:
    await known(registry, A, B, C)
    await registry.change_identity(B, claiming(NAMES, body='{"b": 1}'))
    await registry.join_devices(A, B)
    record = (await registry.identity(A))[1]
    assert (record.mac, record.body, record.given) == (A, '{"b": 1}', (("lab", "lab01"),))
    await registry.change_identity(C, claiming(NAMES, body='{"c": 1}'))
    await registry.join_devices(A, C)
    assert (await registry.identity(C))[1] == record


async def test_the_flag(registry: Registry) -> None:
    await known(registry, A)
    assert (await registry.set_just_imaged(A, True)).just_imaged
    await registry.change_identity(A, claiming(NAMES, body='{"a": 1}'))
    assert (await registry.identity(A))[1].just_imaged
    cleared = await registry.set_just_imaged(A, False)
    assert (cleared.just_imaged, cleared.body, cleared.given) == (False, '{"a": 1}', (("lab", "lab01"),))
    async with registry._write() as change:
        await mark_imaged(change.session, A, "debian", 3)
    record = (await registry.identity(A))[1]
    assert (record.just_imaged, record.image, record.version, record.body) == (True, "debian", 3, '{"a": 1}')
    with pytest.raises(NotFoundError):
        await registry.set_just_imaged(B, True)


async def test_a_large_pool(registry: Registry) -> None:
    """More names are given out than one statement asks for."""
    await known(registry, A, B)
    names = [f"pc{number}" for number in range(2_500)]
    every = IdentityWrite("{}", claims=[[Claim("pc", [name])] for name in names[:2_100]], none_left=[""] * 2_100)
    await registry.change_identity(A, lambda *_: every)
    await registry.change_identity(B, claiming(names, "pc"))
    assert await given(registry, B) == (("pc", "pc2100"),)


async def test_pools_have_revisions(registry: Registry) -> None:
    assert await registry.pools() == []
    assert await registry.put_pool("lab", "{}", 0) == PoolRecord("lab", "{}", 1)
    assert await registry.put_pool("lab", "{}", 1) == PoolRecord("lab", "{}", 1)
    assert await registry.put_pool("lab", "[]", None) == PoolRecord("lab", "[]", 2)
    for expected in (0, 1, 3):
        with pytest.raises(RevisionError, match="has revision 2"):
            await registry.put_pool("lab", "{}", expected)
    with pytest.raises(RevisionError, match="does not exist"):
        await registry.put_pool("other", "{}", 1)
    with pytest.raises(RevisionError):
        await registry.delete_pool("lab", 1)
    with pytest.raises(NotFoundError, match="pbserv pool list"):
        await registry.delete_pool("other")
    assert await registry.delete_pool("lab", 2) == 0
    assert await registry.pools() == []


async def test_a_pool_with_values_is_not_deleted_at_once(registry: Registry) -> None:
    await known(registry, A, B)
    await registry.put_pool("lab", "{}", 0)
    for mac in (A, B):
        await registry.change_identity(mac, claiming(NAMES))
    pool, values = await registry.pool("lab")
    assert (pool.given, [(each.value, each.mac) for each in values]) == (2, [("lab01", A), ("lab02", B)])
    assert [each.given for each in await registry.pools()] == [2]
    with pytest.raises(ConflictError, match="--release"):
        await registry.delete_pool("lab")
    assert await registry.delete_pool("lab", release=True) == 2
    assert await given(registry, A) == ()
    with pytest.raises(NotFoundError):
        await registry.pool("lab")
