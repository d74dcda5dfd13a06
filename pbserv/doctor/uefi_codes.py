"""Codes of UEFI firmware: the messages of EDK2's PXE driver (NetworkPkg/UefiPxeBcDxe/PxeBcBoot.c). Pure.

The code stands for the status with which the whole attempt ended, so one code covers several stages.
"""

from __future__ import annotations

from typing import Final

from pbserv.doctor import causes as c
from pbserv.doctor.code_values import Cause, Code


def _uefi(code: str, says: str, meaning: str, *causes: Cause) -> Code:
    return Code(code, "UEFI", says, meaning, causes)


UEFI_CODES: Final[tuple[Code, ...]] = (
    _uefi(
        "E05",
        "Buffer size is smaller than the requested file",
        "The boot file grew between asking for its size and fetching it, or its size was told wrongly.",
        Cause("the file is being replaced right now", "ls -l in TFTPDirectory", "replace files by renaming"),
        Cause("a server between names a wrong size", "", "TFTPRefuseOptions = tsize, to try"),
    ),
    _uefi(
        "E07",
        "Network device error",
        "The driver of the network card reported a failure, or the server list in an offer lacks the chosen entry.",
        c.HARDWARE,
        c.BROKEN_STRATEGY,
        Cause("another proxy sent a menu whose entries have no server", "pbserv probe INTERFACE --as uefi"),
    ),
    _uefi("E09", "Could not allocate I/O buffers", "The boot file does not fit into memory.", c.LOADER_FIT),
    _uefi("E12", "Could not detect network connection", "The card has no link.", c.CABLE, c.SPANNING_TREE),
    _uefi(
        "E16",
        "No valid offer received",
        "No offer came within a minute that this firmware could use: nothing at all, or a DHCP offer without any"
        " boot server. It also stands for a boot server on port 4011 that did not answer.",
        c.NOT_ACCEPTED,
        c.NO_PROXY,
        c.NO_DHCP,
        c.WRONG_NETWORK,
        c.FIREWALL_67,
        c.SPANNING_TREE,
        c.OPTION_60,
        Cause(
            "offers leave this host by the wrong interface or arrive mutilated",
            "pbserv probe on another host of that network",
            "LocalInterface, AdvertisedAddresses",
        ),
        Cause("this firmware ignores proxy offers (HP Gen9 UEFI)", c.JOURNAL, "options 66 and 67 of the DHCP server"),
    ),
    _uefi(
        "E18",
        "Server response timeout",
        "The machine has an offer and asked on, and nobody answered: on port 4011 (the boot server), or TFTP.",
        c.FIREWALL_4011,
        c.OPTION_60,
        c.TFTP_FIREWALL,
        c.TFTP_DOWN,
        c.TFTP_OTHER,
        c.RIVAL,
        c.BROKEN_STRATEGY,
        c.BLOCKSIZE,
    ),
    _uefi(
        "E21",
        "Remote boot cancelled",
        "The attempt was given up: by a key, or because the first entry of the PXE menu means the local disk.",
        c.MENU_LOCAL,
        c.KEYSTROKE,
        Cause(
            "a menu of another proxy begins with the local disk",
            "pbserv probe INTERFACE --as uefi",
            c.RIVAL.remedy,
        ),
        Cause("the loop breaker sent it to its disk (LoopLimit)", c.JOURNAL, "see why the loader comes back each time"),
    ),
    _uefi(
        "E22",
        "Client received ICMP error from server",
        "The server's host answered that nobody listens on that port, or a router that there is no way.",
        c.TFTP_DOWN,
        c.TFTP_OTHER,
        Cause("a firewall rejects instead of dropping", "pbserv doctor", "the command that it prints"),
    ),
    _uefi(
        "E23",
        "Client received TFTP error from server",
        "The TFTP server refused: the text of its error stands above this line.",
        c.TFTP_MISSING,
        c.TFTP_RIGHTS,
        c.TFTP_OTHER,
        Cause("TFTPAllowedNetworks or a map file refuses it", "pbserv tftp map-test NAME --client ADDRESS"),
    ),
    _uefi(
        "E53",
        "No boot filename received",
        "An offer was taken that names no file.",
        Cause("there is no boot file for this architecture", "pbserv check; " + c.JOURNAL, "the NBP key of it"),
        c.NOT_ACCEPTED,
        c.BOOT_OPTIONS,
        c.RIVAL,
    ),
    _uefi(
        "E99",
        "Unexpected network error",
        "Any other failure; often an offer that contradicts itself (a menu without servers, a file without a server).",
        c.RIVAL,
        c.BOOT_OPTIONS,
        c.BROKEN_STRATEGY,
        c.HARDWARE,
    ),
)
