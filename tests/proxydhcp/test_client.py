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
from pbserv.types import MacAddress
from tests.proxydhcp.samples import FIRMWARE, IPXE_OPTIONS, asks, recorded

PI = MacAddress.parse("b8:27:eb:9b:65:d4")


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
    found = classify(packet.options, hardware_address(packet))
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
    assert system_uuid(packet.options) is not None


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
    kinds = [classify(options, mac) for mac in (PI, MacAddress.parse("d0:50:99:4e:05:57"), None)]
    assert [found.kind for found in kinds if isinstance(found, Client)] == [
        ClientKind.RASPBERRY_PI, ClientKind.BIOS, ClientKind.BIOS,
    ]  # fmt: skip


def test_the_first_known_architecture_of_a_list_counts() -> None:
    assert architecture(b"\x00\x07\x00\x00") == 7
    assert architecture(b"\xff\xff\x00\x07") == 7
    assert architecture(b"\xff\xff") == 0xFFFF


def test_hardware_addresses() -> None:
    guid = bytes(range(0x10, 0x20))
    assert str(hardware_address(asks(mac="525400aabbcc"))) == "52:54:00:aa:bb:cc"
    assert str(hardware_address(asks(mac=guid.hex(), hlen=16))) == "1a:1b:1c:1d:1e:1f"
    assert str(hardware_address(asks(mac=guid.hex(), hlen=16, extra={61: b"\x01RT\0\x11\x22\x33"}))).startswith("52:54")
    for nobody in (asks(mac="000000000000"), asks(mac="ffffffffffff"), asks(hlen=0), asks(hlen=8)):
        assert hardware_address(nobody) is None


def test_a_uuid_is_written_as_the_kernel_writes_it() -> None:
    # Recorded: read with the first three fields reversed, it is a proper version 5 UUID; read straight it is not.
    assert system_uuid({97: bytes.fromhex("00612b889ce8fa4f569f4a31c5f93be72b")}) == (
        "9c882b61-fae8-564f-9f4a-31c5f93be72b"
    )
    nobody = (b"", b"\0" * 17, b"\0" + b"\xff" * 16, b"\1" + bytes(range(16)), b"\0" + bytes(8))
    assert [system_uuid({97: value}) for value in nobody] == [None] * len(nobody)
    assert system_uuid(decode(recorded("asrock-bios-intel-discover")).options) is None  # shared by thousands


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
    system_uuid(options)
