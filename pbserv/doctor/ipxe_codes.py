"""iPXE's error numbers. Pure.

A number has four parts (iPXE, src/include/errno.h): bits 24 to 30 the kind of error, which is what is explained here;
13 to 23 the source file, 8 to 12 which of several, 0 to 7 the status for the firmware. https://ipxe.org/NUMBER has
more, where somebody wrote it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from pbserv.doctor import causes as c
from pbserv.doctor.code_values import Cause


@dataclass(frozen=True, slots=True)
class Kind:
    says: str
    meaning: str
    causes: tuple[Cause, ...] = ()


_HTTP: Final = Cause(
    "the HTTP server does not run, or a firewall drops HTTPPort", "pbserv status, pbserv doctor", "pbserv start imaging"
)
_TLS: Final = Cause("https: a certificate that iPXE does not know, or a wrong clock", "", "use http within the LAN")
_SCRIPT: Final = Cause(
    "what was fetched is no script, kernel or loader for this machine", c.JOURNAL, c.LOADER_FIT.remedy
)

KINDS: Final[Mapping[int, Kind]] = {
    0x02: Kind(
        "Permission denied", "A certificate or a signature was refused, or the server said 401 or 403.", (_TLS,)
    ),
    0x04: Kind(
        "Cannot assign requested address (No configuration methods succeeded)",
        "iPXE got no address: the DHCP server did not answer, or its answer did not reach the card.",
        (c.NO_DHCP, c.SPANNING_TREE, c.WRONG_NETWORK, c.CABLE),
    ),
    0x0B: Kind("Operation canceled", "Somebody pressed Ctrl-C, or the script gave up.", (c.KEYSTROKE,)),
    0x0E: Kind("Connection refused", "The host answered that nobody listens there.", (_HTTP,)),
    0x0F: Kind("Connection reset", "The server closed in the middle.", (_HTTP, c.LOSS)),
    0x17: Kind("Host unreachable", "There is no way to the server.", (c.WRONG_NETWORK, c.BOOT_OPTIONS)),
    0x1C: Kind("Invalid argument", "A script or an answer that iPXE does not understand.", (_SCRIPT,)),
    0x1D: Kind(
        "Input/output error",
        "The server answered with an HTTP error (4xx, 5xx), or a device failed.",
        (
            Cause("the server refused; its log says why", "pbserv journal MAC"),
            c.HARDWARE,
        ),
    ),
    0x27: Kind("Network dropped connection on reset", "The card was reset.", (c.HARDWARE,)),
    0x28: Kind("Network unreachable", "No route to the server: no address, or no router.", (c.NO_DHCP, c.BOOT_OPTIONS)),
    0x2C: Kind("No such device", "No disk or network card of that kind.", (c.HARDWARE,)),
    0x2D: Kind(
        "No such file or directory",
        "The TFTP or HTTP server has no such file, or there is nothing to boot (no offer named a file).",
        (c.TFTP_MISSING, c.NOT_ACCEPTED, c.TFTP_OTHER, Cause("no proxy offer came within two seconds", c.JOURNAL)),
    ),
    0x2E: Kind(
        "Exec format error",
        "The file is there, and iPXE of this kind cannot run it.",
        (
            c.LOADER_FIT,
            Cause("an HTML page of an error came instead of the file", "fetch it with curl"),
        ),
    ),
    0x31: Kind("Out of memory", "The machine has too little memory for what is loaded.", (c.LOADER_FIT,)),
    0x38: Kind("Socket not connected (Link down)", "The card has no link.", (c.CABLE, c.SPANNING_TREE)),
    0x3C: Kind(
        "Operation not supported",
        "This iPXE was built without it (https, nfs, a command).",
        (Cause("another build of iPXE", "", "pbserv loaders install"),),
    ),
    0x3E: Kind(
        "No such device or address (DNS)",
        "A name could not be found.",
        (Cause("host names in URLs without a DNS server", "", "use addresses in URLs"),),
    ),
    0x3F: Kind("Operation not supported", "This iPXE was built without it (https, nfs, a command)."),
    0x41: Kind("Operation not permitted", "The server said no (HTTP 403), or Secure Boot did.", (_TLS, c.LOADER_FIT)),
    0x43: Kind("Protocol error", "An answer that breaks the protocol.", (c.LOSS, _TLS)),
    0x4C: Kind(
        "Connection timed out",
        "The server did not answer, or no longer.",
        (c.TFTP_FIREWALL, _HTTP, c.TFTP_OTHER, c.BLOCKSIZE, c.LOSS),
    ),
    0x7F: Kind(
        "Error from the UEFI or PXE driver beneath iPXE",
        "Bits 0 to 7 have the firmware's own status.",
        (Cause("the driver in the firmware is at fault", "", "ipxe.efi in the place of snponly.efi, or the reverse"),),
    ),
}


def explain(number: int) -> Kind:
    """The kind of any error number; one that is not in the table still says what its parts are."""
    kind = KINDS.get(number >> 24 & 0x7F)
    return kind or Kind("another error", f"Its kind is {number >> 24 & 0x7F:#04x}; see ipxe.org/{number:08x}.")
