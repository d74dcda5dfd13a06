"""`pbserv install`: what a packaged installation needs, idempotent."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

from pbserv.conf.reference import render_sample, set_key
from pbserv.daemon.install import Installation
from pbserv.daemon.install import install as carry_out
from pbserv.errors import PbservError
from pbserv.settings import CONF_FILES, Settings, load_settings

OPTIONAL = "proxydhcp"


def install(conf: Path, service: str | None) -> int:
    """Print what was done; proxyDHCP is not started at boot until it is asked for (manual, table D-17)."""
    if service not in (None, OPTIONAL):
        raise PbservError(
            f"install {service}: only {OPTIONAL} is optional; say `pbserv install` or `pbserv install {OPTIONAL}`"
        )
    settings = load_settings(conf)
    for line in carry_out(plan(conf, settings, proxydhcp=service == OPTIONAL)):
        print(line)
    return 0


def plan(conf: Path, settings: Settings, *, proxydhcp: bool) -> Installation:
    """What to install for a configuration directory: its own StateDirectory, TFTPDirectory and User are respected."""
    state = settings.pbserv.state_directory
    return Installation(
        program=_program(),
        samples=samples(),
        conf=conf,
        state=state,
        log=Path("/var/log/pbserv") if state == Path("/var/lib/pbserv") else state / "log",
        tftp=settings.tftp.directory,
        user=settings.pbserv.user,
        stores=settings.pbserv.outside_stores,
        proxydhcp=proxydhcp,
        add_service=lambda text, name: set_key(text, "Services", _with(settings.pbserv.services, name)),
    )


def samples() -> Mapping[str, str]:
    """File name -> text of each commented sample."""
    return {file.name: render_sample(file.model) for file in CONF_FILES}


def _with(services: tuple[str, ...], name: str) -> str:
    return " ".join(services if name in services else (*services, name))


def _program() -> Path:
    """The `pbserv` program that is running now."""
    beside = Path(sys.argv[0])
    found = beside if beside.name == "pbserv" and beside.exists() else shutil.which("pbserv")
    if found is None:
        raise PbservError("the program pbserv is not found; install the package first, with pip")
    return Path(found).absolute()
