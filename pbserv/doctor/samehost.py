"""The DHCP server on the same host: the lines that make it send clients to port 4011. Pure.

With port 67 in its hands the DHCP server must answer PXE clients with option 60 = PXEClient, without option 43 and
without a boot file; firmware then asks port 4011 of the same address (PXE 2.1; the manual's LocalDHCPFlag).
HTTPClient devices must not get it: firmware drops offers of the other class. Tried with dnsmasq 2.90, ISC dhcpd 4.4.3
and Kea 2.2.0; the lines for the others are those of their manuals, and go to all clients.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from pbserv.doctor.facts import Facts
from pbserv.doctor.finding import Finding, note

DNSMASQ: Final = (
    "# dnsmasq.conf; take dhcp-boot, pxe-service and pxe-prompt out: with them dnsmasq answers PXE clients itself",
    "dhcp-vendorclass=set:pbserv-pxe,PXEClient",
    "dhcp-option-force=tag:pbserv-pxe,60,PXEClient",
)
DHCPD: Final = (
    "# dhcpd.conf, outside of any subnet; take filename and next-server out",
    'class "pbserv-pxe" {',
    '  match if substring(option vendor-class-identifier, 0, 9) = "PXEClient";',
    '  option vendor-class-identifier "PXEClient";',
    "}",
)
KEA: Final = (
    '// kea-dhcp4.conf, inside "Dhcp4"; take boot-file-name and next-server out',
    '"client-classes": [',
    "  {",
    '    "name": "pbserv-pxe",',
    '    "test": "substring(option[60].hex,0,9) == \'PXEClient\'",',
    '    "option-data": [',
    '      { "name": "vendor-class-identifier", "code": 60, "data": "PXEClient", "always-send": true }',
    "    ]",
    "  }",
    "]",
)
NETWORKD: Final = (
    "# the .network file of the interface; take BootServerAddress and BootFilename out",
    "# goes to all clients: UEFI HTTP Boot does not work beside it",
    "[DHCPServer]",
    "SendOption=60:string:PXEClient",
)
WINDOWS: Final = (
    "REM Windows, in a command prompt with administrator's rights; a policy for vendor class PXEClient* restricts it",
    'netsh dhcp server add optiondef 60 PXEClient String 0 comment="PXE"',
    "netsh dhcp server set optionvalue 60 STRING PXEClient",
    "# or in PowerShell",
    "Add-DhcpServerv4OptionDefinition -ComputerName localhost -Name PXEClient -OptionId 60 -Type String",
    "Set-DhcpServerv4OptionValue -ComputerName localhost -OptionId 60 -Value PXEClient",
)
# What /proc calls the program (at most 15 characters) -> what it is called, and its lines.
SERVERS: Final[Mapping[str, tuple[str, tuple[str, ...]]]] = {
    "dnsmasq": ("dnsmasq", DNSMASQ),
    "dhcpd": ("ISC dhcpd", DHCPD),
    "kea-dhcp4": ("Kea", KEA),
    "systemd-network": ("systemd-networkd", NETWORKD),
    "windows": ("Windows (the DHCP server of a host that shares this address)", WINDOWS),
}


def lines_for_dhcp_server(facts: Facts) -> Iterator[Finding]:
    """What to add where; the server that runs here comes first, and alone when it is known for sure."""
    flag = facts.settings.proxydhcp.local_dhcp_flag
    if not facts.wants("proxydhcp") or flag == "0" or (flag == "auto" and not _without_67(facts)):
        return
    here = [name for name in SERVERS if name in facts.dhcp_programs]
    for name in here or SERVERS:
        title, lines = SERVERS[name]
        yield note(
            f"LocalDHCPFlag is {flag}: {title} must send PXE clients to port 4011 with option 60",
            f"{title} runs here" if name in here else "no DHCP server that we know runs here now",
            *lines,
        )


def _without_67(facts: Facts) -> bool:
    """Port 67 is another program's, and ours could not be opened beside it (net.tap): it serves 4011 alone."""
    taken = any(bound.protocol == "udp" and bound.port == 67 and bound.pid != facts.server.pid for bound in facts.bound)
    heard = any(listener.endswith(f":{facts.settings.proxydhcp.proxydhcp_port}") for listener in facts.server.listeners)
    return taken and facts.server.runs("proxydhcp") and not heard
