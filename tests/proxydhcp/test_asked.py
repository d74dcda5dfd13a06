"""What is remembered of a kind of packets is what a fresh reading of the packet says."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pbserv.errors import WireError
from pbserv.proxydhcp import packet as dhcp
from pbserv.proxydhcp.asked import KEPT, Asked, AskedOf
from pbserv.proxydhcp.outcome import ClientKind, Reason
from pbserv.proxydhcp.packet import encode
from pbserv.proxydhcp.table import Vendor
from tests.proxydhcp.samples import FIRMWARE, RECORDED, SETTINGS, asks, recorded

HUAWEI = (Vendor(b"HW-Client", b"PXEClient"),)
CAPTURES = [bytes.fromhex(entry["hex"]) for entry in (*RECORDED.values(), *FIRMWARE)]
HEAD = encode(asks())[:240]
UUID_LIKE, ID_LIKE = b"\x61\x11\x00", b"\x3d\x07\x01"

Reading = tuple[object, ...] | str


def reading(reader: AskedOf, data: bytes) -> Reading:
    """All that is read in a packet, or why nothing is; nothing but WireError may be raised."""
    try:
        asked = reader.read(data)
    except WireError as fault:
        return str(fault)
    return tuple(getattr(asked, field.name) for field in dataclasses.fields(asked))


def check(*packets: bytes) -> None:
    """One reader that hears all of them, twice, reads each as one that hears it alone."""
    reader = AskedOf(HUAWEI)
    for data in (*packets, *packets):
        assert reading(reader, data) == reading(AskedOf(HUAWEI), data), data[240:].hex()


noise = st.one_of(
    st.binary(max_size=24),
    st.lists(
        st.sampled_from((UUID_LIKE, ID_LIKE, b"\0", b"\xff", b"\x35\x01\x01", b"\x34\x01\x01", b"\x34\x01\x03",
                         b"\x5d\x02\0\0", b"\x61\x0a\0", b"\x61\x00", b"\x61\x11\x01")),
        max_size=4,
    ).map(b"".join),
)  # fmt: skip
uuids = st.builds(lambda head, text: (head + text)[:16], noise, st.binary(min_size=16, max_size=16))
macs = st.builds(lambda head, text: (head + text)[:6], noise, st.binary(min_size=6, max_size=6))
tagged = st.builds(lambda tag, value: bytes((tag, len(value))) + value, st.integers(1, 254), noise)
uuid_option, id_option = uuids.map(UUID_LIKE.__add__), macs.map(ID_LIKE.__add__)
basic = st.sampled_from((b"\x35\x01\x01", b"\x35\x01\x03", b"\x5d\x02\x00\x07", b"\x3c\x09PXEClient", b"\x34\x01\x03"))
tails = st.lists(st.one_of(basic, uuid_option, id_option, tagged, noise), max_size=9).map(b"".join)


@given(st.lists(tails, min_size=1, max_size=6))
def test_any_options_are_read_as_if_they_were_the_first(options: list[bytes]) -> None:
    check(*(HEAD + one for one in options))


@given(st.data())
def test_whatever_changes_in_uuid_mac_and_client_id_changes_nothing_of_the_rest(data: st.DataObject) -> None:
    first = data.draw(st.sampled_from(CAPTURES))
    packets = [first]
    for _ in range(data.draw(st.integers(1, 4))):
        changed = bytearray(packets[-1])
        for mark, size in ((UUID_LIKE, 16), (ID_LIKE, 6)):
            at = changed.find(mark, 240)
            if at >= 0 and len(changed) >= at + 3 + size:
                value = data.draw(uuids if size == 16 else macs)
                changed[at + 3 : at + 3 + size] = value
        changed[28:34] = data.draw(st.one_of(macs, st.just(b"\xb8\x27\xeb\1\2\3")))
        changed[44:236] = data.draw(noise).ljust(192, b"\0")[:192]
        packets.append(bytes(changed[: data.draw(st.one_of(st.just(4096), st.integers(240, len(changed))))]))
    check(*packets)


@given(st.data())
def test_one_byte_makes_another_packet(data: st.DataObject) -> None:
    first = data.draw(st.sampled_from(CAPTURES))
    changed = bytearray(first)
    for _ in range(data.draw(st.integers(1, 3))):
        changed[data.draw(st.integers(240, len(first) - 1))] = data.draw(st.integers(0, 255))
    check(first, bytes(changed))


@given(st.binary(min_size=240, max_size=500))
@example(HEAD)
def test_any_bytes_are_read_or_a_wire_error(data: bytes) -> None:
    check(data)


def option(tag: int, value: bytes) -> bytes:
    return bytes((tag, len(value))) + value


BASE = option(53, b"\1") + option(60, b"PXEClient") + option(93, b"\0\0")
UUIDS = [bytes(range(n, n + 16)) for n in (0, 16, 32)]
UUID = [option(97, b"\0" + value) for value in UUIDS]


@pytest.mark.parametrize(
    "packets",
    [
        # Without END a packet that ends inside its UUID, or inside its client id, is as broken as if it came alone.
        [BASE + UUID[0], BASE + UUID[1][:9], BASE + UUID[1][:3]],
        [BASE + option(61, b"\1abcdef"), BASE + option(61, b"\1uvwxyz")[:6]],
        [BASE + UUID[0] + option(61, b"\1abcdef"), BASE + UUID[0] + option(61, b"\1abcdef")[:4]],
        # A client id whose text looks like a UUID, before a stretch that then seems to be left out.
        [
            BASE + option(61, b"\1abcdef") + b"\xff",
            BASE + ID_LIKE + UUID_LIKE + b"xyz" + option(54, b"serv") + option(50, b"want") + bytes(4) + b"\xff",
        ],
        # The value that is left out ends elsewhere: the same bytes remain, at other places.
        [BASE + UUID[0] + option(12, b"a"), BASE + option(97, b"\0" + bytes(9)) + option(12, b"a")],
        [BASE + UUID[0] + UUID[1], BASE + UUID[1] + UUID[2], BASE + UUID[0]],
        [BASE + option(12, UUID[0]) + UUID[1], BASE + option(12, UUID[1]) + UUID[2]],
        [BASE + option(12, ID_LIKE + b"abcdef") + UUID[1], BASE + option(12, ID_LIKE + b"uvwxyz") + UUID[1]],
        [BASE + option(97, UUIDS[0][:10]) + option(97, UUIDS[0][10:] + b"\0"), BASE + UUID[0] + option(97, b"")],
        [BASE + option(52, b"\1") + UUID[0], BASE + option(52, b"\1") + UUID[1]],
        [BASE + option(97, b"\1" + UUIDS[0]), BASE + option(97, b"\1" + UUIDS[1])],
        [BASE + b"\xff" + UUID[0], BASE + b"\xff" + UUID[1]],
    ],
)
def test_what_looks_alike_and_is_not(packets: list[bytes]) -> None:
    check(*(HEAD + options for options in packets))
    check(*(HEAD + options for options in reversed(packets)))


def test_a_room_of_one_model_is_read_once() -> None:
    reader = AskedOf()
    first = encode(asks(extra={61: b"\1abcdef"}))
    seen = reader.read(first)
    for number in range(50):
        other = asks(mac=f"5254000000{number:02x}", xid=number, extra={61: bytes((1, number)) * 3 + b"\1",
                                                                     97: b"\0" + bytes((number,)) * 16})  # fmt: skip
        data = encode(other)
        asked = reader.read(data)
        assert asked is seen
        assert data[asked.uuid_at : asked.uuid_at + 17] == other.options[97]


def test_what_is_read() -> None:
    relayed = asks(dhcp.REQUEST, 7, extra={82: b"\1\1x", 54: b"\x0a\0\0\1", 50: b"\x0a\0\0\2", 57: b"\x04\xec",
                                          43: bytes.fromhex("470480010000ff")})  # fmt: skip
    asked = AskedOf().read(encode(relayed))
    assert asked.client is not None
    assert asked.item is not None
    assert (asked.message_type, asked.client.kind, asked.ignored) == (dhcp.REQUEST, ClientKind.UEFI, None)
    assert (asked.item.type, asked.limit, asked.relay) == (0x8001, 1260, b"\1\1x")
    assert (asked.server, asked.wanted) == (b"\x0a\0\0\1", b"\x0a\0\0\2")
    bare = AskedOf().read(encode(asks(extra={54: b"\x0a\0\0", 50: b"", 97: b"\0" * 16})))
    assert (bare.server, bare.wanted, bare.relay, bare.uuid_at) == (b"", b"", None, 0)


def test_a_pi_is_told_from_a_bios_by_its_address_though_the_options_are_the_same() -> None:
    reader = AskedOf()
    pi = recorded("rpi3-rom-discover")
    other = bytearray(pi)
    other[28:34] = b"\x52\x54\0\1\2\3"
    for data, kind in ((pi, ClientKind.RASPBERRY_PI), (bytes(other), ClientKind.BIOS)) * 2:
        client = reader.read(data).client
        assert client is not None
        assert client.kind is kind


def test_vendor_classes_of_the_table_count() -> None:
    data = encode(asks(vendor_class=b"HW-Client"))
    ignored = AskedOf().read(data).ignored
    assert ignored is not None
    assert ignored.reason is Reason.NOT_PXE
    client = AskedOf(SETTINGS.table.vendors).read(data).client
    assert client is not None
    assert (client.kind, client.vendor_class, client.text) == (ClientKind.BIOS, b"PXEClient", b"HW-Client")


def test_a_broken_option_43_is_a_bad_packet_and_not_a_client() -> None:
    for broken in (b"\x47\x03\x80", b"\x47\x02\x80\0\xff"):
        asked: Asked = AskedOf().read(encode(asks(dhcp.REQUEST, extra={43: broken})))
        assert asked.client is None
        assert asked.ignored is not None
        assert asked.ignored.reason is Reason.BAD_PACKET


def test_what_is_remembered_is_bounded() -> None:
    reader = AskedOf()
    first = encode(asks())
    seen = reader.read(first)
    for number in range(KEPT + 10):
        reader.read(encode(asks(extra={12: number.to_bytes(4, "big")})))
    assert reader.read(first) is not seen  # forgotten meanwhile, and read again
    assert reading(reader, first) == reading(AskedOf(), first)
