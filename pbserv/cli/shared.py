"""What several groups of verbs have in common: arguments, options, and the words that they may be."""

from __future__ import annotations

import enum
from pathlib import Path
from typing import Annotated

import typer


class StateName(enum.StrEnum):
    PENDING = "pending"
    KNOWN = "known"
    DENIED = "denied"
    RETIRED = "retired"


class FinishName(enum.StrEnum):
    REBOOT = "reboot"
    POWEROFF = "poweroff"
    NONE = "none"


class VerifyName(enum.StrEnum):
    STREAM = "stream"
    READ = "read"


class CacheName(enum.StrEnum):
    USE = "use"
    GIVE_UP = "give-up"


class FormName(enum.StrEnum):
    TOML = "toml"
    JSON = "json"


Mac = Annotated[str, typer.Argument(metavar="MAC", help="any address of the device, as aa:bb:cc:dd:ee:ff")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
Title = Annotated[str | None, typer.Option(metavar="TEXT", help="What people are shown.")]
Arguments = Annotated[str | None, typer.Option(metavar="TEXT", help="Kernel arguments; '' for none.")]
Schedule = Annotated[
    str | None,
    typer.Option(
        metavar="WHEN",
        help="once; at 2026-12-24 18:00; cron 0 2 * * sun; window mon-fri 22:00-06:00; each may end with"
        " until 2027-01-31. Times of the server's zone; '': always.",
    ),
]
ForDevice = Annotated[str | None, typer.Option("--device", metavar="MAC", help="For this device.")]
ForGroup = Annotated[str | None, typer.Option("--group", metavar="NAME", help="For all devices of this group.")]
ForFolder = Annotated[
    str | None, typer.Option("--folder", metavar="PATH", help="For all devices in this folder and below.")
]
ForZone = Annotated[bool, typer.Option("--zone", help="For all devices.")]
PolicyPath = Annotated[Path, typer.Argument(metavar="FILE", help="policy file, .toml or .json")]


def group(text: str) -> typer.Typer:
    """A group of verbs."""
    return typer.Typer(help=text, no_args_is_help=True)
