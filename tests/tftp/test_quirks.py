"""What real clients do besides the RFCs: reference/tftp.md sections 2.1 (probes), 2.2 (clients) and 2.3 (parser).

One rule: one test per row, in the order of the tables, and each names where the behaviour was seen.
"""

from __future__ import annotations

import asyncio
import random
import socket
from contextlib import suppress

import pytest

from pbserv.tftp.packet import (
    Data,
    Error,
    Opcode,
    OptionAck,
    Request,
    decode,
    encode_ack,
    encode_error,
    encode_request,
)
from tests.tftp.client import Client, client, fetch, finish
from tests.tftp.conftest import Room

noise = random.Random(22).randbytes
QUIET_S = 0.15
"""Below the floor of 200 ms under which nothing is sent again."""


async def until(condition, timeout_s: float = 60.0) -> None:
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0.005)


async def oack(made: Client, name: str | bytes, *options: tuple[str, object]) -> list[tuple[str, str]]:
    """The options in the server's answer."""
    made.ask(name, *options)
    answer = await made.receive()
    assert isinstance(answer, OptionAck), answer
    return [(key.decode(), value.decode()) for key, value in answer.options]


async def asked_only(port: int, name: str | bytes, *options: tuple[str, object]) -> list[tuple[str, str]]:
    """The same from a client that then says goodbye, so that nothing is left to end."""
    async with client(port) as made:
        agreed = await oack(made, name, *options)
        made.send(encode_error(0, "bye"))
    return agreed


def failures(room: Room) -> list[str]:
    """Log lines of level 1."""
    return [line for line in room.log.splitlines() if " warning: " in line and "client=" in line]


# -- 2.1 the size probe ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "text"),
    [
        (8, "User aborted the transfer"),  # EDK2: NetworkPkg Mtftp4Rrq.c:737-740, PxeBcMtftp.c:100-230
        (0, "TFTP Aborted"),  # iPXE: src/net/udp/tftp.c:1069
        (0, "No error, file close"),  # PXELINUX: core/fs/pxe/tftp.c:24
        (0, "closed"),  # GRUB: grub-core/net/tftp.c:436-445
        (0, "Early Terminate"),  # Raspberry Pi ROM: raspberrypi/firmware#1700
    ],
)
async def test_a_probe_is_no_failure(room: Room, code: int, text: str) -> None:
    data = room.put("f", noise(3000))
    async with client(room.port) as made:
        assert await oack(made, "f", ("tsize", 0)) == [("tsize", "3000")]
        made.send(encode_error(code, text))
        assert await made.silent(QUIET_S), "an ERROR is never answered"
    await until(lambda: room.told)
    assert room.told == [("127.0.0.1", "f", "size probe", 3000)]
    assert " request: probed " in room.log
    assert not failures(room)
    assert await fetch(room.port, "f", ("blksize", 1468)) == data  # the request behind it: new port, no tsize


async def test_an_error_of_another_code_is_a_failure(room: Room) -> None:
    room.put("f", noise(3000))
    async with client(room.port) as made:
        await oack(made, "f", ("tsize", 0))
        made.send(encode_error(3, "disk full"))
        await until(lambda: room.told)
    assert room.told[0][2] == "client error"
    assert failures(room)


async def test_error_0_in_mid_transfer_is_a_client_that_closed(room: Room) -> None:
    # reference 2.1, "Rule"; seen with iPXE when a user presses Ctrl-B
    room.put("f", noise(3000))
    async with client(room.port) as made:
        made.ask("f")
        await made.receive()
        made.ack(1)
        await made.receive()
        made.send(encode_error(0, "TFTP Aborted"))
        await until(lambda: room.told)
    assert room.told[0][2] == "closed by client"
    assert "closed by client" in room.log
    assert not failures(room)


async def test_a_probe_that_races_with_the_request_behind_it(room: Room) -> None:
    # Raspberry Pi ROM: the next RRQ overtakes the ERROR (raspberrypi/firmware#1700)
    data = room.put("f", noise(3000))
    async with client(room.port) as probe, client(room.port) as reader:
        await oack(probe, "f", ("tsize", 0))
        reader.ask("f")
        probe.send(encode_error(0, "Early Terminate"))
        assert await finish(reader) == data
    await until(lambda: len(room.told) == 2)
    assert sorted(outcome for _, _, outcome, _ in room.told) == ["completed", "size probe"]


SOON = ("utimeout", 20_000)
"""The OACK is sent after 0, 20, 60 and 140 ms, and given up after 300 ms."""


async def test_a_probe_that_is_abandoned_without_a_word(room: Room) -> None:
    # reference 2.1, last sentence: no ACK, and the request comes again without tsize
    data = room.put("f", noise(3000))
    async with client(room.port) as probe:
        await oack(probe, "f", ("tsize", 0), SOON)
        assert await fetch(room.port, "f") == data
        await until(lambda: len(room.told) == 2)
    assert room.service.metrics.outcomes == {"completed": 1, "size probe": 1}
    assert room.told == [("127.0.0.1", "f", "completed", 3000), ("127.0.0.1", "f", "size probe", 3000)]
    assert " request: probed " in room.log
    assert not failures(room)


@pytest.mark.parametrize("asked_again", [False, True])
async def test_a_probe_whose_port_is_closed(room: Room, asked_again: bool) -> None:
    # the same without an ERROR: the repeated OACK meets a closed port, and ICMP says so
    data = room.put("f", noise(3000))
    async with client(room.port) as probe:
        await oack(probe, "f", ("tsize", 0), SOON)
    if asked_again:
        assert await fetch(room.port, "f") == data
    await until(lambda: room.service.metrics.outcomes["size probe"] == 1)
    assert " request: probed " in room.log
    assert not failures(room)


async def test_a_closed_port_is_a_failure_without_a_question_for_the_size(room: Room) -> None:
    room.put("f", noise(3000))
    async with client(room.port) as made:
        await oack(made, "f", ("blksize", 1000), SOON)
    await until(lambda: room.told)
    assert room.service.metrics.outcomes == {"client port closed": 1}
    assert failures(room)


@pytest.mark.parametrize("then", ["nothing", "another file", "another address", "no tsize"])
async def test_silence_after_an_oack_is_a_failure_unless_it_was_a_probe(room: Room, then: str) -> None:
    data = room.put("f", noise(3000))
    room.put("g", data)
    source = "127.0.0.9" if then == "another address" else "127.0.0.1"
    async with client(room.port) as silent, client(room.port, source=source) as reader:
        await oack(silent, "f", ("blksize", 1000) if then == "no tsize" else ("tsize", 0), SOON)
        if then != "nothing":
            reader.ask("g" if then == "another file" else "f")
            assert await finish(reader) == data
        await until(lambda: room.service.metrics.outcomes["no answer"] == 1)
    assert room.service.metrics.outcomes["size probe"] == 0
    assert len(failures(room)) == 1


# -- 2.2 table by client -----------------------------------------------------------------------------------------------


async def test_edk2_checks_the_oack(room: Room) -> None:
    # edk2 NetworkPkg/Mtftp4Dxe/Mtftp4Rrq.c:355,520; window 4 by PcdPxeTftpWindowSize; some builds ask for 8192
    data = room.put("f", noise(20_000))
    asked = (("tsize", 0), ("blksize", 8192), ("timeout", 4), ("windowsize", 4))
    agreed = await asked_only(room.port, "f", *asked)
    assert agreed == [("tsize", "20000"), ("blksize", "1428"), ("timeout", "4"), ("windowsize", "4")]
    assert await fetch(room.port, "f", *asked) == data
    assert await fetch(room.port, "f", ("windowsize", 64)) == data  # its shell asks for up to 64


async def test_edk2_sends_one_nack_for_each_block_behind_a_gap(room: Room) -> None:
    # edk2 Mtftp4Rrq.c:265-272: ACK(expected - 1) for every unexpected packet: w-1 equal ACKs for one loss
    data = room.put("f", noise(1428 * 64))
    blocks: dict[int, bytes] = {}
    received = 0
    async with client(room.port) as made:
        await oack(made, "f", ("blksize", 1428), ("windowsize", 8))
        made.ack(0)
        lost = False
        while len(blocks) < 65:
            packet = await made.receive()
            assert isinstance(packet, Data)
            received += 1
            if packet.block == 9 and not lost:
                lost = True
                continue
            if packet.block != len(blocks) + 1:
                made.ack(len(blocks))
                continue
            blocks[packet.block] = packet.payload
            if packet.block % 8 == 0 or len(packet.payload) < 1428:
                made.ack(packet.block)
    assert b"".join(blocks.values()) == data
    assert received <= 65 + 8, "one loss costs one flight at most"


async def test_edk2_ignores_strays_in_silence(room: Room) -> None:
    # edk2 as a client drops packets of other ports; as their sender we must not disturb it: one TID per transfer
    room.put("f", noise(6000))
    async with client(room.port) as made:
        made.ask("f")
        await made.receive()
        server = made.server
        for block in (1, 2, 3):
            made.ack(block)
            await made.receive()
            assert made.server == server
        made.ack(4)


async def test_shim_and_grub_keep_to_512(room: Room) -> None:
    # rhboot/shim#618: always 512 for grub, without options
    data = room.put("grubx64.efi", noise(512 * 5))
    assert await fetch(room.port, "/grubx64.efi") == data


async def test_ipxe(room: Room) -> None:
    # ipxe src/net/udp/tftp.c:349,369,483,747, src/include/ipxe/tftp.h:17: blksize 1432, tsize 0, keeps "//"
    data = room.put("boot/f", noise(4000))
    async with client(room.port) as made:
        assert await oack(made, "//boot/f", ("blksize", 1432), ("tsize", 0)) == [("blksize", "1428"), ("tsize", "4000")]
        first = made.server
        await asyncio.sleep(0.21)
        made.server = made.listener
        made.ask("//boot/f", ("blksize", 1432), ("tsize", 0))  # sent again from the same port
        await made.receive()
        assert made.server == first
        made.ack(0)
        content = b""
        for block in (1, 2, 3):
            packet = await made.receive()
            assert isinstance(packet, Data)
            content += packet.payload
            if block < 3:
                made.ack(block)
    assert content == data  # no dally: the socket is closed, and the last ACK may be lost
    await until(lambda: room.told)
    assert room.told[0][2] == "completed, final ACK missing"


async def test_ipxe_looks_for_a_script_first(room: Room) -> None:
    # ipxe: a missing autoexec.ipxe is what it expects
    found = await fetch(room.port, "autoexec.ipxe", ("blksize", 1432), ("tsize", 0))
    assert isinstance(found, Error)
    assert found.code == 1
    assert not failures(room)


async def test_uboot(room: Room) -> None:
    # u-boot net/tftp.c:349-367,423: timeout >= 1 s is always asked for and compared, blksize 1468; names <= 128
    name = "f" * 127
    data = room.put(name, noise(5000))
    asked = (("timeout", 5), ("tsize", 0), ("blksize", 1468), ("windowsize", 4))
    agreed = await asked_only(room.port, name, *asked)
    assert agreed == [("timeout", "5"), ("tsize", "5000"), ("blksize", "1428"), ("windowsize", "4")]
    assert await fetch(room.port, name, *asked) == data


async def test_uboot_uses_its_ports_again(room: Room) -> None:
    # u-boot net/tftp.c:524,926: 1024 + timer % 3072, so a port comes back, in mid-transfer too
    files = {name: room.put(name, noise(5000)) for name in ("kernel", "fdt", "ramdisk")}
    async with client(room.port) as made:
        for name in files:
            made.server = made.listener
            await oack(made, name, ("timeout", 5), ("tsize", 0))
            made.ack(0)
            assert await made.receive() == Data(1, files[name][:512])
        made.send(encode_error(0, "bye"))
    assert room.service.metrics.outcomes["replaced by a new request"] == 2


async def test_uboot_sends_one_nack_per_gap(room: Room) -> None:
    # u-boot net/tftp.c:619 tftp_last_nack
    room.put("f", noise(512 * 20))
    async with client(room.port) as made:
        await oack(made, "f", ("windowsize", 4))
        made.ack(0)
        for block in (1, 2, 3, 4):
            assert (await made.receive()).block == block
        made.ack(1)  # block 2 was lost; this is the only word about it
        assert [(await made.receive()).block for _ in range(4)] == [2, 3, 4, 5]
        made.send(encode_error(0, "bye"))


@pytest.mark.parametrize(("name", "code"), [("none", 1), ("../x", 2)])
async def test_uboot_takes_only_codes_1_and_2_for_final(room: Room, name: str, code: int) -> None:
    # u-boot net/tftp.c:691-703: "Starting again" for ever on every other code
    found = await fetch(room.port, name, ("timeout", 5), ("tsize", 0))
    assert isinstance(found, Error)
    assert found.code == code


@pytest.mark.parametrize("size", [0, 700])
async def test_grub_needs_an_oack(room: Room, size: int) -> None:
    # grub-core/net/tftp.c:160-230, fx-tftp#9: also for an empty file; names compared in lower case as it wrote them
    data = room.put("boot/grub.cfg", noise(size))
    async with client(room.port) as made:
        agreed = await oack(made, "//boot//grub.cfg", ("blksize", 1024), ("tsize", 0))
        assert agreed == [("blksize", "1024"), ("tsize", str(size))]
        made.ack(0)
        packet = await made.receive()
        assert packet == Data(1, data)
        made.ack(1)
    await until(lambda: room.told)
    assert room.told[0][2] == "completed"


async def test_grub_acknowledges_old_blocks_again(room: Room) -> None:
    # grub-core/net/tftp.c:160-230; RFC 1123 4.2.3.1: an old ACK must not bring a block again (Sorcerer's Apprentice)
    room.put("f", noise(512 * 6))
    async with client(room.port) as made:
        made.ask("f")
        blocks = []
        for block in range(1, 6):
            packet = await made.receive()
            blocks.append(packet.block)
            made.ack(block)
            made.ack(block)
        made.ack(2)
        with suppress(TimeoutError):
            while True:
                packet = await made.receive(QUIET_S)
                assert isinstance(packet, Data)
                blocks.append(packet.block)
        made.send(encode_error(0, "closed"))
    assert blocks == [1, 2, 3, 4, 5, 6]


async def test_grub_stops_acknowledging_while_its_reader_is_behind(room: Room) -> None:
    # grub-core/net/tftp.c:210-214: silence at 50 queued packets; then it goes on where it was
    data = room.put("f", noise(512 * 4))
    async with client(room.port) as made:
        made.ask("f")
        content = b""
        for block in range(1, 6):
            packet = await made.receive()
            assert isinstance(packet, Data)
            if block == 3:  # long enough for several repetitions
                again = [await made.receive(), await made.receive()]
                assert again == [packet, packet]
            content += packet.payload
            made.ack(block)
    assert content == data


async def test_pxelinux_reads_late(room: Room) -> None:
    # syslinux core/fs/pxe/tftp.c:62-160,194: tsize and blksize 1408; ACK 0 waits for the first read
    data = room.put("ldlinux.c32", noise(3000))
    async with client(room.port) as made:
        first = await oack(made, "ldlinux.c32", ("tsize", 0), ("blksize", 1408))
        assert first == [("tsize", "3000"), ("blksize", "1408")], "unrequested options get ERROR 8"
        assert isinstance(await made.receive(), OptionAck), "sent again, because nothing came"
        made.ack(0)
        assert await finish(made) == data


async def test_pxelinux_hangs_on_an_error_behind_an_oack(room: Room) -> None:
    # tftp-go-team/hooktftp PR#12: so everything is checked before the OACK
    (room.folder / "d").mkdir()
    for name, mode in (("none", "octet"), ("d", "octet"), ("../x", "octet"), ("none", "mail")):
        async with client(room.port) as made:
            made.ask(name, ("tsize", 0), ("blksize", 1408), mode=mode)
            assert isinstance(await made.receive(), Error), name


async def test_pxelinux_tries_many_names(room: Room) -> None:
    # tx-tftp#3: each configuration file that is not there is expected
    for name in ("01-52-54-00-12-34-56", "C0A80001", "C0A800", "C", "default"):
        found = await fetch(room.port, f"pxelinux.cfg/{name}", ("tsize", 0), ("blksize", 1408))
        assert isinstance(found, Error)
        assert found.code == 1
    assert not failures(room)


async def test_windows_boot_manager(room: Room) -> None:
    # dnsmasq CHANGELOG:2822 and --tftp-lowercase (2153); MAAS _clean_filename; msftwindow: Wireshark 3.6
    data = room.put("Boot/BCD", noise(9000))
    for name in ("\\Boot\\BCD", "\\boot\\bcd", "Boot\\BCD", "/boot\\BCD", "boot\\Bcd"):
        assert await fetch(room.port, name, ("tsize", 0), ("blksize", 1456), ("msftwindow", 31416)) == data, name
    agreed = await asked_only(room.port, "\\Boot\\BCD", ("tsize", 0), ("blksize", 1456), ("msftwindow", 31416))
    assert [key for key, _ in agreed] == ["tsize", "blksize"]


@pytest.mark.parametrize(
    "rubbish",
    [
        b"\xff",  # netboot.xyz#1198
        b"\xff\xff\xff", b"\r\n", b"\n",  # bootimus#117
        b"\n;o\x1e",  # "#012;o#036": novaboot#9
    ],
)  # fmt: skip
async def test_roms_that_add_bytes_of_their_dhcp_buffer(room: Room, rubbish: bytes) -> None:
    data = room.put("pxelinux.0", noise(700))
    assert await fetch(room.port, b"pxelinux.0" + rubbish) == data


async def test_raspberry_pi(room: Room) -> None:
    # raspberrypi/firmware#1631 (start4.elf mishandles DATA that comes twice), #1041 (an OACK that comes twice),
    # rpi-eeprom#720 (more than 65535 blocks of 512); directory named by the serial number
    data = room.put("9ab812f3/start4.elf", noise(512 * 6))
    async with client(room.port) as made:
        await oack(made, "9ab812f3/start4.elf", ("tsize", 0), ("blksize", 512))
        assert await made.silent(QUIET_S), "one OACK"
        made.ack(0)
        content = b""
        for block in range(1, 8):
            packet = await made.receive()
            assert isinstance(packet, Data)
            assert packet.block == block
            if block == 2:
                assert await made.silent(QUIET_S), "a slow client gets no DATA twice"
            content += packet.payload
            made.ack(block)
    assert content == data


async def test_curl_takes_one_server_port_only(room: Room) -> None:
    # curl lib/tftp.c:1055: "Data received from another address" when a repeated request starts a second transfer
    room.put("f", noise(3000))
    async with client(room.port) as made:
        asked = (("tsize", 0), ("blksize", 512), ("timeout", 6))  # lib/tftp.c:281-320
        assert await oack(made, "f", *asked) == [("tsize", "3000"), ("blksize", "512"), ("timeout", "6")]
        server = made.server
        made.server = made.listener
        for _ in range(3):
            made.ask("f", *asked)
        while not await made.silent(QUIET_S):
            assert made.server == server
        assert room.service.metrics.active == 1
        made.server = server
        made.send(encode_error(0, "bye"))


async def test_curl_writes_utf8(room: Room) -> None:
    # partftpy commit 73d12fc
    data = room.put("grüße/日本.txt", b"x")
    assert await fetch(room.port, "grüße/日本.txt") == data


async def test_curl_cannot_read_an_empty_file_with_tsize(make_room) -> None:
    # curl lib/tftp.c:318: "invalid tsize -:0:-". GRUB needs tsize=0, so it is there unless it is refused.
    room = make_room()
    await room.service.start(room.settings(refused_options=("tsize",)))
    room.put("empty", b"")
    agreed = await asked_only(room.port, "empty", ("tsize", 0), ("blksize", 512), ("timeout", 6))
    assert agreed == [("blksize", "512"), ("timeout", "6")]
    await room.service.stop()


async def test_busybox_repeats_its_acks(room: Room) -> None:
    # busybox networking/tftp.c:134-136: the same ACK every 100 ms and more; DATA that comes twice is not acknowledged
    data = room.put("f", noise(512 * 5))
    async with client(room.port) as made:
        made.ask("f")
        got: list[bytes] = []
        for block in range(1, 7):
            packet = await made.receive()
            assert isinstance(packet, Data)
            assert packet.block == block, "no block comes twice"
            got.append(packet.payload)
            for _ in range(3 if block < 6 else 1):
                made.ack(block)
    assert b"".join(got) == data
    await until(lambda: room.told)
    assert room.told[0][2] == "completed"
    assert room.service.metrics.retransmissions == 0


async def test_pa_risc_pads_its_requests(room: Room) -> None:
    # busybox networking/tftp.c:194: HP PA-RISC firmware sends 516 bytes always
    data = room.put("lif", noise(600))
    async with client(room.port) as made:
        made.raw.sendto(b"\0\1lif\0octet\0".ljust(516, b"\0"), made.listener)
        assert await finish(made) == data


async def test_cisco_counts_the_nuls_of_an_oack(room: Room) -> None:
    # troglobit/uftpd#43: switches reject an OACK with NULs that belong to nothing
    room.put("f", noise(600))
    async with client(room.port) as made:
        made.ask("f", ("blksize", 7), ("BLKSIZE", 1000), ("timeout", 0), ("nonsense", 1), ("tsize", 0))
        assert await made.receive_bytes() == b"\0\6tsize\x00600\0"
        made.send(encode_error(0, "bye"))


async def test_cisco_writes_twice(make_room) -> None:
    # mpetazzoni/ptftpd#8: IOS repeats its WRQ; the second one must not find "file already exists"
    room = make_room()
    await room.service.start(room.settings(allow_writes=True, free_space_mb=0))
    async with client(room.port) as made:
        made.ask("running-config", opcode=Opcode.WRQ)
        made.ask("running-config", opcode=Opcode.WRQ)
        assert await made.receive_bytes() == encode_ack(0)
        server = made.server
        while not await made.silent(QUIET_S):
            assert made.server == server
        made.server = server
        made.send(b"\0\3\0\1hostname x")
        while decode(await made.receive_bytes()) != decode(encode_ack(1)):
            pass
        assert (room.folder / "running-config").read_bytes() == b"hostname x"
    await room.service.stop()


@pytest.mark.parametrize("answer", [False, True])
async def test_sun_boxes_ask_by_broadcast(make_room, answer: bool) -> None:
    # tftp-hpa CHANGES 0.43; RFC 1123 4.2.3.5: silently ignored, unless the administrator wants it
    room = make_room()
    await room.service.start(room.settings(interfaces=(), answer_broadcasts=answer))
    data = room.put("f", b"boot")
    async with client(room.port, "127.255.255.255") as made:
        made.raw.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        made.ask("f")
        if answer:
            assert await made.receive() == Data(1, data)
            assert made.server[0] == "127.0.0.1", "a broadcast address is no source"
            made.ack(1)
        else:
            assert await made.silent(QUIET_S)
    await room.service.stop()


async def test_star64_repeats_everything(room: Room) -> None:
    # rs-tftpd#5: its U-Boot works only on links that double packets: whatever it sends comes twice
    data = room.put("f", noise(512 * 4))
    async with client(room.port) as made:
        for _ in range(2):
            made.ask("f")
        content = b""
        for block in range(1, 6):
            packet = await made.receive()
            assert isinstance(packet, Data)
            assert packet.block == block
            content += packet.payload
            for _ in range(2):
                made.ack(block)
    assert content == data


async def test_roms_that_choke_on_what_they_ask_for(make_room) -> None:
    # tftp-hpa --refuse, dnsmasq --tftp-no-blocksize, crowbar-core#1078
    room = make_room()
    await room.service.start(room.settings(refused_options=("blksize", "blksize2")))
    data = room.put("f", noise(600))
    async with client(room.port) as made:
        made.ask("f", ("blksize", 1432))
        assert await made.receive() == Data(1, data[:512]), "no option is left, so there is no OACK"
        made.ack(1)
        await made.receive()
        made.ack(2)
    await room.service.stop()


async def test_limine_wants_all_that_it_asked_for(make_room) -> None:
    # limine#55: it aborts on a smaller blksize; the ceiling is a setting, and so is the MTU's part in it
    room = make_room()
    await room.service.start(room.settings(max_block_size=65464, allow_fragments=True))
    data = room.put("f", noise(100_000))
    async with client(room.port) as made:
        assert await oack(made, "f", ("blksize", 32768)) == [("blksize", "32768")]
        made.ack(0)
        assert await made.receive() == Data(1, data[:32768])
        made.send(encode_error(0, "bye"))
    await room.service.stop()


async def test_clients_that_acknowledge_an_error(room: Room) -> None:
    # pin/tftp#99 (an ACK to an ERROR wedged the server); node-tftp#19 (VMware e1000: "TFTP Aborted", then silence)
    data = room.put("f", noise(600))
    async with client(room.port) as made:
        made.ask("none")
        assert isinstance(await made.receive(), Error)
        for block in (0, 1):
            made.ack(block)
        made.send(encode_error(0, "TFTP Aborted"))
        assert await made.silent(QUIET_S)
        made.server = made.listener
        made.ask("f")  # from the same port
        assert await finish(made) == data


async def test_anybody_may_leave_out_the_last_ack(room: Room) -> None:
    # dnsmasq src/tftp.c check_tftp_listeners; RFC 1350 section 6
    room.put("f", noise(600))
    async with client(room.port) as made:
        made.ask("f")
        await made.receive()
        made.ack(1)
        packet = await made.receive()
        assert await made.receive() == packet, "it may have been lost"
    await until(lambda: room.told)
    assert room.told[0][2] == "completed, final ACK missing"
    assert not failures(room)


async def test_anybody_may_leave_out_the_last_nul(room: Room) -> None:
    # dnsmasq reads such requests, tftp-hpa answers ERROR 4
    data = room.put("f", noise(100))
    for tail in (b"octet", b"octet\0tsize\x000", b"octet\0blksize\x00600"):
        async with client(room.port) as made:
            made.raw.sendto(b"\0\1f\0" + tail, made.listener)
            assert await finish(made) == data, tail


# -- 2.3 request parser rules ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tail", "options"),
    [
        (b"octet\0", ()),
        (b"octet\0\0\0\0", ()),  # 1: padding
        (b"OcTeT\0tsize\x000\0odd", ((b"tsize", b"0"),)),  # 2: a name without a value
        (b"octet\0TSIZE\x000\0tsize\x001\0", ((b"TSIZE", b"0"),)),  # 2: the first wins; case is kept
        (b"octet\0blksize\0 600\0", ((b"blksize", b" 600"),)),  # 3: judged by the options, not by the parser
    ],
)
def test_what_is_read_of_a_request(tail: bytes, options: tuple) -> None:
    assert decode(b"\0\1f\0" + tail) == Request(Opcode.RRQ, b"f", "octet", options)


@pytest.mark.parametrize("value", [" 600", "600 ", "+600", "0x258", "6e2", "", "-1", "9" * 21, "６００"])
async def test_a_value_that_is_no_number_makes_an_option_invalid(room: Room, value: str) -> None:
    room.put("f", noise(100))  # rule 3
    assert await asked_only(room.port, "f", ("blksize", value), ("tsize", 0)) == [("tsize", "100")]


@pytest.mark.parametrize("datagram", [b"\0\1f\0binary\0", b"\0\1f\0mail\0", b"\0\1\0octet\0", b"\0\1f\0", b"\0\1f"])
async def test_what_cannot_be_read_is_error_4(room: Room, datagram: bytes) -> None:
    room.put("f", b"x")  # rule 4
    async with client(room.port) as made:
        made.raw.sendto(datagram, made.listener)
        answer = await made.receive()
        assert isinstance(answer, Error)
        assert answer.code == 4


async def test_names_are_corrected_only_if_nothing_is_called_so(room: Room) -> None:
    # rule 5: an exact match always wins
    for name in ("a\\b", "a/b", "x\xff", "x", "Case", "case"):
        room.put(name, name.encode())
    for name in ("a\\b", "a/b", "x\xff", "x", "Case", "case"):
        assert await fetch(room.port, name) == name.encode()
    (room.folder / "a\\b").unlink()
    assert await fetch(room.port, "a\\b") == b"a/b"
    assert await fetch(room.port, "CASE") in (b"Case", b"case")


async def test_the_path_of_the_directory_may_stand_in_front(room: Room) -> None:
    # rule 5: clients that were set up for tftp-hpa without --secure
    data = room.put("boot/f", b"x")
    assert await fetch(room.port, f"{room.folder}/boot/f") == data
    assert isinstance(await fetch(room.port, f"{room.folder}-private/boot/f"), Error), "compared by components"


def test_names_are_bytes() -> None:
    # rule 5: surrogateescape
    name = b"gr\xfc\xdfe"
    assert decode(encode_request(Request(Opcode.RRQ, name, "octet"))) == Request(Opcode.RRQ, name, "octet")
