from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import Iterator

import pytest

from tests.proxydhcp.samples import recorded
from tests.support.process import Installed
from tests.tftp.client import fetch


@pytest.fixture
def server(tmp_path) -> Iterator[Installed]:
    installed = Installed(tmp_path)
    installed.ok("start")
    yield installed
    installed.finish()


def test_statistics_are_readable_and_agree_with_json(server: Installed) -> None:
    assert "not measured yet" in server.ok("statistics")
    (server.tftp / "f").write_bytes(b"x" * 2500)
    asyncio.run(fetch(server.tftp_port, "f", ("blksize", 1000)))
    asyncio.run(fetch(server.tftp_port, "none"))
    shown = {" ".join(line.split()[:2]): line for line in server.ok("statistics").splitlines()}
    assert shown["TFTP requests"].split(maxsplit=2)[2] == "2 read requests, 0 write requests"
    assert shown["sent 1"].split(maxsplit=1)[1] == "1 completed"
    assert shown["refused 1"].split(maxsplit=1)[1] == "1 error 1"
    assert shown["bytes sent"].split(maxsplit=2)[2] == "2.5 kB in 3 blocks"
    assert shown["sent again"].split(maxsplit=2)[2] == "0 packets (0.00%); 0 stale answers"
    assert "half of the transfers up to " in shown["round trip"]
    assert "0 cache" not in shown
    data = json.loads(server.ok("statistics", "--json"))
    assert data["tftp"]["sent"] == {"completed": 1}
    assert data["tftp"]["cache_misses"] == 1
    assert data["pxe_requests"] == 0


def test_boot_clients_are_counted_with_the_reasons_for_no_answer(server: Installed) -> None:
    port = int(server.files["proxydhcp.conf"]["ProxyDHCPPort"])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.sendto(b"short", ("127.0.0.1", port))
        client.sendto(recorded("asrock-bios-intel-discover"), ("127.0.0.1", port))
    expected = {"bad_packet": 1, "policy_silent": 1}
    end = time.monotonic() + 10
    while (found := server.json("statistics")["proxydhcp"])["ignored"] != expected:
        assert time.monotonic() < end, found
    lines = [" ".join(line.split()) for line in server.ok("statistics").splitlines()]
    at = lines.index("ProxyDHCP 0 offers, 0 acknowledgements")
    assert lines[at + 1] == "not answered 1 bad packet, 1 policy silent"


def test_a_stopped_server_has_none(tmp_path) -> None:
    assert Installed(tmp_path).call("statistics").returncode != 0
