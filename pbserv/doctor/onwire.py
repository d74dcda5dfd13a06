"""Who answers boot clients on the network, and how their answers go together with ours. Pure.

Sources: the order in which firmware prefers offers (EDK2 PxeBcDhcp4.c, iPXE dhcp.c, Intel's boot agent), and the rule
that option 60 of a DHCP server sends clients to port 4011 of that server.
"""

from __future__ import annotations

from collections.abc import Iterator

from pbserv.doctor.facts import Asked, Facts, OfferSeen
from pbserv.doctor.finding import Finding, error, note, warning


def not_asked(facts: Facts) -> Iterator[Finding]:
    """A probe that failed leaves its interface unseen."""
    for asked in facts.asked or ():
        if asked.fault:
            yield note(f"{asked.interface} was not asked as {asked.kind}", asked.fault)


def rival_proxies(facts: Facts) -> Iterator[Finding]:
    """Of two proxies the one with option 43 wins on EDK2, the last that answers on iPXE: which is luck."""
    for interface, asks in _by_interface(facts):
        rivals = {offer.source: offer for asked in asks for offer in asked.offers if _rival(facts, offer)}
        for offer in rivals.values():
            if _stands_by(facts):
                yield note(f"this server stands by for another proxyDHCP server on {interface}: {offer.who}")
                continue
            strong = ", and its option 43 makes UEFI prefer it to one without" if offer.has_43 else ""
            yield error(
                f"another proxyDHCP server answers on {interface}: {offer.who}; which of the two a client takes is"
                f" luck{strong}",
                _evidence(offer),
                "stop it, or take this network out of its range",
                "where it must stay: deny its clients here (pbserv device deny MAC), or ReplyDelay and MinimumSecs in"
                " proxydhcp.conf make this server the one that stands by",
            )


def no_dhcp_server(facts: Facts) -> Iterator[Finding]:
    """A proxy gives no addresses: without a DHCP server nobody boots (PXE-E52, PXE-E16)."""
    for interface, asks in _by_interface(facts):
        if not any(offer.is_dhcp for asked in asks for offer in asked.offers):
            heard = ", ".join(sorted({offer.who for asked in asks for offer in asked.offers})) or "nobody at all"
            yield error(
                f"no DHCP server answers on {interface}: clients get no address (PXE-E51, PXE-E52, PXE-E16)",
                f"asked as {_kinds(asks)}; heard: {heard}",
                "start the DHCP server of this network, or look for what keeps its answers away (VLAN, relay)",
                "some DHCP servers serve known machines only: pbserv probe --mac MAC-OF-A-CLIENT " + interface,
            )


def several_dhcp_servers(facts: Facts) -> Iterator[Finding]:
    """Two servers that do not know of each other give the same address twice; a failover pair is fine."""
    for interface, asks in _by_interface(facts):
        servers = {offer.server_id or offer.source: offer for asked in asks for offer in asked.offers if offer.is_dhcp}
        if len(servers) > 1:
            yield warning(
                f"{len(servers)} DHCP servers answer on {interface}; clients take the one that suits their firmware",
                "; ".join(offer.who for offer in servers.values()),
                "if these are no failover pair, stop the one that does not belong here",
            )


def boot_options_of_dhcp(facts: Facts) -> Iterator[Finding]:
    """A DHCP server that names a boot file itself."""
    for interface, offer in _dhcp_offers(facts):
        named = offer.boot_file or offer.file
        if not named and not offer.tftp_server:
            continue
        yield warning(
            f"the DHCP server {offer.who} on {interface} sends boot options of its own"
            f" (file {named or '-'}, server {offer.tftp_server or offer.next_server or '-'}): {_preference(offer)}",
            _evidence(offer),
            "take options 66 and 67 (next-server, filename) out of that DHCP server, for PXE clients at least",
            "GRUB and shim without a server in their prefix read only the DHCP server's packet: where they are used,"
            " let it point to this server instead",
        )


def _preference(offer: OfferSeen) -> str:
    """EDK2: DhcpOnly with a proxy comes before a DHCP server's file, and DhcpBinl (option 60) before a BINL proxy."""
    if offer.vendor_class.startswith("PXEClient"):
        return "with option 60 they come before ours on most firmware"
    return "UEFI prefers our offer to them, iPXE, shim and GRUB may take the DHCP server's, BIOS ROMs differ"


def option_60_of_dhcp(facts: Facts) -> Iterator[Finding]:
    """Option 60 = PXEClient from a DHCP server: "my port 4011 has more". Right with a proxy there, else harmful."""
    flag = facts.settings.proxydhcp.local_dhcp_flag
    for interface, offer in _dhcp_offers(facts):
        says = offer.vendor_class.startswith("PXEClient")
        ours = offer.source in facts.own_addresses
        if says and not ours:
            yield error(
                f"the DHCP server {offer.who} on {interface} sends option 60 = PXEClient: firmware asks port 4011 of"
                " that server, not of this one, and gives up when nobody answers there (PXE-E18, PXE-E55)",
                _evidence(offer),
                "take option 60 (vendor-class-identifier) out of that DHCP server's answers",
                "or run proxyDHCP on that host, with LocalDHCPFlag = 1",
            )
        elif ours and flag == "1" and not says:
            yield error(
                f"LocalDHCPFlag is 1, but the DHCP server of this host does not send option 60 to PXE clients on"
                f" {interface}: they never ask port 4011",
                _evidence(offer),
                "add the lines below to its configuration",
            )


def own_proxy_silent(facts: Facts) -> Iterator[Finding]:
    """Our own proxyDHCP runs and did not offer anything. A probe is a device like any other: the policy decides."""
    if not facts.server.runs("proxydhcp") or facts.settings.proxydhcp.local_dhcp_flag == "1":
        return
    policy = facts.settings.policy
    silent = policy.new_devices != "accept" or policy.zone_default == "silent"
    for interface, asks in _by_interface(facts):
        if any(offer.is_proxy and offer.source in facts.own_addresses for asked in asks for offer in asked.offers):
            continue
        evidence = f"asked as {_kinds(asks)} on {interface}"
        if silent:
            yield note(
                f"our own proxyDHCP did not answer on {interface}, as the policy wants for devices that it does not"
                " know",
                f"{evidence}; NewDevices = {policy.new_devices}, ZoneDefault = {policy.zone_default}",
                "to see it answer, accept the probe's device: pbserv device list, pbserv device accept MAC",
            )
        else:
            yield error(
                f"our own proxyDHCP runs and did not answer on {interface}",
                evidence,
                "see why: pbserv journal, and ProxyLogLevel = 3 in proxydhcp.conf with pbserv force-reload",
            )


def _by_interface(facts: Facts) -> Iterator[tuple[str, list[Asked]]]:
    """The probes of each interface that came about."""
    found: dict[str, list[Asked]] = {}
    for asked in facts.asked or ():
        if not asked.fault:
            found.setdefault(asked.interface, []).append(asked)
    yield from found.items()


def _dhcp_offers(facts: Facts) -> Iterator[tuple[str, OfferSeen]]:
    """One offer per DHCP server and interface: the one that says most about booting."""
    for interface, asks in _by_interface(facts):
        best: dict[str, OfferSeen] = {}
        for offer in (offer for asked in asks for offer in asked.offers if offer.is_dhcp):
            known = best.get(offer.source)
            if known is None or _weight(offer) > _weight(known):
                best[offer.source] = offer
        yield from ((interface, offer) for offer in best.values())


def _weight(offer: OfferSeen) -> int:
    return sum(map(bool, (offer.vendor_class, offer.file, offer.boot_file, offer.tftp_server, offer.has_43)))


def _rival(facts: Facts, offer: OfferSeen) -> bool:
    return offer.is_proxy and offer.source not in facts.own_addresses


def _stands_by(facts: Facts) -> bool:
    """Whether this server lets another one answer first on purpose."""
    conf = facts.settings.proxydhcp
    return conf.reply_delay_ms > 0 or conf.minimum_secs > 0


def _kinds(asks: list[Asked]) -> str:
    return ", ".join(asked.kind for asked in asks)


def _evidence(offer: OfferSeen) -> str:
    parts = {
        "siaddr": offer.next_server, "file": offer.file, "option 60": offer.vendor_class,
        "option 66": offer.tftp_server, "option 67": offer.boot_file, "option 43": "present" if offer.has_43 else "",
    }  # fmt: skip
    told = ", ".join(f"{name} {value}" for name, value in parts.items() if value)
    return f"offer from {offer.source}: {told or 'no boot options'}"
