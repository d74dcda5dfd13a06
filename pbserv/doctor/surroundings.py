"""Disk and clock. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from pbserv.doctor.facts import Facts
from pbserv.doctor.finding import Finding, error, warning

LEAST_FREE_BYTES: Final = 1 << 30
LEAST_FREE_SHARE: Final = 0.05
_EPOCH_OF_PBSERV: Final = 1_735_689_600.0  # 2025-01-01: no right clock shows less
_SLACK_S: Final = 3600.0


def disk_space(facts: Facts) -> Iterator[Finding]:
    """Images, registry and logs share the state directory's file system."""
    here = facts.surroundings
    if not here.disk_total:
        return
    share = here.disk_free / here.disk_total
    evidence = f"{here.disk_path}: {here.disk_free >> 20} MiB of {here.disk_total >> 20} MiB free ({share:.0%})"
    if here.disk_free == 0:
        yield error("the disk of the state directory is full: nothing can be registered", evidence, "make room")
    elif here.disk_free < LEAST_FREE_BYTES or share < LEAST_FREE_SHARE:
        yield warning(
            "the disk of the state directory is nearly full",
            evidence,
            "delete images that nobody needs: pbserv image list, pbserv image delete NAME --now",
        )


def clock(facts: Facts) -> Iterator[Finding]:
    """Journal, work and tokens carry times; HTTPS loaders check certificates by the clock."""
    here = facts.surroundings
    if here.now and here.now < _EPOCH_OF_PBSERV:
        yield warning("the clock of this host is wrong: it shows a time before 2025", "", "timedatectl set-ntp true")
    elif here.newest_file is not None and here.newest_file > here.now + _SLACK_S:
        hours = (here.newest_file - here.now) / 3600
        yield warning(
            "the clock of this host went back: the journal will not be in order",
            f"{here.newest_path} was changed {hours:.0f} hours in the future",
            "timedatectl status",
        )
