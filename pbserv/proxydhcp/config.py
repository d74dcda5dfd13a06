"""proxydhcp.conf: the proxyDHCP service (table D-12 of the manual)."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar

from pbserv.conf.kinds import Address, AddressPort, BootFile, Integer, LogFile
from pbserv.conf.model import ConfFile, ConfModel, Key

_FILE = BootFile()


class ProxyDhcpConf(ConfModel):
    """Settings of the proxyDHCP service."""

    title: ClassVar[str] = "ProxyDHCP service"
    log_name: ClassVar[str] = "proxydhcp.log"

    local_dhcp_flag: Annotated[
        int,
        Key(
            "LocalDHCPFlag",
            Integer(0, 1),
            "1 when the DHCP server of this subnet runs on this host too, 0 when it does not.",
            later=True,
        ),
    ] = 0
    local_interface: Annotated[
        str | None,
        Key(
            "LocalInterface",
            Address(),
            "The address of this host that proxyDHCP uses, on hosts with several networks.",
            unset="every interface, each with its own address",
        ),
    ] = None
    policy_engine: Annotated[
        str | None,
        Key(
            "NovellPolicyEngine",
            AddressPort(),
            "The server whose policy service decides for the clients seen here.",
            unset="this server",
            later=True,
        ),
    ] = None
    nbp_x86: Annotated[str, Key("NBPx86", _FILE, "The boot file for BIOS clients.")] = "undionly.kpxe"
    menu_timeout: Annotated[
        int,
        Key(
            "MenuTimeout",
            # PXE 2.1 option 43.10: one byte, 255 waits for ever
            Integer(0, 255),
            "How long the F8 prompt is shown before the first entry, this server, is taken.",
            unit="seconds",
            later=True,
        ),
    ] = 2
    log_level: Annotated[
        int,
        Key(
            "ProxyLogLevel",
            Integer(0, 4),
            "What is logged: 0 critical events, start and stop; 1 also warnings; 2 also completed client transactions;"
            " 3 also each request, and each ignored one with its reason; 4 also decoded packets.",
        ),
    ] = 2
    log_file: Annotated[
        Path | None,
        Key("ProxyLogFile", LogFile(), "The log file.", unset="proxydhcp.log in the log directory"),
    ] = None
    log_file_size_mb: Annotated[
        int,
        Key(
            "ProxyLogFileSize",
            Integer(1, 1_000_000),
            "The size at which the log file is deleted and begun anew.",
            unit="MB",
        ),
    ] = 15

    proxydhcp_port: Annotated[
        int,
        Key(
            "ProxyDHCPPort",
            Integer(0, 65_535),
            "The port on which clients' DHCP broadcasts are heard; 0 takes a free one. ROMs only know 67.",
            extension=True,
        ),
    ] = 67
    boot_server_port: Annotated[
        int,
        Key(
            "BootServerPort",
            Integer(0, 65_535),
            "The port on which boot server requests are answered; 0 takes a free one. ROMs only know 4011.",
            extension=True,
        ),
    ] = 4011
    nbp_x64: Annotated[
        str,
        Key(
            "NBPx64",
            _FILE,
            "The boot file for UEFI clients on x64. Present but empty: they are not answered.",
            extension=True,
            empty_is_value=True,
        ),
    ] = "snponly.efi"
    nbp_ia32: Annotated[
        str,
        Key(
            "NBPIA32",
            _FILE,
            "The boot file for UEFI clients on 32-bit x86.",
            extension=True,
            empty_is_value=True,
            unset="they are not answered",
        ),
    ] = ""
    nbp_arm64: Annotated[
        str,
        Key(
            "NBPARM64",
            _FILE,
            "The boot file for UEFI clients on 64-bit ARM.",
            extension=True,
            empty_is_value=True,
            unset="they are not answered",
        ),
    ] = ""
    nbp_ipxe: Annotated[
        str,
        Key(
            "NBPiPXE",
            BootFile(url=True),
            "What clients load that are iPXE already. Present but empty: they get the boot file of their architecture"
            " like any other client.",
            extension=True,
            empty_is_value=True,
        ),
    ] = "boot.ipxe"
    nbp_http_x64: Annotated[
        str,
        Key(
            "NBPHTTPx64",
            BootFile(file=False, url=True),
            "The boot file for UEFI HTTP Boot clients on x64.",
            extension=True,
            empty_is_value=True,
            unset="they are not answered",
        ),
    ] = ""


FILE = ConfFile(("proxydhcp", "novell-proxydhcp", "novell-proxydhcpd"), ProxyDhcpConf)
