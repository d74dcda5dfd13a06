"""The driver: tries, the address, boot servers, the end; and that no bytes of a server upset a model."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pbserv.proxydhcp import packet as dhcp
from pbserv.proxydhcp.models import MODELS, Edk2, Heard, Identity, Model, Sent, answers, run
from pbserv.proxydhcp.packet import Packet, decode
from tests.proxydhcp.models.offers import JUST_BOOT, PROXY, dhcp_offer, heard, menu

DIRECT = heard(option43=JUST_BOOT, siaddr=PROXY, file="x.efi")


def fitting(sent: Sent, *heard_: Heard) -> list[Heard]:
    """The packets as replies to what was sent."""
    asked = decode(sent.data)
    return [
        dataclasses.replace(one, packet=dataclasses.replace(one.packet, xid=asked.xid, chaddr=asked.chaddr))
        for one in heard_
    ]


def acknowledged(lease: Heard) -> Heard:
    options = {**lease.packet.options, dhcp.MESSAGE_TYPE: bytes((dhcp.ACK,))}
    return dataclasses.replace(lease, packet=dataclasses.replace(lease.packet, options=options))


def test_a_boot_from_discover_to_file() -> None:
    sents: list[Sent] = []

    def network(sent: Sent) -> Sequence[Heard]:
        sents.append(sent)
        if len(sents) == 1:
            return fitting(sent, dhcp_offer(), DIRECT)
        return fitting(sent, acknowledged(dhcp_offer()))

    outcome = run(Edk2(), network)
    assert (outcome.boots, outcome.server, outcome.file, outcome.code) == (True, PROXY, "x.efi", "")
    assert [decode(sent.data).message_type for sent in sents] == [dhcp.DISCOVER, dhcp.REQUEST]
    assert outcome.steps == (
        "DISCOVER 1: 2 offers",
        "has the address 10.1.0.77",
        "fetches x.efi from 10.1.0.5: 43.6 says just boot the file",
    )


def test_a_server_that_stands_by_is_heard_at_a_later_try() -> None:
    """A proxy that answers only clients with secs >= 12 is heard at EDK2's third DISCOVER."""

    def network(sent: Sent) -> Sequence[Heard]:
        asked = decode(sent.data)
        if asked.message_type == dhcp.REQUEST:
            return fitting(sent, acknowledged(dhcp_offer()))
        return fitting(sent, dhcp_offer(), DIRECT) if asked.secs >= 12 else []

    outcome = run(Edk2(), network)
    assert outcome.boots
    assert outcome.steps[:3] == ("DISCOVER 1: 0 offers", "DISCOVER 2: 0 offers", "DISCOVER 3: 2 offers")


def test_replies_to_somebody_else_and_late_ones_are_not_heard() -> None:
    def network(sent: Sent) -> Sequence[Heard]:
        fine = fitting(sent, dhcp_offer(), DIRECT)
        return [
            DIRECT,  # another transaction
            dataclasses.replace(fine[1], packet=dataclasses.replace(fine[1].packet, chaddr=b"\1" * 16)),
            dataclasses.replace(fine[1], packet=dataclasses.replace(fine[1].packet, op=1)),
            dataclasses.replace(fine[1], at_s=99.0),
            dataclasses.replace(fine[1], port=4011),
            acknowledged(fine[1]),  # an ACK is no offer
        ]

    outcome = run(Edk2(), network)
    assert not outcome.boots
    assert (outcome.code, len(outcome.steps)) == ("PXE-E16", 5)


def test_without_the_dhcp_servers_ack_there_is_no_boot() -> None:
    def network(sent: Sent) -> Sequence[Heard]:
        if decode(sent.data).message_type == dhcp.DISCOVER:
            return fitting(sent, dhcp_offer(), DIRECT)
        return fitting(sent, acknowledged(DIRECT))  # a stray ACK of another server

    outcome = run(Edk2(), network)
    assert not outcome.boots
    assert "does not acknowledge" in outcome.why


def test_what_is_read_for_the_boot_is_in_the_ack() -> None:
    offer, ack = dhcp_offer(siaddr="10.1.0.1", file="offered"), dhcp_offer(siaddr="10.1.0.1", file="acknowledged")

    def network(sent: Sent) -> Sequence[Heard]:
        first = decode(sent.data).message_type == dhcp.DISCOVER
        return fitting(sent, offer if first else acknowledged(ack))

    assert run(Edk2(), network).file == "acknowledged"


def test_bootp_has_no_ack() -> None:
    bootp = dhcp_offer(kind=None, siaddr="10.1.0.1", file="bootp.efi")
    outcome = run(Edk2(), lambda sent: fitting(sent, bootp) if decode(sent.data).message_type == dhcp.DISCOVER else [])
    assert outcome.file == "bootp.efi"


def test_replies_stand_in_the_order_of_arrival() -> None:
    sent = Edk2().discover(Identity())
    late, early = fitting(sent, heard(at_s=0.5), heard(at_s=0.1))
    assert answers(sent, [late, early]) == [early, late]


def test_a_model_that_is_sent_round_in_circles_stops() -> None:
    """Every 4011 answer is another menu; the driver asks a bounded number of times."""
    circle = heard(
        kind=dhcp.ACK, option43=menu((0x8000, "it"), servers=[(0x8000, [PROXY])]), port=4011, source_port=4011
    )  # fmt: skip

    def network(sent: Sent) -> Sequence[Heard]:
        asked = decode(sent.data)
        if asked.message_type == dhcp.DISCOVER:
            return fitting(sent, dhcp_offer(), heard(siaddr=PROXY))
        return fitting(sent, circle if sent.port == 4011 else acknowledged(dhcp_offer()))

    assert not run(Edk2(), network).boots


_values = st.binary(max_size=80)
_options = st.dictionaries(st.integers(1, 254).filter(lambda tag: tag != 52), _values, max_size=12)
_interesting = st.fixed_dictionaries(
    {},
    optional={
        53: st.sampled_from([b"\2", b"\5", b"\6", b"", b"\2\2"]),
        54: st.sampled_from([b"\n\1\0\5", b"", b"\0\0\0\0"]),
        60: st.sampled_from([b"PXEClient", b"PXEClient\0", b"HTTPClient", b"x", b""]),
        43: st.one_of(_values, st.just(JUST_BOOT), _values.map(lambda value: bytes((9, len(value))) + value)),
        175: _values,
        67: _values,
    },
)
_files = st.binary(max_size=60).map(lambda value: value.replace(b"\0", b"/"))
_addresses = st.sampled_from([bytes(4), bytes((10, 1, 0, 5)), bytes((10, 1, 0, 77)), b"\xff" * 4])


@given(
    st.lists(
        st.tuples(_options, _interesting, _files, _addresses, _addresses, st.sampled_from([67, 68, 4011])), max_size=4
    ),
    st.sampled_from(list(MODELS.values())),
)
def test_whatever_servers_say_a_boot_ends(
    told: list[tuple[dict[int, bytes], dict[int, bytes], bytes, bytes, bytes, int]], model: Model
) -> None:
    """No exception, and an outcome that says why."""

    def network(sent: Sent) -> Sequence[Heard]:
        asked = decode(sent.data)
        packets = [
            Packet(2, asked.xid, asked.chaddr, yiaddr=yiaddr, siaddr=siaddr, file=file, options={**options, **more})
            for options, more, file, yiaddr, siaddr, _ in told
        ]
        return [Heard(packet, PROXY, port, sent.source_port) for packet, (*_, port) in zip(packets, told, strict=True)]

    outcome = run(model, network)
    assert outcome.why
    assert outcome.boots == bool(outcome.file)


@pytest.mark.parametrize("name", MODELS)
def test_models_know_their_names(name: str) -> None:
    assert MODELS[name].name == name
