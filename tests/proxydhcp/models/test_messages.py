"""What the models send is what real clients sent, byte for byte."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from pbserv.proxydhcp.models import MODELS, Ask, Bios, Identity, Ipxe, Model, Operator, UBoot
from pbserv.proxydhcp.packet import Packet, decode, dotted
from pbserv.types import MacAddress
from tests.proxydhcp.models.captures import FIRMWARE, recorded
from tests.proxydhcp.models.offers import dhcp_offer, heard, menu

UNDIONLY = Ipxe(bare=True)


def identity_of(packet: Packet) -> Identity:
    """The identity of whoever sent this."""
    uuid, arch, undi = (packet.options.get(tag) for tag in (97, 93, 94))
    return Identity(
        MacAddress(packet.chaddr[:6]),
        uuid[1:] if uuid else None,
        int.from_bytes(arch, "big") if arch else None,
        (undi[1], undi[2]) if undi else None,
        packet.xid,
    )


@pytest.mark.parametrize(
    ("name", "model", "attempt"),
    [
        ("asrock-bios-intel-discover", MODELS["bios"], 1),  # secs 8: the second try; its xid is made of the MAC
        ("ovmf-x64-discover-bz387", MODELS["edk2"], 0),
        ("ovmf-x64-pxe-discover-bz880", MODELS["edk2"], 0),
        ("ovmf-x64-httpboot-discover-bz880", MODELS["http"], 0),
        ("rpi3-rom-discover", MODELS["raspberrypi"], 0),
        ("riscv64-uboot-discover", UBoot(vendor_class="U-Boot", tells_arch=False), 0),
    ],
)
def test_discovers_of_the_captures(name: str, model: Model, attempt: int) -> None:
    data = recorded(name)
    assert model.discover(identity_of(decode(data)), attempt).data == data


def test_a_pi_makes_its_uuid_of_its_address() -> None:
    data = recorded("rpi3-rom-discover")
    who = Identity(MacAddress(decode(data).chaddr[:6]), uuid=None, xid=7)
    assert MODELS["raspberrypi"].discover(who).data == data


def model_of(entry: Mapping[str, str]) -> Model:
    packet = decode(bytes.fromhex(entry["hex"]))
    if packet.options[60].startswith(b"HTTPClient"):
        return MODELS["http"]
    if packet.options[60] == b"PXEClient":
        return UNDIONLY
    return MODELS["ipxe"] if 77 in packet.options else MODELS["edk2"]


def without_variables(data: bytes, model: Model) -> bytes:
    """Option 175 begins with the network card's identity, and one byte of HTTP Boot's option 55 is not initialised."""
    value = decode(data).options
    if model.name == "ipxe":
        return data.replace(value[175][:7], bytes(7))
    return data.replace(value[55], value[55][:-3] + b"\0" + value[55][-2:]) if model.name == "http" else data


@pytest.mark.parametrize(
    "entry",
    [entry for entry in FIRMWARE if entry["kind"] in ("DISCOVER", "REQUEST")],
    ids=lambda entry: f"{entry['client']}-{entry['kind']}-{entry['hex'][8:16]}",
)
def test_packets_of_real_firmware(entry: dict[str, str]) -> None:
    data, model = bytes.fromhex(entry["hex"]), model_of(entry)
    packet = decode(data)
    who = identity_of(packet)
    if entry["kind"] == "DISCOVER":
        sent = model.discover(who).data
    else:
        lease = dhcp_offer(server=dotted(packet.options[54]), lease=dotted(packet.options[50]))
        sent = model.request(lease, who).data
    assert without_variables(sent, model) == without_variables(data, model)


def test_edk2_asks_port_4011_as_in_bz387() -> None:
    """BZ-387: four requests of this form, to siaddr, from port 4011."""
    offer, wanted = decode(recorded("dhcp-offer-to-ovmf-x64-bz387")), recorded("ovmf-x64-4011-request-try1-bz387")
    who = identity_of(decode(recorded("ovmf-x64-discover-bz387")))
    lease = heard("192.168.122.250", lease="192.168.122.63", siaddr=dotted(offer.siaddr), file="x")
    choice = MODELS["edk2"].choose([lease], who)
    assert isinstance(choice, Ask)
    sent = choice.sent
    assert (sent.source, sent.source_port, sent.destination, sent.port) == (
        "192.168.122.63", 4011, "192.168.122.250", 4011,
    )  # fmt: skip
    assert sent.data[8:] == wanted[8:]
    assert sent.data[4:8] != recorded("ovmf-x64-discover-bz387")[4:8]  # an xid of its own


def boot_items() -> list[dict[str, str]]:
    return [entry for entry in FIRMWARE if 43 in decode(bytes.fromhex(entry["hex"])).options]


@pytest.mark.parametrize("entry", boot_items(), ids=lambda entry: f"{entry['client']}-{entry['hex'][8:16]}")
def test_boot_items_are_asked_for_as_firmware_does(entry: dict[str, str]) -> None:
    """EDK2 puts option 43 first and asks from 4011; iPXE puts it last, with xid 0 and the bare class, from 68."""
    data = bytes.fromhex(entry["hex"])
    packet = decode(data)
    model = MODELS["ipxe" if 77 in packet.options else "edk2"]
    wanted = int.from_bytes(packet.options[43][2:4], "big")
    offer = heard(option43=menu((wanted, "it"), servers=[(wanted, [entry["dst"]])]))
    lease = dhcp_offer(lease=dotted(packet.ciaddr))
    choice = model.choose([offer, lease], identity_of(packet), Operator())
    assert isinstance(choice, Ask)
    assert choice.sent.source_port == int(entry["src_port"])
    assert without_variables(choice.sent.data, model)[8:] == without_variables(data, model)[8:]
    if model.name == "ipxe":
        assert choice.sent.data[4:8] == bytes(4)


def test_a_rom_makes_its_xid_of_its_address_and_the_try() -> None:
    """Reference 2.3 rule 17: the try is added to the top byte."""
    who = Identity(MacAddress.parse("d0:50:99:4e:05:57"))
    xids = [decode(Bios().discover(who, attempt).data).xid for attempt in range(4)]
    assert [f"{xid:08x}" for xid in xids] == ["9a4e0557", "9b4e0557", "9c4e0557", "9d4e0557"]


@pytest.mark.parametrize("model", MODELS.values(), ids=lambda model: model.name)
def test_every_try_is_a_message_of_its_own(model: Model) -> None:
    for attempt in range(len(model.waits_s)):
        sent = model.discover(Identity(), attempt)
        assert (sent.source, sent.source_port, sent.destination, sent.port) == ("0.0.0.0", 68, "255.255.255.255", 67)
        assert decode(sent.data).message_type == 1
    assert decode(model.request(dhcp_offer(), Identity()).data).options[50] == bytes((10, 1, 0, 77))
