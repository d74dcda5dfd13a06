"""The files that loaders ask TFTP for and that nobody has written: their configuration, made of the decision.

One rule: it never waits. A loader whose answer needs something first is told to ask once more in a second, but not
for ever.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from pbserv.policy.boots import split_path
from pbserv.policy.choices import Order
from pbserv.policy.decide import Ruling
from pbserv.policy.names import Asked, parse_name
from pbserv.policy.scripts import wait_text
from pbserv.policy.service import PolicyService
from pbserv.types import Decision, MacAddress, Sighting, Verdict

DONE: Final = b"\0"
"""What the report of a loader is answered with. The loader may hand it to the kernel as the last of its initramfs
images: there zeros are padding, and anything else is said to be damaged."""
WAIT_S: Final = 60.0
"""So long a loader is told to ask again for work that cannot be made. GRUB nests its files: it would run out of memory.
"""
_SAME_WAIT_S: Final = 10.0
_WAITERS: Final = 4_096
_WAITING: Final = Ruling(Decision(Verdict.SILENT, "the work is being made"))


class VirtualFiles:
    """The port that TFTP asks (``tftp.ports.VirtualFiles``), and HTTP for the token in a path."""

    def __init__(self, policy: PolicyService, clock: Callable[[], float] = time.monotonic) -> None:
        self._policy = policy
        self._clock = clock
        self._waits: dict[MacAddress, tuple[float, float]] = {}  # since when, and when it asked last

    def path_of(self, name: str, peer: str) -> str:
        """``name`` without the token of a boot. Raises PermissionError for one that is not ours or too old."""
        token, path = split_path(name)
        if token and self._policy.running:
            self._policy.show(token, peer)
        return path

    def find(self, name: str, peer: str, local: str) -> bytes | None:
        """The virtual files of the TFTP server: what loaders ask for their configuration by (``names.py``).

        The token of a boot in ``name`` was looked at before. Raises PermissionError for who gets nothing.
        """
        asked = parse_name(name) if self._policy.running else None
        if asked is None:
            return None
        if asked.form == "bootstrap":
            return self._policy.scripts.first(local).encode()
        if asked.form == "done":
            return DONE if self._policy.report_soon(asked.token) else None
        mac = self._named(asked, peer)
        if mac is None:
            return None
        reason = self._policy.contradicts(mac, peer)
        if reason:
            raise PermissionError(reason)
        sighting = Sighting(MacAddress.parse(mac), via="tftp", address=peer)
        ruling = self._policy.ruling(sighting)
        if ruling.refused:
            raise PermissionError(ruling.refused)
        self._policy.progressed(mac, peer)
        found = self._policy.chosen(sighting, ruling, asked.item) if asked.item else ruling
        text = self._text(asked, name, sighting, found, local)
        return None if text is None else text.encode()

    def _text(self, asked: Asked, name: str, sighting: Sighting, found: Ruling | Order, local: str) -> str | None:
        """What the loader reads; one that needs work which is not made yet is told to ask once more."""
        if isinstance(found, Ruling) and found.order and found.menu is None and found.bundle is not None:
            found = Order(found.bundle, found.order)
        if isinstance(found, Order):
            self._policy.order_soon(sighting, found)
            if not self._waited_long(sighting.mac):
                return wait_text(asked.form, name, self._policy.facts(sighting, _WAITING, local))
            why = f"{found.bundle.name}: no work could be made; see: pbserv work list"
            found = Ruling(Decision(Verdict.LOCAL, why))
        if found.decision.later:
            return wait_text(asked.form, name, self._policy.facts(sighting, found, local))
        return self._policy.scripts.rendered(asked, found, self._policy.facts(sighting, found, local))

    def _waited_long(self, mac: MacAddress) -> bool:
        now = self._clock()
        since, last = self._waits.pop(mac, (now, now))
        if now - last > _SAME_WAIT_S:
            since = now
        if len(self._waits) >= _WAITERS:
            del self._waits[next(iter(self._waits))]
        self._waits[mac] = (since, now)
        return now - since >= WAIT_S

    def _named(self, asked: Asked, peer: str) -> str | None:
        """Whose configuration it is: by the name itself, else by the address; None: nobody's, or another's."""
        if asked.digits and not _hex_address(peer).startswith(asked.digits):
            return None
        if asked.mac is not None:
            return asked.mac
        seen = self._policy.mac_at(peer)
        if asked.uuid is None:
            return seen
        device = self._policy.snapshot.by_uuid(asked.uuid) or self._policy.snapshot.by_uuid(_swapped(asked.uuid))
        if device is None:
            return None
        return seen if seen in device.macs else device.mac  # the card that boots may be a further one


def _swapped(uuid: str) -> str:
    """PXELINUX and GRUB write the bytes of DHCP's option 97 as they come: there the first three fields are
    little-endian, unlike in the text that the firmware and the kernel show."""
    fields = uuid.split("-")
    return "-".join([*(bytes.fromhex(field)[::-1].hex() for field in fields[:3]), *fields[3:]])


def _hex_address(peer: str) -> str:
    """10.0.0.1 -> 0A000001; empty for another kind of address."""
    parts = peer.split(".")
    return "".join(f"{int(part):02X}" for part in parts) if len(parts) == 4 and all(p.isdigit() for p in parts) else ""
