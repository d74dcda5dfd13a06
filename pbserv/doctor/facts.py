"""What the checks look at: this host, its network and the server, as values. Pure.

One rule: a fact that could not be learned is None or empty, never a guess.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from pbserv.doctor.filters import Ruleset
from pbserv.net.interfaces import InterfaceAddress
from pbserv.settings import Settings


@dataclass(frozen=True, slots=True)
class Bound:
    """A socket that holds a port. ``pid`` is None where we may not see whose it is."""

    protocol: str
    address: str
    port: int
    pid: int | None = None
    program: str = ""


@dataclass(frozen=True, slots=True)
class Link:
    """One network interface. ``broadcasts``: the medium has broadcasts at all; ``master`` is its bridge or bond."""

    name: str
    index: int
    up: bool = True
    carrier: bool | None = True
    broadcasts: bool = True
    loopback: bool = False
    master: str = ""
    addresses: tuple[InterfaceAddress, ...] = ()
    rp_filter: int = 0


@dataclass(frozen=True, slots=True)
class ServerFacts:
    """What the running server says of itself over the control socket."""

    pid: int | None = None
    services: Mapping[str, str] = field(default_factory=dict)  # name -> why it does not run; empty: it runs
    fault: str = ""  # it runs, but could not be asked
    listeners: frozenset[str] = frozenset()  # of proxyDHCP, such as "udp 0.0.0.0:67"
    https_fault: str = ""

    @property
    def running(self) -> bool:
        return self.pid is not None

    def runs(self, service: str) -> bool:
        return self.services.get(service) == ""


@dataclass(frozen=True, slots=True)
class Place:
    """One component of a path, as stat(2) and acl(5) say; ``acl``: its mode does not tell everything."""

    path: str
    mode: int
    uid: int
    gid: int
    acl: bool = False


@dataclass(frozen=True, slots=True)
class Rights:
    """What this process may do, and who the server will be."""

    uid: int = 0
    capabilities: frozenset[int] = frozenset()
    first_free_port: int = 1024  # net.ipv4.ip_unprivileged_port_start
    user: str = "pbserv"
    user_uid: int | None = None  # None: there is no such user
    user_gids: frozenset[int] = frozenset()
    tftp_path: tuple[Place, ...] = ()


@dataclass(frozen=True, slots=True)
class Loader:
    """The file behind an NBP key. ``head`` is what it begins with; None when it cannot be read."""

    key: str
    name: str
    path: str
    size: int
    head: bytes | None
    places: tuple[Place, ...] = ()


@dataclass(frozen=True, slots=True)
class Lacking:
    """A boot file that is named and is not in TFTPDirectory. ``named``: what names it, such as a key or a bundle.

    ``beside``: the loader that asks for it by this name; empty: it is named itself.
    """

    named: str
    name: str
    beside: str = ""


@dataclass(frozen=True, slots=True)
class Certificate:
    """What HTTPS shows. ``own``: made by the server, and made anew at a start or reload when it is soon over.

    ``expires``: seconds of the epoch. ``resolved``: addresses to which ``names`` lead. ``fault``: why it cannot be
    shown; then the rest is not known.
    """

    path: str
    own: bool = False
    expires: float = 0.0
    names: tuple[str, ...] = ()
    addresses: tuple[str, ...] = ()
    resolved: tuple[str, ...] = ()
    key: tuple[Place, ...] = ()
    fault: str = ""


@dataclass(frozen=True, slots=True)
class Database:
    """RegistryURL. ``shown`` has no password; ``password``: there is one in the file ``conf``."""

    shown: str
    fault: str = ""
    password: bool = False
    conf: tuple[Place, ...] = ()


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """The other server that decides. ``key`` names it in the file, ``server`` is who it is.

    ``wrong``: the settings do not go together; ``silent``: it cannot be reached; ``refusal``: what it said instead of
    a decision. ``token``: the file with the token.
    """

    key: str
    server: str = ""
    wrong: str = ""
    silent: str = ""
    refusal: str = ""
    token: tuple[Place, ...] = ()


@dataclass(frozen=True, slots=True)
class OfferSeen:
    """One offer that came in answer to a probe, as far as the checks care."""

    source: str
    mac: str
    server_id: str
    is_dhcp: bool
    is_proxy: bool
    next_server: str = ""  # siaddr
    file: str = ""
    vendor_class: str = ""
    tftp_server: str = ""  # option 66
    boot_file: str = ""  # option 67
    has_43: bool = False

    @property
    def who(self) -> str:
        return f"{self.server_id or self.source} (MAC {self.mac})" if self.mac else self.server_id or self.source


@dataclass(frozen=True, slots=True)
class Asked:
    """One probe: who answered a client of ``kind`` on ``interface``; ``fault``: why it could not be asked."""

    interface: str
    kind: str
    offers: tuple[OfferSeen, ...] = ()
    fault: str = ""


@dataclass(frozen=True, slots=True)
class Capacity:
    """Kernel limits; None where this kernel does not say. ``receive_buffer`` is what the running server has on its
    DHCP port, as the kernel counts it (twice what was asked for)."""

    rmem_max: int | None = None
    receive_buffer: int | None = None
    local_ports: tuple[int, int] = (32_768, 60_999)  # net.ipv4.ip_local_port_range
    neighbours_most: int | None = None  # gc_thresh3
    neighbours_now: int = 0
    open_files: int | None = None  # the hard limit of the server, else of this process


@dataclass(frozen=True, slots=True)
class Surroundings:
    """Disk and clock. ``newest_file``: the newest change in the state directory, seconds of the epoch."""

    disk_path: str = ""
    disk_total: int = 0
    disk_free: int = 0
    now: float = 0.0
    newest_file: float | None = None
    newest_path: str = ""


# Interfaces that container engines make: no machine boots there, unless somebody says so.
CONTAINER_LINKS: Final = ("docker", "br-", "veth", "podman", "cni", "flannel.", "cali", "lxcbr", "lxdbr", "kube")


@dataclass(frozen=True, slots=True)
class Facts:
    """Everything. ``interface`` is the one that was asked for; empty means all."""

    settings: Settings
    interface: str = ""
    server: ServerFacts = ServerFacts()
    bound: tuple[Bound, ...] = ()
    dhcp_programs: tuple[str, ...] = ()  # DHCP servers that run here, by program name
    links: tuple[Link, ...] = ()
    firewalls: tuple[Ruleset, ...] = ()
    frontends: frozenset[str] = frozenset()  # firewalld, ufw
    unread_firewalls: tuple[str, ...] = ()  # "program: why" for those that could not be asked
    rights: Rights = Rights()
    loaders: tuple[Loader, ...] = ()
    asked: tuple[Asked, ...] | None = None  # None: nobody was asked (--quick, or no right to)
    capacity: Capacity = Capacity()
    surroundings: Surroundings = Surroundings()
    host: str = ""  # the name of this host
    certificate: Certificate | None = None
    database: Database | None = None
    elsewhere: Elsewhere | None = None
    templates: tuple[str, ...] = ()  # what is wrong with those of TemplateDirectory
    lacking: tuple[Lacking, ...] = ()

    @property
    def own_addresses(self) -> frozenset[str]:
        return frozenset(entry.address for link in self.links for entry in link.addresses)

    @property
    def lan_links(self) -> tuple[Link, ...]:
        """Those on which clients may be: up, with an address, no loopback; narrowed by the user and LocalInterface."""
        local = self.settings.proxydhcp.local_interface
        named = bool(self.interface or local)
        return tuple(
            link for link in self.links
            if link.up and link.addresses and not link.loopback
            and self.interface in ("", link.name)
            and (named or not link.name.startswith(CONTAINER_LINKS))
            and (local is None or any(entry.address == str(local) for entry in link.addresses))
        )  # fmt: skip

    def wants(self, service: str) -> bool:
        """Whether the service should run: by Services, or because it does."""
        return service in self.settings.pbserv.services or self.server.runs(service)
