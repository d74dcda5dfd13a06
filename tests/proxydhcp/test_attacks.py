"""What one sender can do to others through the desk: nothing that outlasts its own packet."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pbserv.proxydhcp import memory
from pbserv.proxydhcp import packet as dhcp
from pbserv.proxydhcp.outcome import Listener
from pbserv.proxydhcp.packet import encode
from pbserv.proxydhcp.table import TableError, parse
from pbserv.types import Verdict
from tests.proxydhcp.samples import RECORDED, asks
from tests.proxydhcp.served import OWN, Served

_REQUESTS = [data for entry in RECORDED.values() if (data := bytes.fromhex(entry["hex"]))[:1] == b"\1"]


@pytest.mark.parametrize("header", [{"giaddr": b"\xff" * 4}, {"ciaddr": b"\xe0\0\0\1"}])
def test_an_impossible_way_back_is_no_answer_for_those_who_ask_alike(header: dict[str, Any]) -> None:
    it = Served()
    assert it.take(asks(arch=7, mac="525400000001", **header)) == []
    assert len(it.take(asks(arch=7, mac="525400000002"))) == 1
    assert it.counters == {"bad_return_address": 1, "offer": 1}


def _varied(chance: random.Random) -> bytes:
    """A recorded request, another machine's, with options added, left out, cut and in other places."""
    data = bytearray(chance.choice(_REQUESTS))
    data[4:8], data[28:34] = chance.randbytes(4), b"\x52\x54\0\0\0" + bytes((chance.randrange(4),))
    data[2] = chance.choice((6, 6, 6, 16))
    data[12:16] = chance.choice((bytes(4), bytes(4), b"\x0a\1\0\x32", b"\xe0\0\0\1"))
    data[24:28] = chance.choice((bytes(4), bytes(4), b"\x0a\x09\0\1", b"\xff\xff\xff\xff"))
    parts = [
        b"\x35\1" + chance.choice((b"\1", b"\1", b"\3", b"\x08")), b"\x5d\2\0" + chance.choice((b"\0", b"\7", b"\x10")),
        b"\x3c\x09PXEClient", b"\x61\x11\0" + chance.randbytes(16), b"\x3d\7\1" + chance.randbytes(6),
        b"\x52\3\1\1" + chance.randbytes(1), b"\x34\1" + chance.choice((b"\1", b"\2", b"\3")), b"\x61\x11\0",
        b"\x3d\7\1", b"\x4d\4iPXE", b"\x2b\6\x47\4\x80\0\0\0",
    ]  # fmt: skip
    chosen = parts[:3] + chance.sample(parts[3:], chance.randrange(5))
    chance.shuffle(chosen)
    if chance.random() < 0.7:
        data[240:] = b"".join(chosen) + chance.choice((b"\xff", b""))
    if chance.random() < 0.3:
        data[44:236] = (b"".join(chance.sample(chosen, 2)) + b"\xff").ljust(64, b"\0") + bytes(128)
    return bytes(data)


@given(st.integers(0, 2**32), st.sampled_from((Verdict.BOOT, Verdict.LOCAL, Verdict.LOADER)))
def test_what_others_asked_before_changes_no_answer(seed: int, verdict: Verdict) -> None:
    chance = random.Random(seed)
    old = Served()
    old.verdict = verdict
    for _ in range(12):
        new = Served()
        new.verdict, new.now = verdict, old.now
        old.devices._boots.clear()  # what a device did itself may count
        before = len(old.out.sent)
        data = _varied(chance)
        way: dict[str, Any] = {
            "listener": chance.choice(list(Listener)), "ifindex": chance.choice((2, 3)),
            "peer": chance.choice(("0.0.0.0", "10.1.0.50")), "to": chance.choice(("255.255.255.255", "10.1.0.1")),
        }  # fmt: skip
        old.take(data, **way)
        new.take(data, **way)
        assert old.out.sent[before:] == new.out.sent
    assert old.counters["fault"] == 0


@given(st.integers(0, 2**32))
def test_a_reply_is_at_most_a_little_longer_than_what_it_answers(seed: int) -> None:
    """Nobody gets much out of asking in another's name."""
    chance = random.Random(seed)
    it = Served()
    for _ in range(12):
        data = _varied(chance).ljust(300, b"\0")  # what EDK2, iPXE and ROMs send, or more
        for reply in it.take(data, listener=chance.choice(list(Listener)), peer="192.0.2.1"):
            assert len(encode(reply)) <= 2 * len(data)
            assert reply.xid.to_bytes(4, "big") == data[4:8]
            assert reply.options.get(dhcp.RELAY_INFO) == dhcp.decode(data).options.get(dhcp.RELAY_INFO)


def test_strategies_of_made_up_devices_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "MOST_DEVICES", 8)
    monkeypatch.setattr(memory, "FORGOTTEN_AT_ONCE", 4)
    monkeypatch.setattr(memory, "MOST_LEARNED", 6)
    it = Served()
    for number in range(40):
        mac = f"52540a0000{number:02x}"
        for secs in (60, 50, 40, 30):  # bursts that begin anew at once: the strategy is the next one
            it.take(asks(arch=7, mac=mac, secs=secs, xid=secs), after=0.001)
        it.request(asks(dhcp.REQUEST, 7, mac=mac, ciaddr=OWN), after=0.001)
    learned = [boots for boots in it.devices if boots.learned]
    assert len(learned) == len(it.devices) <= 8
    back = sum(bool(it.devices.of(bytes.fromhex(f"52540a0000{number:02x}")).learned) for number in range(24, 40))
    assert 6 <= back <= 14


@pytest.mark.parametrize(
    "text",
    [
        "x = " + "[" * 100_000, "x = " + "9" * 5000,
        '[[rule]]\nstrategy = "direct"\nloader = "a\\u0000b"\nsource = "x"',
    ],
    ids=("deep", "number", "zero"),
)  # fmt: skip
def test_a_table_that_cannot_be_served_is_refused_when_it_is_read(text: str) -> None:
    with pytest.raises(TableError):
        parse([("site.toml", text)])
