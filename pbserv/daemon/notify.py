"""Messages to systemd, sd_notify(3): one datagram per state. Without NOTIFY_SOCKET everything here does nothing."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import MutableMapping

_SEND_TIMEOUT_S = 2.0


class Notifier:
    """Each method tells one state and is True when it was delivered; a failure never disturbs the server."""

    def __init__(self, address: str = "") -> None:
        """``address`` is a path, or ``@name`` for the abstract name space; empty for nobody."""
        self._address = "\0" + address[1:] if address.startswith("@") else address

    @classmethod
    def from_environment(cls, environment: MutableMapping[str, str] = os.environ) -> Notifier:
        """Take NOTIFY_SOCKET and remove it, so that no program that we start speaks in our name."""
        return cls(environment.pop("NOTIFY_SOCKET", ""))

    @property
    def enabled(self) -> bool:
        return bool(self._address)

    def ready(self, status: str = "") -> bool:
        """Started, or done with a reload."""
        return self._send("READY=1", *_status(status))

    def reloading(self) -> bool:
        """systemd 253 and later want the moment with it (Type=notify-reload)."""
        return self._send("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")

    def stopping(self, status: str = "") -> bool:
        return self._send("STOPPING=1", *_status(status))

    def status(self, text: str) -> bool:
        """One line for ``systemctl status``."""
        return self._send(*_status(text or " "))

    def _send(self, *assignments: str) -> bool:
        if not self._address:
            return False
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
                sender.settimeout(_SEND_TIMEOUT_S)
                sender.sendto("\n".join(assignments).encode("utf-8", "replace"), self._address)
        except (OSError, ValueError):
            return False
        return True


def _status(text: str) -> tuple[str, ...]:
    return (f"STATUS={' '.join(text.split()) if text.strip() else ''}",) if text else ()
