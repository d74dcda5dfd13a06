"""`pbserv image import` and `image convert`: verbs to exit codes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pbserv.cli.images import Image, OneVersion, Title, app
from pbserv.cli.shared import AsJson

__all__ = ["app"]


@app.command("import")
def image_import(
    context: typer.Context,
    path: Annotated[
        Path,
        typer.Argument(
            metavar="PATH",
            help="image file, its first volume or the name before .aa or .000; or a directory of Clonezilla or FOG",
        ),
    ],
    name: Annotated[str, typer.Option(metavar="IMAGE", help="Its name; none: that of the file or directory.")] = "",
    store: Annotated[str, typer.Option(metavar="STORE", help="The store it goes into; none: the first.")] = "",
    title: Title = None,
    convert: Annotated[
        bool, typer.Option("--convert", help="Cut it into frames as captures are, instead of keeping its bytes.")
    ] = False,
    tree: Annotated[bool, typer.Option("--tree", help="PATH is a directory of files: an add-on image.")] = False,
    overwrite: Annotated[
        bool,
        typer.Option("--overwrite", help="Make a new version of an image that exists (needs AllowImageOverwrite)."),
    ] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an import that broke off.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be sent; no server is asked.")] = False,
    as_json: AsJson = False,
) -> None:
    """Make images of files that other imaging systems left on this host.

    Known are images and directories of OpenGnSys, FOG, Clonezilla and SLEPOS, files of partclone, partimage, ntfsclone
    and fsarchiver, raw disks and file systems, all of them compressed with gzip, lzop, bzip2, xz, lz4, zstd or not at
    all, whole or in volumes, and disks of virtual machines (qcow2, VMDK, VDI, VHDX; with qemu-img). What lies beside
    them is used: partition tables, boot areas, checksums. A directory with several disks becomes several images.

    \b
    Examples:
      pbserv image import /home/partimag/classroom
      pbserv image import /opt/opengnsys/images/windows.img --title "Windows 11"
      pbserv image import /srv/SLEPOS/image/graphical.i686-3.1.4.gz --name graphical-3-1-4 --convert
      pbserv image import --tree /srv/overlays/printers --name printers
    """
    from pbserv.commands import importing

    wishes = importing.Wishes(
        name=name, store=store, title=title or "", convert=convert, tree=tree, overwrite=overwrite, resume=resume,
        dry_run=dry_run, as_json=as_json,
    )  # fmt: skip
    importing.run(context.obj, path, wishes)


@app.command("convert")
def image_convert(
    context: typer.Context,
    image: Image,
    version: OneVersion = None,
    background: Annotated[
        bool, typer.Option("--background", help="Do not wait for its end; see: pbserv store tasks")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Cut an image into frames that was imported as it is; the result is its next version.

    What partimage, ntfsclone and fsarchiver wrote, and partclone before 0.3, stays as it is: the reason is said.

    \b
    Example:
      pbserv image convert windows
    """
    from pbserv.commands import converting

    converting.convert(context.obj, image, version, wait=not background, as_json=as_json)
