"""The verdict and the report: what is asked on, what hinders it, and the words."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from pbserv.probe.ask import Answers
from pbserv.probe.firmware import discover, firmware_of, made_up_identity
from pbserv.probe.offer import Offer
from pbserv.probe.report import Probed, all_boot, as_json, remarks, text
from pbserv.probe.verdict import Asked, Verdict, server_question, verdict
from pbserv.proxydhcp import packet as dhcp
from pbserv.proxydhcp.models import Sent
from pbserv.proxydhcp.packet import decode
from pbserv.types import MacAddress
from tests.probe.offers import MENU, SERVER, dhcp_offer, proxy
from tests.probe.recordings import CAPTURED, recorded

MAC = MacAddress.parse("02:00:00:00:00:01")
LOCAL_MENU = bytes.fromhex("06010309080000056c6f63616c0a0400505845ff")


def answers(kind: str, *offers: Offer, address: str = "10.0.0.50") -> Answers:
    firmware = firmware_of(kind)
    sent = discover(firmware, made_up_identity(b"host", firmware, MAC, 7))
    return Answers("eth0", kind, MAC, address, sent.data, offers)


class BootServer:
    """Answers what it is asked with these offers, and remembers the questions."""

    def __init__(self, *offers: Offer) -> None:
        self.offers = offers
        self.questions: list[Sent] = []

    def __call__(self, sent: Sent) -> Sequence[Offer]:
        self.questions.append(sent)
        return self.offers


def ack(**changes: object) -> Offer:
    return proxy({53: b"\5"}, 43, asked=4011, source_port=4011, **({"port": 4011} | changes))


def test_an_offer_that_is_enough() -> None:
    server = BootServer()
    found = verdict(answers("uefi", dhcp_offer(), proxy()), server)
    assert (found.boots, found.file, found.server, server.questions) == (True, "boot.efi", "10.0.0.9", [])
    assert found.text.startswith("would boot boot.efi from 10.0.0.9 (tftp), because")


def test_a_boot_server_that_answers_and_one_that_does_not() -> None:
    offers = dhcp_offer(), proxy(None, 43, file=b"")
    server = BootServer(ack(file=b"other.efi"))
    found = verdict(answers("uefi", *offers), server)
    assert (found.boots, found.file) == (True, "other.efi")
    (asked,) = found.asked
    assert (asked.server, asked.port, asked.source_port) == ("10.0.0.9", 4011, 4011)
    assert [sent.destination for sent in server.questions] == ["10.0.0.9"]
    silent = verdict(answers("uefi", *offers), BootServer())
    assert (silent.word, silent.code) == ("fails", "PXE-E16")
    assert "4011" in silent.text


@pytest.mark.parametrize(
    ("offer", "address", "allowed", "words"),
    [
        (proxy(None, 43), "10.0.0.50", False, "--no-boot-server"),
        (proxy(None, 43), "", True, "eth0 has no IPv4 address"),
        (proxy({43: b"\x06\1\2" + MENU[3:]}), "10.0.0.50", True, "a probe broadcasts no REQUEST"),
    ],
)
def test_what_keeps_it_from_asking(offer: Offer, address: str, allowed: bool, words: str) -> None:
    server = BootServer()
    found = verdict(answers("uefi", dhcp_offer(), offer, address=address), server if allowed else None)
    assert (found.word, server.questions) == ("unknown", [])
    assert words in found.text


@pytest.mark.parametrize(
    ("kind", "offers", "word", "words"),
    [
        ("bios", (), "fails", "nobody answered (PXE-E51)"),
        ("bios", (proxy(),), "fails", "PXE-E52"),
        ("bios", (dhcp_offer(),), "fails", "PXE-E53"),
        ("bios", (dhcp_offer(), proxy({43: LOCAL_MENU})), "local", "boot order"),
        ("uboot", (dhcp_offer(), proxy()), "fails", "U-Boot takes no proxy offers"),
        ("uefi", (dhcp_offer(seconds=5.0), proxy(seconds=5.0)), "boots", "boot.efi"),
        ("uefi", (dhcp_offer(), proxy(seconds=5.0)), "fails", "no usable"),
    ],
)
def test_how_it_ends(kind: str, offers: tuple[Offer, ...], word: str, words: str) -> None:
    found = verdict(answers(kind, *offers), BootServer())
    assert (found.word, words in found.text) == (word, True), found.text


def test_the_forced_question_is_the_recorded_one() -> None:
    data = recorded("ovmf-x64-4011-request-try1-bz387")
    packet = decode(data)
    mac = MacAddress(packet.chaddr[:6])
    given = Answers("eth0", "uefi", mac, "192.168.122.63", recorded("ovmf-x64-discover-bz387"), ())
    sent = server_question(given, proxy(None, 43, siaddr=bytes((192, 168, 122, 250))))
    assert (sent.source, sent.source_port, sent.destination, sent.port) == (
        "192.168.122.63", 4011, "192.168.122.250", 4011,
    )  # fmt: skip
    assert sent.data[:4] + sent.data[8:] == data[:4] + data[8:], "all but the transaction id"


def test_the_forced_question_of_others_comes_from_port_68() -> None:
    discovered = next(bytes.fromhex(entry["hex"]) for entry in CAPTURED if entry["client"] == "ipxe-virtio")
    sent = server_question(Answers("eth0", "ipxe", MAC, "10.0.0.50", discovered, ()), proxy(None, 43))
    assert (sent.source_port, decode(sent.data).message_type, decode(sent.data).ciaddr) == (
        68, dhcp.REQUEST, bytes((10, 0, 0, 50)),
    )  # fmt: skip


def test_the_report_says_it_all() -> None:
    given = answers("uefi", dhcp_offer(), proxy(None, 43, 54))
    found = verdict(given, BootServer())
    further = Asked("10.0.0.9", 4011, 4011, "--boot-server", (ack(),))
    shown = "\n".join(text(Probed(given, found, (further,))))
    for words in (
        "eth0, as uefi (UEFI x64, 02:00:00:00:00:01)",
        "1. DHCP from 10.0.0.9:67 (02:00:00:00:00:02), OFFER after 10 ms",
        "2. proxy from",
        "     60 vendor class          PXEClient",
        "!! option 54 (server identifier) is missing: EDK2 drops such offers [RFC 2131 table 3]",
        "not usable for uefi",
        "asked 10.0.0.9 on port 4011 from port 4011: --boot-server",
        "boot server from 10.0.0.9:4011",
        "=> this client would not boot",
    ):
        assert words in shown, shown
    assert max(len(line) for line in shown.splitlines()) <= 120
    value = as_json(Probed(given, found, (further,)))
    assert [offer["usable"] for offer in value["offers"]] == [True, False]  # type: ignore[attr-defined]


def test_remarks() -> None:
    other = dhcp_offer({54: bytes((10, 0, 0, 8))}, source="10.0.0.8")
    assert [line.split(":")[0].split(".")[0] for line in remarks(answers("uefi", dhcp_offer(), other))] == [
        "2 DHCP servers answer", "no proxyDHCP server answers",
    ]  # fmt: skip
    assert [line[:14] for line in remarks(answers("uefi", proxy(), proxy({54: SERVER[:3] + b"\7"})))] == [
        "no DHCP server", "2 proxyDHCP se",
    ]  # fmt: skip
    assert list(remarks(answers("uefi", dhcp_offer({60: b"PXEClient"})))) != []
    assert list(remarks(answers("uefi", dhcp_offer(), proxy()))) == []


def test_all_or_not_all() -> None:
    good, bad = (Probed(answers("uefi"), Verdict(word, "")) for word in ("boots", "local"))
    assert all_boot([good, good])
    assert not all_boot([good, bad])
