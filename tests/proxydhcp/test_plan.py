"""What a client is to be told: the file of its architecture, and what the policy's verdict means to its kind."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pbserv.errors import WireError
from pbserv.proxydhcp import packet as dhcp
from pbserv.proxydhcp.client import HTTP_BOOT, UEFI_PXE
from pbserv.proxydhcp.decide import ABSENT_FILE, ladder
from pbserv.proxydhcp.facts import Facts
from pbserv.proxydhcp.loaders import DEFAULT_SCRIPT, Settings, url_of
from pbserv.proxydhcp.outcome import ClientKind, Ignore, Reason, Reply
from pbserv.proxydhcp.packet import Packet, decode
from pbserv.proxydhcp.strategy import Menu, MenuEntry
from pbserv.types import ClientArch, Verdict
from tests.proxydhcp.samples import (
    AT_67,
    AT_4011,
    HTTP,
    IPXE_OPTIONS,
    SERVER,
    SETTINGS,
    answer,
    asks,
    configured,
    planned,
    question,
    reason,
    recorded,
    reply,
    sent,
    settings,
)

STRATEGIES = sorted(SETTINGS.table.strategies)
MENU = Menu((MenuEntry("Memory test", file="memtest.0"), MenuEntry("WDS", server="10.0.0.9")), 7)

KEYS = {
    0: "nbp_x86", 2: "nbp_itanium", 6: "nbp_ia32", 7: "nbp_x64", 9: "nbp_x64", 10: "nbp_arm32", 11: "nbp_arm64",
    25: "nbp_riscv32", 27: "nbp_riscv64", 29: "nbp_riscv128", 37: "nbp_loongarch32", 39: "nbp_loongarch64",
    15: "nbp_http_ia32", 16: "nbp_http_x64", 17: "nbp_http_x64", 18: "nbp_http_arm32", 19: "nbp_http_arm64",
    20: "nbp_http_x86", 26: "nbp_http_riscv32", 28: "nbp_http_riscv64", 30: "nbp_http_riscv128",
    38: "nbp_http_loongarch32", 40: "nbp_http_loongarch64",
}  # fmt: skip


@pytest.mark.parametrize("arch", range(45))
def test_every_registered_architecture_has_its_key_or_is_not_served(arch: int) -> None:
    http = arch in HTTP_BOOT
    packet = asks(arch=arch, vendor_class=HTTP if http else b"PXEClient")
    if arch == ClientArch.RPIBOOT:
        assert reply(packet).summary.strategy == "raspberrypi"
        return
    if arch not in KEYS:
        assert arch not in UEFI_PXE | HTTP_BOOT
        assert reason(packet, given=configured()) is Reason.ARCH_NOT_SERVED
        return
    given = configured(**{KEYS[arch]: "here.efi"})
    expected = f"http://{SERVER}:8067/files/here.efi" if http else "here.efi"
    assert sent(packet, given=given).file == expected.encode()
    assert reply(packet, given=given).summary.loader
    empty = answer(packet, given=configured(**{KEYS[arch]: ""}))
    assert isinstance(empty, Ignore)
    assert empty.reason is Reason.ARCH_NOT_SERVED
    key = empty.remedy.split()[1].lower()
    assert key == KEYS[arch].replace("_", "")


def test_an_architecture_without_loader_names_the_key_to_set() -> None:
    found = answer(asks(arch=11))
    assert isinstance(found, Ignore)
    assert found.detail == "no boot file for UEFI ARM64"
    assert found.remedy == "set NBPARM64 in proxydhcp.conf"


def test_a_boot_file_for_http_boot_is_given_out_by_this_server_or_by_the_one_in_its_url() -> None:
    assert url_of("snponly.efi", "10.0.0.1", 8067) == "http://10.0.0.1:8067/files/snponly.efi"
    assert url_of("/x/y.efi", "10.0.0.1", 80) == "http://10.0.0.1:80/files/x/y.efi"
    for url in ("http://192.0.2.1/a.efi", "https://192.0.2.1/a.efi"):
        assert url_of(url, "10.0.0.1", 80) == url
    found = sent(asks(arch=16, vendor_class=HTTP), given=configured(nbp_http_x64="https://192.0.2.1/a.efi"))
    assert found.file == b"https://192.0.2.1/a.efi"


def test_ipxe_gets_its_script_or_else_the_loader_and_then_the_script() -> None:
    rom = asks(extra=IPXE_OPTIONS)
    assert reply(rom).summary.file == "boot.ipxe"
    assert not reply(rom).summary.loader
    far = "http://10.0.0.1/x.ipxe"
    assert reply(rom, given=settings(ipxe=far)).summary.file == far
    assert reply(asks(arch=11, extra=IPXE_OPTIONS)).summary.file == "boot.ipxe"  # whatever its architecture
    for under, verdict in ((settings(ipxe=""), Verdict.BOOT), (SETTINGS, Verdict.LOADER)):
        first = reply(rom, given=under, verdict=verdict)
        assert (first.summary.file, first.summary.loader) == ("undionly.kpxe", True)
        assert first.summary.kind is ClientKind.IPXE
        again = reply(rom, given=under, verdict=verdict, chained=True)
        assert (again.summary.file, again.summary.loader) == (DEFAULT_SCRIPT, False)
    assert reason(asks(arch=11, extra=IPXE_OPTIONS), given=settings(ipxe="")) is Reason.ARCH_NOT_SERVED


def test_a_url_too_long_for_the_header_stands_in_option_67_only() -> None:
    url = "http://10.0.0.1/" + "x" * 180
    found = sent(asks(extra=IPXE_OPTIONS), given=settings(ipxe=url))
    assert found.file == b""
    assert found.options[67] == url.encode() + b"\0"
    assert reason(asks(extra=IPXE_OPTIONS), given=settings(ipxe=url + "x" * 70)) is Reason.REPLY_TOO_LONG


def test_an_option_97_of_a_wrong_length_is_not_echoed() -> None:
    assert 97 not in sent(asks(extra={97: b"\0" * 16})).options


# What the verdict means ----------------------------------------------------------------------------------------------

PI = recorded("rpi3-rom-discover")
CLIENTS: dict[str, Packet | bytes] = {
    "bios": asks(), "uefi": asks(arch=7), "ipxe": asks(extra=IPXE_OPTIONS), "http": asks(arch=16, vendor_class=HTTP),
    "raspberrypi": PI,
}  # fmt: skip
WEB = "http://192.168.122.250:8067"
MEANT: dict[tuple[str, str], tuple[str, str] | Reason] = {
    ("bios", "local"): ("local", ""), ("uefi", "local"): ("local", ""), ("ipxe", "local"): ("ipxe", "boot.ipxe"),
    ("http", "local"): ("http", f"{WEB}/files/{ABSENT_FILE}"),
    ("raspberrypi", "local"): Reason.NO_LOCAL_BOOT_ANSWER,
    ("bios", "boot"): ("direct", "undionly.kpxe"), ("uefi", "boot"): ("hybrid", "ipxe.efi"),
    ("ipxe", "boot"): ("ipxe", "boot.ipxe"), ("http", "boot"): ("http", f"{WEB}/ipxe.efi"),
    ("raspberrypi", "boot"): ("raspberrypi", ""),
    ("ipxe", "loader"): ("ipxe", "undionly.kpxe"),
}  # fmt: skip


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("verdict", list(Verdict))
def test_every_verdict_means_something_to_every_kind_of_client(client: str, verdict: Verdict) -> None:
    found = answer(CLIENTS[client], verdict=verdict)
    expected = MEANT.get((client, verdict.value)) or MEANT[client, "boot"]  # LOADER and MENU lead to a loader too
    if verdict is Verdict.SILENT:
        expected = Reason.POLICY_SILENT
    if isinstance(expected, Reason):
        assert isinstance(found, Ignore)
        assert found.reason is expected
        return
    strategy, file = expected
    assert isinstance(found, Reply)
    packet = decode(found.data)
    assert (found.summary.strategy, packet.file.decode()) == (strategy, file)
    assert (67 in packet.options) == bool(file)


def test_silence_says_why() -> None:
    found = planned(asks(), verdict=Verdict.SILENT)
    assert found == Ignore(Reason.POLICY_SILENT, "because")


@pytest.mark.parametrize("arch", [0, 7])
@pytest.mark.parametrize(("kind", "facts"), [(dhcp.DISCOVER, AT_67), (dhcp.REQUEST, AT_4011)])
def test_the_local_disk_is_a_menu_with_nothing_else_in_the_offer_and_in_the_ack(
    arch: int, kind: int, facts: Facts
) -> None:
    found = sent(asks(kind, arch), facts, verdict=Verdict.LOCAL)
    label = b"Boot from the local disk"
    item = b"\0\0" + bytes((len(label),)) + label
    parts = dhcp.suboptions(found.options[43])
    assert parts[6] == b"\x07"
    assert parts[9] == item
    assert parts[10][:1] == b"\0"
    assert set(parts) == {6, 9, 10}
    assert 67 not in found.options
    assert found.siaddr == dhcp.undotted(SERVER)


def test_a_local_boot_is_not_the_loader() -> None:
    for client in ("bios", "uefi", "ipxe", "http"):
        assert not reply(CLIENTS[client], verdict=Verdict.LOCAL).summary.loader


def test_a_chained_ipxe_gets_its_script_whatever_the_verdict() -> None:
    for verdict in (Verdict.LOCAL, Verdict.MENU, Verdict.BOOT, Verdict.LOADER):
        for under in (SETTINGS, settings(ipxe=""), settings(ipxe="", menu=MENU)):
            found = reply(CLIENTS["ipxe"], given=under, verdict=verdict, chained=True)
            assert (found.summary.strategy, found.summary.file) == ("ipxe", "boot.ipxe")
            assert 43 not in decode(found.data).options


def test_a_configured_menu_is_for_bios_clients_alone() -> None:
    given = settings(menu=MENU)
    parts = dhcp.suboptions(sent(asks(), given=given).options[43])
    own = dhcp.undotted(SERVER)
    assert parts[8] == b"\x80\0\1" + own + b"\x80\1\1" + own + b"\x80\2\1\x0a\0\0\x09"
    assert [kind for kind, _label in lines(parts[9])] == [0x8000, 0x8001, 0x8002, 0]
    assert [label for _kind, label in lines(parts[9])][1:3] == ["Memory test", "WDS"]
    assert parts[10] == b"\x07Press F8 for the boot menu"
    for client in ("uefi", "ipxe", "http"):
        found = reply(CLIENTS[client], given=given)
        assert 43 not in decode(found.data).options
    assert reply(PI, given=given).summary.strategy == "raspberrypi"
    wished = settings('[[rule]]\nkind = "uefi"\nstrategy = "menu"\nsource = "the lab wants it"', menu=MENU)
    assert reply(asks(arch=7), given=wished).summary.strategy == "menu"


def lines(value: bytes) -> list[tuple[int, str]]:
    """Type and text of each item in 43.9."""
    found, at = [], 0
    while at < len(value):
        stop = at + 3 + value[at + 2]
        found.append((int.from_bytes(value[at : at + 2], "big"), value[at + 3 : stop].decode("ascii")))
        at = stop
    return found


def test_a_loop_ends_at_the_local_disk() -> None:
    for client in ("bios", "uefi"):
        found = reply(CLIENTS[client], looping=True)
        assert (found.summary.strategy, found.summary.file, found.summary.loader) == ("local", "", False)
    assert reason(CLIENTS["http"], looping=True) is Reason.LOOP
    assert reply(CLIENTS["ipxe"], looping=True).summary.file == "boot.ipxe"  # its script knows what to do


def test_what_was_learned_takes_the_place_of_the_usual_strategy() -> None:
    for name in ("hybrid", "discovery", "two-item"):
        assert reply(asks(), strategy=name).summary.strategy == name
    assert reply(asks(), given=settings(menu=MENU), strategy="hybrid").summary.strategy == "hybrid"
    # The local disk needs no strategy that leads to a file.
    assert reply(asks(), strategy="hybrid", verdict=Verdict.LOCAL).summary.strategy == "local"


def test_the_ladder_begins_with_the_usual_strategy() -> None:
    def steps(packet: Packet | bytes, given: Settings = SETTINGS) -> tuple[str, ...]:
        query = question(packet, given=given)
        assert not isinstance(query, Ignore)
        return ladder(query, AT_67, given)

    assert steps(asks()) == ("direct", "hybrid", "discovery", "two-item")
    assert steps(asks(arch=7)) == ("hybrid", "direct", "binl", "discovery", "two-item")
    assert steps(asks(), settings(menu=MENU)) == ("menu", "hybrid", "discovery", "two-item")
    assert steps(asks(extra=IPXE_OPTIONS)) == ("ipxe",)
    assert steps(asks(), settings('[[rule]]\nignore = "never"\nsource = "x"')) == ()
    again = '[[rule]]\nstrategy = "binl"\nescalate = ["direct", "binl"]\nsource = "x"'
    assert steps(asks(), settings(again)) == ("binl", "direct")


@given(st.binary(max_size=60), st.sampled_from([AT_67, AT_4011]), st.sampled_from(list(Verdict)), st.booleans(),
       st.booleans(), st.sampled_from(["", *STRATEGIES]))  # fmt: skip
def test_any_options_of_a_client_lead_to_an_outcome(
    tail: bytes, facts: Facts, verdict: Verdict, chained: bool, looping: bool, strategy: str
) -> None:
    data = recorded("ovmf-x64-discover-bz387")[:-1] + tail
    try:
        found = answer(data, facts, settings(menu=MENU), verdict, chained=chained, looping=looping, strategy=strategy)
    except WireError:
        return
    if isinstance(found, Reply):
        decode(found.data)
        assert found.port > 0
        assert 300 <= len(found.data) <= 1472


def test_equal_settings_give_equal_answers() -> None:
    assert reply(asks(), given=dataclasses.replace(SETTINGS)).data == reply(asks()).data
