"""`pbserv group` and `pbserv folder`: verbs to exit codes."""

from __future__ import annotations

from typing import Annotated

import typer

from pbserv.cli.shared import Arguments, AsJson, Title, group

app = group("Groups: devices that belong together, of any folder.")
folder_app = group("Folders: the tree in which devices and groups lie; / is the zone.")

Name = Annotated[str, typer.Argument(metavar="NAME", help="name of the group")]
Macs = Annotated[list[str], typer.Argument(metavar="MAC...", help="MAC addresses of devices")]
Path = Annotated[str, typer.Argument(metavar="PATH", help="/, or /NAME/NAME")]


@app.command("list")
def group_list(context: typer.Context, as_json: AsJson = False) -> None:
    """List groups."""
    from pbserv.commands import objects

    columns = {
        "Name": lambda each: each["name"], "Title": lambda each: each["title"], "Folder": lambda each: each["folder"],
        "Priority": lambda each: each["priority"],
    }  # fmt: skip
    objects.listed(context.obj, "group", columns, as_json)


@app.command("show")
def group_show(context: typer.Context, name: Name, as_json: AsJson = False) -> None:
    """Show a group and the devices that are in it."""
    from pbserv.commands import objects

    objects.group_show(context.obj, name, as_json)


@app.command("set")
def group_set(
    context: typer.Context,
    name: Name,
    title: Title = None,
    folder: Annotated[str | None, typer.Option(metavar="PATH", help="Where the group lies; / is the zone.")] = None,
    priority: Annotated[
        int | None,
        typer.Option(metavar="N", help="Of a device's groups equally near to it the highest goes first; usually 0."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Make a group, or change it.

    \b
    Example:
      pbserv group set "lab 1" --folder /labs/1 --title "First floor"
    """
    from pbserv.commands import objects

    objects.put(context.obj, "group", name, {"title": title, "folder": folder, "priority": priority}, as_json)


@app.command("delete")
def group_delete(context: typer.Context, name: Name, as_json: AsJson = False) -> None:
    """Delete a group that no device is in and nothing is assigned to."""
    from pbserv.commands import objects

    objects.delete(context.obj, "group", name, as_json)


@app.command("add")
def group_add(context: typer.Context, name: Name, macs: Macs, as_json: AsJson = False) -> None:
    """Put devices into a group.

    \b
    Example:
      pbserv group add "lab 1" 52:54:00:12:34:56 52:54:00:65:43:21
    """
    from pbserv.commands import objects

    objects.group_members(context.obj, name, macs, [], as_json)


@app.command("remove")
def group_remove(context: typer.Context, name: Name, macs: Macs, as_json: AsJson = False) -> None:
    """Take devices out of a group.

    \b
    Example:
      pbserv group remove "lab 1" 52:54:00:12:34:56
    """
    from pbserv.commands import objects

    objects.group_members(context.obj, name, [], macs, as_json)


@folder_app.command("list")
def folder_list(context: typer.Context, as_json: AsJson = False) -> None:
    """List the folders that have settings of their own; others need not be made."""
    from pbserv.commands import objects

    columns = {
        "Path": lambda each: each["name"], "Title": lambda each: each["title"], "Menu": lambda each: each["menu"],
        "Arguments": lambda each: each["arguments"],
    }  # fmt: skip
    objects.listed(context.obj, "folder", columns, as_json)


@folder_app.command("show")
def folder_show(context: typer.Context, path: Path, as_json: AsJson = False) -> None:
    """Show a folder's settings."""
    from pbserv.commands import objects

    objects.show(context.obj, "folder", path, as_json)


@folder_app.command("set")
def folder_set(
    context: typer.Context,
    path: Path,
    title: Title = None,
    menu: Annotated[str | None, typer.Option(metavar="NAME", help="Preboot Menu of all devices below.")] = None,
    arguments: Arguments = None,
    max_jobs: Annotated[
        int | None,
        typer.Option(metavar="N", help="So many devices below restore or capture at a time; 0: no limit of its own."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Set what holds for a folder and all below it, unless something nearer differs.

    \b
    Examples:
      pbserv folder set /labs --menu students
      pbserv folder set / --arguments "console=ttyS0"
    """
    from pbserv.commands import objects

    given = {"title": title, "menu": menu, "arguments": arguments, "max_jobs": max_jobs}
    objects.put(context.obj, "folder", path, given, as_json)


@folder_app.command("delete")
def folder_delete(context: typer.Context, path: Path, as_json: AsJson = False) -> None:
    """Delete a folder's settings; nothing may be in it."""
    from pbserv.commands import objects

    objects.delete(context.obj, "folder", path, as_json)
