"""The program in network namespaces: real rules of nft and iptables, a real dnsmasq, a real rival.

What the doctor tells to do is done, and then the finding must be gone.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pbserv.doctor import samehost
from tests.support.netns import Host, Room, room, stop
from tests.support.process import PBSERV
from tests.support.server import Server, running

pytestmark = pytest.mark.root
PXE_SERVICE = "--pxe-service=X86PC,bios,undionly"

Finding = dict[str, Any]


@pytest.fixture
def lan() -> Iterator[Room]:
    if os.geteuid() != 0:
        pytest.skip("needs root rights to make network namespaces")
    with room() as made:
        yield made


@pytest.fixture
def host(lan: Room) -> Host:
    return lan.host("server", 10)


@pytest.fixture
def server(host: Host, tmp_path: Path) -> Server:
    tmp_path.chmod(0o755)
    return Server(host, tmp_path / "pbserv")


def doctor(server: Server, *words: str, quick: bool = True) -> list[Finding]:
    """The findings of the program, run on the server's host."""
    options = ["--json", *(["--quick"] if quick else []), *words]
    command = server.host.command([PBSERV, "--conf", server.conf, "doctor", *options])
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.stdout, done.stderr
    report = json.loads(done.stdout)
    assert done.returncode == report["exit_code"]
    findings: list[Finding] = report["findings"]
    severities = {finding["severity"] for finding in findings}
    assert report["exit_code"] == (1 if "error" in severities else 3 if "warning" in severities else 0)
    return findings


def probe(host: Host, kind: str) -> str:
    """What a client of ``kind`` is offered, as JSON."""
    words = [PBSERV, "probe", "eth0", "--as", kind, "--wait", "1.5", "--no-boot-server", "--json"]
    offers = json.loads(subprocess.run(host.command(words), capture_output=True, text=True, timeout=60).stdout)[0][
        "offers"
    ]
    assert offers
    return json.dumps([offer["fields"] for offer in offers])


def about(findings: list[Finding], words: str) -> list[Finding]:
    return [finding for finding in findings if words in finding["what"]]


def one(findings: list[Finding], words: str) -> Finding:
    (found,) = about(findings, words)
    return found


def follow(host: Host, finding: Finding) -> None:
    """Run the commands of a remedy as an administrator would."""
    for line in finding["remedy"]:
        if line.split()[0] in ("nft", "iptables", "iptables-legacy", "ip"):
            host.run("sh", "-c", line)


@contextlib.contextmanager
def dnsmasq(host: Host, directory: Path, *options: str, port: int = 67) -> Iterator[None]:
    """Run it until it has its port."""
    place = directory / f"dnsmasq-{host.namespace}"
    place.mkdir()
    process = host.popen(
        "dnsmasq", "--keep-in-foreground", "--port=0", "--no-hosts", "--no-resolv", "--interface=eth0", "--no-ping",
        "--user=root", "--log-facility=-", "--dhcp-authoritative", f"--dhcp-leasefile={place / 'leases'}",
        f"--pid-file={place / 'pid'}", *options, log=place / "log",
    )  # fmt: skip
    try:
        end = time.monotonic() + 10
        while f":{port} " not in host.run("ss", "-lun"):
            assert process.poll() is None, (place / "log").read_text()
            assert time.monotonic() < end, (place / "log").read_text()
        yield
    finally:
        stop(process)


def test_a_host_without_rules_and_rivals(server: Server) -> None:
    findings = doctor(server)
    assert not about(findings, "firewall")
    assert not about(findings, "port 67 is held")
    assert not about(findings, "no broadcast address")
    assert one(findings, "the server does not run")["severity"] == "note"


def test_nft(server: Server) -> None:
    host = server.host
    rules = "add table inet guard; add chain inet guard in { type filter hook input priority 0; policy drop; };"
    host.run("nft", f"{rules} add rule inet guard in ct state established,related accept")
    found = one(doctor(server), "the firewall drops")
    assert found["severity"] == "error"
    assert "nft: table inet guard, chain in: policy drop" in found["evidence"]
    assert "TFTP transfers" not in found["what"]
    follow(host, found)
    assert not about(doctor(server), "firewall")
    host.run("nft", "insert rule inet guard in iifname eth0 udp dport { 60-68 } pkttype broadcast reject")
    assert "clients' DHCP broadcasts" in one(doctor(server), "the firewall drops")["what"]


@pytest.mark.parametrize("program", ["iptables", "iptables-legacy"])
def test_iptables(server: Server, program: str) -> None:
    host = server.host
    host.run(program, "-P", "INPUT", "DROP")
    found = one(doctor(server), "the firewall drops")
    assert f"{program}: table filter, chain INPUT" in found["evidence"]
    assert "TFTP transfers" in found["what"]
    follow(host, found)
    assert not about(doctor(server), "firewall")
    host.run("sh", "-c", f"{program} -I INPUT -p udp --dport 4011 -m comment --comment 'no pxe' -j DROP")
    closed = one(doctor(server), "the firewall drops")
    assert closed["what"] == "the firewall drops boot server requests (udp 4011)"
    assert "no pxe" in closed["evidence"]


def test_rules_of_nft_and_iptables_side_by_side(server: Server) -> None:
    server.host.run("iptables", "-A", "INPUT", "-m", "conntrack", "--ctstate", "NEW", "-p", "tcp", "-j", "REJECT")
    server.host.run("nft", "add table ip other; add chain ip other in { type filter hook input priority 5; }")
    server.host.run("nft", "add rule ip other in udp dport 69 drop")
    found = about(doctor(server), "the firewall drops")
    assert sorted(finding["what"] for finding in found) == [
        "the firewall drops HTTP (scripts, images) (tcp 8067)",
        "the firewall drops TFTP requests (udp 69)",
    ]


def test_an_interface_without_a_broadcast_address(server: Server) -> None:
    host = server.host
    host.run("ip", "address", "flush", "dev", "eth0")
    assert one(doctor(server), "is up and has an IPv4 address")["severity"] == "error"
    host.run("ip", "address", "add", f"{host.address}/24", "dev", "eth0")
    found = one(doctor(server), "no broadcast address")
    follow(host, found)
    assert not about(doctor(server), "no broadcast address")


def test_a_port_of_a_bridge_with_an_address(server: Server) -> None:
    server.host.run("ip", "link", "add", "br7", "type", "bridge")
    server.host.run("ip", "link", "set", "eth0", "master", "br7")
    server.host.run("ip", "link", "set", "br7", "up")
    follow(server.host, one(doctor(server), "belongs to br7"))
    findings = doctor(server, "--interface", "br7")
    assert not about(findings, "belongs to")
    assert not about(findings, "is up and has")


def test_an_interface_that_is_not_there(server: Server) -> None:
    command = server.host.command([PBSERV, "--conf", server.conf, "doctor", "--quick", "--interface", "eth9"])
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "there are lo, eth0" in done.stderr


def test_ports_that_dnsmasq_holds(lan: Room, server: Server, tmp_path: Path) -> None:
    with dnsmasq(
        server.host, tmp_path, "--conf-file=/dev/null", f"--dhcp-range={lan.net}.0,proxy", PXE_SERVICE, port=4011
    ):
        findings = doctor(server)
    held = one(findings, "port 4011 is held by dnsmasq (process")
    assert held["severity"] == "error"
    assert one(findings, "port 67 is held by dnsmasq")["severity"] == "warning"


def test_dnsmasq_of_the_same_host_gets_its_lines(lan: Room, server: Server, tmp_path: Path) -> None:
    server.configure("proxydhcp.conf", LocalDHCPFlag="1")
    lease = f"--dhcp-range={lan.net}.100,{lan.net}.200,1h"
    with dnsmasq(server.host, tmp_path, "--conf-file=/dev/null", lease):
        findings = doctor(server, quick=False)
    assert one(findings, "does not send option 60 to PXE clients")["severity"] == "error"
    assert not about(findings, "port 67 is held")
    told = one(findings, "dnsmasq must send PXE clients")
    assert tuple(told["remedy"]) == samehost.DNSMASQ
    conf = tmp_path / "dnsmasq.conf"
    conf.write_text("\n".join(told["remedy"]) + "\n")
    (tmp_path / "again").mkdir()
    with dnsmasq(server.host, tmp_path / "again", f"--conf-file={conf}", lease):
        assert not about(doctor(server, quick=False), "option 60 to PXE clients")
        assert "PXEClient" in probe(server.host, "uefi")
        assert "PXEClient" not in probe(server.host, "http")


def test_a_rival_and_a_dhcp_server_with_files(lan: Room, server: Server, tmp_path: Path) -> None:
    """Our own proxy runs and is heard too."""
    dhcp, rival = lan.host("dhcp", 2), lan.host("rival", 3)
    server.configure("preboot-policy.conf", NewDevices="accept", ZoneDefault="loader")
    for name in ("undionly.kpxe", "snponly.efi"):
        (server.tftp / name).write_bytes(b"x")
    lease = (f"--dhcp-range={lan.net}.100,{lan.net}.200,1h", "--dhcp-boot=old.0,,192.0.2.9")
    both = (f"--dhcp-range={lan.net}.0,proxy", PXE_SERVICE, "--pxe-service=X86-64_EFI,uefi,snponly.efi")
    with (
        dnsmasq(dhcp, tmp_path, "--conf-file=/dev/null", *lease),
        dnsmasq(rival, tmp_path, "--conf-file=/dev/null", *both, port=4011),
        running(server),
    ):
        findings = doctor(server, quick=False)
    assert f"answers on eth0: {rival.address}" in one(findings, "another proxyDHCP server")["what"]
    boot = one(findings, "sends boot options of its own")
    assert (dhcp.address in boot["what"], "192.0.2.9" in boot["evidence"]) == (True, True)
    for absent in ("no DHCP server answers", "our own proxyDHCP", "is held by", "does not run"):
        assert not about(findings, absent), absent
    assert one(findings, "NBPx64 is for UEFI clients, but snponly.efi is no UEFI image")


def test_a_silent_network_and_a_policy_that_is_silent(server: Server) -> None:
    with running(server):
        findings = doctor(server, quick=False)
    assert one(findings, "no DHCP server answers on eth0")["severity"] == "error"
    assert one(findings, "our own proxyDHCP did not answer")["severity"] == "note"


def test_a_server_beside_a_dhcp_server_on_the_same_host(lan: Room, server: Server, tmp_path: Path) -> None:
    server.configure("preboot-policy.conf", NewDevices="accept", ZoneDefault="loader")
    for name in ("undionly.kpxe", "snponly.efi"):
        (server.tftp / name).write_bytes(b"x")
    lease = f"--dhcp-range={lan.net}.100,{lan.net}.200,1h"
    with dnsmasq(server.host, tmp_path, "--conf-file=/dev/null", lease), running(server):
        findings = doctor(server, quick=False)
    assert one(findings, "port 67 is held by dnsmasq")["severity"] == "note"
    for absent in ("another proxyDHCP server", "no DHCP server answers", "our own proxyDHCP", "option 60"):
        assert not about(findings, absent), absent
