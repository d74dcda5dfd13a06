"""May this process, and later the server, do what it has to: low ports, raw sockets, reading TFTPDirectory? Pure."""

from __future__ import annotations

import stat
from collections.abc import Iterator

from pbserv.daemon.privileges import CAP_NET_BIND_SERVICE, CAP_NET_RAW
from pbserv.doctor.facts import Facts, Place, Rights
from pbserv.doctor.finding import Finding, error, note


def rights_to_start(facts: Facts) -> Iterator[Finding]:
    """Not root and no capability: said as a note, since systemd may start the server with more than we have."""
    rights = facts.rights
    if facts.server.running or rights.uid == 0:
        return
    if CAP_NET_BIND_SERVICE not in rights.capabilities and _low_ports(facts, rights.first_free_port):
        yield note(
            "from here the server cannot start: its ports need root or CAP_NET_BIND_SERVICE",
            f"uid {rights.uid}, ports {', '.join(map(str, _low_ports(facts, rights.first_free_port)))}",
            "sudo pbserv start, or: systemctl start pbserv",
        )


def rights_to_look(facts: Facts) -> Iterator[Finding]:
    """Without raw sockets nobody can be asked, and whose ports and firewall rules these are only root sees."""
    if CAP_NET_RAW not in facts.rights.capabilities:
        yield note(
            "without root or CAP_NET_RAW the network was not asked, and other programs' ports and firewall rules are"
            " partly hidden",
            f"uid {facts.rights.uid}, no CAP_NET_RAW",
            "sudo pbserv doctor",
        )


def tftp_directory(facts: Facts) -> Iterator[Finding]:
    """TFTPDirectory and each directory above it, seen by the user that the server becomes."""
    if not facts.wants("tftp") or facts.rights.user_uid is None:
        return
    for place in facts.rights.tftp_path:
        last = place is facts.rights.tftp_path[-1]
        if may(place, facts.rights, read=last) is False:
            verb = "read" if last else "pass through"
            yield error(
                f"the user {facts.rights.user} may not {verb} {place.path}: TFTP finds no file",
                f"{place.path}: mode {stat.S_IMODE(place.mode):04o}, owner {place.uid}:{place.gid}",
                f"chmod o+{'rx' if last else 'x'} {place.path}",
            )
            return


def may(place: Place, rights: Rights, *, read: bool) -> bool | None:
    """Whether the server's user may read (and for directories also enter) ``place``; None when an ACL decides."""
    if rights.user_uid == 0:
        return True
    directory = stat.S_ISDIR(place.mode)
    wanted = (4 if read else 0) | (1 if directory else 0)
    if place.uid == rights.user_uid:
        granted = place.mode >> 6
    elif place.acl:
        return None
    else:
        granted = place.mode >> 3 if place.gid in rights.user_gids else place.mode
    return granted & wanted == wanted


def everybody_reads(path: tuple[Place, ...]) -> bool:
    """Whether any user of this host may read the file at the end of ``path``, whatever its owner is."""
    return bool(path) and bool(path[-1].mode & 0o004) and all(place.mode & 0o001 for place in path[:-1])


def user_reads(path: tuple[Place, ...], rights: Rights) -> bool:
    """Whether the server's user may read the file at the end of ``path``, as far as that can be said."""
    if not path or rights.user_uid is None:
        return True
    entered = all(may(place, rights, read=False) is not False for place in path[:-1])
    return entered and may(path[-1], rights, read=True) is not False


def _low_ports(facts: Facts, first_free: int) -> list[int]:
    settings = facts.settings
    wanted = {
        "proxydhcp": (settings.proxydhcp.proxydhcp_port, settings.proxydhcp.boot_server_port),
        "tftp": (settings.tftp.port,),
        "imaging": (settings.pbserv.http_port, settings.pbserv.https_port or 0),
    }
    return [port for name, ports in wanted.items() if facts.wants(name) for port in ports if 0 < port < first_free]
