"""All checks, in the order in which their findings are shown. A new check is a function and a line here. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from pbserv.doctor import (
    capacity,
    firewall,
    links,
    loaders,
    onwire,
    policy,
    ports,
    rights,
    samehost,
    server,
    surroundings,
    tls,
)
from pbserv.doctor.facts import Facts
from pbserv.doctor.finding import Finding

Check = Callable[[Facts], Iterator[Finding]]

CHECKS: Final[tuple[Check, ...]] = (
    server.services_running,
    server.proxydhcp_wanted,
    ports.held_ports,
    ports.unusual_ports,
    ports.missing_dhcp_server,
    rights.rights_to_start,
    rights.tftp_directory,
    links.no_usable_link,
    links.no_broadcast_address,
    links.link_down,
    links.enslaved_link,
    links.several_addresses,
    links.strict_reverse_path,
    firewall.blocked_traffic,
    firewall.unread_firewalls,
    loaders.broken_loaders,
    loaders.no_boot_files,
    policy.boot_files,
    policy.templates,
    policy.database,
    policy.other_server,
    tls.https_runs,
    tls.certificate_in_order,
    onwire.not_asked,
    onwire.rival_proxies,
    onwire.no_dhcp_server,
    onwire.several_dhcp_servers,
    onwire.boot_options_of_dhcp,
    onwire.option_60_of_dhcp,
    onwire.own_proxy_silent,
    samehost.lines_for_dhcp_server,
    capacity.receive_buffer,
    capacity.neighbour_table,
    capacity.open_files,
    surroundings.disk_space,
    surroundings.clock,
    rights.rights_to_look,
)


def examine(facts: Facts) -> list[Finding]:
    """Every finding of every check."""
    return [finding for check in CHECKS for finding in check(facts)]
