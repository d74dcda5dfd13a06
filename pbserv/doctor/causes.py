"""Causes that several codes share, with the commands of pbserv that tell which one it is. Pure."""

from __future__ import annotations

from typing import Final

from pbserv.doctor.code_values import Cause

JOURNAL: Final = "pbserv journal MAC"

NOT_ACCEPTED: Final = Cause(
    "the device is not accepted, or denied: it gets no answer on purpose",
    "pbserv device list",
    "pbserv device accept MAC",
)
NO_PROXY: Final = Cause(
    "proxyDHCP does not run, or not on that network", "pbserv status, pbserv doctor", "pbserv start proxydhcp"
)
NO_DHCP: Final = Cause(
    "no DHCP server answers on that network: VLAN, switch port, relay, or no free address",
    "pbserv probe INTERFACE --as uefi",
    "start it, or widen its range",
)
SPANNING_TREE: Final = Cause(
    "the switch port forwards nothing for half a minute after the link comes up (spanning tree)",
    "the same machine boots at its second attempt, or behind a plain switch",
    "make it an edge port (portfast)",
)
WRONG_NETWORK: Final = Cause(
    "the machine is in another VLAN or subnet, and no relay sends its requests here",
    f"{JOURNAL}: nothing is there",
    "DHCP relay (ip helper-address) to the DHCP server and to this server",
)
FIREWALL_67: Final = Cause(
    "a firewall on this host drops UDP 67, or our offers", "pbserv doctor", "the command that pbserv doctor prints"
)
FIREWALL_4011: Final = Cause(
    "a firewall drops UDP 4011, on this host or on the way", "pbserv doctor", "open UDP 4011 (not TCP)"
)
OPTION_60: Final = Cause(
    "the DHCP server sends option 60 = PXEClient, so the machine asks port 4011 of that server, where nobody is",
    "pbserv probe INTERFACE",
    "take option 60 out of the DHCP server (unless proxyDHCP runs on it: then LocalDHCPFlag = 1)",
)
BOOT_OPTIONS: Final = Cause(
    "the DHCP server names a boot file or server of its own, which is gone or wrong",
    "pbserv probe INTERFACE",
    "take options 66 and 67 (next-server, filename) out of it",
)
RIVAL: Final = Cause(
    "another proxyDHCP server answered first, and its boot server does not",
    "pbserv probe INTERFACE",
    "stop the other one",
)
BROKEN_STRATEGY: Final = Cause(
    "this firmware wants the offer in another form",
    f"{JOURNAL}: it stops after each offer",
    "StrategyEscalation = 1 tries the others by itself; StrategyTable fixes one for good",
)
TFTP_DOWN: Final = Cause("the TFTP service does not run", "pbserv status", "pbserv start tftp")
TFTP_FIREWALL: Final = Cause(
    "a firewall drops UDP 69, or the ports of the transfers (any free UDP port unless TFTPPortRange is set)",
    "pbserv doctor; the log tftp.log has the request, then: no answer",
    "open them, or set TFTPPortRange or TFTPSinglePort",
)
TFTP_MISSING: Final = Cause(
    "the boot file is not in TFTPDirectory",
    "pbserv check, pbserv tftp map-test NAME",
    "pbserv loaders install, or copy it there",
)
TFTP_RIGHTS: Final = Cause(
    "the boot file, or a directory above it, is not readable for the server's user",
    "pbserv doctor",
    "chmod o+r FILE, chmod o+x DIRECTORY",
)
TFTP_OTHER: Final = Cause(
    "the file was asked from another server: the DHCP server's siaddr or option 66 won",
    f"{JOURNAL}: the offer is there, no TFTP request",
    "pbserv probe INTERFACE shows who said so",
)
BLOCKSIZE: Final = Cause(
    "large blocks are lost on the way (tunnel, VPN, a firewall that drops fragments)",
    "TFTPLogLevel = 3: the transfer begins and times out",
    "a smaller TransferBlockSize (1024, then 512)",
)
LOSS: Final = Cause(
    "packets are lost: cable, duplex, an overloaded switch",
    "pbserv statistics: the share of what was sent again",
    "try another port and cable",
)
LOADER_FIT: Final = Cause(
    "the boot file is for another kind of machine", "pbserv doctor", "the NBP key of that architecture"
)
MENU_LOCAL: Final = Cause(
    "the server told it to boot from its disk: the device has no work (ZoneDefault = local)",
    "pbserv device show MAC",
    "give it work, or set ZoneDefault",
)
KEYSTROKE: Final = Cause("somebody pressed ESC or Ctrl-C")
CABLE: Final = Cause("no cable, or a dead switch port", "the lights of the network card", "try another port and cable")
HARDWARE: Final = Cause(
    "the network card or its firmware is broken",
    "another card, or the same one in another machine",
    "update the firmware of card and mainboard",
)
