"""What a desk remembers of devices: strategies that have their turn, loops, loaders that ask by themselves."""

from __future__ import annotations

import dataclasses

import pytest

from pbserv.proxydhcp import packet as dhcp
from pbserv.proxydhcp.strategy import Menu
from pbserv.types import Instant, Verdict
from tests.proxydhcp.samples import IPXE_OPTIONS, SETTINGS, asks, settings
from tests.proxydhcp.served import MAC, REQUEST, Served


def test_a_device_that_stops_after_the_offer_twice_gets_the_next_strategy() -> None:
    it = Served()
    seen = [it.attempt() for _ in range(12)]
    assert [len(set(one)) for one in seen] == [1] * 12  # one attempt, one strategy
    assert [one[0] for one in seen] == [
        "hybrid", "hybrid", "direct", "direct", "binl", "binl", "discovery", "discovery", "two-item", "two-item",
        "hybrid", "hybrid",
    ]  # fmt: skip
    told = [event for event in it.book.events if event[0] == "next strategy"]
    assert told[0] == ("next strategy", MAC, "direct: it stopped right after our offer twice")
    assert len(told) == 5


def test_a_bios_has_steps_of_its_own_and_with_a_menu_begins_with_it() -> None:
    for wanted, steps in (
        (
            SETTINGS,
            ["direct", "direct", "hybrid", "hybrid", "discovery", "discovery", "two-item", "two-item", "direct"],
        ),
        (settings(menu=Menu()), ["menu", "menu", "hybrid"]),
    ):
        it = Served(wanted)
        assert [it.attempt(arch=0)[0] for _ in steps] == steps


@pytest.mark.parametrize("how", ["request", "fetched"])
def test_the_strategy_that_gets_further_is_kept(how: str) -> None:
    it = Served()
    for _ in range(3):
        it.attempt()
    if how == "request":
        it.request(REQUEST)
    else:
        it.desk.reached(bytes.fromhex(MAC.replace(":", "")))
    assert ("strategy_learned", MAC, "direct") in it.book.events
    assert [it.attempt()[0] for _ in range(2)] == ["direct", "direct"]
    other = Served()
    other.devices.remember({bytes.fromhex(MAC.replace(":", "")): "direct"})
    assert other.attempt()[0] == "direct"
    assert it.attempt(mac="525400000002")[0] == "hybrid"


def test_a_device_that_gets_on_keeps_its_strategy() -> None:
    it = Served()
    for _ in range(8):
        assert set(it.attempt((0,))) == {"hybrid"}
        it.request(dataclasses.replace(REQUEST, xid=len(it.asked)))
    assert [event for event in it.book.events if event[0] == "next strategy"] == []


def test_nobody_escalates_who_is_silenced_sent_to_its_disk_or_not_firmware() -> None:
    for verdict in (Verdict.SILENT, Verdict.LOCAL):
        it = Served()
        it.verdict = verdict
        for _ in range(6):
            it.attempt()
        assert it.book.events == []
    it = Served()
    for _ in range(6):
        it.attempt(extra=IPXE_OPTIONS)
    assert it.book.events == []


def test_escalation_can_be_switched_off() -> None:
    it = Served(settings(escalation=False))
    assert {it.attempt()[0] for _ in range(6)} == {"hybrid"}
    assert it.book.events == []


LAB = '[[rule]]\nmac = "52:54:00"\nstrategy = "binl"\n{}source = "we know this board"'


def test_what_was_learned_does_not_outweigh_the_administrators_rule() -> None:
    it = Served()
    it.devices.remember({bytes.fromhex(MAC.replace(":", "")): "two-item"})
    assert it.attempt()[0] == "two-item"
    it.reload(settings(LAB.format("")))
    assert it.attempt()[0] == "binl"
    it.reload(settings(LAB.format('escalate = "two-item"\n')))
    assert it.attempt()[0] == "two-item"


def test_where_there_is_nothing_else_to_try_nothing_is_said() -> None:
    it = Served(settings(LAB.format("")))
    assert {it.attempt()[0] for _ in range(6)} == {"binl"}
    assert it.book.events == []


def test_a_learned_strategy_that_the_table_has_no_more_is_forgotten() -> None:
    it = Served()
    it.devices.remember({bytes.fromhex(MAC.replace(":", "")): "gone"})
    assert it.attempt()[0] == "hybrid"


# Loops and loaders ---------------------------------------------------------------------------------------------------


def loop(it: Served, times: int = 5) -> None:
    it.take(asks(arch=7, xid=77))
    boots = it.devices.known(bytes.fromhex(MAC.replace(":", "")))
    assert boots is not None
    for _ in range(times):
        boots.handed("ipxe.efi", 1, False, Instant(it.now))
        boots.fetched_loader("ipxe.efi", Instant(it.now))


@pytest.mark.parametrize("arch", [0, 7])
def test_a_device_in_a_loop_is_sent_to_its_local_disk_for_a_while(arch: int) -> None:
    it = Served(settings(loop_limit=5))
    loop(it)
    assert set(it.attempt(arch=arch)) == {"local"}
    (found,) = it.request(dataclasses.replace(REQUEST, options=asks(dhcp.REQUEST, arch).options))
    assert 9 in dhcp.suboptions(found.options[43])
    assert it.attempt((0,), after=700, arch=arch)[0] != "local"


def test_no_loop_below_the_limit_or_without_one() -> None:
    for limit, times in ((5, 4), (0, 50)):
        it = Served(settings(loop_limit=limit))
        loop(it, times)
        assert it.attempt()[0] == "hybrid"


def test_an_ipxe_rom_gets_the_loader_and_what_it_loaded_gets_the_script() -> None:
    it = Served(settings(ipxe=""))
    rom = asks(extra=IPXE_OPTIONS, xid=5)
    assert [it.take(rom, after=1)[0].file for _ in range(2)] == [b"undionly.kpxe"] * 2
    loaded = dataclasses.replace(rom, xid=6)
    assert [it.take(loaded, after=1)[0].file for _ in range(2)] == [b"boot.ipxe"] * 2
    (again,) = it.take(dataclasses.replace(rom, xid=7), after=300)
    assert again.file == b"undionly.kpxe"


def test_firmware_that_was_handed_an_ipxe_is_not_handed_it_again() -> None:
    it = Served(settings(ipxe=""))
    it.take(asks())
    (found,) = it.take(asks(extra=IPXE_OPTIONS))  # with the xid of the ROM, as some derive it from the MAC
    assert found.file == b"boot.ipxe"
    it.verdict = Verdict.LOCAL
    (local,) = it.take(asks(extra=IPXE_OPTIONS), after=2)
    assert local.file == b"boot.ipxe"  # never a menu: nested loaders cannot leave by one


def test_the_verdict_may_change_between_offer_and_ack() -> None:
    it = Served()
    (offer,) = it.take(asks(arch=7))
    assert offer.file == b"ipxe.efi"
    it.verdict = Verdict.LOCAL
    (ack,) = it.request(REQUEST)
    assert set(dhcp.suboptions(ack.options[43])) == {6, 9, 10}
    it.verdict = Verdict.BOOT
    (ack,) = it.request(dataclasses.replace(REQUEST, xid=3))
    assert ack.file == b"ipxe.efi"


def test_new_settings_count_for_the_next_packet_and_devices_stay_known() -> None:
    it = Served(settings(ipxe=""))
    it.take(asks())
    it.reload(settings(ipxe="", loaders={0: dataclasses.replace(SETTINGS.loaders[0], file="other.kpxe")}))
    (found,) = it.take(asks(xid=9))
    assert found.file == b"other.kpxe"
    (chained,) = it.take(asks(extra=IPXE_OPTIONS, xid=10))
    assert chained.file == b"boot.ipxe"
