"""tftp.conf: the TFTP service (table D-14 of the manual)."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar

from pbserv.conf.kinds import Address, Directory, Integer, LogFile, YesNo
from pbserv.conf.model import ConfFile, ConfModel, Key

_FLAG = YesNo("1", "0")


class TftpConf(ConfModel):
    """Settings of the TFTP service."""

    title: ClassVar[str] = "TFTP service"
    log_name: ClassVar[str] = "tftp.log"

    interface: Annotated[
        str | None,
        Key(
            "TFTPInterface",
            Address(),
            "The address of this host that TFTP uses, on hosts with several networks.",
            unset="every address of this host",
        ),
    ] = None
    transfer_block_size: Annotated[
        int,
        Key(
            "TransferBlockSize",
            Integer(512, 4428),
            "The largest data block that a client can negotiate (RFC 2348). 1428 suits Ethernet; larger blocks are"
            " fragmented there. Clients that do not negotiate get 512.",
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
        Key("TFTPAllowWrites", _FLAG, "Whether clients may place new files below TFTPDirectory.", later=True),
    ] = False
    allow_overwrites: Annotated[
        bool,
        Key(
            "TFTPAllowOverwrites",
            _FLAG,
            "Whether clients may replace files below TFTPDirectory; counts only with TFTPAllowWrites = 1.",
            later=True,
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


FILE = ConfFile(("tftp", "novell-tftp"), TftpConf)
