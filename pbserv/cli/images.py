"""`pbserv image`: verbs to exit codes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pbserv.cli.shared import AsJson, group

app = group("Images that the server keeps.")

Image = Annotated[str, typer.Argument(metavar="IMAGE", help="name of the image")]


@app.command("list")
def image_list(context: typer.Context, as_json: AsJson = False) -> None:
    """List images."""
    from pbserv.commands import images

    images.listed(context.obj, as_json)


@app.command("delete")
def image_delete(context: typer.Context, image: Image, as_json: AsJson = False) -> None:
    """Delete an image with all its versions."""
    from pbserv.commands import images

    images.delete(context.obj, image, as_json)


@app.command("info")
def image_info(
    path: Annotated[
        Path,
        typer.Argument(
            metavar="FILE",
            help="image file, its first volume or the name before .aa or .000; or a directory of Clonezilla or FOG",
        ),
    ],
    as_json: AsJson = False,
) -> None:
    """Say what an image file on this host is, by its content: tool, compressor, file system, sizes. No server is asked.

    Known are partclone, partimage, ntfsclone, fsarchiver, qcow2, VMDK, VDI, VHDX, raw disks and raw file systems,
    compressed with gzip, lzop, bzip2, xz, lz4, zstd or not at all, whole or in volumes. The first line is what
    OpenGnSys prints: tool, compressor, file system, and the KB that a restore needs.

    \b
    Examples:
      pbserv image info /opt/opengnsys/images/windows.img
      pbserv image info /home/partimag/classroom
      pbserv image info --json d1p1.img
    """
    from pbserv.commands import image_files

    image_files.info(path, as_json)
