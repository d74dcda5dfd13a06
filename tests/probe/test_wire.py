"""The program on a wire with real servers: dnsmasq as DHCP server and as proxy, and the real pbserv."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dpkt
import pytest

from tests.support.netns import Host, Room, room, stop
from tests.support.process import PBSERV
from tests.support.server import Server, running

pytestmark = pytest.mark.root
SERVICES = ("--pxe-service=X86PC,bios,undionly", "--pxe-service=X86-64_EFI,uefi,snponly.efi")


@pytest.fixture
def lan() -> Iterator[Room]:
    if os.geteuid() != 0:
        pytest.skip("needs root rights to make network namespaces")
    with room() as made:
        yield made


@contextlib.contextmanager
def dnsmasq(host: Host, directory: Path, *options: str, port: int = 67) -> Iterator[None]:
    """Run it until it has its port."""
    place = directory / host.namespace
    place.mkdir()
    process = host.popen(
        "dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--port=0", "--no-hosts", "--no-resolv",
        "--interface=eth0", "--no-ping", "--user=root", "--log-facility=-", "--dhcp-authoritative",
        f"--dhcp-leasefile={place / 'leases'}", f"--pid-file={place / 'pid'}", *options, log=place / "log",
    )  # fmt: skip
    try:
        end = time.monotonic() + 10
        while f":{port} " not in host.run("ss", "-lun"):
            assert process.poll() is None, (place / "log").read_text()
            assert time.monotonic() < end, (place / "log").read_text()
        yield
    finally:
        stop(process)


def dhcp_range(lan: Room) -> str:
    return f"--dhcp-range={lan.net}.100,{lan.net}.200,1h"


def run_probe(host: Host, *words: str, code: int | None = None) -> list[dict[str, Any]]:
    """The results of ``pbserv probe --json``."""
    command = host.command([PBSERV, "probe", "--json", "--wait", "1.5", *words])
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.stdout, done.stderr
    assert code is None or done.returncode == code, done.stdout
    results: list[dict[str, Any]] = json.loads(done.stdout)
    return results


def one(host: Host, *words: str, code: int | None = None) -> dict[str, Any]:
    (result,) = run_probe(host, *words, code=code)
    return result


def kinds(result: dict[str, Any]) -> list[str]:
    return sorted(f"{offer['type']} {offer['source']}" for offer in result["offers"])


def test_a_plain_dhcp_server_boots_nobody_and_keeps_no_lease(lan: Room, tmp_path: Path) -> None:
    server, client = lan.host("dhcp", 2), lan.host("client", 50)
    with dnsmasq(server, tmp_path, dhcp_range(lan)):
        results = {result["kind"]: result for result in run_probe(client, "--as", "all", code=1)}
    assert list(results) == ["bios", "uefi", "uefi-ia32", "uefi-arm64", "http", "ipxe", "pi", "uboot"]
    for kind, result in results.items():
        assert kinds(result) == [f"DHCP {server.address}"], kind
        assert result["verdict"]["word"] == "fails"
        assert "no proxyDHCP server answers" in result["remarks"][0]
        assert result["offers"][0]["seconds"] < 1
    assert results["bios"]["verdict"]["code"] == "PXE-E53"
    leases = tmp_path / server.namespace / "leases"
    assert not leases.exists() or leases.read_text() == ""


def test_a_dhcp_server_that_names_a_file(lan: Room, tmp_path: Path) -> None:
    server, client = lan.host("dhcp", 2), lan.host("client", 50)
    with dnsmasq(server, tmp_path, dhcp_range(lan), "--dhcp-boot=boot.efi,,10.9.9.9"):
        for kind in ("uefi", "bios", "uboot"):
            verdict = one(client, "eth0", "--as", kind, code=0)["verdict"]
            assert (verdict["file"], verdict["server"]) == ("boot.efi", "10.9.9.9")


def test_a_dhcp_server_with_option_60_needs_port_4011(lan: Room, tmp_path: Path) -> None:
    server, client = lan.host("dhcp", 2), lan.host("client", 50)
    boot = ("--dhcp-option-force=60,PXEClient", "--dhcp-boot=boot.efi")
    with dnsmasq(server, tmp_path, dhcp_range(lan), *boot):
        result = one(client, "--as", "uefi", code=1)
    assert kinds(result) == [f"DHCP and proxy in one {server.address}"]
    (asked,) = result["boot_servers"]
    assert (asked["server"], asked["port"], asked["source_port"]) == (server.address, 4011, 4011)
    assert asked["answers"] == []
    assert "4011" in result["verdict"]["text"]


@pytest.mark.parametrize(("kind", "port", "file"), [("uefi", 4011, "snponly.efi"), ("bios", 68, "undionly.0")])
def test_dnsmasq_as_a_proxy_and_its_second_leg(lan: Room, tmp_path: Path, kind: str, port: int, file: str) -> None:
    server, rival, client = lan.host("dhcp", 2), lan.host("proxy", 3), lan.host("client", 50)
    with (
        dnsmasq(server, tmp_path, dhcp_range(lan)),
        dnsmasq(rival, tmp_path, f"--dhcp-range={lan.net}.0,proxy", *SERVICES),
    ):
        result = one(client, "--as", kind, code=0)
        refused = one(client, "--as", kind, "--no-boot-server", code=1)
    assert kinds(result) == [f"DHCP {server.address}", f"proxy {rival.address}"]
    (asked,) = result["boot_servers"]
    assert (asked["server"], asked["source_port"]) == (rival.address, port)
    (answer,) = asked["answers"]
    assert (answer["source_port"], answer["port"], answer["message"]) == (4011, port, "ACK")
    assert (result["verdict"]["file"], result["verdict"]["server"]) == (file, rival.address)
    assert refused["verdict"]["word"] == "unknown"
    assert "--no-boot-server" in refused["verdict"]["text"]


def test_two_proxies_on_the_wire(lan: Room, tmp_path: Path) -> None:
    server, client = lan.host("dhcp", 2), lan.host("client", 50)
    rivals = [lan.host("one", 3), lan.host("two", 4)]
    with contextlib.ExitStack() as stack:
        stack.enter_context(dnsmasq(server, tmp_path, dhcp_range(lan)))
        for rival in rivals:
            stack.enter_context(dnsmasq(rival, tmp_path, f"--dhcp-range={lan.net}.0,proxy", *SERVICES))
        result = one(client, "--as", "uefi", code=0)
    assert kinds(result) == [f"DHCP {server.address}", *(f"proxy {rival.address}" for rival in rivals)]
    assert any("2 proxyDHCP servers answer" in remark for remark in result["remarks"])


@pytest.mark.parametrize("binding", ["--bind-interfaces", "--bind-dynamic", "--dhcp-lease-max=50"])
def test_servers_on_the_same_host_are_heard(lan: Room, tmp_path: Path, binding: str) -> None:
    """The frame on the wire does not reach them, so they get a copy; their answers go out by the interface."""
    server, rival = lan.host("dhcp", 2), lan.host("proxy", 3)
    with (
        dnsmasq(server, tmp_path, dhcp_range(lan), binding),
        dnsmasq(rival, tmp_path, f"--dhcp-range={lan.net}.0,proxy", *SERVICES, binding),
    ):
        for host, other in ((server, rival), (rival, server)):
            result = one(host, "eth0", "--as", "uefi", code=0)
            assert kinds(result) == [f"DHCP {server.address}", f"proxy {rival.address}"]
            assert {offer["source"]: offer["this_host"] for offer in result["offers"]} == {
                host.address: True, other.address: False,
            }  # fmt: skip
            assert result["verdict"]["file"] == "snponly.efi"


def test_offers_to_a_made_up_address_are_heard(lan: Room, tmp_path: Path) -> None:
    """Clients without the broadcast flag are answered by unicast, to an address that this host does not have."""
    server, client = lan.host("dhcp", 2), lan.host("client", 50)
    with dnsmasq(server, tmp_path, dhcp_range(lan)):
        first, second = one(client, "--as", "pi"), one(client, "--as", "pi", "--mac", "b8:27:eb:00:00:01")
    for result in (first, second):
        (offer,) = result["offers"]
        assert offer["destination"] == dict(offer["fields"])["yiaddr"]
    assert first["mac"].startswith("b8:27:eb")
    assert first["mac"] != second["mac"] == "b8:27:eb:00:00:01"


def test_what_was_sent_and_heard_as_a_pcap_file(lan: Room, tmp_path: Path) -> None:
    server, client = lan.host("dhcp", 2), lan.host("client", 50)
    path = tmp_path / "heard.pcap"
    with dnsmasq(server, tmp_path, dhcp_range(lan)):
        result = one(client, "--as", "bios", "--pcap", str(path))
        again, nowhere = (
            subprocess.run(
                client.command([PBSERV, "probe", "--pcap", name]), capture_output=True, text=True, timeout=60
            )
            for name in (path, tmp_path / "no" / "x")
        )
    assert (again.returncode, "the file exists already" in again.stderr) == (1, True)
    assert (nowhere.returncode, "No such file or directory" in nowhere.stderr) == (1, True)
    with path.open("rb") as source:
        frames = [dpkt.ethernet.Ethernet(data) for _, data in dpkt.pcap.Reader(source)]
    asked, *answers = [frame for frame in frames if bytes(frame.data.data.data)[4:8] == result_xid(result)]
    assert (asked.src, asked.dst, asked.data.src, asked.data.data.sport) == (
        bytes.fromhex(result["mac"].replace(":", "")), b"\xff" * 6, bytes(4), 68,
    )  # fmt: skip
    assert any(frame.data.src == socket.inet_aton(server.address) for frame in answers)
    printed = subprocess.run(["tcpdump", "-nr", path], capture_output=True, text=True, timeout=30)
    assert "BOOTP/DHCP, Request" in printed.stdout


def result_xid(result: dict[str, Any]) -> bytes:
    return bytes.fromhex(result["offers"][0]["hex"])[4:8]


def test_every_interface_when_none_is_named(lan: Room, tmp_path: Path) -> None:
    server, client = lan.host("dhcp", 2), lan.host("client", 50)
    client.run("ip", "link", "add", "quiet0", "type", "veth", "peer", "name", "quiet1")
    client.run("ip", "address", "add", "10.99.0.1/24", "brd", "+", "dev", "quiet0")
    client.run("ip", "link", "set", "quiet0", "up")
    client.run("ip", "link", "set", "quiet1", "up")
    client.run("ip", "link", "add", "down0", "type", "veth", "peer", "name", "down1")
    client.run("ip", "address", "add", "10.98.0.1/24", "brd", "+", "dev", "down0")
    with dnsmasq(server, tmp_path, dhcp_range(lan)):
        results = run_probe(client, "--as", "bios", code=1)
    assert {result["interface"]: len(result["offers"]) for result in results} == {"eth0": 1, "quiet0": 0}
    assert "nobody answered (PXE-E51)" in results[1]["verdict"]["text"]


def test_the_real_server_answers_every_kind_it_has_a_loader_for(lan: Room, tmp_path: Path) -> None:
    server, client = lan.host("dhcp", 2), lan.host("client", 50)
    host = lan.host("pbserv", 3)
    pbserv = Server(host, tmp_path / "pbserv")
    pbserv.configure("pbserv.conf", User="root")  # the directory of the test is closed to others
    pbserv.configure("preboot-policy.conf", NewDevices="accept", ZoneDefault="loader")
    with dnsmasq(server, tmp_path, dhcp_range(lan)), running(pbserv):
        results = {kind: one(client, "--as", kind) for kind in ("bios", "uefi", "ipxe")}
        local = one(host, "eth0", "--as", "uefi")
    for kind, result in results.items():
        assert kinds(result) == [f"DHCP {server.address}", f"proxy {host.address}"], kind
        assert result["verdict"]["word"] == "boots", result["verdict"]
        assert result["verdict"]["server"] == host.address
        for offer in result["offers"]:
            assert offer["usable"], offer["findings"]
    assert results["bios"]["verdict"]["file"] == "undionly.kpxe"
    assert results["uefi"]["verdict"]["file"] == "snponly.efi"
    assert local["verdict"]["file"] == "snponly.efi", local


def test_the_real_server_beside_a_dhcp_server_is_heard_from_its_own_host(lan: Room, tmp_path: Path) -> None:
    """Port 67 is taken, so pbserv listens with a packet tap."""
    host = lan.host("both", 2)
    pbserv = Server(host, tmp_path / "pbserv")
    pbserv.configure("pbserv.conf", User="root")
    pbserv.configure("preboot-policy.conf", NewDevices="accept", ZoneDefault="loader")
    pbserv.configure("proxydhcp.conf", LocalDHCPFlag="0")
    with dnsmasq(host, tmp_path, dhcp_range(lan)), running(pbserv):
        result = one(host, "eth0", "--as", "uefi")
    assert kinds(result) == [f"DHCP {host.address}", f"proxy {host.address}"]
    assert result["verdict"]["file"] == "snponly.efi", result["verdict"]


def test_a_bridge_with_the_address_of_the_host(lan: Room, tmp_path: Path) -> None:
    server, client = lan.host("dhcp", 2), lan.host("client", 50)
    for words in (
        "link add br9 type bridge", "address flush dev eth0", "link set eth0 master br9", "link set br9 up",
        f"address add {client.address}/24 brd + dev br9",
    ):  # fmt: skip
        client.run("ip", *words.split())
    rival = lan.host("proxy", 3)
    with (
        dnsmasq(server, tmp_path, dhcp_range(lan)),
        dnsmasq(rival, tmp_path, f"--dhcp-range={lan.net}.0,proxy", *SERVICES),
    ):
        result = one(client, "--as", "ipxe", code=0)
    assert result["interface"] == "br9"
    assert kinds(result) == [f"DHCP {server.address}", f"proxy {rival.address}"]


def test_every_proxy_is_asked_when_the_user_wants_it(lan: Room, tmp_path: Path) -> None:
    """A Raspberry Pi has no use for this menu, and asks nobody; the user may want to know all the same."""
    server, rival, client = lan.host("dhcp", 2), lan.host("proxy", 3), lan.host("client", 50)
    with (
        dnsmasq(server, tmp_path, dhcp_range(lan)),
        dnsmasq(rival, tmp_path, f"--dhcp-range={lan.net}.0,proxy", *SERVICES),
    ):
        result = one(client, "--as", "pi", "--boot-server", code=1)
    (asked,) = result["boot_servers"]
    assert (asked["server"], asked["source_port"], asked["why"]) == (rival.address, 68, "--boot-server")
    (answer,) = asked["answers"]
    assert (answer["source_port"], answer["message"]) == (4011, "ACK")
