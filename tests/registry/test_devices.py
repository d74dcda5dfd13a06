"""What administrators say of devices, which addresses are theirs, and how they are found; on both databases."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import event

from pbserv.registry.engine import Place
from pbserv.registry.records import BundleKind, Device, DeviceState, Event, Run, WorkState
from pbserv.registry.registry import ConflictError, DeviceChange, NotFoundError, Registry, WorkOrder
from pbserv.registry.store import TOLD_AT_ONCE

MAC = "52:54:00:00:00:01"
OTHER = "52:54:00:00:00:02"
THIRD = "52:54:00:00:00:03"
NOW = datetime(2026, 1, 1, 12, 30, 0, 1234, tzinfo=UTC)
SEEN = Device(
    MAC, "4c4c4544-0042-4710-8051-b4c04f4d3332", "pc-1", 7, DeviceState.PENDING, "10.0.0.7", NOW, NOW,
    serial="S1", asset="A1", learned=(("manufacturer", "Dell"), ("vendor", "Ü")),
)  # fmt: skip
FULL = DeviceChange(
    DeviceState.KNOWN, "till", "S9", "A9", "/site 1/room 2", ("tills", "all"), (("os", "linux"), ("role", "till")),
    "tills", "special.efi", "quiet",
)  # fmt: skip


async def known(registry: Registry, *macs: str) -> None:
    for mac in macs:
        await registry.change_device(mac, DeviceChange(state=DeviceState.KNOWN))


async def test_everything_of_a_device_is_kept(registry: Registry, place: Place) -> None:
    await registry.see([SEEN])
    device = await registry.change_device(MAC, FULL)
    assert device == replace(
        SEEN, state=DeviceState.KNOWN, name="till", serial="S9", asset="A9", folder="/site 1/room 2",
        groups=("all", "tills"), labels=(("os", "linux"), ("role", "till")), menu="tills", loader="special.efi",
        arguments="quiet",
    )  # fmt: skip
    again = Registry.open(place)
    assert await again.devices() == [device]
    await again.close()


async def test_a_change_leaves_the_rest(registry: Registry) -> None:
    before = await registry.change_device(MAC, FULL)
    after = await registry.change_device(MAC, DeviceChange(name="other", groups=(), labels=()))
    assert after == replace(before, name="other", groups=(), labels=())
    assert await registry.change_device(MAC, DeviceChange()) == after


async def test_subscribers_get_the_whole_device(registry: Registry) -> None:
    told: list[Device] = []
    registry.subscribe(told.append)
    device = await registry.change_device(MAC, FULL)
    await registry.see([replace(device, macs=(OTHER,))])
    await registry.change_device(MAC, DeviceChange(menu=""))
    assert told == [device, replace(device, menu="", macs=(OTHER,))]


async def test_subscribers_learn_states_in_the_order_of_the_commits(registry: Registry) -> None:
    told: list[str] = []
    registry.subscribe(lambda device: told.append(device.name))
    async with asyncio.TaskGroup() as tasks:
        for number in range(30):
            tasks.create_task(registry.change_device(MAC, DeviceChange(name=f"n{number}")))
    assert told == [f"n{number}" for number in range(30)]
    assert (await registry.device(MAC)).name == "n29"


async def test_several_devices_change_together_or_not_at_all(registry: Registry) -> None:
    told: list[Device] = []
    registry.subscribe(told.append)
    changed = await registry.change_devices({OTHER: DeviceChange(groups=("a",)), MAC: DeviceChange(name="x")})
    assert [device.mac for device in changed] == [OTHER, MAC]
    assert len(told) == 2
    with pytest.raises(AttributeError):
        await registry.change_devices({MAC: DeviceChange(name="y"), OTHER: DeviceChange(state="nonsense")})  # type: ignore[arg-type]
    assert (await registry.device(MAC)).name == "x"
    assert len(told) == 2


async def test_what_is_seen_wins_where_it_says_something(registry: Registry) -> None:
    await registry.see([SEEN])
    await registry.change_device(MAC, DeviceChange(name="till", labels=(("vendor", "mine"),)))
    silent = Device(MAC, None, "pc-1", None, DeviceState.DENIED, "", NOW, NOW + timedelta(hours=1))
    await registry.see([silent])
    kept = await registry.device(MAC)
    assert kept == replace(
        SEEN, name="till", labels=(("vendor", "mine"),), last_seen=silent.last_seen, learned=SEEN.learned
    )
    loud = replace(SEEN, serial="S2", asset="A2", address="10.0.0.8", learned=(("vendor", "HP"),), arch=9)
    await registry.see([loud])
    device = await registry.device(MAC)
    assert (device.serial, device.asset, device.address, device.learned, device.arch) == (
        "S2", "A2", "10.0.0.8", (("vendor", "HP"),), 9,
    )  # fmt: skip


async def test_a_name_that_is_found_later_is_kept_where_there_is_none(registry: Registry) -> None:
    await registry.see([replace(SEEN, name="")])
    await registry.see([replace(SEEN, name="pc-7")])
    await registry.see([replace(SEEN, name="pc-8")])
    assert (await registry.device(MAC)).name == "pc-7"


async def test_further_addresses_are_seen_and_mean_the_device(registry: Registry) -> None:
    await registry.see([replace(SEEN, macs=(OTHER,))])
    assert (await registry.device(OTHER)).macs == (OTHER,)
    assert (await registry.change_device(OTHER, DeviceChange(state=DeviceState.KNOWN))).mac == MAC
    work = await registry.add_work(WorkOrder(OTHER, BundleKind.RESTORE, "debian"))
    assert work.mac == MAC
    await registry.see([replace(SEEN, mac=OTHER, macs=(), address="10.0.0.99")])
    (device,) = await registry.devices()
    assert (device.mac, device.address) == (MAC, "10.0.0.99")


async def test_nobody_takes_an_address_that_another_device_has(registry: Registry) -> None:
    await registry.see([replace(SEEN, mac=THIRD, macs=(OTHER,)), SEEN])
    await registry.see([replace(SEEN, macs=(OTHER, THIRD))])
    assert [(device.mac, device.macs) for device in await registry.devices()] == [(MAC, ()), (THIRD, (OTHER,))]


async def test_a_joined_device_leaves_its_history_and_its_runs(registry: Registry) -> None:
    await known(registry, MAC, OTHER)
    for mac, ok in ((MAC, True), (OTHER, False)):
        order = WorkOrder(mac, BundleKind.RESTORE, "debian", assignment="nightly")
        await registry.finish_work((await registry.add_work(order)).id, ok=ok, reason="")
    await registry.see([replace(SEEN, mac=OTHER, macs=(THIRD,))])
    await registry.record([Event(NOW, mac, "tftp", mac) for mac in (MAC, OTHER, THIRD)])
    joined = await registry.join_devices(MAC, OTHER)
    assert joined.macs == (OTHER, THIRD)
    assert [(run.assignment, run.state) for run in joined.runs] == [("nightly", WorkState.HELD)]
    assert await registry.devices() == [joined]
    assert [each.detail for each in await registry.history(MAC)] == [MAC, OTHER, THIRD]
    assert {work.mac for work in await registry.works(everything=True)} == {MAC}


async def test_the_newer_run_stays_when_devices_are_joined(registry: Registry) -> None:
    await known(registry, MAC, OTHER)
    for mac, ok in ((OTHER, False), (MAC, True)):
        order = WorkOrder(mac, BundleKind.RESTORE, "debian", assignment="nightly")
        await registry.finish_work((await registry.add_work(order)).id, ok=ok, reason="")
    assert [run.state for run in (await registry.join_devices(MAC, OTHER)).runs] == [WorkState.DONE]


async def test_what_cannot_be_joined(registry: Registry) -> None:
    await known(registry, MAC, OTHER)
    work = await registry.add_work(WorkOrder(OTHER, BundleKind.RESTORE, "debian"))
    with pytest.raises(ConflictError, match=f"pbserv work cancel {work.id}"):
        await registry.join_devices(MAC, OTHER)
    with pytest.raises(ConflictError, match="already"):
        await registry.join_devices(MAC, MAC)
    with pytest.raises(NotFoundError):
        await registry.join_devices(MAC, THIRD)
    await registry.cancel_work(work.id)
    await registry.join_devices(MAC, OTHER)
    await known(registry, THIRD)
    with pytest.raises(ConflictError, match=f"an address of device {MAC}; name that one"):
        await registry.join_devices(THIRD, OTHER)


async def test_a_split_address_is_a_pending_device(registry: Registry) -> None:
    told: list[Device] = []
    await known(registry, MAC, OTHER)
    await registry.join_devices(MAC, OTHER)
    registry.subscribe(told.append)
    made = await registry.split_device(MAC, OTHER)
    assert (made.mac, made.state, made.macs) == (OTHER, DeviceState.PENDING, ())
    assert [(device.mac, device.macs) for device in told] == [(MAC, ()), (OTHER, ())]
    with pytest.raises(ConflictError, match="no further address"):
        await registry.split_device(MAC, OTHER)


async def test_a_device_is_forgotten_with_all_its_addresses(registry: Registry) -> None:
    await known(registry, MAC, OTHER)
    await registry.change_device(MAC, FULL)
    await registry.join_devices(MAC, OTHER)
    order = WorkOrder(MAC, BundleKind.RESTORE, "debian", assignment="nightly")
    await registry.start_job((await registry.add_work(order)).id, "", None)
    await registry.cancel_work((await registry.works())[0].id)
    await registry.remember_strategies({OTHER: "binl"})
    await registry.record([Event(NOW, OTHER, "tftp", "x")])
    await registry.forget(OTHER)
    assert await registry.devices() == []
    assert await registry.strategies() == {}
    assert await registry.history(OTHER) == []
    assert await registry.jobs() == []


@pytest.mark.parametrize("state", [DeviceState.DENIED, DeviceState.RETIRED])
async def test_a_barred_device_loses_its_work(registry: Registry, state: DeviceState) -> None:
    await known(registry, MAC)
    work = await registry.add_work(WorkOrder(MAC, BundleKind.RESTORE, "debian", assignment="nightly"))
    device = await registry.change_device(MAC, DeviceChange(state=state))
    assert device.work is None
    assert [run.state for run in device.runs] == [WorkState.CANCELLED]
    assert (await registry.work(work.id)).reason == f"the device was {state}"


async def test_runs_are_the_newest_of_each_assignment(registry: Registry) -> None:
    await known(registry, MAC)
    for name, ok in (("b", False), ("b", True), ("a", True), ("", True)):
        order = WorkOrder(MAC, BundleKind.RESTORE, "debian", assignment=name)
        await registry.finish_work((await registry.add_work(order)).id, ok=ok, reason="x")
    runs = (await registry.device(MAC)).runs
    assert [(run.assignment, run.state) for run in runs] == [("a", WorkState.DONE), ("b", WorkState.DONE)]
    assert all(isinstance(run, Run) and abs(datetime.now(UTC) - run.ended) < timedelta(minutes=1) for run in runs)


async def test_pages(registry: Registry) -> None:
    macs = [f"52:54:00:00:01:{number:02x}" for number in range(12)]
    await registry.change_devices(
        {
            mac: DeviceChange(
                state=DeviceState.KNOWN if number % 2 else DeviceState.PENDING,
                name=f"PC_{number}", serial=f"SN{number}%", folder="/a/b" if number < 3 else "/ab",
                groups=("first",) if number < 5 else (),
            )
            for number, mac in enumerate(macs)
        }
    )  # fmt: skip
    await registry.see([replace(SEEN, mac=macs[11], address="10.9.8.7", macs=("02:aa:00:00:00:01",))])

    async def page(**which: object) -> list[int]:
        return [macs.index(device.mac) for device in await registry.page_devices(**which)]  # type: ignore[arg-type]

    assert await page(limit=5) == [0, 1, 2, 3, 4]
    assert await page(limit=5, after=macs[4]) == [5, 6, 7, 8, 9]
    assert await page(state=DeviceState.KNOWN, limit=3) == [1, 3, 5]
    assert await page(folder="/a") == await page(folder="/a/b") == [0, 1, 2]
    assert await page(folder="/", after=macs[8]) == [9, 10, 11]
    assert await page(group="first") == [0, 1, 2, 3, 4]
    assert await page(text="pc_1") == [1, 10, 11]
    assert await page(text="sn3%") == [3]
    assert await page(text="%%") == await page(text="pcx1") == []
    assert await page(text="9.8") == await page(text="02:AA") == [11]
    assert await page(text=":01:0A") == [10]
    assert await page(text="PC", group="first", state=DeviceState.KNOWN) == [1, 3]


async def test_texts_that_a_database_refuses_are_made_fit(registry: Registry) -> None:
    odd = Device(MAC, None, "n" * 300, None, DeviceState.PENDING, "", NOW, NOW, learned=(("x", "a\0b\ud800"),))
    await registry.see([odd])
    await registry.record([Event(NOW, MAC, "w" * 100, "\0half \ud800 and é")])
    device = await registry.device(MAC)
    assert device.name == "n" * 64
    assert [each.detail for each in await registry.history(MAC)] == ["half ? and é"]


async def test_thousands_are_loaded_in_order(registry: Registry) -> None:
    macs = [f"52:54:00:01:{number >> 8:02x}:{number & 255:02x}" for number in range(2_345)]
    await registry.see([replace(SEEN, mac=mac) for mac in reversed(macs)])
    await registry.change_devices({mac: DeviceChange(DeviceState.KNOWN, groups=("g",)) for mac in macs[::7]})
    await registry.add_works([WorkOrder(mac, BundleKind.RESTORE, "x") for mac in macs[::7]])
    found = await registry.devices()
    assert [device.mac for device in found] == macs
    assert [device.mac for device in found if device.work and device.groups == ("g",)] == macs[::7]


async def test_changes_of_many_cost_a_few_statements_and_leave_the_loop_to_others(registry: Registry) -> None:
    macs = [f"52:54:00:01:{number >> 8:02x}:{number & 255:02x}" for number in range(2_000)]
    statements, turns, told = 0, 0, Counter[int]()

    def count(*_: object) -> None:
        nonlocal statements
        statements += 1

    async def turn() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    event.listen(registry._engine.sync_engine, "before_cursor_execute", count)
    registry.subscribe(lambda device: told.update((turns,)))
    changes = {mac: DeviceChange(name=f"pc {mac}", groups=("a", "b"), labels=(("room", mac[-1]),)) for mac in macs}
    async with asyncio.TaskGroup() as group:
        others = group.create_task(turn())
        changed = await registry.change_devices(changes)
        others.cancel()
    assert [(device.name, device.groups) for device in changed] == [(f"pc {mac}", ("a", "b")) for mac in macs]
    assert statements < len(macs) / 10
    assert (told.total(), max(told.values())) == (len(macs), TOLD_AT_ONCE)


async def test_each_change_of_many_is_its_own(registry: Registry) -> None:
    """Different fields of different devices, one of them twice by its two addresses, one that is barred."""
    await known(registry, MAC, THIRD)
    await registry.see([replace(SEEN, mac=MAC, macs=(OTHER,))])
    work = await registry.add_work(WorkOrder(THIRD, BundleKind.RESTORE, "x"))
    new = "52:54:00:00:00:04"
    first, _, third, fourth = await registry.change_devices({
        MAC: DeviceChange(name="one", groups=("a",)), OTHER: DeviceChange(asset="A2", groups=("b",)),
        THIRD: DeviceChange(DeviceState.DENIED), new: DeviceChange(folder="/x", groups=()),
    })  # fmt: skip
    assert (first.name, first.asset, first.groups) == ("one", "A2", ("b",))
    assert (third.state, third.work) == (DeviceState.DENIED, None)
    assert (await registry.work(work.id)).reason == "the device was denied"
    assert (fourth.mac, fourth.state, fourth.folder) == (new, DeviceState.KNOWN, "/x")
