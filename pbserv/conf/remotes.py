"""The kind of value that names image stores of other servers.

One rule: as in ``kinds``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from pbserv.conf.grammar import shown
from pbserv.conf.kinds import HostPort, Plain

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,31}")


@dataclass(frozen=True, slots=True)
class RemoteStore:
    """``name``: what the store is called on its server too; ``url``: of that server, without a path."""

    name: str
    url: str


@dataclass(frozen=True, slots=True)
class Remotes(Plain):
    """``NAME=http://HOST:PORT``, several separated by semicolons."""

    @property
    def allowed(self) -> str:
        return "NAME=http://HOST:PORT or NAME=https://HOST:PORT, several separated by semicolons"

    def parse(self, text: str) -> tuple[RemoteStore, ...]:
        found = tuple(self._one(entry.strip()) for entry in text.split(";") if entry.strip())
        if not found:
            raise ValueError(f"{shown(text)} names no store; valid is {self.allowed}")
        names = [each.name for each in found]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise ValueError(f"the name {shown(twice)} stands there twice")
        return found

    def show(self, value: Any) -> str:
        return "; ".join(f"{each.name}={each.url}" for each in value or ())

    def _one(self, entry: str) -> RemoteStore:
        name, _, url = entry.partition("=")
        scheme, separator, place = url.strip().removesuffix("/").partition("://")
        if not _NAME.fullmatch(name.strip()) or not separator or scheme.lower() not in ("http", "https"):
            raise ValueError(f"{shown(entry)}: valid is {self.allowed}")
        host = HostPort().parse(place)
        if ":" not in host:
            raise ValueError(f"{shown(entry)} names no port; write {name}={scheme}://{host}:PORT")
        return RemoteStore(name.strip(), f"{scheme.lower()}://{host}")
