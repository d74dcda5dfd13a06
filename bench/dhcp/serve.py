"""Our side: what users run. A configuration directory for ``pbserv run``, and a registry that knows every device.

One rule: everything has its default, save for what the load makes necessary; each of these lines says why.
"""

from __future__ import annotations

import asyncio
import shutil
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

from bench.dhcp.work import Kind, population
from pbserv.registry.migrate import migrate
from pbserv.registry.records import Device, DeviceState
from pbserv.registry.registry import Registry

PROGRAM = Path(sys.executable).parent / "pbserv"
REGISTRY = "registry.db"


def register(path: Path) -> None:
    """A registry of known devices, last seen yesterday: each one's first packet is written down again."""
    migrate(path)
    asyncio.run(_register(path))


async def _register(path: Path) -> None:
    registry = Registry.open(path)
    yesterday = datetime.now(UTC) - timedelta(days=1)
    try:
        await registry.see(
            [
                Device(mac, None, "", None, DeviceState.KNOWN, address, yesterday, yesterday)
                for mac, address in population()
            ]
        )
    finally:
        await registry.close()


def command(place: Path, kind: Kind, files: Path, known: Path) -> list[str]:
    """Write the configuration below ``place``; the command line that serves it. For "replay" nobody is known yet."""
    conf, state = place / "conf", place / "state"
    conf.mkdir(parents=True)
    state.mkdir()
    if kind != "replay":
        shutil.copy(known, state / REGISTRY)
    keys: dict[str, dict[str, object]] = {
        # The checkout may be root's alone. The process gives up its rights all the same.
        "pbserv.conf": {"StateDirectory": state, "User": "root", "Services": "imaging tftp policy proxydhcp"},
        # The population is small and asks again and again: the loop breaker is there to stop that.
        "proxydhcp.conf": {"LoopLimit": 0},
        "tftp.conf": {"TFTPDirectory": files},
        # The default sends devices without work to their local disk.
        "preboot-policy.conf": {"NewDevices": "accept", "ZoneDefault": "loader"},
    }
    for name, values in keys.items():
        (conf / name).write_text("".join(f"{key} = {value}\n" for key, value in values.items()))
    return [str(PROGRAM), "--conf", str(conf), "run"]
