"""Where files are: URLs for iPXE and for what runs later, names over TFTP for PXELINUX and GRUB. Pure.

One rule: the token of the boot stands in every path to this server, and in none to another one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final
from urllib.parse import quote, urlsplit

from pbserv.policy.rendering.facts import BootFacts

DECISION: Final = "~decision"
"""In the place of a menu item's name: what the device would do without its menu. No item can have this name."""
_SAFE: Final = "/:@!*()=,+~._-"


@dataclass(frozen=True, slots=True)
class Places:
    """The places of one boot."""

    facts: BootFacts

    @property
    def base(self) -> str:
        """``http://host:port``, with the token of the boot where there is one."""
        return f"{self.facts.url}/s/{self.facts.session}" if self.facts.session else self.facts.url

    @property
    def files(self) -> str:
        """The URL of TFTPDirectory."""
        return f"{self.base}/files"

    def url(self, place: str) -> str:
        """The URL of a file of TFTPDirectory; a URL is left as it is."""
        return place if "://" in place else f"{self.files}/{quote(place, safe=_SAFE)}"

    def client(self, name: str) -> str:
        """The URL of a file of the imaging client."""
        return f"{self.base}/client/{name}"

    def script(self, item: str = "") -> str:
        """The URL of the device's iPXE script, or of that of a menu item."""
        return f"{self.base}/boot/{self.facts.hyphens}.ipxe" + (f"?item={quote(item, safe='~')}" if item else "")

    def tftp(self, path: str) -> str:
        """A file's name below TFTPDirectory, as a loader is to ask for it."""
        return f"s/{self.facts.session}/{path}" if self.facts.session else path

    def item(self, name: str, leaf: str) -> str:
        """Over TFTP: the configuration ``leaf`` of a menu item."""
        return self.tftp(f"item/{quote(name, safe='~')}/{leaf}")

    def grub(self, place: str) -> str:
        """``(tftp,host)/path`` or ``(http,host)/path``; empty for a URL that GRUB cannot read."""
        if "://" not in place:
            return f"(tftp,{self.facts.server})/{self.tftp(place)}"
        parts = urlsplit(place)
        if parts.scheme.lower() not in ("tftp", "http") or parts.query:
            return ""
        return f"({parts.scheme.lower()},{parts.netloc}){parts.path or '/'}"

    def pxelinux(self, place: str) -> str:
        """A name from the top of the server's directory; empty for a URL that is not tftp://."""
        if "://" not in place:
            return f"::{self.tftp(place)}"
        parts = urlsplit(place)
        return f"{parts.hostname}::{parts.path.lstrip('/')}" if parts.scheme.lower() == "tftp" else ""

    @property
    def answers(self) -> str:
        """The URL of the answer files' directory."""
        return f"{self.facts.url}/boot/answer/{self.facts.token or self.facts.session}"

    def done(self, *, ok: bool = True) -> str:
        """The URL that reports the end of the work; empty when there is none to report."""
        return f"{self.facts.url}/boot/done/{self.facts.token}?ok={int(ok)}" if self.facts.token else ""
