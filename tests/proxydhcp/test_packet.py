"""The codec against recorded packets, arbitrary bytes, and two other decoders."""

from __future__ import annotations

import dpkt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.dhcp import BOOTP, DHCP

from pbserv.errors import WireError
from pbserv.proxydhcp import packet as dhcp
from pbserv.proxydhcp.packet import Packet, decode, encode
from tests.proxydhcp.samples import FIRMWARE, RECORDED, recorded

MESSAGE = st.builds(
    Packet,
    op=st.integers(0, 255), xid=st.integers(0, 2**32 - 1), chaddr=st.binary(min_size=16, max_size=16),
    htype=st.integers(0, 255), hlen=st.integers(0, 16), hops=st.integers(0, 255), secs=st.integers(0, 65535),
    flags=st.integers(0, 65535), ciaddr=st.binary(min_size=4, max_size=4), yiaddr=st.binary(min_size=4, max_size=4),
    siaddr=st.binary(min_size=4, max_size=4), giaddr=st.binary(min_size=4, max_size=4),
    sname=st.binary(max_size=64).map(lambda text: text.replace(b"\0", b"x")),
    file=st.binary(max_size=128).map(lambda text: text.replace(b"\0", b"x")),
    options=st.dictionaries(st.integers(1, 254).filter(lambda tag: tag not in (52, 67)), st.binary(max_size=90),
                            max_size=12),
)  # fmt: skip


def decoded(data: bytes) -> Packet | None:
    """The packet, or None for bytes that are refused at a place inside them."""
    try:
        return decode(data)
    except WireError as fault:
        offset = fault.offset
    assert 0 <= offset <= len(data)
    return None


def with_options(options: bytes, file: bytes = b"", sname: bytes = b"") -> bytes:
    head = encode(Packet(1, 1, bytes(16)))[:44]
    return head + sname.ljust(64, b"\0") + file.ljust(128, b"\0") + dhcp.COOKIE + options


@pytest.mark.parametrize("name", RECORDED)
def test_recorded_packets_decode_as_scapy_and_dpkt_decode_them(name: str) -> None:
    data = recorded(name)
    ours, scapy, other = decode(data), BOOTP(data), dpkt.dhcp.DHCP(data)
    assert ours.message_type == RECORDED[name]["message_code"]
    assert (ours.op, ours.xid, ours.flags, ours.secs) == (scapy.op, scapy.xid, int(scapy.flags), scapy.secs)
    assert dhcp.dotted(ours.siaddr) == scapy.siaddr
    assert ours.chaddr == scapy.chaddr
    assert ours.options == dict(other.opts)


@pytest.mark.parametrize("entry", FIRMWARE, ids=lambda entry: f"{entry['client']}-{entry['kind']}")
def test_packets_of_real_firmware_survive_a_round_trip(entry: dict[str, str]) -> None:
    first = decode(bytes.fromhex(entry["hex"]))
    assert decode(encode(first)) == first


@given(st.binary(max_size=700))
def test_any_bytes_are_a_packet_or_a_wire_error(data: bytes) -> None:
    decoded(data)


@given(st.binary(max_size=300), st.binary(max_size=128), st.binary(max_size=64))
def test_any_options_are_a_packet_or_a_wire_error(options: bytes, file: bytes, sname: bytes) -> None:
    data = with_options(options, file, sname)
    packet = decoded(data)
    if packet is not None:
        assert sum(map(len, packet.options.values())) <= len(data)


@given(st.integers(1, 3), st.binary(max_size=128), st.binary(max_size=64))
def test_any_overloaded_fields_are_a_packet_or_a_wire_error(which: int, file: bytes, sname: bytes) -> None:
    packet = decoded(with_options(bytes((53, 1, 1, 52, 1, which, 255)), file, sname))
    if packet is not None:
        assert dhcp.OVERLOAD not in packet.options
        assert not (which & 1 and packet.file)
        assert not (which & 2 and packet.sname)


@given(MESSAGE)
def test_what_is_encoded_decodes_to_the_same(packet: Packet) -> None:
    data = encode(packet)
    assert 300 <= len(data) <= 1472
    assert decode(data) == packet


def test_overload_is_read_in_the_order_options_file_sname_and_joined() -> None:
    data = with_options(bytes((77, 1, 65, 52, 1, 3, 255)), bytes((77, 1, 66, 255)), bytes((77, 1, 67, 12, 1, 97, 255)))
    packet = decode(data)
    assert packet.options == {77: b"ABC", 12: b"a"}
    assert (packet.file, packet.sname) == (b"", b"")


def test_an_overload_inside_an_overloaded_field_is_not_followed() -> None:
    packet = decode(with_options(bytes((52, 1, 1, 255)), bytes((52, 1, 3, 255)), bytes((12, 1, 97, 255))))
    assert packet.options == {}


@pytest.mark.parametrize(
    ("options", "field"),
    [
        (bytes((53,)), "option 53"),
        (bytes((53, 4, 1)), "option 53"),
        (bytes((52, 1, 0, 255)), "option 52"),
        (bytes((52, 1, 4, 255)), "option 52"),
        (bytes((52, 0, 255)), "option 52"),
    ],
)
def test_broken_options_are_named(options: bytes, field: str) -> None:
    with pytest.raises(WireError) as caught:
        decode(with_options(options))
    assert caught.value.field == field


def test_broken_headers_are_named() -> None:
    good = bytearray(encode(Packet(1, 1, bytes(16))))
    for position, value, field in ((2, 17, "hlen"), (236, 0, "magic cookie")):
        bad = bytearray(good)
        bad[position] = value
        with pytest.raises(WireError, match=field):
            decode(bytes(bad))
    with pytest.raises(WireError, match="header"):
        decode(bytes(good[:239]))
    with pytest.raises(WireError, match="4096"):
        decode(bytes(good).ljust(4097, b"\0"))


def test_a_missing_end_is_forgiven() -> None:
    assert decode(with_options(bytes((53, 1, 1)))).message_type == dhcp.DISCOVER


def test_option_67_ends_with_nul_and_stands_last() -> None:
    options = {dhcp.BOOT_FILE: b"undionly.kpxe", 254: b"z", dhcp.RELAY_INFO: b"\1\1\1", dhcp.MESSAGE_TYPE: b"\2"}
    data = encode(Packet(2, 1, bytes(16), options=options))
    assert data[240:243] == b"\x35\x01\x02"
    assert data.rstrip(b"\0").endswith(b"\x43\x0eundionly.kpxe\0\xff")
    said = [entry[0] for entry in BOOTP(data)[DHCP].options if isinstance(entry, tuple)]
    assert (said[0], said[-1]) == ("message-type", "boot-file-name")


def test_nothing_is_split_or_longer_than_the_client_takes() -> None:
    with pytest.raises(WireError, match="do not fit into one option"):
        encode(Packet(2, 1, bytes(16), options={43: bytes(256)}))
    with pytest.raises(WireError, match="client takes 576"):
        encode(Packet(2, 1, bytes(16), options={tag: bytes(200) for tag in (43, 66, 82)}), 576)


@pytest.mark.parametrize(
    ("value", "limit"),
    [(None, 576), (b"\x04\xec", 1260), (b"\xff\x00", 1472), (b"\x05\xc0", 1472), (b"\x00\x10", 576), (b"\x05", 576)],
)
def test_the_limit_follows_option_57_within_reason(value: bytes | None, limit: int) -> None:
    assert Packet(1, 1, bytes(16), options={} if value is None else {57: value}).limit == limit


def test_impossible_packets_cannot_be_made() -> None:
    for wrong in ({"chaddr": bytes(6)}, {"file": bytes(129)}, {"sname": b"a\0b"}, {"options": {52: b"\1"}}):
        with pytest.raises(ValueError):
            Packet(**{"op": 1, "xid": 1, "chaddr": bytes(16)} | wrong)  # type: ignore[arg-type]


@given(st.binary(max_size=700))
def test_the_head_is_that_of_the_packet(data: bytes) -> None:
    for one in (data, with_options(data)):
        packet = decoded(one)
        if packet is None:
            continue
        head = dhcp.head_of(one)
        for name in ("op", "htype", "hlen", "hops", "xid", "secs", "flags", "ciaddr", "yiaddr", "siaddr", "giaddr",
                     "chaddr"):  # fmt: skip
            assert getattr(head, name) == getattr(packet, name)


def test_the_head_refuses_what_decode_refuses_of_the_head() -> None:
    good = encode(Packet(1, 1, bytes(16)))
    for broken in (good[:239], good.ljust(4097, b"\0"), good[:236] + b"\0" + good[237:], good[:2] + b"\x11" + good[3:]):
        said = []
        for read in (dhcp.head_of, decode):
            with pytest.raises(WireError) as caught:
                read(broken)
            said.append(str(caught.value))
        assert said[0] == said[1]


@given(MESSAGE)
def test_the_places_of_options_are_where_their_values_stand(packet: Packet) -> None:
    data = encode(packet)
    found = {data[at]: data[value : value + data[at + 1]] for at, value in dhcp.places(data).items()}
    assert found == decode(data).options
    assert not dhcp.is_overloaded(data, dhcp.places(data))
    overloaded = with_options(bytes((53, 1, 1, 0, 0, 52, 1, 3, 255)))
    assert dhcp.is_overloaded(overloaded, dhcp.places(overloaded))


@given(st.dictionaries(st.integers(1, 254), st.binary(max_size=40), max_size=6))
def test_suboptions_survive_a_round_trip(parts: dict[int, bytes]) -> None:
    assert dhcp.suboptions(dhcp.encapsulate(parts)) == parts
    assert dhcp.suboptions(dhcp.encapsulate(parts) + b"\xff\0\0") == parts


def test_pads_between_suboptions_are_stepped_over() -> None:
    # Recorded: iPXE writes a PAD before END in the 43.71 of its boot item request.
    assert dhcp.suboptions(bytes.fromhex("47048000000000ff")) == {71: bytes.fromhex("80000000")}


@pytest.mark.parametrize("text", ["10.0.0", "10.0.0.1.2", "10.0.0.256", "ten.0.0.1", "", "-1.0.0.0"])
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(ValueError):
        dhcp.undotted(text)


def test_the_line_for_the_log_says_what_counts() -> None:
    line = dhcp.describe(decode(recorded("ovmf-x64-4011-request-try1-bz387")))
    assert line.startswith("REQUEST ")
    assert "ciaddr=192.168.122.63" in line
    assert "60=PXEClient:Arch:00007:UNDI:003001" in line
    assert "93=0007" in line
