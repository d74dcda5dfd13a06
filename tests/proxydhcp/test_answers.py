"""A reply from prepared bytes is byte for byte the one that the rules make for the request."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pbserv.proxydhcp import packet as dhcp
from pbserv.proxydhcp.answers import KEPT, Answers, Prepared
from pbserv.proxydhcp.asked import AskedOf
from pbserv.proxydhcp.decide import Query, decide, plan, route, screen
from pbserv.proxydhcp.facts import Facts
from pbserv.proxydhcp.outcome import Ignore, Reason, Reply
from pbserv.proxydhcp.packet import Packet, encode
from pbserv.proxydhcp.strategy import Menu, MenuEntry
from pbserv.types import Verdict
from tests.proxydhcp.samples import AT_67, AT_4011, HTTP, IPXE_OPTIONS, SETTINGS, asks, recorded
from tests.proxydhcp.samples import settings as given_settings

GIVEN = given_settings(menu=Menu((MenuEntry("Memory test", file="memtest.0"),), 7))
ASKED, ANSWERS = AskedOf(), Answers(GIVEN)  # as in the service: they have served all the examples before


def both(data: bytes, facts: Facts, verdict: Verdict, **how: object) -> tuple[bytes | Ignore, bytes | Ignore]:
    """The reply that is filled in, and the one that is made from the beginning by a reader with no memory."""
    found = []
    for asked in (ASKED, AskedOf()):
        query = screen(data, dhcp.head_of(data), asked.read(data), facts)
        if isinstance(query, Ignore):
            return query, query
        chosen = plan(query, facts, GIVEN, verdict, "", **how)  # type: ignore[arg-type]
        if isinstance(chosen, Ignore):
            return chosen, chosen
        found.append((query, chosen))
    (query, chosen), (fresh, again) = found
    target = route(query.head, facts)
    prepared = target if isinstance(target, Ignore) else ANSWERS.prepare(query, facts, chosen)
    reply = decide(fresh, facts, GIVEN, again)
    if isinstance(prepared, Ignore):
        return prepared, reply if isinstance(reply, Ignore) else reply.data
    assert isinstance(reply, Reply)
    assert prepared.summary == reply.summary
    assert isinstance(target, tuple)
    assert (target.address, target.port, target.ifindex) == (reply.destination, reply.port, reply.ifindex)
    return bytes(prepared.fill(data, query.uuid, target.flag)), reply.data


addresses = st.one_of(st.just(bytes(4)), st.binary(min_size=4, max_size=4), st.just(bytes((192, 168, 122, 63))))
uuids = st.one_of(st.none(), st.binary(min_size=16, max_size=16).map(b"\0".__add__), st.binary(max_size=18))
relays = st.one_of(st.none(), st.binary(max_size=40), st.binary(min_size=250, max_size=255))
classes = st.sampled_from((b"PXEClient", b"PXEClient:Arch:00007", HTTP, b"HW-Client"))
items = st.sampled_from((None, "470480000000ff", "470480010000ff", "470480020000ff"))


@st.composite
def requests(draw: st.DrawFn) -> Packet:
    options = {57: draw(st.sampled_from((b"\x05\xc0", b"\x02\x40", b"\xff\0")))}
    for tag, value in ((97, draw(uuids)), (82, draw(relays))):
        if value is not None:
            options[tag] = value
    if draw(st.booleans()):
        options |= IPXE_OPTIONS
    item = draw(items)
    if item:
        options[43] = bytes.fromhex(item)
    if draw(st.booleans()):
        options[61] = b"\1" + draw(st.binary(min_size=6, max_size=6))
    made = asks(
        draw(st.sampled_from((dhcp.DISCOVER, dhcp.REQUEST, dhcp.INFORM))), draw(st.sampled_from((0, 7, 9, 16))),
        vendor_class=draw(classes), xid=draw(st.integers(0, 2**32 - 1)), extra=options,
        flags=draw(st.integers(0, 65535)), secs=draw(st.integers(0, 65535)), hops=draw(st.integers(0, 255)),
        htype=draw(st.integers(0, 255)), hlen=draw(st.sampled_from((6, 6, 6, 16))),
        ciaddr=draw(addresses), yiaddr=draw(addresses), siaddr=draw(addresses), giaddr=draw(addresses),
    )  # fmt: skip
    if 97 not in options:
        made = dataclasses.replace(made, options={tag: made.options[tag] for tag in made.options if tag != 97})
    return dataclasses.replace(made, chaddr=draw(st.binary(min_size=16, max_size=16)))


@settings(max_examples=400)
@given(requests(), st.sampled_from((AT_67, AT_4011)), st.sampled_from(list(Verdict)), st.booleans(), st.booleans(),
       st.sampled_from(("", "two-item", "binl", "menu")), st.sampled_from(("192.168.122.250", "192.0.2.10")),
       st.sampled_from(("0.0.0.0", "192.168.122.63", "10.8.0.1")))  # fmt: skip
def test_filled_in_is_what_would_be_made(
    request: Packet, at: Facts, verdict: Verdict, chained: bool, looping: bool, strategy: str, told: str, source: str
) -> None:
    facts = at._replace(advertised=told, source=source)
    filled, made = both(encode(request), facts, verdict, chained=chained, looping=looping, strategy=strategy)
    assert filled == made


@pytest.mark.parametrize("name", ["asrock-bios-intel-discover", "ovmf-x64-discover-bz387", "rpi3-rom-discover"])
def test_recorded_requests_too(name: str) -> None:
    first = recorded(name)
    for xid in (b"\1\2\3\4", b"\xff\xff\xff\xff"):
        filled, made = both(first[:4] + xid + first[8:], AT_67, Verdict.BOOT)
        assert isinstance(filled, bytes)
        assert filled == made
        assert filled[4:8] == xid


def prepared(packet: Packet, answers: Answers, asked: AskedOf) -> Prepared | Ignore:
    data = encode(packet)
    query = screen(data, dhcp.head_of(data), asked.read(data), AT_67)
    assert isinstance(query, Query)
    chosen = plan(query, AT_67, SETTINGS, Verdict.BOOT, "")
    assert not isinstance(chosen, Ignore)
    return answers.prepare(query, AT_67, chosen)


def test_a_room_of_one_model_shares_one_reply() -> None:
    answers, asked = Answers(SETTINGS), AskedOf()
    first = prepared(asks(mac="525400000001"), answers, asked)
    other = asks(mac="525400000002", xid=9, extra={97: b"\0" + b"u" * 16})
    assert prepared(other, answers, asked) is first
    assert prepared(asks(arch=7), answers, asked) is not first


def test_what_does_not_fit_is_no_reply() -> None:
    found = prepared(asks(extra={82: bytes(255), 57: b"\x02\x40"}), Answers(SETTINGS), AskedOf())
    assert isinstance(found, Ignore)
    assert found.reason is Reason.REPLY_TOO_LONG


def test_what_is_prepared_is_bounded() -> None:
    answers, asked = Answers(SETTINGS), AskedOf()
    first = prepared(asks(), answers, asked)
    reader = AskedOf()
    for number in range(KEPT + 1):
        prepared(asks(extra={12: number.to_bytes(4, "big")}), answers, reader)
    again = prepared(asks(), answers, asked)
    assert again is not first  # forgotten meanwhile, and made again
    assert isinstance(again, Prepared)
    assert isinstance(first, Prepared)
    data, uuid = encode(asks()), asks().options[97]
    assert again.fill(data, uuid, True) == first.fill(data, uuid, True)


def test_a_device_has_a_boot_file_of_its_own() -> None:
    data = recorded("asrock-bios-intel-discover")
    query = screen(data, dhcp.head_of(data), AskedOf().read(data), AT_67)
    assert isinstance(query, Query)
    chosen = plan(query, AT_67, SETTINGS, Verdict.BOOT, "", own="pxelinux.0")
    assert not isinstance(chosen, Ignore)
    assert chosen.file.name == "pxelinux.0"
    local = plan(query, AT_67, SETTINGS, Verdict.LOCAL, "", own="pxelinux.0")
    assert not isinstance(local, Ignore)
    assert local.file.name == ""
