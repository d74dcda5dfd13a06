"""The interfaces: is there one on which clients can be reached, and does each have what proxyDHCP needs? Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator

from pbserv.doctor.facts import Facts, Link
from pbserv.doctor.finding import Finding, error, note, warning


def no_usable_link(facts: Facts) -> Iterator[Finding]:
    """Nothing can be served without an interface that is up and has an IPv4 address."""
    if facts.lan_links:
        return
    names = ", ".join(f"{link.name} ({_state(link)})" for link in facts.links if not link.loopback) or "none at all"
    narrowed = " among those asked for" if facts.interface or facts.settings.proxydhcp.local_interface else ""
    yield error(
        f"no interface{narrowed} is up and has an IPv4 address: no client can be reached",
        f"interfaces: {names}",
        "give one an address: ip address add 192.0.2.10/24 brd + dev INTERFACE; ip link set INTERFACE up",
    )


def no_broadcast_address(facts: Facts) -> Iterator[Finding]:
    """``ip address add`` without ``brd +`` makes one.

    Our own offers leave all the same: they go to 255.255.255.255 by an interface that is named. What goes to the
    subnet's broadcast address is lost in both directions, and so is what other programs send by that address.
    """
    for link in facts.lan_links:
        for entry in link.addresses:
            if entry.broadcast is not None or not link.broadcasts or entry.prefix_length >= 31:
                continue
            network = ipaddress.ip_network((entry.address, entry.prefix_length), strict=False)
            own = f"{entry.address}/{entry.prefix_length}"
            yield warning(
                f"{link.name} has no broadcast address: packets to {network.broadcast_address} are neither heard nor"
                " sent there, and DHCP servers and relays that use it fall silent",
                f"{entry.address}/{entry.prefix_length} on {link.name}, no brd",
                # `ip address replace` leaves the broadcast address as it is: the kernel only takes lifetimes from it.
                f"ip address del {own} dev {link.name} && ip address add {own} brd + dev {link.name}",
                "routes by way of that address (ip route) go with it: set them again, or restart the network",
            )


def link_down(facts: Facts) -> Iterator[Finding]:
    """An interface with an address that is down, or has no cable."""
    for link in facts.links:
        if link.loopback or not link.addresses or facts.interface not in ("", link.name):
            continue
        chosen = any(entry.address == str(facts.settings.proxydhcp.local_interface) for entry in link.addresses)
        say = error if chosen or facts.interface == link.name else note
        if not link.up:
            yield say(f"{link.name} is down", _addresses(link), f"ip link set {link.name} up")
        elif link.carrier is False:
            yield say(f"{link.name} has no carrier: cable, switch port or the other end", _addresses(link))


def enslaved_link(facts: Facts) -> Iterator[Finding]:
    """An address on a port of a bridge or bond: packets come in by the bridge, so they seem to come for nobody."""
    for link in facts.links:
        if link.master and link.addresses:
            entry = link.addresses[0]
            yield warning(
                f"{link.name} belongs to {link.master} and has an address of its own: requests arrive on"
                f" {link.master}, which does not have it",
                _addresses(link),
                f"ip address del {entry.address}/{entry.prefix_length} dev {link.name}",
                f"ip address add {entry.address}/{entry.prefix_length} brd + dev {link.master}",
            )


def several_addresses(facts: Facts) -> Iterator[Finding]:
    """Clients are told the first; that is wrong where the others are the ones they can route to."""
    given = {text.partition("=")[0] for text in facts.settings.proxydhcp.advertised_addresses}
    for link in facts.lan_links:
        local = str(facts.settings.proxydhcp.local_interface)
        if len(link.addresses) < 2 or link.name in given or any(entry.address == local for entry in link.addresses):
            continue
        first = link.addresses[0].address
        yield note(
            f"{link.name} has several addresses; clients are told {first}",
            _addresses(link),
            f"to name another one: AdvertisedAddresses = {link.name}=ADDRESS in proxydhcp.conf",
        )


def strict_reverse_path(facts: Facts) -> Iterator[Finding]:
    """rp_filter = 1 drops what comes from addresses that are routed elsewhere (kernel, ip-sysctl.rst, rp_filter).

    Clients' own broadcasts come from 0.0.0.0 and pass; with one interface all routes lead through it.
    """
    strict = [link.name for link in facts.lan_links if link.rp_filter == 1]
    if strict and len(facts.lan_links) > 1:
        yield note(
            "the reverse path filter is strict: requests that a relay forwards are dropped when the route back to the"
            " relay leads out of another interface",
            f"rp_filter = 1 on {', '.join(strict)}",
            *(
                f"where relays are used: sysctl -w net.ipv4.conf.{name.replace('.', '/')}.rp_filter=2"
                for name in strict
            ),
        )


def _state(link: Link) -> str:
    return "down" if not link.up else "no address" if not link.addresses else "not asked for"


def _addresses(link: Link) -> str:
    return f"{link.name}: " + ", ".join(f"{entry.address}/{entry.prefix_length}" for entry in link.addresses)
