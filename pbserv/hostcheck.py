"""What is valid in the files and yet cannot hold on this host: missing boot files, foreign addresses, unknown users.

Each is a Problem with file and line where the file sets the key, so that `check`, the start and a reload say it alike.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import pwd
from collections.abc import Collection, Iterator
from pathlib import Path
from urllib.parse import urlsplit

from pbserv.conf.load import Problem
from pbserv.errors import StartError
from pbserv.imaging.config import PbservConf
from pbserv.net.interfaces import address_on_host, foreign_places
from pbserv.policy.config import PolicyConf
from pbserv.proxydhcp.config import ProxyDhcpConf
from pbserv.proxydhcp.settings import boot_files, read_table, table_path
from pbserv.proxydhcp.strategy import menu_entry
from pbserv.settings import CLIENT_FILES, LOADER_ALIASES, SERVICE_NAMES, Settings, is_virtual
from pbserv.tftp import mapfile
from pbserv.tftp.config import TftpConf


def host_problems(settings: Settings) -> list[Problem]:
    """Everything that deserves a warning before the start."""
    return [
        *_process(settings),
        *bound_addresses(settings, SERVICE_NAMES),
        *_url_addresses(settings),
        *_tftp(settings),
        *_boot_files(settings),
        *_proxydhcp(settings),
        *_imaging_client(settings),
        *_tls(settings),
    ]


def bound_addresses(settings: Settings, services: Collection[str]) -> list[Problem]:
    """Addresses that ``services`` must have to start: they fail a start, and refuse a reload while the service runs."""
    problems: list[Problem] = []
    address = settings.proxydhcp.local_interface
    if "proxydhcp" in services and _foreign(address):
        problems.append(settings.problem(ProxyDhcpConf, "LocalInterface", _foreign_text(str(address))))
    if "tftp" in services:
        foreign = foreign_places(settings.tftp.interfaces)
        problems += [settings.problem(TftpConf, "TFTPInterface", _foreign_text(place)) for place in foreign]
    return problems


def _foreign_text(place: str) -> str:
    return f"this host has no address or interface {place}; see: ip address"


def _url_addresses(settings: Settings) -> Iterator[Problem]:
    """May belong to a cluster and come later: bound all the same, and worth a word."""
    wanted = (
        (PbservConf, "IPAddress", settings.pbserv.ip_address),
        (PbservConf, "HTTPAddress", settings.pbserv.http_address),
        (PolicyConf, "LocalInterface", settings.policy.local_interface),
    )
    for model, key, address in wanted:
        if _foreign(address):
            yield settings.problem(model, key, f"this host does not have the address {address} now")


def _foreign(address: str | None) -> bool:
    return bool(address) and address != "0.0.0.0" and not address_on_host(address or "")


def _process(settings: Settings) -> Iterator[Problem]:
    conf, ports = settings.pbserv, settings.proxydhcp
    try:
        pwd.getpwnam(conf.user)
    except KeyError:
        if os.geteuid() == 0:
            why = f"there is no user {conf.user} on this machine; `pbserv install` makes it, or name another one"
            yield settings.problem(PbservConf, "User", why)
    library = conf.library_name.rpartition(":")[0] or conf.library_name
    if library.startswith("/") and not Path(library).is_file():
        yield settings.problem(PbservConf, "LIBRARY_NAME", f"there is no file {library}: imaging will not start")
    if ports.proxydhcp_port == ports.boot_server_port != 0:
        why = f"is {ports.boot_server_port}, the same as ProxyDHCPPort: proxyDHCP will not start"
        yield settings.problem(ProxyDhcpConf, "BootServerPort", why)


def _tftp(settings: Settings) -> Iterator[Problem]:
    conf = settings.tftp
    if conf.answer_broadcasts and conf.interfaces:
        why = "has no effect with TFTPInterface: broadcasts are heard only where it is empty"
        yield settings.problem(TftpConf, "TFTPAnswerBroadcasts", why)
    if conf.port_range == (conf.port, conf.port):
        yield settings.problem(TftpConf, "TFTPPortRange", "is TFTPPort alone: for one port set TFTPSinglePort = 1")
    if conf.map_file is not None:
        try:
            mapfile.load(conf.map_file)
        except StartError as fault:
            yield settings.problem(TftpConf, "TFTPMapFile", f"{fault}: TFTP will not start")


def _boot_files(settings: Settings) -> Iterator[Problem]:
    directory, conf = settings.tftp.directory, settings.proxydhcp
    if not directory.is_dir():
        yield settings.problem(TftpConf, "TFTPDirectory", f"{directory} does not exist: TFTP will not start; create it")
        return
    names = [*boot_files(conf).items(), ("NBPiPXE", conf.nbp_ipxe)]
    names += [("MenuEntries", entry.file) for entry in map(menu_entry, conf.menu_entries)]
    names += [("StrategyTable", name) for name in _loaders_of_rules(settings)]
    for key, name in names:
        if "://" in name:
            if why := _url_fault(key, name):
                yield settings.problem(ProxyDhcpConf, key, why)
            continue
        if not name or is_virtual(name):
            continue
        candidates = (name, LOADER_ALIASES.get(name, name))
        if not any((directory / candidate.lstrip("/")).is_file() for candidate in candidates):
            why = f"there is no file {name} in {directory}; see: pbserv loaders install"
            yield settings.problem(ProxyDhcpConf, key, why)


def _loaders_of_rules(settings: Settings) -> list[str]:
    """Of a table that cannot be read there are none; that is told elsewhere."""
    with contextlib.suppress(StartError):
        rules = read_table(table_path(settings.proxydhcp, settings.directory)).rules
        return sorted({rule.loader for rule in rules})
    return []


def _url_fault(key: str, url: str) -> str:
    """Why firmware cannot use this URL; empty: it can. Rules and iPXE may name any."""
    if key.startswith("NBPHTTP"):
        host = urlsplit(url).hostname or ""
        if _is_address(host):
            return ""
        return f"{host or url} is no address: firmware looks up names only where the DHCP server names a DNS server"
    if key.startswith("NBP") and key != "NBPiPXE":
        return f"{url} is a URL, but firmware fetches this file by TFTP: name one in TFTPDirectory"
    return ""


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _proxydhcp(settings: Settings) -> Iterator[Problem]:
    conf = settings.proxydhcp
    try:
        read_table(table_path(conf, settings.directory))
    except StartError as fault:
        why = f"{str(fault).removeprefix('StrategyTable')}: proxyDHCP will not start".lstrip(": ")
        yield settings.problem(ProxyDhcpConf, "StrategyTable", why)
    for item in conf.advertised_addresses:
        name = item.partition("=")[0]
        if foreign_places([name]):
            yield settings.problem(ProxyDhcpConf, "AdvertisedAddresses", f"this host has no interface {name} now")


def _tls(settings: Settings) -> Iterator[Problem]:
    conf = settings.pbserv
    if conf.require_tls and conf.https_port is None:
        why = "HTTPSPort is not set: the API and the console can be used on this host alone"
        yield settings.problem(PbservConf, "RequireTLS", why)
    if conf.https_port is not None and conf.https_port == conf.http_port:
        yield settings.problem(PbservConf, "HTTPSPort", "is HTTPPort too: HTTPS will not start")
    if conf.https_port is None and (conf.tls_certificate or conf.tls_key):
        yield settings.problem(PbservConf, "TLSCertificate", "has no effect: HTTPSPort is not set")


def _imaging_client(settings: Settings) -> Iterator[Problem]:
    if not all((settings.client_directory / name).is_file() for name in CLIENT_FILES):
        why = f"the imaging client is not in {settings.client_directory}; make it with: pbserv client build"
        yield settings.problem(PbservConf, "StateDirectory", why)
