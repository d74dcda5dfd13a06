"""preboot-policy.conf: the policy service (table D-16 of the manual)."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pbserv.conf.kinds import Address, Choice, Directory, Integer, LogFile, Text, YesNo
from pbserv.conf.model import ConfFile, ConfModel, Key
from pbserv.conf.servers import MacUrl, Server, Trust


class PolicyConf(ConfModel):
    """Settings of the policy service."""

    title: ClassVar[str] = "Policy service"
    log_name: ClassVar[str] = "preboot-policy.log"

    local_interface: Annotated[
        str | None,
        Key(
            "LocalInterface",
            Address(),
            "The address of this host in the URLs of boot scripts, on hosts with several networks.",
            unset="the address at which the client asked",
        ),
    ] = None
    log_level: Annotated[
        int,
        Key(
            "PolicyLogLevel",
            Integer(0, 4),
            # The manual's priorities begin at 1 here: Critical, Normal, Debug, Complete. Ours include them one by one.
            "What is logged: 0 and 1 start, stop and errors; 2 also completed client requests; 3 also each request and"
            " why it was answered so; 4 everything, for fault-finding only.",
        ),
    ] = 2
    log_file: Annotated[
        Path | None,
        Key("PolicyLogFile", LogFile(), "The log file.", unset="preboot-policy.log in the log directory"),
    ] = None
    log_file_size_mb: Annotated[
        int,
        Key(
            "PolicyLogFileSize",
            Integer(1, 1_000_000),
            "The size at which the log file is deleted and begun anew.",
            unit="MB",
        ),
    ] = 15
    preboot_server: Annotated[
        str | None,
        Key(
            "PrebootServer",
            Server(),
            "The imaging server that resolves policies: this one asks it what each device is to do. It needs"
            " PrebootServerToken. The port is that of its HTTP server; with https:// it is its HTTPSPort.",
            unset="this server",
        ),
    ] = None
    enable_amt_support: Annotated[
        bool,
        Key(
            "EnableAMTSupport",
            YesNo("Yes", "No"),
            "Support for Intel AMT; accepted and answered with a warning, there is none.",
            unsupported="Intel AMT is not supported; the value is ignored",
        ),
    ] = False

    new_devices: Annotated[
        Literal["pending", "accept", "ignore"],
        Key(
            "NewDevices",
            Choice(("pending", "accept", "ignore")),
            "What becomes of a device that is seen for the first time: pending registers it and leaves it alone until"
            " someone decides, accept takes it in at once, ignore does neither.",
            extension=True,
        ),
    ] = "pending"
    pending_days: Annotated[
        int,
        Key(
            "PendingDays",
            Integer(1, 3650),
            "A pending device that was not seen for so long is forgotten; it is new when it comes again. Where more"
            " than 9000 are pending, one hour is enough.",
            unit="days",
            extension=True,
        ),
    ] = 90
    zone_default: Annotated[
        Literal["silent", "local", "loader", "menu"],
        Key(
            "ZoneDefault",
            Choice(("silent", "local", "loader", "menu")),
            "What an accepted device gets that has nothing assigned: silent no answer, local its own disk, loader the"
            " boot file of its architecture, menu a menu.",
            extension=True,
        ),
    ] = "local"
    unknown_devices: Annotated[
        Literal["silent", "local", "loader", "menu"],
        Key(
            "UnknownDevices",
            Choice(("silent", "local", "loader", "menu")),
            "What a device gets that nobody has accepted, where no rule for unknown devices says more: as ZoneDefault.",
            extension=True,
        ),
    ] = "silent"
    device_name: Annotated[
        str,
        Key(
            "NewDeviceName",
            Text(),
            "The name of a device that has none: {serial}, {asset}, {mac} and {counter} (or {counter:4}) are filled in"
            " as soon as they are known.",
            extension=True,
            unset="no name",
        ),
    ] = ""
    unattributed: Annotated[
        Literal["files", "nothing"],
        Key(
            "UnattributedRequests",
            Choice(("files", "nothing")),
            "What TFTP and HTTP give to an address of which nobody can say whose it is: files are those of"
            " TFTPDirectory. Decisions, images and work it never gets.",
            extension=True,
        ),
    ] = "files"
    maintenance_images: Annotated[
        Literal["ordered", "all"],
        Key(
            "MaintenanceImages",
            Choice(("ordered", "all")),
            "In which imaging maintenance images can be fetched and stored (img restore, make, info): ordered means a"
            " bundle, which an administrator made and somebody ordered, assigned or put into a menu; all means the"
            " menu's own maintenance item too, so whoever sits at a device that shows this menu can read every image.",
            extension=True,
        ),
    ] = "ordered"
    template_directory: Annotated[
        Path | None,
        Key(
            "TemplateDirectory",
            Directory(),
            "Templates of boot scripts that replace the shipped ones of the same name (docs/boot-loaders.md).",
            extension=True,
            unset="the shipped ones",
        ),
    ] = None
    client_arguments: Annotated[
        str,
        Key(
            "ClientKernelArguments",
            Text(),
            "Further kernel arguments of the imaging client. The last console is where its messages go first.",
            extension=True,
        ),
    ] = "console=ttyS0,115200 console=tty0"
    preboot_server_token: Annotated[
        Path | None,
        Key(
            "PrebootServerToken",
            Directory(),
            "A file that holds a token of the server that PrebootServer names, of role site (there: pbserv token"
            " create). Others must not be able to read it.",
            extension=True,
            unset="none",
        ),
    ] = None
    preboot_server_ca: Annotated[
        str | None,
        Key(
            "PrebootServerCA",
            Trust(),
            "Whom to believe at PrebootServer = https://...: a PEM file with its certificate or that of its authority,"
            " or the SHA-256 fingerprint that the server prints when it starts.",
            extension=True,
            unset="the certificates that this host trusts",
        ),
    ] = None
    hook: Annotated[
        str | None,
        Key(
            "PolicyHook",
            MacUrl(),
            "A server that is asked for each device before this server's own policy, as pixiecore asks its API"
            " server: GET of this URL, {mac} replaced; 404 leaves the device to the own policy.",
            extension=True,
            unset="none",
        ),
    ] = None
    hook_timeout_ms: Annotated[
        int,
        Key(
            "PolicyHookTimeout",
            Integer(100, 5_000),
            "How long an answer of PolicyHook is waited for.",
            unit="ms",
            extension=True,
        ),
    ] = 1_000
    hook_failure: Annotated[
        Literal["open", "closed"],
        Key(
            "PolicyHookFailure",
            Choice(("open", "closed")),
            "What a device gets when PolicyHook does not answer, or not as it should: open what this server's own"
            " policy says, closed nothing.",
            extension=True,
        ),
    ] = "open"


FILE = ConfFile(("preboot-policy", "novell-zmgprebootpolicy"), PolicyConf)
