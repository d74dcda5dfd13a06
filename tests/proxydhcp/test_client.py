"""Who asks: kinds, architectures, hardware addresses, UUIDs."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pbserv.errors import WireError
from pbserv.proxydhcp.client import (
    BootItem,
    Client,
    architecture,
    boot_item,
    classify,
    hardware_address,
    is_ipxe_user_class,
    system_uuid,
)
from pbserv.proxydhcp.outcome import ClientKind, Ignore, Reason
from pbserv.proxydhcp.packet import decode
from pbserv.proxydhcp.table import Vendor
from pbserv.types import ClientArch
from tests.proxydhcp.samples import FIRMWARE, IPXE_OPTIONS, asks, recorded

PI = bytes.fromhex("b827eb9b65d4")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("asrock-bios-intel-discover", (ClientKind.BIOS, 0)),
        ("ovmf-x64-discover-bz387", (ClientKind.UEFI, 7)),
        ("ovmf-x64-4011-request-try1-bz387", (ClientKind.UEFI, 7)),
        ("ovmf-x64-httpboot-discover-bz880", (ClientKind.HTTP, 16)),
        ("rpi3-rom-discover", (ClientKind.RASPBERRY_PI, 0)),
        ("plain-host-relayed-request", Reason.NOT_PXE),
        ("armv8-uboot-request", Reason.U_BOOT),
        ("riscv64-uboot-discover", Reason.U_BOOT),
    ],
)
def test_recorded_clients(name: str, expected: tuple[ClientKind, int] | Reason) -> None:
    packet = decode(recorded(name))
    found = classify(packet.options, packet.chaddr[:6])
    if isinstance(found, Ignore):
        assert found.reason is expected
    else:
        assert (found.kind, found.arch) == expected


@pytest.mark.parametrize("entry", FIRMWARE, ids=lambda entry: f"{entry['client']}-{entry['kind']}")
def test_recorded_firmware(entry: dict[str, str]) -> None:
    packet = decode(bytes.fromhex(entry["hex"]))
    found = classify(packet.options)
    assert isinstance(found, Client)
    is_ipxe = 77 in packet.options
    http = packet.options[60].startswith(b"HTTPClient")
    wanted = ClientKind.IPXE if is_ipxe else ClientKind.HTTP if http else ClientKind.UEFI
    assert found.kind is wanted
    assert system_uuid(packet.options[97]) is not None


@pytest.mark.parametrize(
    ("vendor_class", "arch", "kind"),
    [
        (b"PXEClient", 0, ClientKind.BIOS),
        (b"PXEClient\0", 7, ClientKind.UEFI),
        (b"PXEClient:Arch:0001b", 27, ClientKind.UEFI),
        (b"PXEClient", 9, ClientKind.UEFI),
        (b"PXEClient", 39, ClientKind.UEFI),
        (b"PXEClient", 12, ClientKind.UNSUPPORTED),
        (b"PXEClient", 16, ClientKind.UNSUPPORTED),
        (b"HTTPClient:Arch:00019", 19, ClientKind.HTTP),
        (b"HTTPClient", 7, ClientKind.UNSUPPORTED),
    ],
)
def test_class_and_architecture_make_the_kind(vendor_class: bytes, arch: int, kind: ClientKind) -> None:
    found = classify(asks(arch=arch, vendor_class=vendor_class).options)
    assert isinstance(found, Client)
    assert found.kind is kind
    assert vendor_class.startswith(found.vendor_class)


def test_ipxe_is_known_by_user_class_or_option_175() -> None:
    for extra in (IPXE_OPTIONS, {77: b"iPXE"}, {77: b"\x04iPXE"}, {77: b"\x03abc\x04iPXE"}, {175: b"\x13\x01\x01"}):
        found = classify(asks(extra=extra).options)
        assert isinstance(found, Client)
        assert found.kind is ClientKind.IPXE, extra
    assert not any(map(is_ipxe_user_class, (b"", b"\x09iPXE", b"gPXE", b"xiPXE", b"\0")))


@pytest.mark.parametrize("options", [{60: b"PXEClient"}, {60: b"PXEClient", 93: b""}, {60: b"PXEClient", 93: b"\0"}])
def test_without_a_usable_option_93_nobody_is_answered(options: dict[int, bytes]) -> None:
    found = classify(options)
    assert isinstance(found, Ignore)
    assert found.reason is Reason.NO_ARCH


def test_a_pi_is_a_pi_by_its_vendor_only() -> None:
    options = decode(recorded("rpi3-rom-discover")).options
    kinds = [classify(options, mac) for mac in (PI, bytes.fromhex("d050994e0557"), b"")]
    assert [found.kind for found in kinds if isinstance(found, Client)] == [
        ClientKind.RASPBERRY_PI, ClientKind.BIOS, ClientKind.BIOS,
    ]  # fmt: skip


def test_the_first_known_architecture_of_a_list_counts() -> None:
    assert architecture(b"\x00\x07\x00\x00") == 7
    assert architecture(b"\xff\xff\x00\x07") == 7
    assert architecture(b"\xff\xff") == 0xFFFF


@pytest.mark.parametrize("oui", ["b827eb", "dca632", "e45f01", "28cdc1", "d83add"])
def test_the_vendors_of_pis(oui: str) -> None:
    found = classify(decode(recorded("rpi3-rom-discover")).options, bytes.fromhex(oui) + b"\1\2\3")
    assert isinstance(found, Client)
    assert found.kind is ClientKind.RASPBERRY_PI


def test_a_pi_that_says_so_needs_no_vendor() -> None:
    found = classify(asks(arch=41, vendor_class=b"PXEClient").options)
    assert isinstance(found, Client)
    assert found.kind is ClientKind.RASPBERRY_PI


def test_further_vendor_classes_count_as_one_of_the_two() -> None:
    vendors = (Vendor(b"HW-Client", b"PXEClient"), Vendor(b"ACME", b"HTTPClient"))
    huawei = classify(asks(arch=7, vendor_class=b"HW-Client:Arch:00007").options, b"", vendors)
    assert huawei == Client(ClientKind.UEFI, ClientArch.EFI_X64, b"PXEClient", b"HW-Client:Arch:00007")
    acme = classify(asks(arch=16, vendor_class=b"ACME").options, b"", vendors)
    assert acme == Client(ClientKind.HTTP, ClientArch.HTTP_X64, b"HTTPClient", b"ACME")
    for other in (b"HW-Clien", b"acme", b"pxeclient"):
        found = classify(asks(vendor_class=other).options, b"", vendors)
        assert isinstance(found, Ignore)
        assert found.reason is Reason.NOT_PXE


def test_what_is_no_boot_client_is_shown_without_its_control_characters() -> None:
    found = classify(asks(vendor_class=b"a\nb\xff" + bytes(60)).options)
    assert isinstance(found, Ignore)
    assert found.detail.startswith("a\nb\\xff")
    assert len(found.detail) < 200


def test_hardware_addresses() -> None:
    guid = bytes(range(0x10, 0x20))
    assert hardware_address(6, bytes.fromhex("525400aabbcc") + bytes(10)) == bytes.fromhex("525400aabbcc")
    assert hardware_address(16, guid) == bytes.fromhex("1a1b1c1d1e1f")
    assert hardware_address(16, guid, b"\x01RT\0\x11\x22\x33") == b"RT\0\x11\x22\x33"
    for identifier in (b"", b"\x02RT\0\x11\x22\x33", b"\x01RT\0\x11\x22", b"\0" + guid):
        assert hardware_address(16, guid, identifier) == guid[10:]
    for hlen, chaddr in ((6, bytes(16)), (6, b"\xff" * 16), (0, guid), (8, guid), (17, guid), (6, b"\1" + guid[1:])):
        assert hardware_address(hlen, chaddr) is None


def test_a_uuid_is_written_as_the_kernel_writes_it() -> None:
    # Recorded: read with the first three fields reversed, it is a proper version 5 UUID; read straight it is not.
    assert system_uuid(bytes.fromhex("00612b889ce8fa4f569f4a31c5f93be72b")) == "9c882b61-fae8-564f-9f4a-31c5f93be72b"
    nobody = (b"", b"\0" * 17, b"\0" + b"\xff" * 16, b"\1" + bytes(range(16)), b"\0" + bytes(8))
    assert [system_uuid(value) for value in nobody] == [None] * len(nobody)
    shared = decode(recorded("asrock-bios-intel-discover")).options[97]
    assert system_uuid(shared) is None  # shared by thousands


def test_boot_items() -> None:
    assert boot_item({}) is None
    assert boot_item({43: b"\x06\x01\x08\xff"}) is None
    assert boot_item({43: bytes.fromhex("470480020000ff")}) == BootItem(0x8002, 0)
    item = boot_item({43: bytes.fromhex("470480008000ff")})
    assert item is not None
    assert item.wants_credentials
    for broken in (b"\x47\x04\x80", b"\x47\x02\x80\x00\xff"):
        with pytest.raises(WireError):
            boot_item({43: broken})


@given(st.dictionaries(st.sampled_from((43, 60, 61, 77, 93, 97, 175)), st.binary(max_size=40)))
def test_any_options_are_classified(options: dict[int, bytes]) -> None:
    assert isinstance(classify(options), Client | Ignore)
    system_uuid(options.get(97, b""))
    if isinstance(boot := _item(options), BootItem):
        assert 0 <= boot.type <= 0xFFFF


def _item(options: dict[int, bytes]) -> BootItem | None:
    try:
        return boot_item(options)
    except WireError:
        return None
