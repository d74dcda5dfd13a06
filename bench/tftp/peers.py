"""The servers that are compared: how each one is started for the load, and its version.

One rule: peers get what the load needs (at least twice the clients in each limit), and log no more than we do.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bench.tftp import unpack

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
HOST = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Peer:
    """``command`` gets the directory, the port, and how many transfers it must be able to do at once."""

    name: str
    version: Callable[[], str]
    command: Callable[[Path, int, int], list[str]]
    port: int | None = None
    ours: bool = False


def _pbserv(*extra: str) -> Callable[[Path, int, int], list[str]]:
    def command(folder: Path, port: int, most: int) -> list[str]:
        serve = [sys.executable, "-m", "bench.tftp.serve", "--directory", str(folder), "--port", str(port)]
        return [*serve, "--max-transfers", str(most), *extra]

    return command


def _pbserv_version() -> str:
    import pbserv

    git = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--exclude=*"]
    found = subprocess.run(git, capture_output=True, text=True, check=False)
    return f"{pbserv.__version__} ({found.stdout.strip() or 'no git'})"


def _dnsmasq(folder: Path, port: int, most: int) -> list[str]:
    return [
        "dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--pid-file=", "--user=root", "--quiet-tftp",
        "--port=0", f"--listen-address={HOST}", "--bind-interfaces",
        "--enable-tftp", f"--tftp-root={folder}", f"--tftp-max={most}", "--tftp-mtu=1500",
    ]  # fmt: skip


def _dnsmasq_version() -> str:
    if shutil.which("dnsmasq") is None:
        raise unpack.Missing("dnsmasq is missing; apt-get install dnsmasq-base")
    query = ["dpkg-query", "-W", "-f", "${Version}", "dnsmasq-base"]
    found = subprocess.run(query, capture_output=True, text=True, check=False).stdout.strip()
    if found:
        return found
    return subprocess.run(["dnsmasq", "--version"], capture_output=True, text=True, check=True).stdout.split()[2]


def _tftpd_hpa(folder: Path, port: int, most: int) -> list[str]:
    program = unpack.unpacked("tftpd-hpa") / "usr/sbin/in.tftpd"
    return [str(program), "--foreground", "--ipv4", "--address", f"{HOST}:{port}", "--secure", "--user", "nobody",
            str(folder)]  # fmt: skip


def _atftpd(folder: Path, port: int, most: int) -> list[str]:
    program = unpack.unpacked("atftpd") / "usr/sbin/atftpd"
    return [
        str(program), "--daemon", "--no-fork", "--port", str(port), "--bind-address", HOST, "--maxthread", str(most),
        "--verbose=4", "--user", "nobody.nogroup", str(folder),
    ]  # fmt: skip


PBSERV = Peer("pbserv", _pbserv_version, _pbserv(), ours=True)
PBSERV_SINGLE = Peer("pbserv single-port", _pbserv_version, _pbserv("--single-port"), ours=True)
PEERS = (
    # dnsmasq knows no other port; tftpd-hpa forks for each request and knows no limit
    Peer("dnsmasq", _dnsmasq_version, _dnsmasq, port=69),
    Peer("tftpd-hpa", lambda: unpack.version("tftpd-hpa"), _tftpd_hpa),
    Peer("atftpd", lambda: unpack.version("atftpd"), _atftpd),
)
# compiled by the bench, beside the directory with the files
REFLECTOR = Peer(
    "reflector",
    lambda: "of this bench",
    lambda folder, port, most: [str(folder.parent / "reflector"), str(port), str(folder.parent / "pattern")],
)
EVERYBODY = (PBSERV, *PEERS)
