"""Which ports are heard, by LocalDHCPFlag and by what else has them."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from pbserv.errors import StartError
from pbserv.net.dhcp_port import BatchPort, SinglePort
from pbserv.proxydhcp.config import ProxyDhcpConf
from pbserv.proxydhcp.listening import Ports, bind, check, numbers
from pbserv.proxydhcp.outcome import Listener
from tests.daemon.programs import report_of
from tests.proxydhcp.wires import wires

DHCP, BOOT_SERVER = Listener.DHCP, Listener.BOOT_SERVER


@contextlib.contextmanager
def taken(address: str = "0.0.0.0") -> Iterator[int]:
    """A port that another program holds, as dnsmasq does: with SO_REUSEADDR."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as raw:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        raw.bind((address, 0))
        yield raw.getsockname()[1]


@contextlib.contextmanager
def bound(wanted: dict[Listener, int], flag: str) -> Iterator[tuple[Ports, str]]:
    ports, note = bind(wanted, flag)
    try:
        yield ports, note
    finally:
        for port in ports.values():
            port.close()


def test_the_wanted_ports() -> None:
    assert numbers(ProxyDhcpConf()) == {BOOT_SERVER: 4011, DHCP: 67}
    assert numbers(ProxyDhcpConf(local_dhcp_flag="auto")) == {BOOT_SERVER: 4011, DHCP: 67}
    assert numbers(ProxyDhcpConf(local_dhcp_flag="1", boot_server_port=5000)) == {BOOT_SERVER: 5000}


def test_what_cannot_be_served_is_refused() -> None:
    check(ProxyDhcpConf())
    check(ProxyDhcpConf(proxydhcp_port=0, boot_server_port=0, local_interface="127.0.0.1"))
    with pytest.raises(StartError, match=r"LocalInterface: this host has no address 192\.0\.2\.1; see: ip address"):
        check(ProxyDhcpConf(local_interface="192.0.2.1"))
    with pytest.raises(StartError, match="ProxyDHCPPort and BootServerPort are both 4011; they must differ"):
        check(ProxyDhcpConf(proxydhcp_port=4011))


@pytest.mark.parametrize("flag", ["0", "auto"])
def test_free_ports_are_taken_themselves(flag: str) -> None:
    with bound({DHCP: 0, BOOT_SERVER: 0}, flag) as (ports, note):
        assert note == ""
        assert [type(ports[listener]) for listener in Listener] == [BatchPort, BatchPort]
        for port in ports.values():
            address, number = port.name
            assert address == "0.0.0.0"
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as raw, pytest.raises(OSError, match="in use"):
                raw.bind(("127.0.0.1", number))


def test_a_boot_server_port_that_is_taken_names_its_key() -> None:
    with taken() as port, pytest.raises(StartError) as caught:
        bind({BOOT_SERVER: port}, "auto")
    assert f"0.0.0.0:{port} is in use" in str(caught.value)
    assert "BootServerPort in proxydhcp.conf, but clients know only 4011" in str(caught.value)


def test_all_or_nothing() -> None:
    with taken() as port:
        before = sorted(os.listdir("/proc/self/fd"))
        for wanted in ({DHCP: 0, BOOT_SERVER: port}, {BOOT_SERVER: port, DHCP: 0}):
            with pytest.raises(StartError):
                bind(wanted, "0")
        assert sorted(os.listdir("/proc/self/fd")) == before


RIGHTS = """
import json, os, socket, sys
from pbserv.errors import StartError
from pbserv.proxydhcp.listening import bind
from pbserv.proxydhcp.outcome import Listener

def attempt(port, flag):
    try:
        ports, note = bind({Listener.BOOT_SERVER: 0, Listener.DHCP: port}, flag)
    except StartError as fault:
        return str(fault)
    found = [type(ports[one]).__name__ for one in Listener if one in ports]
    for one in ports.values():
        one.close()
    return [found, note]

held = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
held.bind(("0.0.0.0", 0))
port = held.getsockname()[1]
if os.geteuid() == 0:
    os.setresgid(65534, 65534, 65534)
    os.setresuid(65534, 65534, 65534)
print(json.dumps({"0": attempt(port, "0"), "auto": attempt(port, "auto"), "low": attempt(int(sys.argv[1]), "auto")}))
held.close()
"""


def test_without_the_right_to_read_beside_a_dhcp_server() -> None:
    found = report_of(RIGHTS, "67")
    said = str(found["0"])
    for words in ("is in use", "reading beside it is not possible", "CAP_NET_RAW", "Or set LocalDHCPFlag = 1 in proxyd",
                  "must send option 60"):  # fmt: skip
        assert words in said
    listeners, note = found["auto"]  # type: ignore[misc]
    assert listeners == ["BatchPort"]
    assert "only port 4011 is served" in note
    assert "CAP_NET_RAW" in note
    assert "pbserv doctor" in note
    # That a port is low is another matter: no flag helps, and nobody else holds it.
    if int(Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text()) > 67:
        assert "67" in str(found["low"])
        assert "LocalDHCPFlag" not in str(found["low"])


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root rights")
@pytest.mark.parametrize("flag", ["0", "auto"])
def test_a_port_67_that_is_taken_is_read_beside_its_holder(flag: str) -> None:
    with wires(1) as room, room.server(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("0.0.0.0", 67))
        with bound({DHCP: 67, BOOT_SERVER: 4011}, flag) as (ports, note):
            assert isinstance(ports[DHCP], SinglePort)
            assert ports[DHCP].name == ("0.0.0.0", 67)
            assert note == "another program has port 67: its packets are read beside it"
