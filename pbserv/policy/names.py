"""Which virtual file a name asks for: a boot loader's configuration, under the names that loaders make up. Pure.

One rule: nearly all names are those of ordinary files, so what is none of ours is told by its last few letters.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Literal
from urllib.parse import unquote

from pbserv.types import MacAddress

Form = Literal["bootstrap", "ipxe", "pxelinux", "grub", "raspberrypi", "settings", "done"]
MAX_NAME: Final = 512


@dataclass(frozen=True, slots=True)
class Asked:
    """What the name itself gives away; None or empty: nothing.

    ``mac`` as ``aa:bb:cc:dd:ee:ff``, ``uuid`` in lower case, ``address`` the IPv4 address that eight hexadecimal digits
    mean. ``digits``: these or the first few of them, in upper case. ``session``: the token of the boot. ``folder``:
    the directory before the name, without a slash at its end. ``item``: of the menu, whose configuration it is.
    ``serial``: of a Raspberry Pi, eight digits. ``leaf``: the name itself. ``token``: of work that is reported done.
    """

    form: Form
    mac: str | None = None
    uuid: str | None = None
    address: str | None = None
    digits: str = ""
    session: str = ""
    folder: str = ""
    item: str = ""
    serial: str = ""
    leaf: str = ""
    token: str = ""


_PAIRS = r"[0-9a-f]{2}(?:[-:][0-9a-f]{2}){5}"
_SESSION: Final = re.compile(r"s/([A-Za-z0-9_-]{1,64})/(.+)", re.DOTALL)
_ITEM: Final = re.compile(r"item/([^/]{1,200})/(.+)", re.DOTALL)
_DONE: Final = re.compile(r"boot/done/([A-Za-z0-9._~=-]{1,512})")
_SCRIPT: Final = re.compile(rf"boot/({_PAIRS}|[0-9a-f]{{12}})\.ipxe", re.IGNORECASE)
_WHO: Final = re.compile(
    rf"(?P<uuid>[0-9a-f]{{8}}(?:-[0-9a-f]{{4}}){{3}}-[0-9a-f]{{12}})|[0-9a-f]{{2}}-(?P<mac>{_PAIRS})"
    r"|(?P<digits>[0-9a-f]{1,8})",
    re.IGNORECASE,
)  # fmt: skip
_PI: Final = re.compile(rf"(?:(?P<serial>[0-9a-f]{{8}})|(?P<mac>{_PAIRS}))/", re.IGNORECASE)


def parse_name(name: str) -> Asked | None:
    """``name`` as asked over TFTP or as a URL's path, with the token of a boot before it or without; any text.

    None: an ordinary file. That takes less than a microsecond.
    """
    if "cfg" not in name and ".ipxe" not in name and ".txt" not in name and "done/" not in name and ".CFG" not in name:
        return None
    if len(name) > MAX_NAME:
        return None
    session, rest = _prefix(_SESSION, name.lstrip("/"))
    item, rest = _prefix(_ITEM, rest)
    folder, _, leaf = rest.rpartition("/")
    return _read(rest, folder, leaf, session, unquote(item))


def _prefix(pattern: re.Pattern[str], name: str) -> tuple[str, str]:
    found = pattern.fullmatch(name)
    return (found[1], found[2].lstrip("/")) if found else ("", name)


def _read(rest: str, folder: str, leaf: str, session: str, item: str) -> Asked | None:
    lower = leaf.lower()
    parent = folder.rpartition("/")[2].lower()
    if parent == "pxelinux.cfg":
        return _who("pxelinux", leaf, folder.rpartition("/")[0], session, item, other="default")
    if lower.startswith("grub.cfg"):
        return _who("grub", leaf[8:].removeprefix("-"), folder, session, item, other="", leaf=leaf)
    if lower == "autoexec.ipxe" or (lower == "boot.ipxe" and not folder):
        return Asked("bootstrap", session=session, folder=folder, item=item, leaf=leaf)
    if script := _SCRIPT.fullmatch(rest):
        return Asked("ipxe", mac=_mac(script[1]), session=session, folder=folder, item=item, leaf=leaf)
    if done := _DONE.fullmatch(rest):
        return Asked("done", session=session, folder=folder, item=item, leaf=leaf, token=done[1])
    if lower in ("config.txt", "cmdline.txt", "settings.txt"):
        return _of_machine("settings" if lower == "settings.txt" else "raspberrypi", leaf, folder, session, item)
    return None


def _who(
    form: Literal["pxelinux", "grub"], text: str, folder: str, session: str, item: str, *, other: str, leaf: str = ""
) -> Asked | None:
    """``other``: what stands in the place of the machine's name in the file for everybody."""
    leaf = leaf or text
    if text.lower() == other and leaf[-1:] != "-":
        return Asked(form, session=session, folder=folder, item=item, leaf=leaf)
    found = _WHO.fullmatch(text)
    if found is None or (form == "grub" and leaf[8:9] != "-"):
        return None
    digits = (found["digits"] or "").upper()
    return Asked(
        form,
        mac=_mac(found["mac"]) if found["mac"] else None,
        uuid=found["uuid"].lower() if found["uuid"] else None,
        address=".".join(str(each) for each in bytes.fromhex(digits)) if len(digits) == 8 else None,
        digits=digits, session=session, folder=folder, item=item, leaf=leaf,
    )  # fmt: skip


def _of_machine(
    form: Literal["raspberrypi", "settings"], leaf: str, folder: str, session: str, item: str
) -> Asked | None:
    """In the directory of one machine, or at the top; in any other directory it is an ordinary file."""
    found = _PI.fullmatch(f"{folder}/") if folder else None
    if folder and found is None:
        return None
    mac, serial = (found["mac"], found["serial"]) if found else (None, None)
    return Asked(
        form, mac=_mac(mac) if mac else None, serial=(serial or "").lower(), session=session, folder=folder, item=item,
        leaf=leaf.lower(),
    )  # fmt: skip


def _mac(text: str) -> str:
    return str(MacAddress.parse(text))
