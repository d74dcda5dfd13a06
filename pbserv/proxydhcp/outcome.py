"""What can come of a packet: a reply, or a named reason why there is none. Values; pure."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from pbserv.types import ClientArch


class Reason(enum.Enum):
    """Why a packet is not answered; every one has a counter."""

    BAD_PACKET = "bad_packet"
    NOT_REQUEST = "not_request"
    NOT_DHCP = "not_dhcp"
    BAD_HARDWARE_ADDRESS = "bad_hardware_address"
    NOT_PXE = "not_pxe"
    U_BOOT = "u_boot"
    NO_ARCH = "no_arch"
    ARCH_NOT_SERVED = "arch_not_served"
    MESSAGE_NOT_FOR_PROXY = "message_not_for_proxy"
    ORDINARY_REQUEST_ON_67 = "ordinary_request_on_67"
    NOT_A_BOOT_SERVER_REQUEST = "not_a_boot_server_request"
    BOOT_ITEM_NOT_OURS = "boot_item_not_ours"
    BOOT_ITEM_WANTS_CREDENTIALS = "boot_item_wants_credentials"
    HTTP_NEEDS_NO_BOOT_SERVER = "http_needs_no_boot_server"
    WRONG_SERVER = "wrong_server"
    OTHER_INTERFACE = "other_interface"
    NO_LOCAL_ADDRESS = "no_local_address"
    BAD_RETURN_ADDRESS = "bad_return_address"
    POLICY_SILENT = "policy_silent"
    QUIRK = "quirk"
    LOOP = "loop"
    REPEATED = "repeated"
    TOO_MANY = "too_many"
    STANDBY = "standby"
    NO_LOCAL_BOOT_ANSWER = "no_local_boot_answer"
    REPLY_TOO_LONG = "reply_too_long"
    POLICY_LATE = "policy_late"
    TOO_MANY_WAIT = "too_many_wait"


class Listener(enum.IntEnum):
    """The two sockets, by what they are for: the numbers can be configured."""

    DHCP = 67
    BOOT_SERVER = 4011


class ClientKind(enum.Enum):
    """What asks, as far as it decides how to answer."""

    BIOS = "bios"
    UEFI = "uefi"
    IPXE = "ipxe"
    HTTP = "http"
    RASPBERRY_PI = "raspberrypi"
    UNSUPPORTED = "unsupported"


@dataclass(frozen=True, slots=True)
class Ignore:
    """No answer, and why. ``remedy`` says which setting would change that, where one does."""

    reason: Reason
    detail: str = ""
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class Summary:
    """What a reply says, for the log and for who wants to know later."""

    message: str
    kind: ClientKind
    arch: ClientArch
    strategy: str
    file: str
    server: str
    acknowledged: bool
    """True for an ACK: the boot file was chosen by us and taken by the client."""
    loader: bool
    """True when ``file`` is the loader of the architecture, which an iPXE client may then run and come back."""


@dataclass(frozen=True, slots=True)
class Reply:
    """Bytes and how they leave: to ``destination``:``port``, from ``source``, out of ``ifindex`` (0: by route)."""

    data: bytes
    destination: str
    port: int
    source: str
    ifindex: int
    summary: Summary
