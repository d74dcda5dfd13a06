"""The lines that people read."""

from __future__ import annotations

from datetime import UTC

from pbserv.journal.steps import Line
from pbserv.journal.timeline import result_text, rows, text_of
from pbserv.proxydhcp.reading import spell
from tests.journal.samples import RECORDED, acknowledged, dhcp_request, event, lines, offered, refused


def text(steps: list[Line], packets: bool = False) -> str:
    return "\n".join(line for row in rows(steps, spell if packets else None) for line in text_of(row, UTC))


def test_a_boot() -> None:
    told = text(lines(event("asked by dhcp", "local: x"), offered(0.25), dhcp_request(1), acknowledged(2.5),
                      event("tftp", "snponly.efi: completed, 268288 bytes", 3)))  # fmt: skip
    assert told.splitlines() == [
        "00:00:00.000  policy    asked by dhcp  local: x",
        "00:00:00.250  dhcp      DISCOVER  port 67 on eth2, from 0.0.0.0:68, UEFI x64,"
        " PXEClient:Arch:00007:UNDI:003016, secs 0",
        "                          -> OFFER strategy hybrid snponly.efi to 255.255.255.255:68: nothing assigned",
        "00:00:01.000  dhcp      REQUEST  port 67 on eth2, from 0.0.0.0:68, UEFI x64,"
        " PXEClient:Arch:00007:UNDI:003016, secs 0",
        "                          -> for the DHCP server",
        "00:00:02.500  dhcp      REQUEST  port 4011 on eth2, from 10.0.0.77:4011, UEFI x64,"
        " PXEClient:Arch:00007:UNDI:003016, secs 0",
        "                          -> ACK strategy hybrid snponly.efi to 10.0.0.77:4011: nothing assigned",
        "00:00:03.000  tftp      snponly.efi: completed, 268288 bytes",
    ]


def test_retries_are_one_line_with_a_count() -> None:
    steps = [refused("policy_silent", "device is denied", at, secs=at) for at in (0, 4, 12, 28)]
    [row] = rows(lines(*steps))
    assert row.count == 4
    assert "secs 0..28" in row.detail
    assert "DISCOVER  x4 in 28.0 s  " in text_of(row, UTC)[0]


def test_retries_with_decisions_in_between_are_one_line_all_the_same() -> None:
    steps = (offered(0), event("asked by dhcp", "local: x", 1), offered(4, secs=4))
    assert [row.count for row in rows(lines(*steps))] == [2, 1]


def test_a_bios_rom_counts_its_tries_in_the_xid() -> None:
    tries = [offered(at, arch=0, secs=at, xid=0x9B4E0557 + (at << 24 & 0x04000000)) for at in (4, 8, 12)]
    assert [row.count for row in rows(lines(*tries))] == [3]


def test_another_answer_or_another_boot_is_another_line() -> None:
    steps = (offered(0), offered(4, "binl", secs=4), dhcp_request(5), offered(60, "binl"), offered(61, xid=5))
    assert len(rows(lines(*steps))) == 5


def test_options_of_packet_and_reply() -> None:
    step = offered(arch=0)._replace(data=RECORDED["asrock-bios-intel-discover"], reply=RECORDED["pixiecore-menu-offer"])
    told = text(lines(step), packets=True)
    for line in (
        "< xid 9b4e0557, secs 8, flags 8000, hops 0", "< chaddr d0:50:99:4e:05:57",
        "< option 53 message type: DISCOVER",
        "< option 57 maximum size: 1260", "< option 93 architecture: 0 (BIOS)",
        "> option 43 vendor options: 6=03, 8=[32768 192.168.16.10], 9=[32768 Pixiecore], 10=[0 s Pixiecore]",
        "> option 54 server: 192.168.16.10",
    ):  # fmt: skip
        assert line in told
    assert "option" not in text(lines(step, packets=0), packets=True), "bytes that are not kept cannot be read"


def test_broken_packets_are_told_too() -> None:
    step = refused("bad_packet", "byte 240: option 53: ends before its length")._replace(data=b"\1" * 241)
    told = text(lines(step), packets=True)
    assert "DHCP" in told
    assert "< broken: byte 236: magic cookie" in told


def test_the_result() -> None:
    assert result_text("pending", "new", "accept it", still=True) == [
        "so far: pending",
        "   why: new",
        "  todo: accept it",
    ]
    assert result_text("imaging done", "", "", still=False) == ["result: imaging done"]


def test_nothing_that_a_device_says_moves_the_cursor() -> None:
    told = text(lines(refused("not_pxe", "\x1b[2Jgone\r\n"), event("tftp", "\x9b31m: missing, 0 bytes")))
    assert "\\x1b[2Jgone\\x0d\\x0a" in told
    assert all(c.isprintable() or c == "\n" for c in told)
    assert result_text("seen", "\x1b]0;x\x07", "", still=False)[1] == "   why: \\x1b]0;x\\x07"
