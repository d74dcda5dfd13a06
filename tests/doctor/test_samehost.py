"""The lines for the DHCP server of the same host; dnsmasq's and Kea's are read by a parser."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from pbserv.doctor import samehost
from pbserv.doctor.facts import Bound, ServerFacts
from tests.doctor.made_up import facts, only, proxydhcp

TAKEN = (Bound("udp", "0.0.0.0", 67, 77, "dnsmasq"),)


def test_only_where_the_dhcp_server_is_here() -> None:
    assert list(samehost.lines_for_dhcp_server(facts(bound=TAKEN))) == []
    assert list(samehost.lines_for_dhcp_server(facts(proxydhcp(LocalDHCPFlag="auto")))) == []
    own = facts(proxydhcp(LocalDHCPFlag="auto"), bound=TAKEN, server=ServerFacts(77))
    assert list(samehost.lines_for_dhcp_server(own)) == []


def test_not_where_its_packets_are_read_beside_it() -> None:
    beside = ServerFacts(500, {"proxydhcp": ""}, listeners=frozenset(("udp 0.0.0.0:67", "udp 0.0.0.0:4011")))
    about = facts(proxydhcp(LocalDHCPFlag="auto"), bound=TAKEN, server=beside)
    assert list(samehost.lines_for_dhcp_server(about)) == []


def test_the_one_that_runs_here() -> None:
    alone = ServerFacts(500, {"proxydhcp": ""}, listeners=frozenset(("udp 0.0.0.0:4011",)))
    for flag in ("1", "auto"):
        about = facts(proxydhcp(LocalDHCPFlag=flag), bound=TAKEN, dhcp_programs=("dnsmasq",), server=alone)
        found = only(samehost.lines_for_dhcp_server, about)
        assert found.remedy == samehost.DNSMASQ
        assert found.evidence == "dnsmasq runs here"


def test_all_where_none_is_known() -> None:
    found = list(samehost.lines_for_dhcp_server(facts(proxydhcp(LocalDHCPFlag="1"))))
    assert [finding.remedy for finding in found] == [lines for _title, lines in samehost.SERVERS.values()]


def test_dnsmasq_takes_its_lines(tmp_path: Path) -> None:
    dnsmasq = shutil.which("dnsmasq", path=f"{os.environ['PATH']}:/usr/sbin")
    if dnsmasq is None and os.geteuid() != 0:
        pytest.skip("dnsmasq is not installed")
    assert dnsmasq is not None, "make packages installs dnsmasq-base"
    conf = tmp_path / "dnsmasq.conf"
    conf.write_text("\n".join(samehost.DNSMASQ) + "\n")
    done = subprocess.run([dnsmasq, "--test", f"--conf-file={conf}"], capture_output=True, text=True, timeout=20)
    assert done.returncode == 0, done.stderr


def test_keas_lines_are_json() -> None:
    body = "\n".join(line for line in samehost.KEA if not line.startswith("//"))
    (known,) = json.loads(f"{{{body}}}")["client-classes"]
    assert known["test"] == "substring(option[60].hex,0,9) == 'PXEClient'"
    assert known["option-data"][0]["code"] == 60


def test_dhcpds_braces_close() -> None:
    text = "\n".join(samehost.DHCPD)
    assert text.count("{") == text.count("}") == 1
    statements = [line for line in samehost.DHCPD if line.startswith("  ")]
    assert all(line.endswith(";") for line in statements)
