"""Option 43 of each strategy, byte for byte; menus, labels and limits."""

from __future__ import annotations

import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pbserv.conf.kinds import MenuItems
from pbserv.errors import WireError
from pbserv.proxydhcp import packet as dhcp
from pbserv.proxydhcp.outcome import Reason
from pbserv.proxydhcp.packet import Packet, encode, suboptions
from pbserv.proxydhcp.strategy import ITEMS, Menu, MenuEntry, Strategy, menu_entry, vendor_options
from tests.proxydhcp.samples import SERVER, SETTINGS, asks, reason, sent, settings

STRATEGIES = SETTINGS.table.strategies
OWN = socket.inet_aton(SERVER).hex()
SELF = "8000 15" + b"Boot from the network".hex()
DISK = "0000 18" + b"Boot from the local disk".hex()
PROMPT = b"Press F8 for the boot menu".hex()
MENU = Menu((MenuEntry("Memory test", file="memtest.0"), MenuEntry("WDS", server="10.0.0.9")), 255)
PI = "2b23" + "0601030a04005058450917000014" + b"Raspberry Pi Boot   ".hex() + "ff"

OFFERS = {
    "direct": "060108 ff",
    "hybrid": None,
    "binl": None,
    "discovery": f"060107 0807 8000 01 {OWN} 0918 {SELF} 0a1b 00 {PROMPT} ff",
    "two-item": f"060107 0807 8000 01 {OWN} 0933 {SELF} {DISK} 0a1b 00 {PROMPT} ff",
    "menu": (
        f"060107 0815 8000 01 {OWN} 8001 01 {OWN} 8002 01 0a000009 0947 {SELF} 8001 0b {b'Memory test'.hex()}"
        f" 8002 03 {b'WDS'.hex()} {DISK} 0a1b ff {PROMPT} ff"
    ),
    "local": f"060107 091b {DISK} 0a1b 00 {PROMPT} ff",
    "raspberrypi": PI[4:],
    "ipxe": None,
    "http": None,
}  # fmt: skip
# On port 4011 the client has chosen already; only the local disk is still said there.
ACKS = OFFERS | {"discovery": None, "two-item": None, "menu": None}


def option43(name: str, *, chosen: bytes = b"", offer: bool = True, menu: Menu = MENU) -> bytes | None:
    return vendor_options(STRATEGIES[name], menu, SERVER, chosen, offer)


@pytest.mark.parametrize("name", OFFERS)
def test_option_43_of_each_strategy(name: str) -> None:
    for offer, expected in ((True, OFFERS[name]), (False, ACKS[name])):
        found = option43(name, offer=offer)
        assert found == (None if expected is None else bytes.fromhex(expected))
        if found is not None:
            assert len(found) <= 255


def test_every_strategy_of_the_package_is_here() -> None:
    assert set(STRATEGIES) == set(OFFERS)


@pytest.mark.parametrize("name", OFFERS)
def test_the_chosen_item_is_echoed(name: str) -> None:
    chosen = bytes.fromhex("80010000")
    found = option43(name, chosen=chosen, offer=False)
    assert found is not None
    assert suboptions(found)[71] == chosen
    without = option43(name, offer=False)
    assert found == (b"" if without is None else without[:-1]) + b"\x47\4" + chosen + b"\xff"


def test_a_pi_gets_the_sample_to_the_byte() -> None:
    assert bytes.fromhex(PI) == b"\x2b\x23" + (option43("raspberrypi") or b"")


@pytest.mark.parametrize(("timeout", "menu"), [(0, 7), (7, 7), (255, 7)])
def test_the_timeout_of_a_menu_is_that_of_the_configuration(timeout: int, menu: int) -> None:
    given = Menu((), timeout)
    found = option43("menu", menu=given)
    assert found is not None
    assert suboptions(found)[10][0] == timeout
    assert suboptions(found)[6] == bytes((menu,))
    fixed = option43("discovery", menu=given)
    assert fixed is not None
    assert suboptions(fixed)[10][0] == 0


def test_an_administrators_strategy() -> None:
    own = Strategy("own", control=3, items=("local", "self"), timeout_s=30, file_in_offer=False, priority=-1)
    found = vendor_options(own, Menu(), SERVER, b"", True)
    assert found is not None
    parts = suboptions(found)
    assert (parts[6], parts[10][0]) == (b"\3", 30)
    assert parts[9] == bytes.fromhex(DISK + SELF)
    assert own.option175 == b"\1\1\xff"
    assert Strategy("x").option175 is None
    assert STRATEGIES["ipxe"].option175 == b"\1\1\1"
    raw = vendor_options(Strategy("raw", raw43=b"\x06\1\x0b"), Menu(), SERVER, b"", True)
    assert raw == b"\x06\1\x0b\xff"


@given(st.text(max_size=200), st.text(max_size=200), st.integers(0, 255))
def test_no_label_is_longer_than_a_line_or_other_than_ascii(label: str, prompt: str, timeout: int) -> None:
    menu = Menu((), timeout, own_label=label, prompt=prompt)
    found = vendor_options(STRATEGIES["discovery"], menu, SERVER, b"", True)
    assert found is not None
    parts = suboptions(found)
    assert parts[9][2] == len(parts[9]) - 3 <= 70
    assert 0 < len(parts[10]) <= 71
    assert parts[9][3:].isascii()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Memory test=memtest.0", MenuEntry("Memory test", file="memtest.0")),
        (" Memory test = dir/memtest.0 ", MenuEntry("Memory test", file="dir/memtest.0")),
        ("WDS=10.0.0.9", MenuEntry("WDS", server="10.0.0.9")),
        ("Old=10.0.0.9.0", MenuEntry("Old", file="10.0.0.9.0")),
        ("a=b=c", MenuEntry("a", file="b=c")),
    ],
)
def test_entries_as_they_are_written(text: str, expected: MenuEntry) -> None:
    assert menu_entry(text) == expected


def test_types_lead_to_the_files_of_the_entries() -> None:
    assert [MENU.file_of(kind) for kind in (0, 1, 0x8000, 0x8001, 0x8002, 0x8003, 0xFFFF)] == [
        None, None, None, "memtest.0", None, None, None,
    ]  # fmt: skip


LABELS = [("b" * 1, 13), ("c" * 60, 2), ("d" * 6, 10), ("a" * 50, 3)]


@pytest.mark.parametrize(("label", "count"), LABELS)
def test_whatever_menu_the_configuration_takes_fits_into_one_option(label: str, count: int) -> None:
    text = ", ".join(f"{label}=memtest.{number}" for number in range(count))
    while True:
        try:
            items = MenuItems().parse(text)
            break
        except ValueError:
            text = text.rpartition(",")[0]
    menu = Menu(tuple(menu_entry(item) for item in items), 2)
    found = option43("menu", menu=menu)
    assert found is not None
    data = encode(Packet(2, 1, bytes(16), options={43: found}))
    assert dhcp.decode(data).options[43] == found


@pytest.mark.parametrize("count", [3, 5, 30])
def test_a_menu_that_does_not_fit_is_an_error_and_not_two_options(count: int) -> None:
    given = settings(menu=Menu(tuple(MenuEntry("x" * 60, file="y") for _ in range(count))))
    assert reason(asks(), given=given) is Reason.REPLY_TOO_LONG
    assert sent(asks(arch=7), given=given).message_type == dhcp.OFFER
    with pytest.raises(WireError, match="256 bytes do not fit"):
        dhcp.encapsulate({9: bytes(256)})


def test_the_words_for_items() -> None:
    assert ITEMS == ("self", "entries", "local")
