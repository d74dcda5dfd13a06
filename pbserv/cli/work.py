"""`pbserv work`: verbs to exit codes."""

from __future__ import annotations

from typing import Annotated

import typer

from pbserv.cli.options import Capturing, Finish, Once, Restoring, Target, Version, spread, stated
from pbserv.cli.shared import AsJson, ForGroup, Mac, group

app = group("Work: what a device is to do once, at its next boot.")

Image = Annotated[str, typer.Argument(metavar="IMAGE", help="name of the image")]
ForImage = Annotated[
    list[str], typer.Argument(metavar="[MAC] IMAGE", help="device and image; with --group the image alone")
]
Number = Annotated[int, typer.Argument(metavar="NUMBER", help="number of the work; see: pbserv work list")]


@app.command("restore")
@spread
def work_restore(
    context: typer.Context,
    words: ForImage,
    *,
    group: ForGroup = None,
    target: Target,
    restoring: Restoring,
    once: Once,
    as_json: AsJson = False,
) -> None:
    """Write IMAGE to the device's disk at its next network boot. What the disk holds is lost.

    \b
    Examples:
      pbserv work restore 52:54:00:12:34:56 classroom
      pbserv work restore --group "lab 1" classroom --expires 12h --wake
      pbserv work restore 52:54:00:12:34:56 classroom --partition 2 --verify read
      pbserv work restore 52:54:00:12:34:56 classroom --dry-run
    """
    from pbserv.commands import work

    asked = stated(target, restoring, once)
    work.order(context.obj, {"kind": "restore", **_aim(words, group), **asked}, as_json)


@app.command("cache")
@spread
def work_cache(
    context: typer.Context,
    words: ForImage,
    *,
    group: ForGroup = None,
    version: Version = None,
    finish: Finish = None,
    once: Once,
    as_json: AsJson = False,
) -> None:
    """Put IMAGE into the cache that the device keeps, at its next network boot. Nothing else of its disk changes.

    \b
    Examples:
      pbserv work cache --group "lab 1" classroom --finish poweroff --wake
      pbserv work deploy --group "lab 1" classroom
    """
    from pbserv.commands import work

    asked = {"version": version, "finish": finish and finish.value, **stated(once)}
    work.order(context.obj, {"kind": "cache", **_aim(words, group), **asked}, as_json)


@app.command("deploy")
@spread
def work_deploy(
    context: typer.Context,
    words: ForImage,
    *,
    group: ForGroup = None,
    target: Target,
    restoring: Restoring,
    once: Once,
    as_json: AsJson = False,
) -> None:
    """Write IMAGE to the device's disk by way of the cache that it keeps: what is there already is not sent again.

    Without a cache, or with one that is too small, it is a restore.

    \b
    Example:
      pbserv work deploy --group "lab 1" classroom --wake
    """
    from pbserv.commands import work

    asked = stated(target, restoring, once)
    work.order(context.obj, {"kind": "deploy", **_aim(words, group), **asked}, as_json)


@app.command("capture")
@spread
def work_capture(
    context: typer.Context,
    mac: Mac,
    image: Image,
    *,
    target: Target,
    capturing: Capturing,
    once: Once,
    as_json: AsJson = False,
) -> None:
    """Take IMAGE from the device's disk at its next network boot.

    \b
    Examples:
      pbserv work capture 52:54:00:12:34:56 classroom
      pbserv work capture 52:54:00:12:34:56 classroom --overwrite --expires 8h
    """
    from pbserv.commands import work

    asked = stated(target, capturing, once)
    work.order(context.obj, {"kind": "capture", "mac": mac, "image": image, **asked}, as_json)


@app.command("bundle")
@spread
def work_bundle(
    context: typer.Context,
    bundle: Annotated[str, typer.Argument(metavar="BUNDLE", help="name of the bundle")],
    mac: Annotated[str | None, typer.Argument(metavar="[MAC]", help="device; or use --group")] = None,
    *,
    group: ForGroup = None,
    once: Once,
    as_json: AsJson = False,
) -> None:
    """Do what a bundle says, once, at the next network boot of a device or of all devices of a group.

    \b
    Examples:
      pbserv work bundle debian 52:54:00:12:34:56
      pbserv work bundle debian --group "lab 1" --expires 2d
    """
    from pbserv.commands import work

    work.order(context.obj, {"mac": mac, "group": group, "bundle": bundle, **stated(once)}, as_json)


@app.command("list")
def work_list(
    context: typer.Context,
    everything: Annotated[bool, typer.Option("--all", help="Also what is done, held, failed or cancelled.")] = False,
    as_json: AsJson = False,
) -> None:
    """List work with the progress of its newest job."""
    from pbserv.commands import work

    work.listed(context.obj, everything, as_json)


@app.command("show")
def work_show(context: typer.Context, number: Number, as_json: AsJson = False) -> None:
    """Show one piece of work with its runs."""
    from pbserv.commands import work

    work.show(context.obj, number, as_json)


@app.command("cancel")
def work_cancel(context: typer.Context, number: Number, as_json: AsJson = False) -> None:
    """Cancel work; a device that is at it stops within seconds.

    \b
    Example:
      pbserv work cancel 17
    """
    from pbserv.commands import work

    work.cancel(context.obj, number, as_json)


@app.command("retry")
def work_retry(context: typer.Context, number: Number, as_json: AsJson = False) -> None:
    """Queue work again that is held, or that failed, expired or was cancelled; what it has expired by is forgotten.

    \b
    Example:
      pbserv work retry 17
    """
    from pbserv.commands import work

    work.retry(context.obj, number, as_json)


def _aim(words: list[str], group: str | None) -> dict[str, str | None]:
    """Device or group, and image, as the API takes them; the image alone where a group is named."""
    if len(words) != (2 if group is None else 1):
        raise typer.BadParameter("write MAC IMAGE, or --group NAME IMAGE")
    return {"mac": words[0] if group is None else None, "group": group, "image": words[-1]}
