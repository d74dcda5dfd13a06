"""The command line: verbs to exit codes. Heavy modules are imported inside the verbs that need them."""

from __future__ import annotations

import enum
import sys
from pathlib import Path
from typing import Annotated

import typer
import typer.core
import typer.main

from pbserv import __version__
from pbserv.cli import bundles, devices, groups, identity, importing, jobs, menus, policy, stores, tokens, work
from pbserv.cli.shared import AsJson
from pbserv.errors import PbservError

DEFAULT_CONF = Path("/etc/pbserv")
SERVICES_HELP = "imaging, tftp, policy, proxydhcp; none means all in Services of pbserv.conf"


class FirmwareName(enum.StrEnum):
    BIOS = "bios"
    UEFI = "uefi"
    UEFI_IA32 = "uefi-ia32"
    UEFI_ARM64 = "uefi-arm64"
    HTTP = "http"
    IPXE = "ipxe"
    PI = "pi"
    UBOOT = "uboot"
    ALL = "all"


app = typer.Typer(
    name="pbserv",
    help="Preboot and imaging server: boots bare machines over the network, writes images to them and takes images.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Commands about devices, work and policy ask the server on this host. From elsewhere set PBSERV_URL,"
    " PBSERV_TOKEN (made by pbserv token create) and, for https, PBSERV_CA: a file of certificates, or the SHA-256"
    " fingerprint that pbserv status shows on the server.",
)
client_app = typer.Typer(help="The imaging client that devices boot.", no_args_is_help=True)
loaders_app = typer.Typer(help="Boot loaders in TFTPDirectory.", no_args_is_help=True)
tftp_app = typer.Typer(help="The names that TFTP clients ask for.", no_args_is_help=True)
for name, group in (
    ("device", devices.app),
    ("group", groups.app),
    ("folder", groups.folder_app),
    ("pool", identity.app),
    ("bundle", bundles.app),
    ("assign", policy.assign_app),
    ("rule", policy.rule_app),
    ("menu", menus.app),
    ("policy", policy.app),
    ("work", work.app),
    ("job", jobs.app),
    ("image", importing.app),
    ("store", stores.app),
    ("token", tokens.app),
    ("client", client_app),
    ("loaders", loaders_app),
    ("tftp", tftp_app),
):
    app.add_typer(group, name=name)

Names = Annotated[list[str] | None, typer.Argument(metavar="[SERVICE]...", help=SERVICES_HELP)]


def _version(wanted: bool) -> None:
    if wanted:
        print(f"pbserv {__version__}")
        raise typer.Exit


@app.callback()
def root(
    context: typer.Context,
    conf: Annotated[
        str,
        typer.Option("--conf", metavar="DIR", help="Directory of the configuration files; may stand after the verb."),
    ] = str(DEFAULT_CONF),
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    if not conf or (Path(conf).exists() and not Path(conf).is_dir()):
        raise typer.BadParameter(f"{conf!r} is not a directory", param_hint="--conf")
    context.obj = Path(conf).absolute()


# service control


@app.command()
def start(context: typer.Context, services: Names = None) -> None:
    """Start the server in the background; returns 0 only when every service asked for is ready.

    start setjustimagedflag [MAC]... starts nothing: it sets the just-imaged flag of these devices (none: of this host,
    by its registered network cards), so that their image-safe data is applied again.
    """
    from pbserv.commands import control

    raise typer.Exit(control.start(context.obj, services or []))


@app.command()
def stop(context: typer.Context, services: Names = None) -> None:
    """Stop the server and wait until it is gone, or stop single services."""
    from pbserv.commands import control

    raise typer.Exit(control.stop(context.obj, services or []))


@app.command()
def restart(context: typer.Context, services: Names = None) -> None:
    """Stop, then start."""
    from pbserv.commands import control

    raise typer.Exit(control.restart(context.obj, services or []))


@app.command("force-reload")
def force_reload(context: typer.Context, services: Names = None) -> None:
    """Read all configuration files again, or, when anything is wrong, none; names change nothing in that."""
    from pbserv.commands import control

    raise typer.Exit(control.force_reload(context.obj, services or []))


@app.command()
def status(context: typer.Context, services: Names = None, as_json: AsJson = False) -> None:
    """Say what runs. Exit code: 0 all asked for run, 1 dead with a pid file, 3 one does not run, 4 unknown."""
    from pbserv.commands import control

    raise typer.Exit(control.status(context.obj, services or [], as_json))


@app.command()
def statistics(context: typer.Context, as_json: AsJson = False) -> None:
    """Print what the running server counted: boot offers, requests, transfers, bytes, repeats, round trips, cache."""
    from pbserv.commands import statistics

    raise typer.Exit(statistics.show(context.obj, as_json))


@app.command()
def showpid(context: typer.Context, services: Names = None) -> None:
    """Print the server's process id; all services share one process."""
    from pbserv.commands import control

    raise typer.Exit(control.showpid(context.obj, services or []))


@app.command()
def run(
    context: typer.Context,
    services: Names = None,
    local: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Keep configuration, state and files in DIR (made if missing) and enable all services."
        ),
    ] = None,
) -> None:
    """Run in the foreground (systemd, containers, trying out); Ctrl-C stops it."""
    from pbserv.commands import control

    raise typer.Exit(control.run(context.obj, services or [], local))


@app.command()
def check(context: typer.Context) -> None:
    """Read the configuration and say everything that is wrong with it."""
    from pbserv.commands import control

    raise typer.Exit(control.check(context.obj))


@app.command()
def doctor(
    context: typer.Context,
    code: Annotated[
        str | None,
        typer.Argument(metavar="[CODE]", help="Explain this code of a screen instead: PXE-E18, e53, 2d0c618e"),
    ] = None,
    interface: Annotated[
        str | None, typer.Option("--interface", metavar="NAME", help="Look at this network interface only.")
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Do not ask the network; takes no time.")] = False,
    codes: Annotated[bool, typer.Option("--codes", help="List the codes that can be explained.")] = False,
    as_json: AsJson = False,
) -> None:
    """Look for what keeps machines from booting, and say what to do.

    Looks at ports, rights, interfaces, firewalls, boot files and limits of this host, and as root asks the network who
    answers boot clients, as two made-up devices that are always the same on this host (pbserv device list may show
    them). Exit code: 0 nothing wrong, 1 errors, 3 warnings only; notes do not count.
    """
    from pbserv.commands import doctor as command

    if codes:
        raise typer.Exit(command.list_codes(as_json))
    if code is not None:
        raise typer.Exit(command.explain(code, as_json))
    raise typer.Exit(command.examine_host(context.obj, interface, quick, as_json))


@app.command()
def install(
    context: typer.Context, service: Annotated[str | None, typer.Argument(help="proxydhcp, or nothing")] = None
) -> None:
    """Install systemd unit, samples, directories and user; `install proxydhcp` starts proxyDHCP at every boot."""
    from pbserv.commands import install as command

    raise typer.Exit(command.install(context.obj, service))


# what devices do


@app.command()
def journal(
    context: typer.Context,
    mac: Annotated[str | None, typer.Argument(help="MAC address; none: the newest boots of all devices")] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what happens, until Ctrl-C.")] = False,
    packets: Annotated[bool, typer.Option("--packets", help="Show every option of packets and replies.")] = False,
    as_json: AsJson = False,
    limit: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="How many boots; default 50, and 1 of one device.")
    ] = None,
    pcap: Annotated[
        Path | None, typer.Option("--pcap", metavar="FILE", help="Save the device's packets to FILE, for Wireshark.")
    ] = None,
) -> None:
    """Say how far devices came when they booted, and why not further."""
    from pbserv.commands import journal as command

    if pcap is not None:
        command.save_packets(context.obj, mac, limit, pcap)
    else:
        command.show(context.obj, mac, follow=follow, packets=packets, as_json=as_json, limit=limit)


policy.add_verbs(app)


# what the server needs


@client_app.command("build")
def client_build(
    context: typer.Context,
    output: Annotated[Path | None, typer.Option(metavar="DIR", help="Default: client/ of StateDirectory")] = None,
    force: Annotated[bool, typer.Option("--force", help="Build also when the recipe has not changed.")] = False,
) -> None:
    """Build the imaging client's kernel and initramfs from Debian packages (as root, with mmdebstrap)."""
    from pbserv.commands import provide

    provide.client_build(context.obj, output, force)


@loaders_app.command("install")
def loaders_install(
    context: typer.Context,
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[NAME]...",
            help="ipxe, ipxe-kernel, ipxe-arm64, pxelinux, shim, shim-arm64, grub-ia32, memtest, all, or single files;"
            " none: ipxe."
            " With --from: members of the archive.",
        ),
    ] = None,
    suite: Annotated[str, typer.Option(metavar="SUITE", help="A release of Debian other than the host's.")] = "",
    source: Annotated[Path | None, typer.Option("--from", metavar="FILE", help="A file or a tar archive.")] = None,
    sha256: Annotated[str, typer.Option(metavar="HEX", help="The checksum of FILE.")] = "",
    name: Annotated[str, typer.Option("--as", metavar="NAME", help="What FILE is to be called.")] = "",
) -> None:
    """Put boot loaders into TFTPDirectory, from Debian's packages or from a file with its checksum.

    \b
    Examples:
      pbserv loaders install
      pbserv loaders install --suite trixie shim
      pbserv loaders install --from wimboot --sha256 HEX
    """
    from pbserv.commands import provide

    provide.loaders_install(context.obj, names or [], suite, source, sha256, name)


@loaders_app.command("list")
def loaders_list(context: typer.Context, as_json: AsJson = False) -> None:
    """Which boot loaders TFTPDirectory has, their versions, whom they serve, and what is missing (exit code 1)."""
    from pbserv.commands import provide

    raise typer.Exit(provide.loaders_list(context.obj, as_json))


@tftp_app.command("map-test")
def tftp_map_test(
    context: typer.Context,
    names: Annotated[list[str] | None, typer.Argument(metavar="[NAME]...", help="none: the lines of stdin")] = None,
    map_file: Annotated[
        Path | None, typer.Option("--map-file", metavar="FILE", help="Try these rules; default: TFTPMapFile.")
    ] = None,
    client: Annotated[str, typer.Option(metavar="ADDRESS", help="The address that asks.")] = "192.0.2.1",
    mac: Annotated[str | None, typer.Option(help="Its MAC; default: what this host's neighbour table says.")] = None,
    put: Annotated[bool, typer.Option("--put", help="Uploads instead of downloads.")] = False,
) -> None:
    """Show which rules change each name, and which file it leads to; exit code 1 when one leads nowhere."""
    from pbserv.commands import tftp

    raise typer.Exit(tftp.map_test(context.obj, map_file, client, mac, put, names or []))


# why a machine does not boot


@app.command()
def probe(
    interface: Annotated[
        str | None,
        typer.Argument(metavar="[INTERFACE]", help="none: all that are up and have an IPv4 address with a broadcast"),
    ] = None,
    firmware: Annotated[FirmwareName, typer.Option("--as", help="The client to play.")] = FirmwareName.UEFI,
    mac: Annotated[str | None, typer.Option(help="Play the machine with this MAC address.")] = None,
    wait: Annotated[float, typer.Option(metavar="SECONDS", help="How long to collect answers.")] = 4.0,
    boot_server: Annotated[
        bool | None,
        typer.Option(
            "--boot-server/--no-boot-server",
            help="Ask port 4011 of every proxy, or of none; default: where the client would.",
            show_default=False,
        ),
    ] = None,
    as_json: AsJson = False,
    pcap: Annotated[Path | None, typer.Option(metavar="FILE", help="Write all frames to a new file.")] = None,
) -> None:
    """Play a network boot client: ask on the wire, show who answers what, and say what the client would boot.

    Nothing is taken: no address is requested, and offers lapse by themselves. The client has a made-up, locally
    administered MAC address (a Raspberry Pi's with --as pi) that stays the same for this host and kind of client. A
    server that registers new devices registers it, and may not answer before it is accepted. Needs root or CAP_NET_RAW.

    Exit code: 0 when every client that was played would boot, 1 when not, 2 for wrong options.
    """
    from pbserv.commands import probe as command

    raise typer.Exit(command.probe(interface, firmware.value, mac, wait, boot_server, as_json, pcap))


def main() -> None:
    """Entry point of the `pbserv` program: faults of the user are one line on stderr, and exit code 1."""
    try:
        command()(args=_conf_first(sys.argv[1:]))
    except PbservError as fault:
        print(f"pbserv: {fault}", file=sys.stderr)
        raise SystemExit(fault.exit_code) from None
    except BrokenPipeError:
        raise SystemExit(1) from None


def command() -> typer.core.TyperGroup:
    """All verbs, with help whose paragraphs are as wide as the terminal."""
    root = typer.main.get_group(app)
    _flow(root)
    return root


def _flow(verb: typer.core.TyperCommand | typer.core.TyperGroup) -> None:
    """Typer keeps the line ends of the source in all paragraphs but the first; those after a ``\\b`` are meant so."""
    if verb.help:
        paragraphs = verb.help.split("\n\n")
        verb.help = "\n\n".join(each if each.startswith("\b") else each.replace("\n", " ") for each in paragraphs)
    for each in getattr(verb, "commands", {}).values():
        _flow(each)


def _conf_first(arguments: list[str]) -> list[str]:
    """``--conf DIR`` may stand anywhere; click wants it before the verb."""
    head: list[str] = []
    rest: list[str] = []
    waiting = iter(arguments)
    for argument in waiting:
        if argument == "--":
            rest += [argument, *waiting]
        elif argument == "--conf":
            head += [argument, *([value] if (value := next(waiting, None)) is not None else [])]
        elif argument.startswith("--conf="):
            head.append(argument)
        else:
            rest.append(argument)
    return head + rest
