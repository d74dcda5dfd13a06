"""proxydhcp.conf: the proxyDHCP service (table D-12 of the manual)."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pbserv.conf.kinds import (
    Address,
    AddressPort,
    BootFile,
    Choice,
    Directory,
    Integer,
    LogFile,
    MenuItems,
    Placed,
    YesNo,
)
from pbserv.conf.model import ConfFile, ConfModel, Key

_FILE = BootFile()
_FILE_OR_URL = BootFile(url=True)


def _nbp(name: str, clients: str) -> Key:
    """The key of an architecture that most sites do not have."""
    return Key(name, _FILE, f"The boot file for {clients}.", extension=True, unset="they are not answered")


def _http(name: str, clients: str) -> Key:
    text = f"The boot file for UEFI HTTP Boot on {clients}: a file in TFTPDirectory, given out by HTTP, or a URL."
    return Key(name, _FILE_OR_URL, text, extension=True, unset="they are not answered")


class ProxyDhcpConf(ConfModel):
    """Settings of the proxyDHCP service."""

    title: ClassVar[str] = "ProxyDHCP service"
    log_name: ClassVar[str] = "proxydhcp.log"

    local_dhcp_flag: Annotated[
        Literal["0", "1", "auto"],
        Key(
            "LocalDHCPFlag",
            Choice(("0", "1", "auto")),
            "Whether the DHCP server of this subnet runs on this host too. 0: it does not, and clients' broadcasts are"
            " answered; where another program holds port 67 they are read beside it. 1: it does; only boot server"
            " requests are answered, and the DHCP server must send option 60 (pbserv doctor prints its lines). auto: as"
            " 0 where that is possible, else as 1.",
        ),
    ] = "0"
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
            "The server to whose policy service clients are sent: it decides what they do. The port is that of its"
            " HTTP server.",
            unset="this server",
        ),
    ] = None
    nbp_x86: Annotated[str, Key("NBPx86", _FILE, "The boot file for BIOS clients.")] = "undionly.kpxe"
    menu_timeout: Annotated[
        int | None,
        Key(
            "MenuTimeout",
            # PXE 2.1 option 43.10: one byte, 0 takes the first entry at once, 255 waits for ever
            Integer(0, 255),
            "How long the F8 prompt is shown before the first entry, this server, is taken; 255 shows the menu and"
            " waits. Set in the file, or with MenuEntries, BIOS clients get the strategy menu, otherwise direct. UEFI"
            " clients get a menu only by an override in StrategyTable: the menu code of many is broken.",
            unit="seconds",
            unset="no menu; 2 where MenuEntries is set",
        ),
    ] = None
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
    nbp_ia32: Annotated[str, _nbp("NBPIA32", "UEFI clients on 32-bit x86")] = ""
    nbp_arm32: Annotated[str, _nbp("NBPARM32", "UEFI clients on 32-bit ARM")] = ""
    nbp_arm64: Annotated[str, _nbp("NBPARM64", "UEFI clients on 64-bit ARM")] = ""
    nbp_riscv32: Annotated[str, _nbp("NBPRISCV32", "UEFI clients on 32-bit RISC-V")] = ""
    nbp_riscv64: Annotated[str, _nbp("NBPRISCV64", "UEFI clients on 64-bit RISC-V")] = ""
    nbp_riscv128: Annotated[str, _nbp("NBPRISCV128", "UEFI clients on 128-bit RISC-V")] = ""
    nbp_loongarch32: Annotated[str, _nbp("NBPLoongArch32", "UEFI clients on 32-bit LoongArch")] = ""
    nbp_loongarch64: Annotated[str, _nbp("NBPLoongArch64", "UEFI clients on 64-bit LoongArch")] = ""
    nbp_itanium: Annotated[str, _nbp("NBPItanium", "EFI clients on Itanium")] = ""
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
            _FILE_OR_URL,
            "The boot file for UEFI HTTP Boot on x64: a file in TFTPDirectory, given out by HTTP, or a URL. Present but"
            " empty: they are not answered.",
            extension=True,
            empty_is_value=True,
        ),
    ] = "snponly.efi"
    nbp_http_ia32: Annotated[str, _http("NBPHTTPIA32", "32-bit x86")] = ""
    nbp_http_arm32: Annotated[str, _http("NBPHTTPARM32", "32-bit ARM")] = ""
    nbp_http_arm64: Annotated[str, _http("NBPHTTPARM64", "64-bit ARM")] = ""
    nbp_http_x86: Annotated[str, _http("NBPHTTPx86", "x86 with a BIOS")] = ""
    nbp_http_riscv32: Annotated[str, _http("NBPHTTPRISCV32", "32-bit RISC-V")] = ""
    nbp_http_riscv64: Annotated[str, _http("NBPHTTPRISCV64", "64-bit RISC-V")] = ""
    nbp_http_riscv128: Annotated[str, _http("NBPHTTPRISCV128", "128-bit RISC-V")] = ""
    nbp_http_loongarch32: Annotated[str, _http("NBPHTTPLoongArch32", "32-bit LoongArch")] = ""
    nbp_http_loongarch64: Annotated[str, _http("NBPHTTPLoongArch64", "64-bit LoongArch")] = ""
    menu_entries: Annotated[
        tuple[str, ...],
        Key(
            "MenuEntries",
            MenuItems(),
            "What the F8 menu offers between the first entry (this server) and the last (the local disk):"
            " text=file for a boot file of this server, text=address for another boot server.",
            extension=True,
            unset="none",
        ),
    ] = ()
    advertised_addresses: Annotated[
        tuple[str, ...],
        Key(
            "AdvertisedAddresses",
            Placed(),
            "The address that clients are told instead of the interface's own, for clusters and NAT.",
            extension=True,
            unset="each interface's own address",
        ),
    ] = ()
    strategy_table: Annotated[
        Path | None,
        Key(
            "StrategyTable",
            Directory(),
            "A TOML file with strategies, quirks and overrides that are looked at before those of the package.",
            extension=True,
            unset="strategies.toml beside this file, where there is one",
        ),
    ] = None
    escalation: Annotated[
        bool,
        Key(
            "StrategyEscalation",
            YesNo(),
            "A device that stops right after the offer twice gets the next strategy at its next attempt; the one that"
            " works is remembered.",
            extension=True,
        ),
    ] = True
    loop_limit: Annotated[
        int,
        Key(
            "LoopLimit",
            Integer(0, 1000),
            "How often within ten minutes a device may fetch the same loader without getting any further before it is"
            " sent to its local disk; 0 is no limit.",
            extension=True,
        ),
    ] = 5
    reply_delay_ms: Annotated[
        int,
        Key(
            "ReplyDelay",
            # iPXE waits 2 s for a proxy, EDK2 4 s
            Integer(0, 1500),
            "How long an offer is held back, on a server that stands by for another.",
            unit="ms",
            extension=True,
        ),
    ] = 0
    minimum_secs: Annotated[
        int,
        Key(
            "MinimumSecs",
            Integer(0, 65_535),
            "Only clients that have been asking for this long (their field secs) get an offer, on a server that stands"
            " by for another. 5 to 10 suits iPXE and UEFI: above 10 iPXE has given up.",
            unit="seconds",
            extension=True,
        ),
    ] = 0
    requests_per_device: Annotated[
        int,
        Key(
            "RequestsPerDevice",
            Integer(0, 100_000),
            "How many packets of one device are looked at per second; 0 is no limit.",
            extension=True,
        ),
    ] = 50
    requests_per_interface: Annotated[
        int,
        Key(
            "RequestsPerInterface",
            Integer(0, 10_000_000),
            "How many packets of one interface are answered per second; 0 is no limit.",
            extension=True,
        ),
    ] = 0


FILE = ConfFile(("proxydhcp", "novell-proxydhcp", "novell-proxydhcpd"), ProxyDhcpConf)
