"""Root rights only at start: the server runs as its user with two capabilities, and still can bind new low ports.

The test has network and mount namespaces of its own: ports 67 and 69 are free there, and the interpreter can be
reached by the unprivileged user wherever it is installed.
"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.process import PBSERV, Installed, command

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: it starts as root and gives the rights up"),
]
USER = "nobody"
TWO_CAPABILITIES = (1 << 10) | (1 << 13)  # CAP_NET_BIND_SERVICE, CAP_NET_RAW
CHECKOUT = Path(__file__).parents[2]

FETCH = """
import socket, sys
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
    client.settimeout(5)
    client.sendto(b"\\0\\1hello\\0octet\\0", (sys.argv[1], 69))
    data, peer = client.recvfrom(2048)
    client.sendto(b"\\0\\4\\0\\1", peer)
    print(data[4:].decode())
"""


class Cell:
    """Namespaces that live as long as one sleeping process."""

    def __init__(self) -> None:
        self.keeper = subprocess.Popen(["unshare", "--mount", "--net", "--propagation", "private", "sleep", "infinity"])
        self.prefix = ("nsenter", "--target", str(self.keeper.pid), "--mount", "--net")
        self._wait()
        self.run("ip", "link", "set", "lo", "up")
        for address in ("10.9.9.1", "10.9.9.2"):
            self.run("ip", "address", "add", f"{address}/24", "dev", "lo")

    def _wait(self) -> None:
        own = os.readlink("/proc/self/ns/net")
        while os.readlink(f"/proc/{self.keeper.pid}/ns/net") == own:
            assert self.keeper.poll() is None

    def run(self, *words: str) -> str:
        return command([*self.prefix, *words])

    def open_way_to(self, path: Path) -> None:
        """Give closed directories above ``path`` an open twin that shows ``path`` and nothing else."""
        for parent in [*reversed(path.parents)]:
            if not parent.stat().st_mode & 0o001:
                hold = self.run("mktemp", "-d", "/var/tmp/pbserv-bind.XXXXXX").strip()
                self.run("mount", "--bind", str(path), hold)
                self.run("mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", str(parent))
                self.run("mkdir", "-p", str(path))
                self.run("mount", "--move", hold, str(path))
                os.rmdir(hold)
                return

    def end(self) -> None:
        self.keeper.kill()
        self.keeper.wait()


@pytest.fixture
def cell() -> Iterator[Cell]:
    made = Cell()
    needed = {Path(sys.base_prefix), Path(sys.prefix), CHECKOUT}
    for path in sorted(needed):
        made.open_way_to(path)
    yield made
    made.end()


@pytest.fixture
def server(cell: Cell) -> Iterator[Installed]:
    place = Path(tempfile.mkdtemp(prefix="pbserv-test-", dir="/var/tmp"))
    place.chmod(0o755)
    installed = Installed(place, prefix=cell.prefix)
    installed.set("pbserv.conf", User=USER)
    installed.set("tftp.conf", TFTPPort="69", TFTPInterface="10.9.9.1")
    installed.set("proxydhcp.conf", ProxyDHCPPort="67", BootServerPort="4011")
    (installed.tftp / "hello").write_text("hello")
    yield installed
    installed.finish()
    shutil.rmtree(place)


def fetch(cell: Cell, address: str) -> str:
    return cell.run(sys.executable, "-c", FETCH, address).strip()


def test_it_runs_as_its_user_and_binds_a_new_low_address_in_a_reload(cell: Cell, server: Installed) -> None:
    server.ok("start")
    facts = dict(
        line.split(":", 1) for line in Path(f"/proc/{server.pid}/status").read_text().splitlines() if ":" in line
    )
    account = pwd.getpwnam(USER)
    assert facts["Uid"].split() == [str(account.pw_uid)] * 4
    assert facts["Gid"].split() == [str(account.pw_gid)] * 4
    for kind in ("CapEff", "CapPrm"):
        assert int(facts[kind], 16) == TWO_CAPABILITIES
    assert int(facts["CapInh"], 16) == 0
    assert fetch(cell, "10.9.9.1") == "hello"

    server.set("tftp.conf", TFTPInterface="10.9.9.2", TFTPLogLevel="3")
    server.ok("force-reload")
    assert fetch(cell, "10.9.9.2") == "hello"
    assert "udp 10.9.9.2:69" in server.ok("status", "tftp")


def test_log_state_and_pid_directories_belong_to_the_user(server: Installed) -> None:
    server.ok("start")
    for name in ("", "log", "run", "images", "registry.db", "admin.token", "log/pbserv.log", "run/pbserv.pid"):
        assert (server.state / name).owner() == USER, name
    assert server.call("device", "list").returncode == 0, "root reads the token"
    refused = subprocess.run(
        [*server.prefix, "setpriv", "--reuid=65533", "--regid=65533", "--clear-groups", str(PBSERV), "--conf",
         str(server.conf), "device", "list"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert refused.returncode == 1
    assert "permission denied" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_a_user_without_rights_gets_a_clear_message(cell: Cell, server: Installed) -> None:
    server.set("pbserv.conf", StateDirectory=str(server.place / "other"))
    refused = subprocess.run(
        [*server.prefix, "setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", str(PBSERV), "--conf",
         str(server.conf), "start"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert refused.returncode == 1
    assert "needs root rights" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_an_unknown_user_is_named_with_the_remedy(server: Installed) -> None:
    server.set("pbserv.conf", User="nobody-of-that-name")
    started = server.call("start")
    assert started.returncode == 1
    assert "pbserv install" in started.stdout + started.stderr
