"""Strategies x clients x environments: what the shipped table must boot, what cannot, and the table in the docs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.proxydhcp.models.environments import ENVIRONMENTS, Environment
from tests.proxydhcp.models.matrix import BOOTS, COLUMNS, DEFAULT, DISK, LOCAL, NO, THEIRS, cell, escalated, render

DOCUMENT = Path(__file__).parents[2] / "docs" / "client-matrix.md"
BY_NAME = {environment.name: environment for environment in ENVIRONMENTS}
GOOD = ("edk2", "bios", "ipxe", "ipxe, chained", "http", "raspberrypi", "shim", "grub, prefixed")

MUST_BOOT = {
    "plain DHCP": GOOD,
    "DHCP with 66/67": ("edk2", "bios", "ipxe", "ipxe, chained", "http", "raspberrypi", "grub, prefixed"),
    "DHCP with 60": ("ipxe", "ipxe, chained", "http", "raspberrypi"),
    "a fast DHCP with 60": ("http", "raspberrypi"),
    "a slower BINL proxy": GOOD,
    "a faster BINL proxy": ("bios", "ipxe", "ipxe, chained", "http", "raspberrypi"),
    "a slower direct proxy": ("bios", "ipxe", "ipxe, chained", "http", "raspberrypi"),
    "a faster direct proxy": ("ipxe", "ipxe, chained", "http", "raspberrypi"),
    "both faster": ("http", "raspberrypi"),
    "relay": GOOD,
    "two NICs": GOOD,
    "same host": ("edk2", "bios", "ipxe", "ipxe, chained", "shim", "grub, prefixed"),
    "same host, both ports": GOOD,
    "no DHCP": (),
}

_THEIRS = "asks the other proxy for rival/boot.efi"
_TOLD = f"{_THEIRS}: the firmware is told so"
_OUTRANKED = f"{_THEIRS}: 43.6 says just boot the file"
# (environment, client): the word, and what its reason must say. An empty environment stands for all not named.
CANNOT = {
    # 3.5: no proxy offer is looked at
    ("", "uboot"): (NO, "U-Boot takes no proxy offers, and the DHCP server names no file"),
    ("DHCP with 66/67", "uboot"): (THEIRS, "the DHCP server names it"),
    # 3.6, 18: GRUB reads the ACK of the DHCP server and nothing else
    ("", "grub"): (NO, "build ours into its prefix"),
    ("DHCP with 66/67", "grub"): (THEIRS, "GRUB reads the DHCP server's ACK only"),
    # shim#165
    ("DHCP with 66/67", "shim"): (THEIRS, "beside the file in the DHCP server's ACK"),
    # 3.1: without a DhcpOnly offer DhcpBinl beats every proxy (BZ-387)
    ("DHCP with 60", "edk2"): (NO, "PXE-E16: nobody answers on port 4011"),
    ("a fast DHCP with 60", "edk2"): (NO, "PXE-E16: nobody answers on port 4011"),
    ("DHCP with 60", "shim"): (NO, "PXE-E16: nobody answers on port 4011"),
    ("a fast DHCP with 60", "shim"): (NO, "PXE-E16: nobody answers on port 4011"),
    ("DHCP with 60", "grub"): (NO, "PXE-E16: nobody answers on port 4011"),
    ("a fast DHCP with 60", "grub"): (NO, "PXE-E16: nobody answers on port 4011"),
    ("DHCP with 60", "grub, prefixed"): (NO, "PXE-E16: nobody answers on port 4011"),
    ("a fast DHCP with 60", "grub, prefixed"): (NO, "PXE-E16: nobody answers on port 4011"),
    ("DHCP with 60", "bios"): (NO, "PXE-E55: nobody answers on port 4011"),
    ("a fast DHCP with 60", "bios"): (NO, "PXE-E55: nobody answers on port 4011"),
    # 3.1: BINL proxies are tried in turn; the strategy direct outranks them
    ("a faster BINL proxy", "edk2"): (THEIRS, f"{_THEIRS}: the answer on port 4011 names the file"),
    ("a faster BINL proxy", "shim"): (THEIRS, _TOLD),
    ("a faster BINL proxy", "grub, prefixed"): (THEIRS, _TOLD),
    # 3.1: ProxyPxe10 beats ProxyBinl, and only the first ProxyPxe10 is kept
    ("a slower direct proxy", "edk2"): (THEIRS, _OUTRANKED),
    ("a slower direct proxy", "shim"): (THEIRS, _TOLD),
    ("a slower direct proxy", "grub, prefixed"): (THEIRS, _TOLD),
    ("a faster direct proxy", "edk2"): (THEIRS, _OUTRANKED),
    ("a faster direct proxy", "shim"): (THEIRS, _TOLD),
    ("a faster direct proxy", "grub, prefixed"): (THEIRS, _TOLD),
    ("a faster direct proxy", "bios"): (THEIRS, _OUTRANKED),
    ("both faster", "edk2"): (THEIRS, _OUTRANKED),
    ("both faster", "shim"): (THEIRS, _TOLD),
    ("both faster", "grub, prefixed"): (THEIRS, _TOLD),
    ("both faster", "bios"): (THEIRS, _OUTRANKED),
    # 3.3: DISCOVER ends with one DHCP offer and one proxy offer, whatever the priority of what comes later
    ("both faster", "ipxe"): (THEIRS, f"{_THEIRS}: the proxy names it"),
    ("both faster", "ipxe, chained"): (THEIRS, f"{_THEIRS}: the proxy names it"),
    ("a fast DHCP with 60", "ipxe"): (NO, "nothing names a file"),
    ("a fast DHCP with 60", "ipxe, chained"): (NO, "nothing names a file"),
    # 3.2: no port 4011; 3.7: neither has the Pi
    ("same host", "http"): (NO, "PXE-E16: nobody offers a URL to the class HTTPClient"),
    ("same host", "raspberrypi"): (NO, "no offer has the menu item Raspberry Pi Boot"),
    # a proxy gives no addresses
    ("no DHCP", "edk2"): (NO, "PXE-E16"),
    ("no DHCP", "shim"): (NO, "PXE-E16"),
    ("no DHCP", "grub"): (NO, "PXE-E16"),
    ("no DHCP", "grub, prefixed"): (NO, "PXE-E16"),
    ("no DHCP", "bios"): (NO, "PXE-E52: proxy offers, but no address"),
    ("no DHCP", "ipxe"): (NO, "proxy offers, but no DHCP offer"),
    ("no DHCP", "ipxe, chained"): (NO, "proxy offers, but no DHCP offer"),
    ("no DHCP", "http"): (NO, "proxy offers, but no address"),
    ("no DHCP", "raspberrypi"): (NO, "no DHCP offer"),
    ("no DHCP", "uboot"): (NO, "no DHCP offer"),
}


def expected(environment: str, column: str) -> tuple[str, str]:
    if column in MUST_BOOT[environment]:
        return BOOTS, ""
    return CANNOT.get((environment, column)) or CANNOT["", column]


@pytest.mark.parametrize("column", COLUMNS)
@pytest.mark.parametrize("environment", ENVIRONMENTS, ids=lambda environment: environment.name)
def test_the_shipped_table(environment: Environment, column: str) -> None:
    word, why = expected(environment.name, column)
    found = cell(environment, DEFAULT, column)
    assert found.word == word, found.why
    assert why in found.why


def test_what_cannot_boot_is_named_where_it_is() -> None:
    for environment, column in CANNOT:
        assert column in COLUMNS
        assert environment == "" or column not in MUST_BOOT[environment]


@pytest.mark.parametrize(
    ("environment", "column", "strategy"),
    [
        # 3.1: PXE 1.0 outranks BINL, so this is what an override or the escalation is for
        ("a faster BINL proxy", "edk2", "direct"),
        ("a faster BINL proxy", "shim", "direct"),
        ("a slower direct proxy", "edk2", "direct"),
        ("a slower direct proxy", "edk2", "discovery"),
        ("a slower direct proxy", "shim", "direct"),
    ],
)
def test_another_strategy_helps(environment: str, column: str, strategy: str) -> None:
    assert cell(BY_NAME[environment], DEFAULT, column).word != BOOTS
    assert cell(BY_NAME[environment], strategy, column).word == BOOTS


def test_the_escalation_helps_against_every_rival_that_can_be_beaten() -> None:
    """Only the first of several PXE 1.0 proxies counts, so nothing helps against one that is faster."""
    helped = {name: [column for column in COLUMNS if escalated(BY_NAME[name], column)] for name in MUST_BOOT}
    assert {name: columns for name, columns in helped.items() if columns} == {
        "a faster BINL proxy": ["edk2", "shim", "grub, prefixed"],
        "a slower direct proxy": ["edk2", "shim", "grub, prefixed"],
    }


@pytest.mark.parametrize("column", ["edk2", "bios"])
@pytest.mark.parametrize("strategy", ["direct", "hybrid", "binl", "discovery", "two-item", "menu"])
@pytest.mark.parametrize("environment", ["plain DHCP", "DHCP with 66/67", "relay", "two NICs", "same host"])
def test_every_step_of_the_escalation_boots_where_nobody_rivals(environment: str, strategy: str, column: str) -> None:
    assert cell(BY_NAME[environment], strategy, column).word == BOOTS


@pytest.mark.parametrize("environment", ["plain DHCP", "DHCP with 66/67", "relay", "two NICs", "same host, both ports"])
@pytest.mark.parametrize("column", ["edk2", "bios", "ipxe", "ipxe, chained", "http", "shim", "grub, prefixed"])
def test_the_verdict_local_ends_at_the_disk(environment: str, column: str) -> None:
    assert cell(BY_NAME[environment], LOCAL, column).word == DISK


@pytest.mark.parametrize("column", ["edk2", "bios", "ipxe", "ipxe, chained"])
def test_the_verdict_local_on_port_4011_alone(column: str) -> None:
    assert cell(BY_NAME["same host"], LOCAL, column).word == DISK


def test_the_document_in_the_repository() -> None:
    text = render()
    if os.environ.get("UPDATE_GOLDEN") == "1":
        DOCUMENT.write_text(text, encoding="utf-8")
    assert DOCUMENT.read_text(encoding="utf-8") == text, "the matrix changed: run again with UPDATE_GOLDEN=1"
