"""From the configuration to the settings: keys, menu, table, and what is said of a table that cannot be used."""

from __future__ import annotations

from pathlib import Path

import pytest

from pbserv.errors import StartError
from pbserv.proxydhcp.config import ProxyDhcpConf
from pbserv.proxydhcp.settings import ProxyDhcpSettings, menu_of, read_table, settings_of, table_path
from pbserv.proxydhcp.strategy import Menu, MenuEntry
from tests.proxydhcp.samples import configured

OWN = '[[rule]]\nstrategy = "binl"\nsource = "here"\n'


def test_the_settings_of_an_empty_configuration() -> None:
    found = configured()
    assert {arch: loader.file for arch, loader in found.loaders.items() if loader.file} == {
        0: "undionly.kpxe", 7: "snponly.efi", 9: "snponly.efi", 16: "snponly.efi", 17: "snponly.efi",
    }  # fmt: skip
    assert (found.ipxe, found.menu, found.http_port, found.local_interface) == ("boot.ipxe", None, 8067, None)
    assert (found.escalation, found.loop_limit, found.minimum_secs, found.reply_delay_s) == (True, 5, 0, 0.0)
    assert (found.per_device, found.per_interface, found.advertised) == (50, 0, {})


def test_every_key_arrives() -> None:
    found = configured(
        nbp_ipxe="http://x/y", local_interface="10.0.0.1", advertised_addresses=("eth0=192.0.2.1", "eth1=192.0.2.2"),
        escalation=False, loop_limit=9, minimum_secs=4, reply_delay_ms=250, requests_per_device=7,
        requests_per_interface=1000, menu_timeout=255, menu_entries=("Memory test=memtest.0", "WDS=10.0.0.9"),
    )  # fmt: skip
    assert (found.ipxe, found.local_interface) == ("http://x/y", "10.0.0.1")
    assert found.advertised == {"eth0": "192.0.2.1", "eth1": "192.0.2.2"}
    assert (found.escalation, found.loop_limit, found.minimum_secs, found.reply_delay_s) == (False, 9, 4, 0.25)
    assert (found.per_device, found.per_interface) == (7, 1000)
    entries = (MenuEntry("Memory test", file="memtest.0"), MenuEntry("WDS", server="10.0.0.9"))
    assert found.menu == Menu(entries, 255)


def test_a_menu_is_there_when_either_key_is_set() -> None:
    assert menu_of(ProxyDhcpConf()) is None
    assert menu_of(ProxyDhcpConf(menu_timeout=0)) == Menu((), 0)
    assert menu_of(ProxyDhcpConf(menu_entries=("a=b",))) == Menu((MenuEntry("a", file="b"),), 2)


def test_the_table_that_is_used(tmp_path: Path) -> None:
    assert table_path(ProxyDhcpConf(), None) is None
    assert table_path(ProxyDhcpConf(), tmp_path) is None
    beside = tmp_path / "strategies.toml"
    beside.write_text(OWN)
    assert table_path(ProxyDhcpConf(), tmp_path) == beside
    named = tmp_path / "mine.toml"
    assert table_path(ProxyDhcpConf(strategy_table=named), tmp_path) == named
    found = settings_of(ProxyDhcpSettings(ProxyDhcpConf(), directory=tmp_path))
    assert found.table.rules[0].strategy == "binl"
    with pytest.raises(StartError, match=r"StrategyTable .*mine\.toml: No such file"):
        settings_of(ProxyDhcpSettings(ProxyDhcpConf(strategy_table=named), directory=tmp_path))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"\xff\xfe", r"StrategyTable .*own\.toml: not UTF-8 text \(invalid start byte at byte 0\)"),
        (b"x = 1", r"StrategyTable: .*own\.toml: 'x' is not known; there are: rule, strategies, vendor"),
        (b"[", r"StrategyTable: .*own\.toml: not TOML"),
        (b"#" * ((1 << 20) + 1), r"StrategyTable .*own\.toml: larger than 65536 bytes"),
        (
            b'[[rule]]\nstrategy = "x"\nsource = "y"',
            r"own\.toml: rule 1: there is no strategy 'x'; there are: binl, dir",
        ),
    ],
)
def test_a_table_that_cannot_be_used(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "own.toml"
    path.write_bytes(content)
    with pytest.raises(StartError, match=said):
        read_table(path)


def test_a_directory_is_no_table(tmp_path: Path) -> None:
    with pytest.raises(StartError, match="Is a directory"):
        read_table(tmp_path)


def test_an_empty_table_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "own.toml"
    path.write_bytes(b"")
    assert read_table(path) == read_table(None)
