"""File names as clients write them, and what may be meant by them. Pure.

One rule: the name as written is tried first; a correction only counts when nothing of that name exists.
"""

from __future__ import annotations

import re
from functools import lru_cache

from pbserv.tftp.packet import Option

_RUBBISH = re.compile(rb"[\x00-\x1f\xff]")
_PLAIN = re.compile(rb"[^\x00-\x1f\xff\\/.][^\x00-\x1f\xff\\/]*(?:/[^\x00-\x1f\xff\\/.][^\x00-\x1f\xff\\/]*)*")


@lru_cache(maxsize=512)  # the machines of a room ask for the same files
def candidates(name: bytes, root: bytes) -> tuple[bytes, ...]:
    """Relative names to look for, best first; ``root`` is the absolute path of the directory served.

    Windows loaders write backslashes, firmware appends bytes of its DHCP buffer (0xFF, CR, LF), and clients that
    were set up for a server without a private root write the whole path.
    """
    if _PLAIN.fullmatch(name):  # nearly all names: nothing to put right
        return (name,)
    if name.startswith(b"/") and not name.startswith(root) and _PLAIN.fullmatch(name, 1):
        return (name[1:],)
    return _all_candidates(name, root)


def _all_candidates(name: bytes, root: bytes) -> tuple[bytes, ...]:
    found: dict[bytes, None] = {}
    for text in (name, _RUBBISH.split(name, maxsplit=1)[0]):
        for spelled in (text, text.replace(b"\\", b"/")):
            parts = [part for part in spelled.split(b"/") if part not in (b"", b".")]
            found.setdefault(b"/".join(parts))
            prefix = [part for part in root.split(b"/") if part]
            if spelled.startswith(b"/") and prefix and parts[: len(prefix)] == prefix:
                found.setdefault(b"/".join(parts[len(prefix) :]))
    found.pop(b"", None)
    return tuple(found)


def cleaned(name: bytes) -> bytes:
    """``name`` as a new file is called: without the rubbish behind it, and with slashes."""
    return _RUBBISH.split(name, maxsplit=1)[0].replace(b"\\", b"/")


def is_reserved(leaf: bytes) -> bool:
    """Whether files of this name are uploads that are under way (``.name.x7k2.part``)."""
    return leaf.startswith(b".") and leaf.endswith(b".part")


@lru_cache(maxsize=512)
def climbs(name: bytes) -> bool:
    """True when ``..`` leads above the directory served, whatever is or is not there."""
    depth = 0
    for part in name.replace(b"\\", b"/").split(b"/"):
        if part == b"..":
            depth -= 1
            if depth < 0:
                return True
        elif part not in (b"", b"."):
            depth += 1
    return False


@lru_cache(maxsize=512)
def shown(name: bytes) -> str:
    """``name`` for logs: printable, one line, at most 200 characters."""
    return escape(name.decode("utf-8", "surrogateescape"))


def escape(text: str) -> str:
    """``text`` with everything that could break a log line written as an escape."""
    safe = "".join(letter if letter.isprintable() and letter != "\\" else _escaped(letter) for letter in text[:200])
    return safe + ("..." if len(text) > 200 else "")


def _escaped(letter: str) -> str:
    if letter == "\\":
        return "\\\\"
    point = ord(letter)
    if 0xDC80 <= point <= 0xDCFF:  # surrogateescape: a byte that was not UTF-8
        return f"\\x{point - 0xDC00:02x}"
    return letter.encode("unicode_escape", "surrogatepass").decode("ascii")


def shown_options(options: tuple[Option, ...]) -> str:
    return " ".join(f"{shown(name)}={shown(value)}" for name, value in options)


_OPTIONAL = re.compile(
    rb"""(?:^|/)(?:
        autoexec\.ipxe                                      # iPXE looks for it before it does what it was told
      | pxelinux\.cfg/.+ | grub\.cfg(?:-[0-9a-fA-F-]+)?     # searched from the most special name to "default"
      | [a-z0-9_-]+-(?:efi|pc)/[a-z]+\.lst                  # GRUB's module lists
      | revocations(?:_[a-z]+)?\.efi | shim_certificate(?:_[0-9]+)?\.efi
      | boot\.scr(?:\.uimg)? | [0-9A-F]{8}\.img             # U-Boot
      | boot/fonts/.+\.ttf | hiberfil\.sys | boot\.ini      # Windows boot manager
    )$""",
    re.VERBOSE | re.IGNORECASE,
)


def is_optional(name: bytes) -> bool:
    """A configuration that loaders look for and do without: its absence is no failure of a client."""
    return _OPTIONAL.search(name.replace(b"\\", b"/")) is not None
