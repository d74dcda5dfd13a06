"""`pbserv store`: verbs to exit codes."""

from __future__ import annotations

from typing import Annotated

import typer

from pbserv.cli.shared import AsJson, group

app = group("Stores: the directories that images are kept in (ImageStores of pbserv.conf).")

Store = Annotated[str, typer.Argument(metavar="STORE", help="name of the store; see: pbserv store list")]


@app.command("list")
def store_list(context: typer.Context, as_json: AsJson = False) -> None:
    """List stores with what they hold and what room they have."""
    from pbserv.commands import stores

    stores.listed(context.obj, as_json)


@app.command("show")
def store_show(context: typer.Context, store: Store, as_json: AsJson = False) -> None:
    """Show one store: limits, room, and what in it is damaged and therefore not served."""
    from pbserv.commands import stores

    stores.show(context.obj, store, as_json)


@app.command("scrub")
def store_scrub(
    context: typer.Context,
    store: Annotated[str | None, typer.Argument(metavar="[STORE]", help="name of the store; or use --image")] = None,
    image: Annotated[str | None, typer.Option("--image", metavar="IMAGE", help="Verify this image alone.")] = None,
    version: Annotated[
        int | None, typer.Option("--version", metavar="N", min=1, help="With --image: this version alone.")
    ] = None,
    rate: Annotated[
        int | None,
        typer.Option("--rate", metavar="MB", min=0, help="MB per second, 0: as fast as it goes; none: ScrubRate."),
    ] = None,
    deep: Annotated[bool, typer.Option("--deep", help="Also uncompress, and compare with what was captured.")] = False,
    repair: Annotated[
        bool, typer.Option("--repair/--no-repair", help="Replace damaged frames that another version or server has.")
    ] = True,
    background: Annotated[
        bool, typer.Option("--background", help="Do not wait for its end; see: pbserv store tasks")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Read what a store keeps again and verify it, the versions that were not verified for longest first.

    Damage is named by image, item, frame and address on the device, in the log and by pbserv store show. A damaged
    version is not served; the newest other enabled one is. Exit code: 0 when it came to its end, also with damage
    found, which it counts.

    \b
    Examples:
      pbserv store scrub main
      pbserv store scrub main --rate 20 --deep --background
      pbserv store scrub --image classroom
    """
    from pbserv.commands import stores

    body = {"rate_mb": rate, "deep": deep, "repair": repair}
    stores.scrub(context.obj, store, image, version, body, wait=not background, as_json=as_json)


@app.command("check")
def store_check(
    context: typer.Context,
    store: Store,
    background: Annotated[
        bool, typer.Option("--background", help="Do not wait for its end; see: pbserv store tasks")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Do by hand, and while the server runs, what each start does: store and registry agree, leftovers go.

    Uploads that nobody goes on with, and what a crash left, are removed. A version whose files are not there in their
    full size is not served any more. What was found is in the log. No byte is read: that is pbserv store scrub.

    \b
    Example:
      pbserv store check main
    """
    from pbserv.commands import stores

    stores.check(context.obj, store, wait=not background, as_json=as_json)


@app.command("tasks")
def store_tasks(context: typer.Context, as_json: AsJson = False) -> None:
    """List what runs on the stores (scrub, check, convert) and what ended not long ago."""
    from pbserv.commands import task_watch

    task_watch.listed(context.obj, as_json)


@app.command("cancel")
def store_cancel(
    context: typer.Context,
    number: Annotated[int, typer.Argument(metavar="NUMBER", min=1, help="of the task; see: pbserv store tasks")],
    as_json: AsJson = False,
) -> None:
    """End a task; what it did so far stays.

    \b
    Example:
      pbserv store cancel 3
    """
    from pbserv.commands import task_watch

    task_watch.cancel(context.obj, number, as_json)
