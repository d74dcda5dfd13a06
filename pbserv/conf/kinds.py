"""The kinds of values that a key can have: text to value, value to text, and what is allowed, in words.

One rule: ``parse`` raises ValueError with a reason that a user can act on, and ``parse(show(value)) == value``.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

from pbserv.conf.grammar import shown

_NUMBER = re.compile(r"[+-]?[0-9]{1,18}")
_USER = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,31}")
_HOST_LABEL = re.compile(r"(?!-)[A-Za-z0-9-]{1,63}(?<!-)")
_INTERFACE = re.compile(r"[^\s/]{1,15}")  # IFNAMSIZ, with its final zero, is 16
URL = re.compile(r"https?://[^\s/]+(/\S*)?", re.IGNORECASE)
_FIRST_FREE_GROUP = ipaddress.IPv4Address("224.0.1.0")
_OBJECT = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*:[A-Za-z_][A-Za-z0-9_]*")


class Kind(Protocol):
    """What a declaration says about its value. ``allowed`` is one phrase for samples, reference and messages."""

    @property
    def allowed(self) -> str: ...

    def parse(self, text: str) -> Any:
        """``text`` is stripped and not empty; raises ValueError."""

    def show(self, value: Any) -> str:
        """As it stands in a file; empty for None."""

    def note(self, text: str) -> str:
        """Something the administrator should know about this text although it is accepted; usually empty."""


class Plain:
    """What most kinds share: the text of a value is its ``str``, and there is nothing to note."""

    __slots__ = ()

    def show(self, value: Any) -> str:
        return "" if value is None else str(value)

    def note(self, text: str) -> str:
        return ""


@dataclass(frozen=True, slots=True)
class Integer(Plain):
    """A whole number from ``low`` to ``high``, both included."""

    low: int
    high: int

    @property
    def allowed(self) -> str:
        return f"{self.low} to {self.high}"

    def parse(self, text: str) -> int:
        if not _NUMBER.fullmatch(text):
            raise ValueError(f"{shown(text)} is not a whole number; valid values are {self.allowed}")
        number = int(text)
        if not self.low <= number <= self.high:
            raise ValueError(f"{number} is out of range; valid values are {self.allowed}")
        return number


@dataclass(frozen=True, slots=True)
class YesNo(Plain):
    """YES/NO or 1/0, without regard to case; ``yes`` and ``no`` are how the manual writes this key's values."""

    yes: str = "YES"
    no: str = "NO"

    @property
    def allowed(self) -> str:
        return "1 or 0 (YES or NO)" if self.yes == "1" else "YES or NO (1 or 0)"

    def parse(self, text: str) -> bool:
        match text.lower():
            case "yes" | "1":
                return True
            case "no" | "0":
                return False
        raise ValueError(f"{shown(text)} is neither YES nor NO; valid values are {self.allowed}")

    def show(self, value: Any) -> str:
        return self.yes if value else self.no


@dataclass(frozen=True, slots=True)
class Choice(Plain):
    """One of a few words, without regard to case."""

    words: tuple[str, ...]

    @property
    def allowed(self) -> str:
        return ", ".join(self.words[:-1]) + f" or {self.words[-1]}"

    def parse(self, text: str) -> str:
        if text.lower() not in self.words:
            raise ValueError(f"{shown(text)} is not known; valid values are {self.allowed}")
        return text.lower()


@dataclass(frozen=True, slots=True)
class Names(Plain):
    """Some of a few words, separated by spaces or commas; order is kept, repetitions are dropped."""

    words: tuple[str, ...]

    @property
    def allowed(self) -> str:
        return f"names among {' '.join(self.words)}, separated by spaces or commas"

    def parse(self, text: str) -> tuple[str, ...]:
        names = text.lower().replace(",", " ").split()
        unknown = [name for name in names if name not in self.words]
        if unknown or not names:
            raise ValueError(f"{shown(' '.join(unknown) or text)} is not known; valid values are {self.allowed}")
        return tuple(dict.fromkeys(names))

    def show(self, value: Any) -> str:
        return " ".join(value)


@dataclass(frozen=True, slots=True)
class Address(Plain):
    """An IPv4 literal. Whether this host has it is not a matter of parsing."""

    @property
    def allowed(self) -> str:
        return "an IPv4 address"

    def parse(self, text: str) -> str:
        try:
            return str(ipaddress.IPv4Address(text))
        except ValueError:
            raise ValueError(f"{shown(text)} is not an IPv4 address, such as 10.0.0.1") from None


@dataclass(frozen=True, slots=True)
class GroupAddress(Plain):
    """The first of ``count`` IPv4 multicast addresses."""

    count: int

    @property
    def allowed(self) -> str:
        return f"an IPv4 multicast address with {self.count - 1} more behind it, such as 239.255.69.0"

    def parse(self, text: str) -> str:
        try:
            first = ipaddress.IPv4Address(text)
            # RFC 5771 section 4: 224.0.0.0/24 belongs to routing protocols and the like
            if first.is_multicast and (first + self.count - 1).is_multicast and first >= _FIRST_FREE_GROUP:
                return str(first)
        except ValueError:
            pass
        raise ValueError(f"{shown(text)} is not {self.allowed}")


@dataclass(frozen=True, slots=True)
class Addresses(Plain):
    """IPv4 or IPv6 literals and names of interfaces. Whether this host has them is not a matter of parsing."""

    @property
    def allowed(self) -> str:
        return "IPv4 or IPv6 addresses or names of interfaces, separated by spaces or commas"

    def parse(self, text: str) -> tuple[str, ...]:
        found: dict[str, None] = {}
        for word in text.replace(",", " ").split():
            try:
                found[str(ipaddress.ip_address(word))] = None
            except ValueError:
                # a name that looks like a mistyped address is one
                if not _INTERFACE.fullmatch(word) or ":" in word or word.replace(".", "").isdigit():
                    raise ValueError(f"{shown(word)} is neither an address nor the name of an interface") from None
                found[word] = None
        if not found:
            raise ValueError(f"{shown(text)} names no address; valid are {self.allowed}")
        return tuple(found)

    def show(self, value: Any) -> str:
        return " ".join(value)


@dataclass(frozen=True, slots=True)
class Networks(Plain):
    """IPv4 or IPv6 networks in CIDR notation; a lone address is a network of one."""

    @property
    def allowed(self) -> str:
        return "networks such as 10.0.0.0/8 or fd00::/8, separated by spaces or commas"

    def parse(self, text: str) -> tuple[str, ...]:
        found: dict[str, None] = {}
        for word in text.replace(",", " ").split():
            try:
                found[str(ipaddress.ip_network(word))] = None
            except ValueError as fault:
                raise ValueError(f"{shown(word)} is not a network: {fault}; valid are {self.allowed}") from None
        if not found:
            raise ValueError(f"{shown(text)} names no network; valid are {self.allowed}")
        return tuple(found)

    def show(self, value: Any) -> str:
        return " ".join(value)


@dataclass(frozen=True, slots=True)
class PortRange(Plain):
    """``first-last``, both included."""

    @property
    def allowed(self) -> str:
        return "a range of ports, first-last, such as 50000-50999"

    def parse(self, text: str) -> tuple[int, int]:
        first, dash, last = (part.strip() for part in text.partition("-"))
        if not dash:
            raise ValueError(f"{shown(text)} is not {self.allowed}")
        port = Integer(1, 65_535)
        low, high = port.parse(first), port.parse(last)
        if low > high:
            raise ValueError(f"{shown(text)} is empty: {low} is above {high}; valid is {self.allowed}")
        return low, high

    def show(self, value: Any) -> str:
        return "" if value is None else f"{value[0]}-{value[1]}"


@dataclass(frozen=True, slots=True)
class AddressPort(Plain):
    """An IPv4 literal, or one with ``:port``."""

    @property
    def allowed(self) -> str:
        return "an IPv4 address, or address:port"

    def parse(self, text: str) -> str:
        address, colon, port = text.partition(":")
        try:
            return Address().parse(address) + (f":{Integer(1, 65_535).parse(port)}" if colon else "")
        except ValueError:
            raise ValueError(f"{shown(text)} is not an IPv4 address or address:port, such as 10.0.0.1:8067") from None


@dataclass(frozen=True, slots=True)
class Host(Plain):
    """An IPv4 literal or a host name (RFC 1123 2.1); names are not looked up here."""

    @property
    def allowed(self) -> str:
        return "an IPv4 address or a host name"

    def parse(self, text: str) -> str:
        labels = text.removesuffix(".").split(".")
        # RFC 1123 2.1: the last label of a name is never all digits, so 10.0.0.500 is a bad address, not a name
        if labels[-1].isdigit():
            return Address().parse(text)
        if len(text) > 253 or not all(_HOST_LABEL.fullmatch(label) for label in labels):
            raise ValueError(f"{shown(text)} is neither an IPv4 address nor a host name")
        return text


@dataclass(frozen=True, slots=True)
class HostPort(Plain):
    """What :class:`Host` allows, or that with ``:port``."""

    @property
    def allowed(self) -> str:
        return "an IPv4 address or a host name, with or without :port"

    def parse(self, text: str) -> str:
        host, colon, port = text.partition(":")
        return Host().parse(host) + (f":{Integer(1, 65_535).parse(port)}" if colon else "")


@dataclass(frozen=True, slots=True)
class User(Plain):
    """The shape of a login name; whether it exists is for the start to find out."""

    @property
    def allowed(self) -> str:
        return "a user name"

    def parse(self, text: str) -> str:
        if not _USER.fullmatch(text):
            raise ValueError(f"{shown(text)} is not a user name (letters, digits, '_', '.', '-'; at most 32)")
        return text


@dataclass(frozen=True, slots=True)
class Directory(Plain):
    """An absolute path; relative ones would change their meaning when the process leaves its directory."""

    @property
    def allowed(self) -> str:
        return "an absolute path"

    def parse(self, text: str) -> Path:
        if not text.startswith("/"):
            raise ValueError(f"{shown(text)} is not an absolute path on this host; begin it with '/'")
        return Path(text)


@dataclass(frozen=True, slots=True)
class LogFile(Plain):
    r"""A path to a file. The manual prints ``path\name.log``; what is not absolute here keeps its last name only."""

    @property
    def allowed(self) -> str:
        return "a path; one that is not absolute on this host means that file name in the log directory"

    def parse(self, text: str) -> Path:
        path = PurePosixPath(text)
        if not path.is_absolute():
            path = PurePosixPath(re.split(r"[\\/]|^[A-Za-z]:", text)[-1])
        if path.name in ("", "..") or text[-1] in "/\\":
            raise ValueError(f"{shown(text)} does not name a file")
        return Path(path)


@dataclass(frozen=True, slots=True)
class BootFile(Plain):
    """A file that a boot ROM asks for: a name below TFTPDirectory, a URL, or either.

    127 bytes are what fits in the ``file`` field of a BOOTP packet with its final zero (RFC 951 3).
    """

    file: bool = True
    url: bool = False

    @property
    def allowed(self) -> str:
        what = {(True, False): "a file", (True, True): "a file or a URL", (False, True): "an http:// or https:// URL"}
        return f"{what[self.file, self.url]}, at most 127 bytes"

    def parse(self, text: str) -> str:
        if len(text.encode("utf-8", "surrogatepass")) > 127:
            raise ValueError(f"{shown(text)} is too long; valid is {self.allowed}")
        if not self.file and not URL.fullmatch(text):
            raise ValueError(f"{shown(text)} is not {self.allowed}")
        return text


@dataclass(frozen=True, slots=True)
class MenuItems(Plain):
    """``text=file`` and ``text=address``, separated by commas: the entries of a PXE menu.

    PXE 2.1 and EDK2 show at most 70 characters of an entry; all of them share one option of 255 bytes.
    """

    @property
    def allowed(self) -> str:
        return "entries text=file or text=address, separated by commas; at most 16"

    def parse(self, text: str) -> tuple[str, ...]:
        items = tuple(item.strip() for item in text.split(",") if item.strip())
        for item in items:
            label, equals, target = (part.strip() for part in item.partition("="))
            if not equals or not label or not target or not label.isascii() or not label.isprintable():
                raise ValueError(f"{shown(item)} is not an entry such as Memory test=memtest.0 or WDS=10.0.0.9")
            if '"' in item or "'" in item:
                raise ValueError(f"{shown(item)}: write entries without quotes")
            if len(label) > 60:
                raise ValueError(f"{shown(label)} is too long; at most 60 characters")
            if len(target) > 127:
                raise ValueError(f"{shown(target)} is too long; valid is {self.allowed}")
        if len(items) > 16 or sum(len(item.partition("=")[0].strip()) + 10 for item in items) > 160:
            raise ValueError("the entries do not fit into a PXE menu; make them shorter or fewer")
        return items

    def show(self, value: Any) -> str:
        return ", ".join(value)


@dataclass(frozen=True, slots=True)
class Placed(Plain):
    """``interface=address``, separated by spaces or commas."""

    @property
    def allowed(self) -> str:
        return "interface=address, separated by spaces or commas"

    def parse(self, text: str) -> tuple[str, ...]:
        items = tuple(text.replace(",", " ").split())
        for item in items:
            name, equals, address = item.partition("=")
            if not equals or not name:
                raise ValueError(f"{shown(item)} is not interface=address, such as eth0=192.0.2.10")
            Address().parse(address)
        if len({item.partition("=")[0] for item in items}) != len(items):
            raise ValueError("an interface is named twice")
        return items

    def show(self, value: Any) -> str:
        return " ".join(value)


@dataclass(frozen=True, slots=True)
class Text(Plain):
    """One line of printable characters."""

    @property
    def allowed(self) -> str:
        return "one line of printable text"

    def parse(self, text: str) -> str:
        if not text.isprintable():
            raise ValueError(f"{shown(text)} has characters that cannot be printed; valid is {self.allowed}")
        return text


@dataclass(frozen=True, slots=True)
class Library(Plain):
    """A Python file or ``package.module:object``. The original's own libraries mean "the built-in one"."""

    @property
    def allowed(self) -> str:
        return "the path of a Python file, or package.module:object"

    def parse(self, text: str) -> str:
        if self.note(text):
            return ""
        if (text.startswith("/") and text.endswith(".py")) or _OBJECT.fullmatch(text):
            return text
        raise ValueError(f"{shown(text)} is not {self.allowed}")

    def note(self, text: str) -> str:
        name = re.split(r"[\\/]", text)[-1].lower()
        if name in ("libzenimgweb.so", "zenimgweb.dll"):
            return f"{name} belongs to the original and is not loaded; the built-in backend is used"
        return ""
