"""tftp.conf: the TFTP service (table D-14 of the manual)."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar

from pbserv.conf.kinds import (
    Addresses,
    Choice,
    Directory,
    GroupAddress,
    Integer,
    LogFile,
    Names,
    Networks,
    PortRange,
    YesNo,
)
from pbserv.conf.model import ConfFile, ConfModel, Key

_FLAG = YesNo("1", "0")
OPTIONS = ("blksize", "blksize2", "multicast", "rollover", "timeout", "tsize", "utimeout", "windowsize")
"""Every option that can be agreed on (RFC 2090, 2348, 2349, 7440, and tftp-hpa's three)."""


class TftpConf(ConfModel):
    """Settings of the TFTP service."""

    title: ClassVar[str] = "TFTP service"
    log_name: ClassVar[str] = "tftp.log"

    interfaces: Annotated[
        tuple[str, ...],
        Key(
            "TFTPInterface",
            Addresses(),
            "The addresses of this host that TFTP uses, on hosts with several networks: IPv4, IPv6, or the name of an"
            " interface for all that it has. Answers always leave from the address that was asked.",
            unset="every address of this host",
        ),
    ] = ()
    transfer_block_size: Annotated[
        int,
        Key(
            "TransferBlockSize",
            Integer(512, 4428),
            "The largest data block that a client can negotiate (RFC 2348). 1428 suits Ethernet; larger blocks are"
            " cut to what the way to the client carries. Clients that do not negotiate get 512.",
            unit="bytes",
        ),
    ] = 1428
    timeout_interval: Annotated[
        int,
        Key(
            "TimeoutInterval",
            Integer(1, 60),
            "How long the first wait for an acknowledgement is. The wait then follows what the network does; a client"
            " can ask for another (RFC 2349).",
            unit="seconds",
        ),
    ] = 1
    directory: Annotated[
        Path,
        Key(
            "TFTPDirectory",
            Directory(),
            "The directory below which all files stand; without it the service does not start. TFTP protects nothing:"
            " keep secrets elsewhere.",
        ),
    ] = Path("/srv/tftp")
    allow_writes: Annotated[
        bool,
        Key("TFTPAllowWrites", _FLAG, "Whether clients may place new files below TFTPDirectory."),
    ] = False
    allow_overwrites: Annotated[
        bool,
        Key(
            "TFTPAllowOverwrites",
            _FLAG,
            "Whether clients may replace files below TFTPDirectory; counts only with TFTPAllowWrites = 1.",
        ),
    ] = False
    log_level: Annotated[
        int,
        Key(
            "TFTPLogLevel",
            Integer(0, 4),
            "What is logged: 0 critical events, start and stop; 1 also failed transfers; 2 also completed transfers;"
            " 3 also each request with its options; 4 also each packet.",
        ),
    ] = 2
    log_file: Annotated[
        Path | None,
        Key("TFTPLogFile", LogFile(), "The log file.", unset="tftp.log in the log directory"),
    ] = None
    log_file_size_mb: Annotated[
        int,
        Key(
            "TFTPLogFileSize",
            Integer(1, 1_000_000),
            "The size at which the log file is deleted and begun anew.",
            unit="MB",
        ),
    ] = 15

    port: Annotated[
        int,
        Key(
            "TFTPPort",
            Integer(0, 65_535),
            "The port on which requests are heard; 0 takes a free one. ROMs only know 69.",
            extension=True,
        ),
    ] = 69
    cache_size_mb: Annotated[
        int,
        Key(
            "TFTPCacheSize",
            Integer(0, 65_536),
            "How much memory may hold files that are sent often; 0 holds none.",
            unit="MB",
            extension=True,
        ),
    ] = 64
    max_transfers: Annotated[
        int,
        Key(
            "TFTPMaxTransfers",
            Integer(1, 100_000),
            "How many transfers run at the same time; further requests wait for the client's repetition.",
            extension=True,
        ),
    ] = 1000
    max_window: Annotated[
        int,
        Key(
            "TFTPMaxWindow",
            Integer(1, 256),
            "The largest window that a client can negotiate (RFC 7440); 1 is classic TFTP.",
            unit="blocks",
            extension=True,
        ),
    ] = 32
    max_block_size: Annotated[
        int | None,
        Key(
            "MaxBlockSize",
            Integer(512, 65_464),
            "Replaces TransferBlockSize as the largest block where networks carry more than Ethernet does; the MTU of"
            " the way to the client still counts.",
            unit="bytes",
            unset="TransferBlockSize counts",
            extension=True,
        ),
    ] = None
    allow_fragments: Annotated[
        bool,
        Key(
            "TFTPAllowFragments",
            _FLAG,
            "Whether blocks may be larger than the MTU of the way to the client. Windows' boot manager gains by it;"
            " many boot ROMs cannot put fragments together.",
            extension=True,
        ),
    ] = False
    refused_options: Annotated[
        tuple[str, ...],
        Key(
            "TFTPRefuseOptions",
            Names(OPTIONS),
            "Options that are never agreed on, for ROMs that ask for what they cannot do.",
            unset="none is refused",
            extension=True,
        ),
    ] = ()
    single_port: Annotated[
        bool,
        Key(
            "TFTPSinglePort",
            _FLAG,
            "Whether transfers use TFTPPort too, instead of ports of their own: for clients behind NAT and servers in"
            " containers.",
            extension=True,
        ),
    ] = False
    port_range: Annotated[
        tuple[int, int] | None,
        Key(
            "TFTPPortRange",
            PortRange(),
            "The ports that transfers use, for firewalls without TFTP tracking. TFTPSinglePort = 1 overrides it.",
            unset="any free port",
            extension=True,
        ),
    ] = None
    answer_broadcasts: Annotated[
        bool,
        Key(
            "TFTPAnswerBroadcasts",
            _FLAG,
            "Whether requests that were sent to a broadcast address are answered. RFC 1123 says no; some old machines"
            " ask that way. Heard only where TFTPInterface is empty.",
            extension=True,
        ),
    ] = False
    allowed_networks: Annotated[
        tuple[str, ...],
        Key(
            "TFTPAllowedNetworks",
            Networks(),
            "Clients outside these networks get no answer at all.",
            unset="everybody is answered",
            extension=True,
        ),
    ] = ()
    max_per_address: Annotated[
        int,
        Key(
            "TFTPMaxPerAddress",
            Integer(1, 100_000),
            "How many transfers one address may have at the same time; this host itself may have more.",
            extension=True,
        ),
    ] = 256
    max_unanswered: Annotated[
        int,
        Key(
            "TFTPMaxUnanswered",
            Integer(1, 100_000),
            "How many transfers one address may have begun without a word after the request: source addresses can be"
            " forged.",
            extension=True,
        ),
    ] = 64
    map_file: Annotated[
        Path | None,
        Key(
            "TFTPMapFile",
            Directory(),
            "A file with rules that rewrite the names in requests, in the language of tftp-hpa's --map-file. Try it"
            " with: pbserv tftp map-test.",
            unset="names are taken as they come",
            extension=True,
        ),
    ] = None
    client_directories: Annotated[
        str,
        Key(
            "TFTPClientDirectories",
            Choice(("none", "ip", "mac")),
            "Whether a client's files are looked for in a directory of its own first: one named by its address"
            " (10.0.0.7, or 2001-db8--7 for IPv6) or by its MAC (52-54-00-12-34-56) below TFTPDirectory.",
            extension=True,
        ),
    ] = "none"
    quota_mb: Annotated[
        int | None,
        Key(
            "TFTPQuota",
            Integer(0, 1_000_000_000),
            "How much TFTPDirectory may hold before uploads are refused.",
            unit="MB",
            unset="no limit",
            extension=True,
        ),
    ] = None
    quota_files: Annotated[
        int | None,
        Key(
            "TFTPQuotaFiles",
            Integer(0, 1_000_000_000),
            "How many files TFTPDirectory may hold before uploads of new ones are refused.",
            unset="no limit",
            extension=True,
        ),
    ] = None
    free_space_mb: Annotated[
        int,
        Key(
            "TFTPFreeSpace",
            Integer(0, 1_000_000_000),
            "How much of the file system uploads leave free.",
            unit="MB",
            extension=True,
        ),
    ] = 100
    max_upload_mb: Annotated[
        int | None,
        Key(
            "TFTPMaxUploadSize",
            Integer(0, 1_000_000_000),
            "The largest file that is accepted.",
            unit="MB",
            unset="no limit",
            extension=True,
        ),
    ] = None
    multicast: Annotated[
        bool,
        Key(
            "TFTPMulticast",
            _FLAG,
            "Whether clients that ask for it get files by multicast (RFC 2090), as Point-of-Service terminals do.",
            extension=True,
        ),
    ] = True
    multicast_address: Annotated[
        str,
        Key(
            "TFTPMulticastAddress",
            GroupAddress(256),
            "The first of the 256 group addresses that multicast transfers use.",
            extension=True,
        ),
    ] = "239.255.69.0"
    multicast_port: Annotated[
        int,
        Key(
            "TFTPMulticastPort",
            Integer(1, 65_535),
            "The port that the members of a multicast transfer listen on.",
            extension=True,
        ),
    ] = 1758
    multicast_ttl: Annotated[
        int,
        Key(
            "TFTPMulticastTTL",
            Integer(1, 255),
            "How many routers a multicast transfer may pass, plus one.",
            extension=True,
        ),
    ] = 1


FILE = ConfFile(("tftp", "novell-tftp"), TftpConf)
