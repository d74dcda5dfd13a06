"""Pools: what they give, to whom, and what they make of an identity."""

from __future__ import annotations

import ipaddress
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pbserv.imaging.identity import Identity, check_hostname
from pbserv.imaging.pools import BY_HAND, Pool, filled, fitting

LAB = Pool.of(
    "lab", {"pattern": "lab{n:02}", "first": 1, "last": 30, "network": "10.1.0.0/24", "gateway": "10.1.0.1",
            "addresses": "10.1.0.10-10.1.0.39", "dns": ("10.1.0.12",), "domain": "school.example.",
            "folder": "/labs/1"},
)  # fmt: skip


def test_names_and_addresses_in_their_order() -> None:
    assert list(LAB.names())[:2] + list(LAB.names())[-1:] == ["lab01", "lab02", "lab30"]
    assert list(LAB.hosts())[:3] == ["10.1.0.10", "10.1.0.11", "10.1.0.13"]
    assert len(list(LAB.hosts())) == LAB.host_count == 29
    assert list(Pool("x", pattern="pc{n}-a", first=9, last=11).names()) == ["pc9-a", "pc10-a", "pc11-a"]
    assert list(Pool("x", network="10.0.0.4/30", gateway="10.0.0.5").hosts()) == ["10.0.0.6"]
    assert list(Pool("x", network="10.0.0.4/31").hosts()) == ["10.0.0.4", "10.0.0.5"]
    assert list(Pool("x", dhcp=True).names()) == list(Pool("x").hosts()) == []


def test_what_is_kept_comes_back() -> None:
    for each in (LAB, Pool("x"), Pool("y", dhcp=True, group="tills")):
        assert Pool.from_json(each.name, each.to_json()) == each


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"pattern": "lab", "last": 3}, "the number stands in it once"),
        ({"pattern": "lab{n}{n}", "last": 3}, "the number stands in it once"),
        ({"pattern": "lab{x}{n}", "last": 3}, "hostname"),
        ({"pattern": "{n}", "last": 3}, "one letter at least"),
        ({"pattern": "-{n}", "last": 3}, "hostname"),
        ({"pattern": "l{n}"}, "say first and last"),
        ({"pattern": "l{n}", "first": -1, "last": 3}, "say first and last"),
        ({"pattern": "l{n}", "last": 70_000}, "65536 at most"),
        ({"pattern": "l" * 62 + "{n}", "last": 10}, "at most 63"),
        ({"last": 4}, "say the pattern"),
        ({"network": "10.1.0.1/24"}, "host bits"),
        ({"network": "10.0.0.0/8"}, "16 to 31 bits"),
        ({"network": "127.0.0.0/24"}, "no computer's address"),
        ({"network": "10.1.0.0/24", "dhcp": True}, "exclude each other"),
        ({"network": "10.1.0.0/24", "gateway": "10.2.0.1"}, "not in the network"),
        ({"network": "10.1.0.0/24", "addresses": "10.1.0.1-10.1.1.9"}, "not in the network"),
        ({"network": "10.1.0.0/24", "addresses": "10.1.0.9-10.1.0.1"}, "before the first"),
        ({"network": "10.1.0.0/24", "addresses": "10.1.0.9"}, "the first and the last"),
        ({"network": "10.0.0.4/31", "dns": ("10.0.0.4", "10.0.0.5")}, "no address is left"),
        ({"gateway": "10.1.0.1"}, "need their network"),
        ({"folder": "labs"}, "write / or /NAME"),
        ({"workgroup": "x" * 16}, "workgroup"),
    ],
)
def test_what_is_refused_says_why(said: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Pool.of("lab", said)


@pytest.mark.parametrize("name", ["", " x", "a/b", "x" * 65])
def test_names_of_pools(name: str) -> None:
    with pytest.raises(ValueError, match="pool"):
        Pool(name)


@given(st.integers(0, 70_000), st.integers(0, 70_000), st.integers(0, 9), st.text("abc{n}:0-9", max_size=12))
def test_a_pool_that_exists_can_be_given_out_to_its_end(first: int, last: int, width: int, text: str) -> None:
    for pattern in (f"lab{{n:0{width}}}" if width else "lab{n}", text):
        try:
            pool = Pool("x", pattern=pattern, first=first, last=last)
        except ValueError:
            continue
        names = list(pool.names())
        assert len(names) == pool.name_count
        assert len(names) == len({name.lower() for name in names})
        assert len(names) == (last - first + 1 if pattern else 0)
        for name in names[:: max(1, len(names) // 50)]:
            check_hostname(name)


@given(st.ip_addresses(v=4), st.integers(0, 32), st.ip_addresses(v=4), st.ip_addresses(v=4), st.booleans())
def test_every_address_of_a_pool_is_one_that_a_device_may_have(
    base: ipaddress.IPv4Address, bits: int, low: ipaddress.IPv4Address, high: ipaddress.IPv4Address, ranged: bool
) -> None:
    network = ipaddress.IPv4Network((int(base), bits), strict=False)
    size = network.num_addresses
    inside = sorted(network.network_address + int(each) % size for each in (low, high))
    addresses = f"{inside[0]}-{inside[1]}" if ranged else ""
    try:
        pool = Pool("x", network=str(network), addresses=addresses)
    except ValueError:
        return
    hosts = list(pool.hosts())
    assert len(hosts) == pool.host_count > 0
    for each in {hosts[0], hosts[len(hosts) // 2], hosts[-1]}:
        Identity(address=each, netmask=pool.netmask)


@given(st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(list(Pool.__slots__)) | st.text(), inner),
).map(json.dumps) | st.text())  # fmt: skip
def test_any_text_is_a_pool_or_refused(text: str) -> None:
    try:
        found = Pool.from_json("x", text)
    except ValueError:
        return
    assert Pool.from_json("x", found.to_json()) == found


def test_the_nearest_pool_first() -> None:
    zone, labs, lab = Pool("zone"), Pool("a", folder="/labs"), Pool("b", folder="/labs/1")
    tills, other = Pool("t", group="tills"), Pool("o", folder="/labs/10")
    every = [zone, labs, lab, tills, other]
    assert fitting(every, "/labs/1", ("tills",)) == [tills, lab, labs, zone]
    assert fitting(every, "/labs/10", ()) == [other, labs, zone]
    assert fitting(every, "/", ()) == [zone]


def test_what_a_device_lacks() -> None:
    empty = filled(Identity(), [], [LAB], "/labs/1", ())
    assert empty.identity == Identity(domain="school.example", dns=("10.1.0.12",))
    assert dict(empty.lacking) == {"hostname": (LAB,), "address": (LAB,)}
    assert filled(Identity(), [], [LAB], "/", ()).lacking == {}
    named = filled(Identity(hostname="mine", dhcp=True), [], [LAB], "/labs/1", ())
    assert named.lacking == {}
    assert named.identity.dns == ()
    assert named.sources == {"hostname": BY_HAND, "dhcp": BY_HAND, "domain": "lab"}


def test_what_was_given_is_used_and_stays() -> None:
    found = filled(Identity(workgroup="OWN"), [("lab", "lab03"), ("lab", "10.1.0.11")], [LAB], "/elsewhere", ())
    assert found.identity == Identity(
        hostname="lab03", workgroup="OWN", address="10.1.0.11", netmask="255.255.255.0", gateway="10.1.0.1"
    )
    assert found.used == {"lab03", "10.1.0.11"}
    assert found.lacking == {}


def test_an_address_of_a_network_that_the_pool_has_no_more() -> None:
    moved = Pool("lab", network="10.2.0.0/24", folder="/labs/1")
    found = filled(Identity(), [("lab", "10.1.0.11"), ("gone", "old")], [moved], "/labs/1", ())
    assert found.used == set()
    assert dict(found.lacking) == {"address": (moved,)}


def test_the_nearest_pool_that_speaks_of_addresses_decides() -> None:
    dhcp, zone = Pool("d", dhcp=True, folder="/a"), Pool("z", network="10.3.0.0/24", pattern="z{n}", last=3)
    found = filled(Identity(), [], [zone, dhcp], "/a", ())
    assert found.identity.dhcp
    assert dict(found.lacking) == {"hostname": (zone,)}
    fixed = filled(Identity(), [], [Pool("d", dhcp=True), Pool("z", network="10.3.0.0/24", folder="/a")], "/a", ())
    assert not fixed.identity.dhcp
    assert list(fixed.lacking) == ["address"]
