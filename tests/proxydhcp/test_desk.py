"""A desk that serves packets under a clock of the test: ways, limits, what the policy is asked and the journal told."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pbserv.log import ServiceLog
from pbserv.net.dhcp_port import Unsent
from pbserv.net.udp import Datagram
from pbserv.proxydhcp import packet as dhcp
from pbserv.proxydhcp.asked import AskedOf
from pbserv.proxydhcp.decide import route
from pbserv.proxydhcp.facts import gather
from pbserv.proxydhcp.lanes import LANES_KEPT, Wire
from pbserv.proxydhcp.outcome import Ignore, Listener
from pbserv.proxydhcp.packet import decode, encode
from pbserv.proxydhcp.strategy import Menu
from pbserv.types import Instant, Verdict
from tests.proxydhcp.samples import AT_4011, HTTP, answer, asks, recorded, settings
from tests.proxydhcp.served import HOST, MAC, OWN, REQUEST, Served

# Ways ----------------------------------------------------------------------------------------------------------------


def test_a_batch_is_answered_each_by_its_wire_and_leaves_at_once() -> None:
    it = Served()
    first, second = it.take(asks(xid=1), asks(xid=2, mac="525400000002"))
    assert (first.xid, second.xid, it.out.flushes) == (1, 2, 1)
    (third,) = it.take(asks(xid=3, mac="525400000003"), ifindex=3)
    assert [one[1:] for one in it.out.sent] == [
        ("255.255.255.255", 68, "10.1.0.1", 2), ("255.255.255.255", 68, "10.1.0.1", 2),
        ("255.255.255.255", 68, "10.2.0.1", 3),
    ]  # fmt: skip
    assert (first.siaddr, third.siaddr) == (dhcp.undotted("10.1.0.1"), dhcp.undotted("10.2.0.1"))
    assert it.counters == {"offer": 3}


def test_changed_addresses_of_the_host_count_at_once() -> None:
    it = Served()
    it.take(asks())
    moved = (dataclasses.replace(HOST[0], address="10.1.0.9"), HOST[1])
    batch = [Datagram(encode(asks(xid=9)), "0.0.0.0", 68, "10.1.0.9", "255.255.255.255", 2)]
    it.desk.take(Listener.DHCP, it.out, batch, moved, Instant(it.now + 1))
    assert it.out.sent[-1][0].siaddr == dhcp.undotted("10.1.0.9")


def test_what_clients_are_told_by_interface() -> None:
    it = Served(settings(advertised={"eth1": "192.0.2.10"}))
    (near,) = it.take(asks())
    (told,) = it.take(asks(mac="525400000002"), ifindex=3)
    assert near.siaddr == near.options[54] == dhcp.undotted("10.1.0.1")
    assert told.siaddr == told.options[54] == dhcp.undotted("192.0.2.10")
    assert it.out.sent[-1][3] == "10.2.0.1"  # sent from the address that the interface has


def test_the_same_model_on_two_wires_and_with_several_strategies_is_never_mixed_up() -> None:
    it = Served(settings('[[rule]]\nmac = "0c"\nstrategy = "discovery"\nsource = "x"'))
    for turn in range(3):
        for ifindex in (2, 3):
            for mac, control in (("525400000001", None), ("0c0000000001", b"\x07")):
                uuid = b"\0" + bytes((turn, ifindex)) * 8
                packet = asks(arch=7, mac=mac, xid=turn * 10 + ifindex, extra={97: uuid})
                (found,) = it.take(packet, ifindex=ifindex)
                assert found.chaddr == packet.chaddr
                assert (found.xid, found.options[97]) == (packet.xid, uuid)
                assert found.siaddr == dhcp.undotted(f"10.{ifindex - 1}.0.1")
                vendor = found.options.get(43)
                assert (None if vendor is None else dhcp.suboptions(vendor)[6]) == control


def test_what_is_kept_of_a_wire_is_bounded() -> None:
    data = encode(asks(dhcp.REQUEST))
    reader, facts = AskedOf(), AT_4011._replace(ifindex=2)
    wire = Wire(facts)
    first = wire.lane(reader.read(data))
    head = dhcp.head_of(data)
    for number in range(LANES_KEPT + 10):
        wire.lane(AskedOf().read(data))
        ciaddr = number.to_bytes(4, "big")
        found = first.target(head._replace(ciaddr=ciaddr), "10.1.0.50", 4011)
        assert found == route(head._replace(ciaddr=ciaddr), facts._replace(source="10.1.0.50", source_port=4011))
        assert len(wire.lanes) <= LANES_KEPT


def test_a_device_that_asks_from_elsewhere_is_answered_there() -> None:
    it = Served()
    for source, port in (("10.1.0.50", 4011), ("10.1.0.50", 68), ("10.1.0.51", 4011), ("10.1.0.50", 4011)):
        packet = asks(dhcp.REQUEST, 7, ciaddr=dhcp.undotted(source))
        assert it.take(packet, listener=Listener.BOOT_SERVER, peer=source, port=port, to="10.1.0.1")
        assert it.out.sent[-1][1:3] == (source, port)


def test_one_fault_stops_no_other_packet(tmp_path: Path) -> None:
    log = ServiceLog("proxydhcp")
    log.configure(0, tmp_path / "log", 1, quiet=True)
    it = Served(log=log)
    it.verdict = RuntimeError("tripped")
    assert it.take(asks(), asks(mac="525400000002"), recorded("plain-host-relayed-request"), b"\0" * 300) == []
    it.verdict = Verdict.BOOT
    assert len(it.take(asks(mac="525400000003"))) == 1
    assert it.counters == {"fault": 2, "not_pxe": 1, "bad_packet": 1, "offer": 1}
    log.close()
    assert (tmp_path / "log").read_text().count("tripped") >= 1


NEIGHBOUR, FAR, RELAY = "10.1.0.50", "192.0.2.9", "10.1.0.77"


@st.composite
def arrivals(draw: st.DrawFn) -> tuple[Listener, Datagram]:
    """A packet of one of a few kinds of clients, on one of two wires, by broadcast, from an address or by a relay."""
    listener = draw(st.sampled_from(list(Listener)))
    ifindex = draw(st.sampled_from((2, 3, 4)))
    peer = draw(st.sampled_from(("0.0.0.0", NEIGHBOUR, FAR, RELAY)))
    own = draw(st.sampled_from(("10.1.0.1", "10.2.0.1")))
    extra = draw(st.sampled_from(({}, {82: b"\1\3abc"}, {97: b"\0" + b"u" * 16}, {54: b"\x0a\1\0\1"},
                                  {43: b"\x47\4\x80\0\0\0\xff"}, {57: b"\2\x40"}, {97: b"\0" * 16})))  # fmt: skip
    kind = draw(st.sampled_from((dhcp.DISCOVER, dhcp.DISCOVER, dhcp.REQUEST, dhcp.INFORM)))
    made = asks(
        kind, draw(st.sampled_from((0, 7, 11, 16))), vendor_class=draw(st.sampled_from((b"PXEClient", HTTP))),
        extra=extra, mac=draw(st.sampled_from(("525400000001", "525400000002", "0c0000000001", "000000000000"))),
        flags=draw(st.sampled_from((0, 0x8000))), xid=draw(st.integers(0, 2**32 - 1)),
        ciaddr=dhcp.undotted(draw(st.sampled_from(("0.0.0.0", NEIGHBOUR, FAR, "224.0.0.1")))),
        giaddr=dhcp.undotted(draw(st.sampled_from(("0.0.0.0", "0.0.0.0", RELAY, "255.255.255.255")))),
    )  # fmt: skip
    to = draw(st.sampled_from(("255.255.255.255", own)))
    return listener, Datagram(encode(made), peer, draw(st.sampled_from((67, 68, 4011, 9999))), own, to, ifindex)


TABLES = ("", '[[rule]]\nmac = "0c"\nstrategy = "discovery"\nsource = "x"',
          '[[rule]]\nsubnet = "10.1.0.64/26"\nkind = "bios"\nstrategy = "two-item"\nsource = "x"')  # fmt: skip


@given(
    st.lists(st.tuples(arrivals(), st.sampled_from(list(Verdict))), max_size=12), st.sampled_from(TABLES), st.booleans()
)
def test_whatever_came_before_each_packet_is_answered_as_the_rules_say(
    packets: list[tuple[tuple[Listener, Datagram], Verdict]], table: str, menu: bool
) -> None:
    wanted = settings(table, escalation=False, menu=Menu() if menu else None, advertised={"eth1": "192.0.2.10"})
    it = Served(wanted)
    for (listener, datagram), verdict in packets:
        it.verdict, it.now = verdict, it.now + 1
        before = len(it.out.sent)
        it.desk.take(listener, it.out, [datagram], HOST, Instant(it.now))
        facts = gather(datagram, listener, HOST, None, {"eth1": "192.0.2.10"})
        expected = facts if isinstance(facts, Ignore) else answer(datagram.data, facts, wanted, verdict)
        got = it.out.sent[before:]
        if isinstance(expected, Ignore):
            assert got == []
            assert it.counters.pop(expected.reason.value) == 1
        else:
            way = (expected.destination, expected.port, expected.source, expected.ifindex)
            assert got == [(decode(expected.data), *way)]
            assert it.book.steps[-1][1].reply == expected.data
            assert it.counters.pop("ack" if expected.summary.acknowledged else "offer") == 1
        assert not it.counters


# The policy and the journal ------------------------------------------------------------------------------------------


def test_the_policy_is_asked_about_the_device() -> None:
    it = Served()
    it.take(
        recorded("ovmf-x64-4011-request-try1-bz387"), listener=Listener.BOOT_SERVER, peer="192.168.122.63", port=4011
    )
    it.take(recorded("asrock-bios-intel-discover"))
    it.take(asks(arch=16, vendor_class=HTTP))
    first, second, third = it.asked
    assert str(first.mac) == "52:54:00:83:ec:bc"
    assert (first.arch, first.via, first.address) == (7, "dhcp", "192.168.122.63")
    assert first.uuid == "c181f717-48e8-4c82-8367-e47f4c972d88"
    assert (second.uuid, second.address) == (None, "")  # shared by thousands
    labels = dict(second.details)
    assert labels.pop("interface")
    assert labels == {"client_kind": "bios", "vendor_class": "PXEClient:Arch:00000:UNDI:002001"}
    assert dict(third.details)["client_kind"] == "http"


def test_the_policy_hears_of_whatever_changes() -> None:
    it = Served()
    it.take(asks(arch=7))
    it.request(REQUEST)
    it.request(dataclasses.replace(REQUEST, xid=2, options=REQUEST.options | {97: b"\0" + b"u" * 16}))
    assert [sighting.address for sighting in it.asked] == ["", "10.1.0.50", "10.1.0.50"]
    assert len({sighting.uuid for sighting in it.asked}) == 2


def test_the_journal_is_told_every_packet_of_a_boot_and_no_other() -> None:
    it = Served()
    ordinary = asks(dhcp.REQUEST, 7, extra={50: OWN, 54: b"\x0a\1\0\xfe"})
    it.take(ordinary)  # of a device that nobody knows
    it.take(asks(arch=7))
    it.take(ordinary)
    it.request(REQUEST)
    it.take(recorded("plain-host-relayed-request"), b"nonsense", recorded("armv8-uboot-request"))
    it.verdict = Verdict.SILENT
    it.request(dataclasses.replace(REQUEST, xid=2))
    assert it.book.words == ["offer", "ordinary_request_on_67", "ack", "policy_silent"]
    assert {mac for mac, _step in it.book.steps} == {MAC}
    offer, request, ack, silent = (step for _mac, step in it.book.steps)
    assert offer[1:7] == (67, 2, "0.0.0.0", 68, "10.1.0.1", "255.255.255.255")
    assert offer.data == encode(asks(arch=7))
    assert (offer.reason, offer.strategy, offer.file) == ("because", "hybrid", "ipxe.efi")
    assert offer.reply is not None
    assert decode(offer.reply).message_type == dhcp.OFFER
    assert (offer.reply_to, offer.reply_port) == ("255.255.255.255", 68)
    assert (request.reply, request.strategy, request.reply_to) == (None, "", "")
    assert ack[1:7] == (4011, 2, "10.1.0.50", 4011, "10.1.0.1", "10.1.0.1")
    assert (ack.reply_to, ack.reply_port) == ("10.1.0.50", 4011)
    assert (silent.reason, silent.reply) == ("because", None)
    assert ("learn", "10.1.0.50", MAC) in it.book.events


def test_a_reply_that_cannot_be_made_is_told_with_its_reason() -> None:
    it = Served()
    full = asks(arch=16, vendor_class=HTTP, mac="525400000002", extra={82: bytes(255), 57: b"\2\x40"})
    it.take(asks(arch=11), full)
    it.take(asks(mac="525400000003", giaddr=b"\xe0\0\0\1"))
    assert it.book.words == ["arch_not_served", "reply_too_long", "bad_return_address"]
    assert it.counters == {"arch_not_served": 1, "reply_too_long": 1, "bad_return_address": 1}


# Limits --------------------------------------------------------------------------------------------------------------


def test_the_same_packet_twice_is_answered_once() -> None:
    it = Served()
    assert len(it.take(asks(), asks(), asks(xid=2))) == 2
    assert len(it.take(asks(xid=2), after=0.3)) == 0
    assert len(it.take(asks(xid=2), after=0.3)) == 1
    assert it.counters == {"offer": 3, "repeated": 2}


def test_the_same_broadcast_by_two_wires_and_two_relays_is_answered_on_each() -> None:
    it = Served()
    found = it.take(asks(), after=0) + it.take(asks(), after=0, ifindex=3)
    for relay in (b"\x0a\1\0\x09", b"\x0a\1\0\x08"):
        found += it.take(asks(giaddr=relay), after=0, peer=dhcp.dotted(relay), port=67, to="10.1.0.1")
    assert len(found) == 4


def test_one_device_that_asks_without_end_costs_the_others_nothing() -> None:
    it = Served(settings(per_device=5))
    packets = [asks(xid=number) for number in range(20)]
    assert len(it.take(*packets, asks(mac="525400000002"))) == 6
    assert it.counters == {"offer": 6, "too_many": 15}
    assert len(it.take(asks(xid=77))) == 1


def test_an_interface_has_its_limit_too() -> None:
    it = Served(settings(per_interface=5))
    it.now = 1000.2
    packets = [asks(xid=number, mac=f"5254000000{number:02x}") for number in range(20)]
    assert len(it.take(*packets, after=0)) == 5
    assert len(it.take(asks(xid=99, mac="525400000099"), ifindex=3, after=0.1)) == 1
    assert len(it.take(*packets, after=1)) == 5
    assert it.counters == {"offer": 11, "too_many": 30}


def test_a_standby_server_lets_others_answer_first_and_acknowledges_all(tmp_path: Path) -> None:
    log = ServiceLog("proxydhcp")
    log.configure(1, tmp_path / "log", 1, quiet=True)
    it = Served(settings(minimum_secs=4), log)
    assert it.take(asks(arch=7, secs=0)) == []
    assert it.take(asks(arch=7, secs=3)) == []
    assert len(it.take(asks(arch=7, secs=4))) == 1
    assert len(it.request(REQUEST)) == 1
    assert it.counters == {"standby": 2, "offer": 1, "ack": 1}
    assert it.book.words == ["standby", "standby", "offer", "ack"]
    assert it.book.steps[0][1].reason == "secs 0 is below MinimumSecs = 4"
    log.close()
    assert not (tmp_path / "log").exists()  # that it waits is no warning


def test_an_offer_is_held_back_and_an_ack_is_not() -> None:
    it = Served(settings(reply_delay_s=0.2))
    assert it.take(asks(arch=7)) == []
    assert len(it.request(REQUEST)) == 1
    ((seconds, send),) = it.delayed
    assert seconds == 0.2
    it.out.refused = [Unsent("255.255.255.255", 68, 2, "Network is unreachable")]
    send()
    assert it.out.sent[-1][0].message_type == dhcp.OFFER
    assert it.out.sent[-1][1:] == ("255.255.255.255", 68, "10.1.0.1", 2)
    assert it.counters["send_failed"] == 1


def test_what_the_kernel_refuses_is_counted_and_said_once_a_minute(tmp_path: Path) -> None:
    log = ServiceLog("proxydhcp")
    log.configure(1, tmp_path / "log", 1, quiet=True)
    it = Served(log=log)
    for number in range(3):
        it.out.refused = [Unsent("255.255.255.255", 68, 2, "Network is unreachable")] * 2
        it.take(asks(xid=number))
    log.close()
    assert it.counters == {"offer": 3, "send_failed": 6}
    assert (tmp_path / "log").read_text().count("Network is unreachable; see: pbserv doctor") == 1


def test_a_log_line_per_acknowledged_boot_and_one_warning_a_minute_of_what_is_to_be_repaired(tmp_path: Path) -> None:
    log = ServiceLog("proxydhcp")
    log.configure(2, tmp_path / "log", 1, quiet=True)
    it = Served(log=log)
    for number in range(4):
        it.request(dataclasses.replace(REQUEST, secs=256 * number))
        it.take(asks(arch=11, xid=number, mac="525400000011"))
    it.request(dataclasses.replace(REQUEST, secs=9), after=120)
    log.close()
    lines = (tmp_path / "log").read_text().splitlines()
    assert len([line for line in lines if "boot file acknowledged" in line]) == 2
    assert len([line for line in lines if "set NBPARM64 in proxydhcp.conf" in line]) == 1


@pytest.mark.parametrize("change", [{"xid": 7}, {"flags": 0}, {"giaddr": OWN}, {"secs": 9}, {"hops": 1}])
def test_a_packet_that_differs_is_answered_as_if_it_were_the_first(change: dict[str, Any]) -> None:
    """Also what the journal has of it, and of the one before."""
    first = asks(arch=7)
    second = dataclasses.replace(first, **({"xid": first.xid + 1} | change))
    it = Served()
    for one in (first, second, first):
        alone = Served()
        assert it.take(one) == alone.take(one)
        (_, step), (_, wanted) = it.book.steps[-1], alone.book.steps[-1]
        assert step._replace(at=0.0) == wanted._replace(at=0.0)
