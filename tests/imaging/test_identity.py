"""Image-safe data: what can be one, how a change falls on it, and the texts that devices get."""

from __future__ import annotations

import json
import shlex
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pbserv.imaging.identity import Identity, IdentityChange, Served, netmask_of

WHOLE = Identity(
    hostname="lab07", domain="school.example", workgroup="LAB", address="10.1.0.17", netmask="255.255.255.0",
    gateway="10.1.0.1", dns=("10.1.0.2", "2001:db8::2"), suffixes=("school.example", "lab.school.example"),
    workstation="CN=lab07, it's ours",
)  # fmt: skip


def test_what_is_kept_comes_back() -> None:
    for each in (Identity(), Identity(dhcp=True), WHOLE):
        assert Identity.from_json(each.to_json()) == each
    assert Identity().to_json() == "{}"
    assert Identity.from_json("") == Identity()


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"hostname": "a.b"}, "domain stands apart"),
        ({"hostname": "-a"}, "hostname '-a'"),
        ({"hostname": "1234"}, "one letter at least"),
        ({"hostname": "a" * 64}, "at most 63"),
        ({"hostname": "ä"}, "hostname"),
        ({"domain": "school..example"}, "write it as school.example"),
        ({"domain": "a" * 250 + ".com"}, "domain"),
        ({"workgroup": "A" * 16}, "15 at most"),
        ({"workgroup": "A'B"}, "workgroup"),
        ({"address": "10.1.0.7"}, "netmask is missing"),
        ({"address": "10.1.0.7", "netmask": "255.0.255.0"}, "netmask '255.0.255.0': write it as 255.255.255.0"),
        ({"address": "10.1.0.7", "netmask": "0"}, "netmask"),
        ({"address": "10.1.0.999", "netmask": "24"}, "no IPv4 address"),
        ({"address": "10.1.0.0", "netmask": "24"}, "no computer's address"),
        ({"address": "10.1.0.255", "netmask": "24"}, "no computer's address"),
        ({"address": "127.0.0.2", "netmask": "8"}, "no computer's address"),
        ({"address": "10.1.0.7", "netmask": "24", "gateway": "10.2.0.1"}, "not in the network 10.1.0.0/24"),
        ({"address": "10.1.0.7", "netmask": "24", "gateway": "10.1.0.7"}, "own address"),
        ({"netmask": "24"}, "belong to an address"),
        ({"dhcp": True, "address": "10.1.0.7", "netmask": "24"}, "exclude each other"),
        ({"dns": ("x",)}, "dns 'x' is no address"),
        ({"dns": ("224.0.0.1",)}, "no address of a server"),
        ({"dns": tuple(f"10.0.0.{n}" for n in range(1, 10))}, "8 at most"),
        ({"suffixes": ("a_b",)}, "suffixes: domain"),
        ({"workstation": "two\nlines"}, "one line"),
    ],
)
def test_what_is_refused_says_why(said: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words.replace("(", r"\(")):
        IdentityChange(**said).of(Identity())  # type: ignore[arg-type]


def test_a_change_leaves_what_it_does_not_name() -> None:
    after = IdentityChange(hostname="lab08", dns=()).of(WHOLE)
    assert (after.hostname, after.dns, after.address) == ("lab08", (), "10.1.0.17")
    assert IdentityChange(domain="school.example.", suffixes=("a.example.", "a.example")).of(Identity()) == Identity(
        domain="school.example", suffixes=("a.example",)
    )


def test_dhcp_and_an_address_take_each_other_away() -> None:
    by_dhcp = IdentityChange(dhcp=True).of(WHOLE)
    assert (by_dhcp.dhcp, by_dhcp.address, by_dhcp.netmask, by_dhcp.gateway) == (True, "", "", "")
    fixed = IdentityChange(address="10.1.0.9", netmask="24").of(by_dhcp)
    assert (fixed.dhcp, fixed.netmask, fixed.prefix) == (False, "255.255.255.0", 24)
    assert IdentityChange(address="").of(WHOLE).netmask == ""


@pytest.mark.parametrize(("text", "mask"), [("24", "255.255.255.0"), ("/8", "255.0.0.0"), ("32", "255.255.255.255"),
                                            ("255.255.254.0", "255.255.254.0")])  # fmt: skip
def test_netmasks(text: str, mask: str) -> None:
    assert netmask_of(text) == mask


@given(st.binary(max_size=200).map(lambda raw: raw.decode("latin-1")) | st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(list(Identity.__slots__)) | st.text(), inner),
).map(json.dumps))  # fmt: skip
def test_any_text_is_an_identity_or_refused(text: str) -> None:
    try:
        found = Identity.from_json(text)
    except ValueError:
        return
    assert Identity.from_json(found.to_json()) == found


def served(identity: Identity) -> Served:
    return Served(identity, "52:54:00:00:00:07", "http://10.1.0.5:8067", "a" * 64, True, "debian", 3)


def test_the_texts() -> None:
    assert served(Identity(hostname="lab07")).text() == (
        "PBSERV='http://10.1.0.5:8067'\nMAC='52:54:00:00:00:07'\n" + f"TOKEN='{'a' * 64}'\n"
        "IMAGE='debian'\nVERSION='3'\nJUST_IMAGED='1'\nHOSTNAME='lab07'\nDOMAIN=''\nWORKGROUP=''\nDHCP=''\nADDRESS=''\n"
        "NETMASK=''\nPREFIX=''\nGATEWAY=''\nDNS=''\nSUFFIXES=''\nWORKSTATION=''\n"
    )
    windows = served(WHOLE).text("windows")
    assert windows.startswith("; Image-safe data")
    assert "\r\nDNS=10.1.0.2 2001:db8::2\r\n" in windows
    assert "\r\nWORKSTATION=CN=lab07, it's ours\r\n" in windows
    assert windows.count("\n") == windows.count("\r\n")


@given(st.text(st.characters(exclude_categories=["C", "Z"]), max_size=60))
def test_shells_read_what_was_meant(text: str) -> None:
    """Also the file of an installed Linux, whose comments are none of it."""
    words = {}
    for line in served(Identity(workstation=text)).text("linux").splitlines():
        if not line.startswith("#"):
            key, _, value = line.partition("=")
            words[key] = "".join(shlex.split(value))
    assert words["WORKSTATION"] == text
    assert words["DHCP"] == ""


def test_a_real_shell_reads_it() -> None:
    script = served(WHOLE).text("linux") + 'printf "%s|%s|%s|%s" "$WORKSTATION" "$DNS" "$DHCP" "$PREFIX"\n'
    told = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True).stdout
    assert told == "CN=lab07, it's ours|10.1.0.2 2001:db8::2|0|24"
