"""What another server last said about each device, for the time when it cannot be asked; a file keeps it over restarts.

One rule: the file is whole or the one before it; one that cannot be read costs what was known, never the start.
"""

from __future__ import annotations

import json
import os
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pbserv.policy.oracles.wire import WireFault, read_ruling
from pbserv.registry.tokens import write_private
from pbserv.types import MacAddress

MOST_DEVICES: Final = 10_000
MOST_BYTES: Final = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Known:
    """``at``: seconds since the epoch. ``text``: the ruling (``wire.write_ruling``)."""

    at: float
    text: str


class LastKnown:
    """The newest answers, bounded in number and bytes. ``path``: None keeps them in memory alone.

    ``server`` is who said it: what another one said does not count.
    """

    def __init__(self, path: Path | None, server: str) -> None:
        self._path = path
        self._server = server
        self._known: OrderedDict[str, Known] = OrderedDict()
        self._bytes = 0
        self.changed = False
        """Since the file was written."""

    def __len__(self) -> int:
        return len(self._known)

    def get(self, mac: str) -> Known | None:
        return self._known.get(mac)

    def put(self, mac: str, known: Known) -> None:
        """Writing waits for :meth:`save`."""
        self.drop(mac)
        self._known[mac] = known
        self._bytes += len(known.text)
        while len(self._known) > MOST_DEVICES or self._bytes > MOST_BYTES:
            self.drop(next(iter(self._known)))
        self.changed = True

    def drop(self, mac: str) -> None:
        before = self._known.pop(mac, None)
        if before is not None:
            self._bytes -= len(before.text)
            self.changed = True

    def take(self) -> tuple[tuple[str, Known], ...]:
        """All of it, for :meth:`save` in another thread."""
        self.changed = False
        return tuple(self._known.items())

    def save(self, entries: tuple[tuple[str, Known], ...]) -> None:
        """Blocks; raises OSError."""
        if self._path is None:
            return
        lines = [json.dumps({"server": self._server})]
        lines += [json.dumps({"mac": mac, "at": known.at, "ruling": known.text}) for mac, known in entries]
        self._path.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
        write_private(self._path, "\n".join(lines).encode() + b"\n")

    def load(self) -> str:
        """Blocks. Empty, or what is wrong with the file: nothing of it counts then."""
        if self._path is None:
            return ""
        try:
            with self._path.open("rb") as file:
                if os.fstat(file.fileno()).st_size > 2 * MOST_BYTES:
                    raise ValueError("it is too long")
                head, *lines = file.read().splitlines()
            if json.loads(head) != {"server": self._server}:
                return ""  # the settings name another server now
            found = [_entry(line) for line in lines]
        except FileNotFoundError:
            return ""
        except (OSError, ValueError, TypeError, KeyError, RecursionError) as fault:
            return f"{self._path}: {fault}; it is begun anew"
        for mac, known in found:
            self.put(mac, known)
        self.changed = False
        return ""


def _entry(line: bytes) -> tuple[str, Known]:
    values = json.loads(line)
    known = Known(float(values["at"]), str(values["ruling"]))
    try:
        read_ruling(known.text)
    except WireFault as fault:
        raise ValueError(f"{values['mac']}: {fault}") from None
    return str(MacAddress.parse(str(values["mac"]))), known
