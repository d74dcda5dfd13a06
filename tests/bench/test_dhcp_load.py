"""The DHCP load generator against replies made by hand, and the whole bench in a hurry: it must not rot."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bench.dhcp import measure
from tests.proxydhcp.wires import Wires, wires

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc is missing; make packages installs it as root"),
]
SERVER = "10.1.0.1"
SERVER_MAC = "02:00:00:00:00:01"  # on port 67 everything is broadcast
JUST_BOOT = b"\x2b\x04\x06\x01\x08\xff"
Edit = Callable[[bytes], bytes]


@pytest.fixture(scope="module")
def programs(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("load")
    measure.build(folder / "load")
    measure.write_packets(folder / "packets")
    return folder


@pytest.fixture
def room() -> Iterator[Wires]:
    with wires(1) as found:
        yield found


def offer(question: bytes, server: str = SERVER, file: str = "undionly.kpxe", vendor: bytes = JUST_BOOT) -> bytes:
    """What the load generator takes for right, written down without the code that is measured."""
    own = socket.inet_aton(server)
    at = question.index(b"\x61\x11\x00", 240)  # option 97, a UUID
    options = b"\x35\x01\x02" + b"\x36\x04" + own + b"\x3c\x09PXEClient" + question[at : at + 19] + vendor + b"\xff"
    head = b"\x02" + question[1:20] + own + bytes(4) + question[28:44]
    return (head + bytes(64) + file.encode().ljust(128, b"\0") + question[236:240] + options).ljust(300, b"\0")


def ask(room: Wires, programs: Path, answer: Edit, *more: str, kind: str = "bios") -> dict[str, Any]:
    """Run the load generator until it has heard three replies, or asked for 300 ms without one."""
    words = [str(programs / "load"), "--packets", str(programs / "packets"), "--device", "c0", "--server", SERVER]
    words += ["--server-mac", SERVER_MAC, "--files", "undionly.kpxe,snponly.efi", "--kind", kind]
    words += ["--patience", "100", "--limit", "0.3", "--devices", "8", *more]
    with room.server(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as raw:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"s0\0")
        raw.bind(("", 67))
        raw.settimeout(0.05)
        with room.clients():
            process = subprocess.Popen(words, stdout=subprocess.PIPE)
        while process.poll() is None:
            try:
                question = raw.recv(2048)
            except TimeoutError:
                continue
            if reply := answer(question):
                raw.sendto(reply, ("255.255.255.255", 68))
        out, _none = process.communicate(timeout=10)
    assert process.returncode == 0
    return json.loads(out)


@pytest.mark.parametrize("kind", ["bios", "uefi"])
def test_right_replies_count(room, programs, kind):
    found = ask(room, programs, offer, "--count", "3", "--limit", "10", kind=kind)
    assert (found["all_replies"], found["bad"], found["lost"], found["named_file"]) == (3, 0, 0, 3)
    assert 0 < found["p50_ms"] <= found["p99_ms"] <= found["max_ms"]


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda question: offer(question, server="10.1.0.9"), "option 54"),
        (lambda question: offer(question, file="other.efi"), "another file"),
        (lambda question: offer(question, file="", vendor=b""), "nothing that a BIOS could use"),
        (lambda question: offer(question, vendor=b"\x2b\x08\x09\x05\0\0\x02no\xff"), "sent to its local disk"),
        (lambda question: offer(question)[:16] + b"\x0a" + offer(question)[17:], "yiaddr is not 0"),
        (lambda question: offer(question).replace(b"PXEClient", b"HTTPClien"), "option 60"),
        (lambda question: offer(question).replace(b"\x35\x01\x02", b"\x35\x01\x05"), "another message type"),
        (lambda question: offer(question).rstrip(b"\0"), "shorter than 300 bytes"),
    ],
)
def test_wrong_replies_are_seen(room, programs, change, why):
    found = ask(room, programs, change, "--count", "1", "--limit", "10")
    assert (found["bad"], found["error"]) == (1, why)


def test_silence_is_lost_and_another_machines_xid_is_no_answer(room, programs):
    silent = ask(room, programs, lambda question: b"")
    assert (silent["all_replies"], silent["asked"]) == (0, silent["lost"])
    assert silent["lost"] >= 2  # one is replaced by the next
    foreign = ask(room, programs, lambda question: offer(question[:4] + b"\xff" * 4 + question[8:]))
    assert (foreign["all_replies"], foreign["bad"]) == (0, 0)
    assert foreign["late"] >= 1


def test_every_question_has_an_xid_of_its_own(room, programs):
    seen: list[bytes] = []

    def answer(question: bytes) -> bytes:
        seen.append(question[4:8])
        return offer(question)

    ask(room, programs, answer, "--count", "40", "--limit", "10", "--outstanding", "4")
    assert len(set(seen)) == len(seen) >= 40


def test_the_bench_runs_and_leaves_nothing(tmp_path):
    """Both servers answer every kind of question, and a small room of machines reaches its loaders."""
    path = tmp_path / "found.json"
    command = [sys.executable, "-m", "bench.dhcp", "--quick", "--rows", "bios-32,uefi-32,uefi-4011,ipxe-4011,replay"]
    done = subprocess.run([*command, "--json", str(path)], capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(path.read_text())
    for rounds in (*(row["rounds"] for row in found["rows"]), found["replay"]):
        for name, one in rounds[0].items():
            assert (one["bad"], one["failed"], one["unfinished"]) == (0, 0, 0), (name, one["error"])
            assert one["all_replies"] > 0
    for one in found["replay"][0].values():
        assert one["ready"] == one["offers"] == one["machines"] == 100
        assert one["acks"] >= 50  # the UEFI half; a BIOS that got a menu asks too
    assert "c0" not in subprocess.run(["ip", "-brief", "link"], capture_output=True, text=True, check=True).stdout
