"""Codes of BIOS ROMs, after the list that Intel's boot agent and its descendants use (Broadcom KB 152549). Pure."""

from __future__ import annotations

from typing import Final

from pbserv.doctor import causes as c
from pbserv.doctor.code_values import Cause, Code

_BIS: Final = Cause(
    "boot integrity services are switched on in the BIOS; pbserv does not sign boot files",
    "the BIOS set-up",
    "switch BIS off",
)
_MENU: Final = Cause(
    "another proxy or the DHCP server sends a broken option 43", "pbserv probe INTERFACE --as bios", c.RIVAL.remedy
)
_NIC: Final = (c.HARDWARE,)
_BOOT_DISKETTE: Final = "A program of the boot server that loads a diskette image (not of pbserv)"


def _rom(code: str, says: str, meaning: str, *causes: Cause) -> Code:
    return Code(code, "BIOS", says, meaning, causes)


ROM_CODES: Final[tuple[Code, ...]] = (
    _rom(
        "E00",
        "Could not find enough free base memory",
        "Less than the ROM needs is free below 640 KiB.",
        Cause("other boot ROMs take the space", "the BIOS set-up", "switch off those that are not needed"),
    ),
    _rom("E01", "PCI Vendor and Device IDs do not match", "The BIOS started the ROM for another card.", *_NIC),
    _rom("E04", "Error reading PCI configuration space", "The card cannot be talked to.", *_NIC),
    _rom("E05", "EEPROM checksum error", "What the card keeps about itself is damaged.", *_NIC),
    _rom("E06", "Option ROM requires DDIM support", "The BIOS loaded the ROM in an old way.", *_NIC),
    _rom("E07", "PCI BIOS calls not supported", "The BIOS lacks what the ROM needs.", *_NIC),
    _rom("E08", "Unexpected API error", "The PXE code and the driver of the card do not fit together.", *_NIC),
    _rom("E09", "Unexpected UNDI loader error", "The driver of the card could not be loaded.", *_NIC),
    _rom(
        "E11",
        "ARP timeout",
        "The address of the boot server or router is known, but its MAC address is not: four questions, no answer.",
        Cause(
            "the server that was named is in another subnet, and the DHCP server names no router, or a wrong one",
            "pbserv probe INTERFACE --as bios",
            "option 3 (routers) of the DHCP server",
        ),
        c.OPTION_60,
        Cause(
            "the address that clients are told is not reachable from their subnet",
            "pbserv doctor: several addresses",
            "LocalInterface, or AdvertisedAddresses",
        ),
        c.BOOT_OPTIONS,
    ),
    _rom("E20", "BIOS extended memory copy error", "Writing above 1 MiB failed.", c.HARDWARE),
    *(
        _rom(code, says, "Boot integrity services refused the boot file, or do not work.", _BIS)
        for code, says in (
            ("E21", "BIS integrity check failed"),
            ("E22", "BIS image/credential validation failed"),
            ("E23", "BIS initialization failed"),
            ("E24", "BIS shutdown failed"),
            ("E25", "BIS get boot object authorization check flag failed"),
            ("E26", "BIS free memory failed"),
            ("E27", "BIS get signature information failed"),
            ("E28", "BIS bad entry structure checksum"),
        )
    ),
    _rom(
        "E32",
        "TFTP open timeout",
        "Address and boot file are known; the TFTP request stayed without an answer.",
        c.TFTP_FIREWALL,
        c.TFTP_DOWN,
        c.TFTP_OTHER,
        Cause(
            "the answer leaves by another interface or address", "pbserv doctor", "TFTPInterface, AdvertisedAddresses"
        ),
    ),
    _rom("E35", "TFTP read timeout", "The transfer began and broke off.", c.TFTP_FIREWALL, c.BLOCKSIZE, c.LOSS),
    _rom(
        "E36",
        "Error received from TFTP server",
        "The TFTP server refused; PXE-T lines above have its code and words.",
        c.TFTP_MISSING,
        c.TFTP_RIGHTS,
        c.TFTP_OTHER,
    ),
    _rom("E38", "TFTP cannot open connection", "The card could not send the request.", c.HARDWARE, c.CABLE),
    _rom("E39", "TFTP cannot read from connection", "The card could not send an acknowledgement.", c.HARDWARE),
    _rom(
        "E3A",
        "TFTP too many packages",
        "The file is larger than the memory that was kept for it.",
        c.LOADER_FIT,
    ),
    _rom("E3B", "TFTP error - File not found", "The TFTP server has no such file.", c.TFTP_MISSING, c.TFTP_OTHER),
    _rom("E3C", "TFTP error - Access violation", "The file is there and may not be read.", c.TFTP_RIGHTS),
    _rom(
        "E3F",
        "TFTP packet size is invalid",
        "A block came that is larger than the ROM can take (1456 bytes).",
        Cause("MaxBlockSize or a foreign TFTP server", "TFTPLogLevel = 3", "TransferBlockSize = 1428 or less"),
    ),
    _rom(
        "E51",
        "No DHCP or proxyDHCP offers were received",
        "Nobody answered at all.",
        c.NO_DHCP,
        c.WRONG_NETWORK,
        c.SPANNING_TREE,
        c.CABLE,
    ),
    _rom(
        "E52",
        "proxyDHCP offers were received. No DHCP offers were received",
        "This server (or another proxy) answered; nobody offered an address.",
        c.NO_DHCP,
        Cause(
            "the DHCP server knows its machines, and not this one",
            "its log; pbserv probe INTERFACE --mac MAC",
            "enter the machine there",
        ),
    ),
    _rom(
        "E53",
        "No boot filename received",
        "The machine has an address, and no offer named a boot file.",
        c.NOT_ACCEPTED,
        c.NO_PROXY,
        c.FIREWALL_67,
        Cause("there is no boot file for BIOS clients", "pbserv check", "NBPx86 in proxydhcp.conf"),
        c.BOOT_OPTIONS,
        Cause(
            "the offer of the proxy came too late (ReplyDelay, MinimumSecs, a relay that only knows the DHCP server)",
            c.JOURNAL,
        ),
    ),
    _rom(
        "E55",
        "proxyDHCP service did not reply to request on port 4011",
        "An offer said that port 4011 has more, and nobody answered there.",
        c.OPTION_60,
        c.FIREWALL_4011,
        c.NOT_ACCEPTED,
        c.NO_PROXY,
        Cause("another program holds port 4011 on this host", "pbserv doctor", "stop it"),
        c.RIVAL,
    ),
    _rom("E60", "Invalid UNDI API function number", "The driver of the card lacks a function.", *_NIC),
    _rom("E61", "Media test failed, check cable", "The card has no link.", c.CABLE, c.HARDWARE),
    _rom("E63", "Error while initializing the NIC", "The card did not start.", *_NIC),
    _rom("E64", "Error while initializing the PHY", "The card's line driver did not start.", *_NIC),
    _rom("E65", "Error while reading the configuration data", "The card cannot be read.", *_NIC),
    _rom("E66", "Error while reading the initialization data", "The card cannot be read.", *_NIC),
    _rom("E67", "Invalid MAC address", "The card has no valid MAC address.", *_NIC),
    _rom("E68", "Invalid EEPROM checksum", "What the card keeps about itself is damaged.", *_NIC),
    _rom("E69", "Error while setting interrupt", "The interrupt of the card could not be set.", *_NIC),
    _rom(
        "E74",
        "Bad or missing PXE menu and/or prompt information",
        "Option 43 asks for a menu and does not have one.",
        _MENU,
        c.BROKEN_STRATEGY,
    ),
    _rom("E76", "Bad or missing multicast discovery address", "Option 43 allows multicast and names no group.", _MENU),
    _rom("E77", "Bad or missing discovery server list", "Option 43 wants a list of servers and has none.", _MENU),
    _rom(
        "E78",
        "Could not locate boot server",
        "The boot server that the menu names did not answer.",
        c.FIREWALL_4011,
        Cause("an entry of MenuEntries names a server that is gone", "MenuEntries in proxydhcp.conf", "correct it"),
        c.RIVAL,
        c.NOT_ACCEPTED,
    ),
    _rom(
        "E79",
        "NBP is too big to fit in free base memory",
        "The boot file is larger than what is free below 640 KiB.",
        Cause("NBPx86 is no BIOS loader, but a UEFI one or a kernel", "pbserv doctor", "NBPx86 = undionly.kpxe"),
    ),
    _rom("E7A", "Client could not locate a secure server", "The machine wants signed boot files.", _BIS),
    _rom(
        "E7B",
        "Missing MTFTP server IP address",
        "No offer named a server: siaddr is 0, and there is no option 43.",
        c.NO_PROXY,
        c.BOOT_OPTIONS,
    ),
    *(
        _rom(code, says, f"{_BOOT_DISKETTE} failed.", c.LOADER_FIT)
        for code, says in (
            ("E81", "!PXE structure is invalid"),
            ("E82", "PXENV+ structure is invalid"),
            ("E83", "Invalid DHCP option format"),
            ("E84", "Could not get pointer to original packet storage"),
            ("E85", "Not enough extended memory"),
            ("E86", "RAMdisk image corrupted"),
            ("E87", "Could not find selected boot item"),
            ("E88", "Could not locate boot server"),
            ("E89", "Could not download boot image"),
        )
    ),
    _rom("EA0", "Network boot canceled by keystroke", "The attempt was given up.", c.KEYSTROKE, c.MENU_LOCAL),
    *(
        _rom(code, says, "The ROM in the BIOS or on the card is damaged or does not fit.", *_NIC)
        for code, says in (
            ("EC1", "BaseCode ROM ID structure was not found"),
            ("EC3", "BaseCode ROM ID structure is invalid"),
            ("EC4", "UNDI ROM ID structure was not found"),
            ("EC5", "UNDI ROM ID structure is invalid"),
            ("EC6", "UNDI driver image is invalid"),
            ("EC8", "!PXE structure was not found in UNDI driver code segment"),
            ("EC9", "PXENV+ structure was not found in UNDI driver code segment"),
        )
    ),
    _rom(
        "M0F",
        "Exiting PXE ROM",
        "The last line of every attempt that ends without booting. The line above it says why; alone it means that"
        " the server sent the machine to its disk.",
        c.MENU_LOCAL,
        c.KEYSTROKE,
    ),
    *(
        # RFC 1350, section 5: the code of the TFTP error; its text follows on the screen.
        _rom(f"T{number:02}", says, f"The TFTP server refused with ERROR {number}.", *told)
        for number, says, told in (
            (0, "undefined error; the text says which", (c.TFTP_OTHER, c.TFTP_RIGHTS)),
            (1, "File not found", (c.TFTP_MISSING, c.TFTP_OTHER)),
            (2, "Access violation", (c.TFTP_RIGHTS, Cause("a map file refuses it", "pbserv tftp map-test NAME"))),
            (3, "Disk full or allocation exceeded", ()),
            (4, "Illegal TFTP operation", (c.TFTP_OTHER,)),
            (
                5,
                "Unknown transfer ID",
                (Cause("an answer of an old transfer, or NAT", "", "TFTPSinglePort"),),
            ),
        )
    ),
)
