"""How the bytes of an image get to a device: the one place that chooses. Pure.

One rule: the job's document names the transport, and the client refuses one that it does not know before it does
anything else; so a new one needs a name here, what chooses it here, and its function in the client (`streams.sh`).
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from pbserv.registry.records import BundleKind


class Transport(StrEnum):
    """Values of `TRANSPORT` (docs/wire/client.md)."""

    UNICAST = "unicast"
    """`GET .../items/NAME`, every device for itself."""


_WITH_IMAGES: Final = frozenset((BundleKind.RESTORE, BundleKind.MULTICAST, BundleKind.CACHE, BundleKind.DEPLOY))


def transport_of(kind: BundleKind) -> Transport | None:
    """That of a job of this kind; None where no image goes to the device. Without multicast sessions a job of kind
    multicast is a restore like any other."""
    return Transport.UNICAST if kind in _WITH_IMAGES else None
