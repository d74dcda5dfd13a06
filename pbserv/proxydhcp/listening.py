"""Which ports proxyDHCP hears, by LocalDHCPFlag and by what else runs on this host.

One rule: all that is wanted is bound, or nothing is, and the reason says what an administrator can do.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from pbserv.errors import StartError
from pbserv.net.dhcp_port import BatchPort, Port, SinglePort
from pbserv.net.interfaces import address_on_host
from pbserv.net.tap import PacketTap
from pbserv.proxydhcp.config import ProxyDhcpConf
from pbserv.proxydhcp.outcome import Listener

Ports = dict[Listener, Port]
Numbers = dict[Listener, int]
NEEDED: Final = "the DHCP server of this host must send option 60, so that clients ask port 4011; see: pbserv doctor"


def numbers(conf: ProxyDhcpConf) -> Numbers:
    """The wanted port numbers. LocalDHCPFlag = 1: the DHCP server on this host has port 67."""
    wanted = {Listener.BOOT_SERVER: conf.boot_server_port}
    if conf.local_dhcp_flag != "1":
        wanted[Listener.DHCP] = conf.proxydhcp_port
    return wanted


def check(conf: ProxyDhcpConf) -> None:
    """Raise StartError for what cannot be served on this host."""
    if conf.local_interface is not None and not address_on_host(conf.local_interface):
        raise StartError(f"LocalInterface: this host has no address {conf.local_interface}; see: ip address")
    if conf.proxydhcp_port == conf.boot_server_port != 0:  # 0: any free one
        raise StartError(f"ProxyDHCPPort and BootServerPort are both {conf.proxydhcp_port}; they must differ")


def bind(wanted: Mapping[Listener, int], flag: str) -> tuple[Ports, str]:
    """The open ports, and a word about what is not as usual; raises StartError. They hear broadcasts, so they are bound
    to no address."""
    opened: Ports = {}
    note = ""
    try:
        for listener, port in wanted.items():
            if listener is Listener.BOOT_SERVER:
                opened[listener] = _boot_server(port)
                continue
            found, note = _dhcp(port, flag)
            if found is not None:
                opened[listener] = found
    except StartError:
        for one in opened.values():
            one.close()
        raise
    return opened, note


def _boot_server(port: int) -> Port:
    try:
        return BatchPort.bind("0.0.0.0", port)
    except StartError as fault:
        raise StartError(f"{fault} (BootServerPort in proxydhcp.conf, but clients know only 4011)") from None


def _dhcp(port: int, flag: str) -> tuple[Port | None, str]:
    """Port 67 itself, else a tap beside the program that has it, else with ``auto`` nothing."""
    try:
        return BatchPort.bind("0.0.0.0", port), ""
    except StartError as taken:
        if "in use" not in str(taken):
            raise
        try:
            tap = PacketTap.open(port)
        except StartError as fault:
            if flag == "auto":
                return None, f"another program has port {port}, and {fault}: only port 4011 is served; {NEEDED}"
            raise StartError(
                f"{taken}; reading beside it is not possible: {fault}. Or set LocalDHCPFlag = 1 in proxydhcp.conf: "
                f"then {NEEDED}"
            ) from None
        return SinglePort(tap), f"another program has port {port}: its packets are read beside it"
