"""The real `pbserv` program with a configuration of its own, on free ports, for lifecycle and API tests."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PBSERV = Path(sys.executable).with_name("pbserv")
ALL = "imaging tftp policy proxydhcp"


def free_port(kind: int = socket.SOCK_STREAM) -> int:
    """A port of loopback that nobody has and that nobody is given by chance until the caller binds it.

    Linux gives away 32768 and above (ip_local_port_range); each test process goes through a part of what is below.
    """
    for port in _PORTS:
        with socket.socket(socket.AF_INET, kind) as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise AssertionError("the ports never end")


def _ports() -> Iterator[int]:
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    share = 1000
    first = 12000 + worker % 20 * share
    for turn in itertools.count(os.getpid()):  # not where another run of the tests begins
        yield first + turn % share


_PORTS = _ports()


@dataclass
class Installed:
    """A configuration directory and a state directory below ``place``; ``prefix`` runs commands elsewhere (nsenter)."""

    place: Path
    files: dict[str, dict[str, str]] = field(default_factory=dict)
    prefix: tuple[str, ...] = ()
    program: Path = PBSERV

    def __post_init__(self) -> None:
        self.conf = self.place / "conf"
        self.state = self.place / "state"
        self.tftp = self.place / "tftp"
        for path in (self.conf, self.tftp):
            path.mkdir(parents=True, exist_ok=True)
        self.http_port = free_port()
        self.tftp_port = free_port(socket.SOCK_DGRAM)
        self.set(
            "pbserv.conf",
            StateDirectory=str(self.state),
            Services=ALL,
            HTTPAddress="127.0.0.1",
            HTTPPort=str(self.http_port),
            User=os.environ.get("USER") or "root" if os.geteuid() == 0 else "nobody",
        )
        self.set("tftp.conf", TFTPDirectory=str(self.tftp), TFTPPort=str(self.tftp_port), TFTPInterface="127.0.0.1")
        self.set(
            "proxydhcp.conf",
            ProxyDHCPPort=str(free_port(socket.SOCK_DGRAM)),
            BootServerPort=str(free_port(socket.SOCK_DGRAM)),
        )
        self.set("preboot-policy.conf")

    def set(self, name: str, /, **values: str) -> None:
        """Change keys of one file and write it."""
        self.files.setdefault(name, {}).update(values)
        self.write(name, "".join(f"{key} = {value}\n" for key, value in self.files[name].items()))

    def write(self, name: str, text: str) -> None:
        (self.conf / name).write_text(text)

    def refers_to(self, owner: Installed, remotes: str) -> None:
        """Its images belong to ``owner``, which runs, by the names and addresses of ``remotes``."""
        token = self.place / "site.token"
        token.write_text(owner.ok("token", "create", "site", "--role", "images"))
        token.chmod(0o640)
        self.set("pbserv.conf", RemoteStores=remotes, RemoteStoreToken=str(token))

    def call(self, *arguments: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
        """Run one command; never raises for its exit code."""
        return subprocess.run(
            [*self.prefix, str(self.program), "--conf", str(self.conf), *arguments],
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    def ok(self, *arguments: str) -> str:
        """Run one command that must succeed; its standard output."""
        done = self.call(*arguments)
        assert done.returncode == 0, f"{arguments}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def json(self, *arguments: str) -> Any:
        return json.loads(self.ok(*arguments, "--json"))

    @property
    def pid(self) -> int:
        return int(self.ok("showpid"))

    @property
    def token(self) -> str:
        return (self.state / "admin.token").read_text().strip()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.http_port}"

    def log(self, name: str = "pbserv") -> str:
        path = self.state / "log" / f"{name}.log"
        return path.read_text() if path.exists() else ""

    def finish(self) -> None:
        """Stop whatever still runs."""
        done = self.call("stop")
        if done.returncode:
            pid_file = self.state / "run" / "pbserv.pid"
            if pid_file.exists():
                os.kill(int(pid_file.read_text()), signal.SIGKILL)


def command(arguments: Sequence[str], environment: Mapping[str, str] | None = None) -> str:
    """Output of a program that must succeed."""
    done = subprocess.run(arguments, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, f"{arguments}: {done.stdout}{done.stderr}"
    return done.stdout
