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
from pbserv.settings import load_settings
from pbserv.tftp.config import TftpConf

# Key -> (port as root, port for everybody). 4011 is free for everybody.
LOW_PORTS = {"ProxyDHCPPort": (67, 6767), "TFTPPort": (69, 6969)}


def prepare(directory: Path) -> tuple[Path, tuple[str, ...]]:
    """Make ``directory`` with a sample configuration that was not there before; its path and lines to print."""
    directory = directory.absolute()
    state = directory / "state"
    if state.exists() and not os.access(state, os.W_OK | os.X_OK):
        why = "run as that user, or remove it, or name another --local DIR"
        raise PbservError(f"{state} belongs to {state.owner()}: {why}")
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
    return conf, (f"configuration: {conf}", *_moved_ports(conf))


def _moved_ports(conf: Path) -> list[str]:
    """What the files say now, which may have been written by somebody else, or as another user."""
    settings = load_settings(conf)
    now = {"ProxyDHCPPort": settings.proxydhcp.proxydhcp_port, "TFTPPort": settings.tftp.port}
    moved = [f"{LOW_PORTS[key][0]} -> {port}" for key, port in now.items() if port != LOW_PORTS[key][0]]
    if not moved:
        return []
    if can_bind(1):
        why = f"the files in {conf} say so (remove them to get the real ports)"
    else:
        why = "not root, and ports below 1024 need root"
    return [f"{why}: moved {', '.join(moved)}; firmware will not find these"]


def _only(moved: dict[str, int], key: str) -> dict[str, str]:
    return {key: str(moved[key])} if key in moved else {}
