"""`pbserv device`: verbs to exit codes."""

from __future__ import annotations

import enum
from pathlib import Path
from typing import Annotated

import typer

from pbserv.cli.shared import Arguments, AsJson, Mac, StateName, group

app = group("Devices: machines that boot, known by their MAC address.")

Name = Annotated[str | None, typer.Option(metavar="TEXT", help="What people call it.")]
Serial = Annotated[str | None, typer.Option(metavar="TEXT", help="Serial number.")]
Asset = Annotated[str | None, typer.Option(metavar="TEXT", help="Asset tag.")]
FolderOf = Annotated[
    str | None, typer.Option("--folder", metavar="PATH", help="The folder it lies in: /labs/1; / is the zone.")
]
GroupsOf = Annotated[
    list[str] | None,
    typer.Option("--group", metavar="NAME", help="All groups that it is in; may be repeated, '' for none."),
]
LabelsOf = Annotated[
    list[str] | None,
    typer.Option("--label", metavar="NAME=VALUE", help="A label for rules; may be repeated, NAME= takes one away."),
]
MenuOf = Annotated[str | None, typer.Option("--menu", metavar="NAME", help="Its own Preboot Menu; '' for none.")]
Loader = Annotated[
    str | None,
    typer.Option(metavar="FILE", help="Boot file instead of its architecture's, below TFTPDirectory; '' for none."),
]


class TableForm(enum.StrEnum):
    CSV = "csv"
    JSON = "json"


@app.command("list")
def device_list(
    context: typer.Context,
    state: Annotated[StateName | None, typer.Option(help="Only devices in this state.")] = None,
    folder: Annotated[str | None, typer.Option(metavar="PATH", help="Only in this folder and below.")] = None,
    group: Annotated[str | None, typer.Option(metavar="NAME", help="Only in this group.")] = None,
    search: Annotated[
        str | None, typer.Option(metavar="TEXT", help="In MAC address, name, serial number, asset tag or IP address.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List devices.

    \b
    Examples:
      pbserv device list --state pending
      pbserv device list --folder /labs --search optiplex --json
    """
    from pbserv.commands import devices

    devices.listed(context.obj, state.value if state else None, folder, group, search, as_json)


@app.command("show")
def device_show(context: typer.Context, mac: Mac, as_json: AsJson = False) -> None:
    """Show one device with its history."""
    from pbserv.commands import devices

    devices.show(context.obj, mac, as_json)


@app.command("accept")
def device_accept(
    context: typer.Context,
    mac: Mac,
    name: Annotated[str | None, typer.Option(metavar="TEXT", help="Give it a name.")] = None,
    as_json: AsJson = False,
) -> None:
    """Accept a device: it is answered from now on. It need not have been seen yet.

    \b
    Example:
      pbserv device accept 52:54:00:12:34:56 --name lab1-07
    """
    from pbserv.commands import devices

    devices.accept(context.obj, mac, name, as_json)


@app.command("deny")
def device_deny(context: typer.Context, mac: Mac, as_json: AsJson = False) -> None:
    """Deny a device, also one that was never seen: it is never answered, and its work is cancelled.

    pbserv device accept takes that back.
    """
    from pbserv.commands import devices

    devices.deny(context.obj, mac, as_json)


@app.command("retire")
def device_retire(context: typer.Context, mac: Mac, as_json: AsJson = False) -> None:
    """Retire a device: its record is kept, it gets nothing any more, and its work is cancelled.

    pbserv device accept takes that back.
    """
    from pbserv.commands import devices

    devices.retire(context.obj, mac, as_json)


@app.command("forget")
def device_forget(context: typer.Context, mac: Mac, as_json: AsJson = False) -> None:
    """Remove a device and its history; it is new again when it boots next."""
    from pbserv.commands import devices

    devices.forget(context.obj, mac, as_json)


@app.command("images")
def device_images(context: typer.Context, mac: Mac, as_json: AsJson = False) -> None:
    """Show which images a device was given and which were taken of it: when, how verified, how long."""
    from pbserv.commands import jobs

    jobs.images_of_device(context.obj, mac, as_json)


@app.command("wake")
def device_wake(context: typer.Context, mac: Mac, as_json: AsJson = False) -> None:
    """Wake a device over the network (wake-on-LAN): its firmware has to allow that.

    \b
    Example:
      pbserv device wake 52:54:00:12:34:56
    """
    from pbserv.commands import jobs

    jobs.wake(context.obj, mac, as_json)


@app.command("set")
def device_set(
    context: typer.Context,
    mac: Mac,
    name: Name = None,
    serial: Serial = None,
    asset: Asset = None,
    folder: FolderOf = None,
    groups: GroupsOf = None,
    labels: LabelsOf = None,
    menu: MenuOf = None,
    loader: Loader = None,
    arguments: Arguments = None,
    as_json: AsJson = False,
) -> None:
    """Change what is said of a device; what is not named stays.

    \b
    Examples:
      pbserv device set 52:54:00:12:34:56 --name lab1-07 --folder /labs/1
      pbserv device set 52:54:00:12:34:56 --group "lab 1" --group printers
      pbserv device set 52:54:00:12:34:56 --label room=3.14 --label desk=
    """
    from pbserv.commands import devices

    given = {
        "name": name, "serial": serial, "asset": asset, "folder": folder, "menu": menu, "loader": loader,
        "arguments": arguments,
    }  # fmt: skip
    devices.change(context.obj, mac, given, groups or [], labels or [], as_json)


@app.command("add")
def device_add(
    context: typer.Context,
    mac: Mac,
    name: Name = None,
    state: Annotated[StateName | None, typer.Option(help="Instead of known.")] = None,
    serial: Serial = None,
    asset: Asset = None,
    folder: FolderOf = None,
    groups: GroupsOf = None,
    labels: LabelsOf = None,
    menu: MenuOf = None,
    loader: Loader = None,
    arguments: Arguments = None,
    as_json: AsJson = False,
) -> None:
    """Register a device that was never seen; it is known, unless --state says otherwise.

    \b
    Example:
      pbserv device add 52:54:00:12:34:56 --name lab1-07 --folder /labs/1 --group "lab 1"
    """
    from pbserv.commands import devices

    given = {
        "state": state.value if state else None, "name": name, "serial": serial, "asset": asset, "folder": folder,
        "menu": menu, "loader": loader, "arguments": arguments,
    }  # fmt: skip
    devices.add(context.obj, mac, given, groups or [], labels or [], as_json)


@app.command("join")
def device_join(
    context: typer.Context,
    mac: Mac,
    other: Annotated[str, typer.Argument(metavar="OTHER", help="the other device, whose record goes")],
    as_json: AsJson = False,
) -> None:
    """Make two devices one, that has both addresses: a machine with several network cards.

    \b
    Example:
      pbserv device join 52:54:00:12:34:56 52:54:00:12:34:57
    """
    from pbserv.commands import devices

    devices.join(context.obj, mac, other, as_json)


@app.command("split")
def device_split(
    context: typer.Context,
    mac: Mac,
    other: Annotated[str, typer.Argument(metavar="OTHER", help="the further address that becomes a device of its own")],
    as_json: AsJson = False,
) -> None:
    """Take a further address away from a device; it is a new one, and pending.

    \b
    Example:
      pbserv device split 52:54:00:12:34:56 52:54:00:12:34:57
    """
    from pbserv.commands import devices

    devices.split(context.obj, mac, other, as_json)


@app.command("import")
def device_import(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="a .csv or .json file")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Change nothing, say what would be.")] = False,
    as_json: AsJson = False,
) -> None:
    """Create and change devices as a file says: all rows, or none when one is wrong (exit code 1).

    The first line of a CSV file names its columns: mac, and any of name, serial, asset, folder, groups, labels, menu,
    loader, arguments, state. Several groups, and labels as NAME=VALUE, have | between them. A column that is missing
    changes nothing.

    \b
    Examples:
      pbserv device export > devices.csv
      pbserv device import devices.csv --dry-run
    """
    from pbserv.commands import devices

    raise typer.Exit(devices.read_file(context.obj, file, dry_run, as_json))


@app.command("export")
def device_export(
    context: typer.Context,
    form: Annotated[TableForm, typer.Option("--format", help="What to write.")] = TableForm.CSV,
) -> None:
    """Write all devices to stdout, as import reads them.

    \b
    Example:
      pbserv device export --format json > devices.json
    """
    from pbserv.commands import devices

    devices.write_file(context.obj, form.value)
