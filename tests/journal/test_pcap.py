"""The saved packets, read by scapy and by tcpdump."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from scapy.layers.dhcp import BOOTP, DHCP
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether
from scapy.utils import rdpcap

from pbserv.journal.pcap import pcap_of
from tests.journal.samples import MAC, RECORDED, T0, acknowledged, event, lines, offered, refused

DEVICE, ALL = MAC.hex(":"), "ff:ff:ff:ff:ff:ff"
RELAYED = offered(9)._replace(
    source="10.9.0.1", source_port=67, destination="10.0.0.1", reply_to="10.9.0.1", reply_port=67
)
BOOT = lines(event("asked by dhcp", "x"), offered(0.5), refused("u_boot", at=1), acknowledged(2.25), RELAYED)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "boot.pcap"
    path.write_bytes(pcap_of((MAC, line) for line in BOOT))
    return path


def test_scapy_reads_what_was_on_the_wire(file: Path) -> None:
    frames = rdpcap(str(file))
    seen = [(f[Ether].src, f[Ether].dst, f[IP].src, f[UDP].sport, f[IP].dst, f[UDP].dport) for f in frames]
    server, relay = "02:00:0a:00:00:01", "02:00:0a:09:00:01"
    assert seen == [
        (DEVICE, ALL, "0.0.0.0", 68, "255.255.255.255", 67),
        (server, ALL, "10.0.0.1", 67, "255.255.255.255", 68),
        (DEVICE, ALL, "0.0.0.0", 68, "255.255.255.255", 67),
        (DEVICE, server, "10.0.0.77", 4011, "10.0.0.1", 4011),
        (server, DEVICE, "10.0.0.1", 4011, "10.0.0.77", 4011),
        (relay, server, "10.9.0.1", 67, "10.0.0.1", 67),
        (server, relay, "10.0.0.1", 67, "10.9.0.1", 67),
    ]
    assert [float(f.time) - T0 for f in frames] == pytest.approx([0.5, 0.5, 1, 2.25, 2.25, 9, 9], abs=1e-5)
    assert bytes(frames[0][UDP].payload)[:240] == offered(0.5).data[:240]
    assert frames[1][BOOTP].file.rstrip(b"\0") == b"snponly.efi"
    assert ("message-type", 2) in frames[1][DHCP].options


def test_checksums_are_right(file: Path) -> None:
    for frame in rdpcap(str(file)):
        ip, udp = frame[IP].chksum, frame[UDP].chksum
        again = frame.copy()
        del again[IP].chksum, again[UDP].chksum
        made = Ether(bytes(again))
        assert (made[IP].chksum, made[UDP].chksum) == (ip, udp)


def test_tcpdump_reads_it(file: Path) -> None:
    if shutil.which("tcpdump") is None and os.geteuid() != 0:
        pytest.skip("tcpdump is not installed")
    done = subprocess.run(
        ["tcpdump", "-r", str(file), "-n", "-vv"], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("BOOTP/DHCP, Re") >= 5
    assert "bad" not in done.stdout, "checksums"
    assert 'file "snponly.efi"' in done.stdout


def test_recorded_packets_are_saved_as_they_were(tmp_path: Path) -> None:
    steps = [refused("x", at=n)._replace(data=data) for n, data in enumerate(RECORDED.values())]
    path = tmp_path / "all.pcap"
    path.write_bytes(pcap_of((MAC, line) for line in lines(*steps, packets=99)))
    frames = rdpcap(str(path))
    assert [bytes(frame)[42:] for frame in frames] == list(RECORDED.values())


def test_what_is_not_kept_is_not_saved(tmp_path: Path) -> None:
    path = tmp_path / "none.pcap"
    path.write_bytes(pcap_of((MAC, line) for line in lines(event("tftp", "x"), offered(), packets=0)))
    assert len(rdpcap(str(path))) == 0
