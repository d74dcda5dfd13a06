"""The packet filters of this network namespace, asked from the programs that manage them."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Final, NamedTuple

from pbserv.doctor import iptables, nft
from pbserv.doctor.filters import Ruleset
from pbserv.doctor.holders import programs_here

PATH: Final = "/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin"
"""Where programs are looked for: the doctor is often root, whose PATH may be another user's."""
_LIMIT_S: Final = 10
_LEGACY_TABLES: Final = Path("/proc/net/ip_tables_names")
_UFW: Final = Path("/etc/ufw/ufw.conf")


class Firewalls(NamedTuple):
    rulesets: tuple[Ruleset, ...]
    unread: tuple[str, ...]  # "program: why"
    frontends: frozenset[str]


def firewalls() -> Firewalls:
    """What filters here. The tables of iptables are asked from iptables, also where nftables holds them."""
    unread: list[str] = []
    saved = _run(["iptables-save"], unread)
    rules = list(iptables.parse(saved, "iptables"))
    listed = iptables.tables(saved) if "(nf_tables)" in saved else frozenset[str]()
    # Asking for legacy tables that nobody uses would load kernel modules.
    if _has_legacy_tables():
        legacy = _run(["iptables-legacy-save"], unread)
        rules += iptables.parse(legacy, "iptables-legacy") if legacy != saved else ()
    rules += nft.parse(_run(["nft", "-j", "list", "ruleset"], unread), listed)
    return Firewalls(tuple(rules), tuple(unread), _frontends())


def _run(command: list[str], unread: list[str]) -> str:
    """What the program prints; nothing when it is not installed or fails."""
    if shutil.which(command[0], path=PATH) is None:
        return ""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=_LIMIT_S, check=False,
            env={"PATH": PATH, "LC_ALL": "C"},
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as fault:
        unread.append(f"{command[0]}: {fault}")
        return ""
    if done.returncode != 0:
        unread.append(f"{command[0]}: {(done.stderr.strip() or 'no message').splitlines()[0]}")
        return ""
    return done.stdout


def _has_legacy_tables() -> bool:
    try:
        return bool(_LEGACY_TABLES.read_text().strip())
    except OSError:
        return False


def _frontends() -> frozenset[str]:
    found = set(programs_here(("firewalld",)))
    try:
        if "ENABLED=yes" in _UFW.read_text().split():
            found.add("ufw")
    except OSError:
        pass
    return frozenset(found)
