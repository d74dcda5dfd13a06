"""The systemd unit for one set of paths, see systemd.exec(5). The rule: no right that the server does not need."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from pbserv.errors import PbservError

UNIT_NAME = "pbserv.service"
CAPABILITIES = "CAP_NET_BIND_SERVICE CAP_NET_RAW CAP_NET_ADMIN"
"""The last is given up as soon as the sockets have room for a storm of requests (SO_RCVBUFFORCE in socket(7))."""

_HOMES = (Path("/home"), Path("/root"), Path("/run/user"))
_TEMPORARY = (Path("/tmp"), Path("/var/tmp"))  # noqa: S108


@dataclass(frozen=True, slots=True)
class UnitPaths:
    """All absolute; ``program`` is the command ``pbserv`` itself, ``stores`` are image stores outside ``state``."""

    program: Path
    conf: Path
    state: Path
    log: Path
    tftp: Path
    user: str
    stores: tuple[Path, ...] = ()


def unit_text(paths: UnitPaths) -> str:
    """The whole file. Raises PbservError for a path that a unit file cannot carry."""
    everything = (paths.program, paths.conf, paths.state, paths.log, paths.tftp, *paths.stores)
    for path in everything:
        if not path.is_absolute() or any(ord(sign) < 32 or sign in "\"'\\" for sign in str(path)):
            raise PbservError(f"{path}: a systemd unit needs an absolute path without quotes and control characters")
    program, conf = _argument(paths.program), _argument(paths.conf)
    writable = " ".join(f'"-{_value(path)}"' for path in (paths.state, paths.log, paths.tftp, *paths.stores))
    return _TEMPLATE.format(
        start=f"{program} run --conf {conf}",
        reload=f"{program} force-reload --conf {conf}",
        user=paths.user,
        capabilities=CAPABILITIES,
        directories=_managed(paths),
        writable=writable,
        homes="read-only" if _any_below(everything, _HOMES) else "yes",
        private_tmp="no" if _any_below(everything, _TEMPORARY) else "yes",
    )


def _managed(paths: UnitPaths) -> str:
    """Directories in the usual places are made by systemd too, should they get lost."""
    lines: list[str] = []
    for key, path, place in (("State", paths.state, "/var/lib"), ("Logs", paths.log, "/var/log")):
        if path.parent == Path(place) and " " not in path.name:
            lines += [f"{key}Directory={_value(path.name)}", f"{key}DirectoryMode=0750"]
    return "\n".join(lines)


def _argument(path: Path) -> str:
    """A word of a command line: ``%`` and ``$`` have a meaning there."""
    text = _value(path).replace("$", "$$")
    return f'"{text}"' if " " in text else text


def _value(path: Path | str) -> str:
    return str(path).replace("%", "%%")


def _any_below(paths: Iterable[Path], places: Iterable[Path]) -> bool:
    return any(path.is_relative_to(place) for path in paths for place in places)


_TEMPLATE = """\
# Written by `pbserv install`, which also replaces it. Put changes into a drop-in: systemctl edit pbserv.service
[Unit]
Description=pbserv preboot and imaging server
Wants=network-online.target
After=network-online.target postgresql.service

[Service]
Type=notify
NotifyAccess=main
ExecStart={start}
ExecReload={reload}
Restart=on-failure
RestartSec=2
TimeoutStartSec=180
TimeoutStopSec=60
KillMode=mixed
User={user}
UMask=0027
LimitNOFILE=65536

# Ports below 1024 and raw Ethernet frames: the only two rights, kept so that a reload can bind a new address.
AmbientCapabilities={capabilities}
CapabilityBoundingSet={capabilities}
NoNewPrivileges=yes

# Run `pbserv install` again when StateDirectory, ImageStores or TFTPDirectory changes.
{directories}
ReadWritePaths={writable}
ProtectSystem=strict
ProtectHome={homes}
PrivateTmp={private_tmp}
PrivateDevices=yes
ProtectClock=yes
ProtectControlGroups=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
ProtectProc=invisible
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX AF_NETLINK AF_PACKET
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
RemoveIPC=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallErrorNumber=EPERM

[Install]
WantedBy=multi-user.target
"""
