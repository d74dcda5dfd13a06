"""Kinds of values that name another server: where it is, and whom to believe over TLS.

One rule: what may hold a password is never repeated in a message.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, urlsplit

from pydantic import SecretStr

from pbserv.conf.grammar import shown
from pbserv.conf.kinds import URL, Directory, HostPort, Plain

_SSL_MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
_FINGERPRINT = re.compile(r"(?:sha256:)?((?:[0-9a-f]{2}:?){31}[0-9a-f]{2})", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Server(Plain):
    """What :class:`HostPort` allows, or ``https://`` with that, whose port is then needed."""

    @property
    def allowed(self) -> str:
        return f"{HostPort().allowed}; https://HOST:PORT for TLS"

    def parse(self, text: str) -> str:
        scheme, separator, place = text.rpartition("://")
        if separator and scheme.lower() != "https":
            raise ValueError(f"{shown(text)}: valid is {self.allowed}")
        place = HostPort().parse(place.removesuffix("/") if separator else place)
        if separator and ":" not in place:
            raise ValueError(f"{shown(text)} names no port; write the HTTPSPort of that server, https://{place}:PORT")
        return f"https://{place}" if separator else place


@dataclass(frozen=True, slots=True)
class Trust(Plain):
    """The path of a PEM file, or the SHA-256 fingerprint of a certificate."""

    @property
    def allowed(self) -> str:
        return "an absolute path, or a SHA-256 fingerprint (AA:BB:...)"

    def parse(self, text: str) -> str:
        found = _FINGERPRINT.fullmatch(text)
        if found:
            digits = found[1].replace(":", "").upper()
            return ":".join(digits[at : at + 2] for at in range(0, 64, 2))
        try:
            return str(Directory().parse(text))
        except ValueError:
            raise ValueError(f"{shown(text)} is not {self.allowed}") from None


@dataclass(frozen=True, slots=True)
class MacUrl(Plain):
    """An http or https URL with ``{mac}`` in its path or query; the host is a literal."""

    @property
    def allowed(self) -> str:
        return "an http or https URL with {mac} in its path or query"

    def parse(self, text: str) -> str:
        try:
            parts = urlsplit(text)
            HostPort().parse(parts.netloc)
        except ValueError as fault:
            raise ValueError(f"{shown(text)}: {fault}; valid is {self.allowed}") from None
        rest = text.replace("{mac}", "")
        if not URL.fullmatch(text) or not text.isascii() or parts.fragment or rest == text or set("{}") & set(rest):
            raise ValueError(f"{shown(text)} is not {self.allowed}, such as http://10.0.0.7:8080/v1/boot/{{mac}}")
        return text


@dataclass(frozen=True, slots=True)
class Database(Plain):
    """A PostgreSQL database by its URL. It may hold a password: what is wrong is said without the text.

    RFC 3986 3.2.1: what means something in a URL is written with ``%`` in user and password.
    """

    @property
    def allowed(self) -> str:
        return "postgresql://user:password@host:port/database (?sslmode=... for TLS, ?host=/DIRECTORY for a socket)"

    def parse(self, text: str) -> SecretStr:
        try:
            url = urlsplit(text)
            options = parse_qs(url.query, strict_parsing=True) if url.query else {}
            well = url.scheme in ("postgresql", "postgres") and url.port != 0 and len(url.path) > 1
        except ValueError:
            well = False
        if not well or url.fragment or "/" in url.path[1:] or not set(options) <= {"sslmode", "host"}:
            raise ValueError(f"is not {self.allowed}; in user and password write %40 for @, %3A for :, %2F for /,"
                             " %23 for #, %3F for ?")  # fmt: skip
        if "@" in url.netloc.rpartition("@")[0]:
            raise ValueError("has more than one @; in user and password write %40 for it")
        if not url.hostname and "host" not in options:
            raise ValueError("names no host, such as postgresql://user:password@127.0.0.1/database")
        if options.get("sslmode", ["require"])[-1] not in _SSL_MODES:
            raise ValueError(f"has no such sslmode; valid are {', '.join(_SSL_MODES)}")
        return SecretStr(text)

    def show(self, value: Any) -> str:
        return "" if value is None else str(value.get_secret_value())
