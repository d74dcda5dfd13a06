"""Each DISCOVER against a recorded one: the same header, options and order."""

from __future__ import annotations

import dataclasses

import pytest

from pbserv.errors import UsageError
from pbserv.probe.firmware import FIRMWARE, discover, firmware_of, made_up_identity, made_up_mac
from pbserv.proxydhcp.client import classify
from pbserv.proxydhcp.models import Identity
from pbserv.proxydhcp.outcome import ClientKind, Ignore
from pbserv.proxydhcp.packet import decode
from pbserv.types import ClientArch, MacAddress
from tests.probe.recordings import CAPTURED, recorded

IPXE = next(bytes.fromhex(entry["hex"]) for entry in CAPTURED if entry["client"] == "ipxe-virtio")


def as_recorded(data: bytes) -> Identity:
    packet = decode(data)
    uuid = None if packet.chaddr[:3] == FIRMWARE["pi"].oui else packet.options.get(97, bytes(17))[1:]
    return Identity(MacAddress(packet.chaddr[:6]), uuid, xid=packet.xid)


def options_of(data: bytes) -> list[tuple[int, bytes]]:
    """In the order in which they stand."""
    found, at = [], 240
    while data[at] != 255:
        found.append((data[at], data[at + 2 : at + 2 + data[at + 1]]))
        at += 2 + data[at + 1]
    return found


@pytest.mark.parametrize(
    ("kind", "data", "attempt"),
    [
        ("bios", recorded("asrock-bios-intel-discover"), 1),
        ("uefi", recorded("ovmf-x64-discover-bz387"), 0),
        ("uefi", recorded("ovmf-x64-pxe-discover-bz880"), 0),
        ("http", recorded("ovmf-x64-httpboot-discover-bz880"), 0),
        ("ipxe", IPXE, 0),
        ("pi", recorded("rpi3-rom-discover"), 0),
    ],
)
def test_it_is_the_recorded_one(kind: str, data: bytes, attempt: int) -> None:
    firmware = FIRMWARE[kind]
    who = dataclasses.replace(as_recorded(data), arch=firmware.arch, undi=firmware.undi)
    made = discover(firmware, who, attempt).data
    assert options_of(made) == options_of(data)
    assert made == data


def test_uboot_is_the_recorded_request_made_a_discover() -> None:
    data = recorded("armv8-uboot-request")
    made = discover(FIRMWARE["uboot"], as_recorded(data)).data
    wanted = [(tag, b"\1" if tag == 53 else value) for tag, value in options_of(data) if tag not in (50, 54)]
    assert options_of(made) == wanted
    assert len(made) == len(data)


@pytest.mark.parametrize(("kind", "arch"), [("uefi-ia32", 6), ("uefi-arm64", 11)])
def test_other_uefi_differs_in_the_architecture_only(kind: str, arch: int) -> None:
    who = MacAddress.parse("52:54:00:00:00:01")
    x64, other = (
        dict(options_of(discover(FIRMWARE[name], made_up_identity(b"host", FIRMWARE[name], who, 7)).data))
        for name in ("uefi", kind)
    )
    assert (other[93], other[60]) == (bytes((0, arch)), b"PXEClient:Arch:%05d:UNDI:003001" % arch)
    assert {tag: value for tag, value in other.items() if tag not in (60, 93, 97)} == {
        tag: value for tag, value in x64.items() if tag not in (60, 93, 97)
    }


@pytest.mark.parametrize(
    ("kind", "client", "arch"),
    [
        ("bios", ClientKind.BIOS, 0), ("uefi", ClientKind.UEFI, 7), ("uefi-ia32", ClientKind.UEFI, 6),
        ("uefi-arm64", ClientKind.UEFI, 11), ("http", ClientKind.HTTP, 16), ("ipxe", ClientKind.IPXE, 0),
        ("pi", ClientKind.RASPBERRY_PI, 0),
    ],
)  # fmt: skip
def test_a_server_takes_it_for_what_it_says(kind: str, client: ClientKind, arch: int) -> None:
    packet = decode(discover(FIRMWARE[kind], made_up_identity(b"host", FIRMWARE[kind], None, 7)).data)
    found = classify(packet.options, packet.chaddr[:6])
    assert not isinstance(found, Ignore)
    assert (found.kind, found.arch) == (client, ClientArch(arch))


def test_addresses_are_local_and_stay_the_same() -> None:
    macs = {kind: made_up_mac(b"host", firmware) for kind, firmware in FIRMWARE.items()}
    assert macs == {kind: made_up_mac(b"host", firmware) for kind, firmware in FIRMWARE.items()}
    assert len(set(macs.values())) == len(FIRMWARE)
    assert made_up_mac(b"other", FIRMWARE["bios"]) != macs["bios"]
    for kind, mac in macs.items():
        assert mac.octets[0] & 3 == 2 or kind == "pi"
    assert macs["pi"].octets.startswith(b"\xb8\x27\xeb")
    own = MacAddress.parse("52:54:00:00:00:01")
    assert made_up_identity(b"host", FIRMWARE["bios"], own, 1).mac == own


def test_an_unknown_kind() -> None:
    with pytest.raises(UsageError, match="uefi-arm64"):
        firmware_of("amiga")
