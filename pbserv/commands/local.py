"""`pbserv run --local DIR`: everything below one directory, for trying out and for development."""

from __future__ import annotations

import os
import pwd
from pathlib import Path

from pbserv.conf.reference import render_sample
from pbserv.daemon.privileges import can_bind
from pbserv.errors import PbservError
from pbserv.imaging.config import PbservConf
from pbserv.policy.config import PolicyConf
from pbserv.proxydhcp.config import ProxyDhcpConf
from pbserv.tftp.config import TftpConf

# Key -> (port as root, port for everybody). 4011 is free for everybody.
LOW_PORTS = {"ProxyDHCPPort": (67, 6767), "TFTPPort": (69, 6969)}


def prepare(directory: Path) -> tuple[Path, tuple[str, ...]]:
    """Make ``directory`` with a sample configuration that was not there before; its path and lines to print."""
    directory = directory.absolute()
    conf, tftp = directory / "conf", directory / "tftp"
    moved = {key: high for key, (low, high) in LOW_PORTS.items() if not can_bind(low)}
    texts = {
        "pbserv.conf": render_sample(
            PbservConf,
            {
                "StateDirectory": str(directory / "state"),
                "Services": "imaging tftp policy proxydhcp",
                "User": pwd.getpwuid(os.geteuid()).pw_name,
            },
        ),
        "proxydhcp.conf": render_sample(ProxyDhcpConf, _only(moved, "ProxyDHCPPort")),
        "tftp.conf": render_sample(TftpConf, {"TFTPDirectory": str(tftp), **_only(moved, "TFTPPort")}),
        "preboot-policy.conf": render_sample(PolicyConf),
    }
    try:
        for path in (conf, tftp):
            path.mkdir(parents=True, exist_ok=True)
        for name, text in texts.items():
            if not (conf / name).exists():
                (conf / name).write_text(text, encoding="utf-8")
    except OSError as fault:
        raise PbservError(f"{fault.filename}: {fault.strerror}; name another directory with --local DIR") from fault
    banner = [f"configuration: {conf}"]
    if moved:
        ports = ", ".join(f"{LOW_PORTS[key][0]} -> {port}" for key, port in moved.items())
        banner.append(f"not root, and ports below 1024 need root: moved {ports}; firmware will not find these")
    return conf, tuple(banner)


def _only(moved: dict[str, int], key: str) -> dict[str, str]:
    return {key: str(moved[key])} if key in moved else {}
