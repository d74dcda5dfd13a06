"""What identifies a machine, what only looks so, and the names that new devices get. Pure.

One rule: an identifier that boards share identifies nobody; it is as if the machine had not told one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Final

SHARED_UUIDS: Final[Mapping[str, str]] = {
    "03000200-0400-0500-0006-000700080009": "oshi/oshi#2417, timmo001/system-bridge#3532: AMI's default, many boards",
    "00020003-0004-0005-0006-000700080009": "FreeBSD libexec/rc/rc.d/hostid, FOG: the same as stored",
    "12345678-1234-5678-90ab-cddeefaabbcc": "FOG packages/web/lib/fog/hostmanager.class.php",
    "ffffff00-ffff-ffff-ffff-ffffffffffff": "FOG packages/web/lib/fog/hostmanager.class.php",
    "03020100-0504-0706-0809-0a0b0c0d0e0f": "osquery/osquery osquery/core/system.cpp",
    "00010203-0405-0607-0809-0a0b0c0d0e0f": "the same bytes in the other order",
    "10000000-0000-8000-0040-000000000000": "osquery/osquery osquery/core/system.cpp",
    "07090201-0103-0301-0807-060504030201": "FreeBSD libexec/rc/rc.d/hostid",
    "11111111-2222-3333-4444-555555555555": "FreeBSD libexec/rc/rc.d/hostid",
    "4c4c4544-0000-2010-8020-80c04f202020": "FreeBSD libexec/rc/rc.d/hostid: Dell, service tag of seven spaces",
    "890e2d14-cacd-45d1-ae66-bc80e8bfeb0f": "FreeBSD libexec/rc/rc.d/hostid",
    "8e275844-178f-44a8-aceb-a7d7e5178c63": "FreeBSD libexec/rc/rc.d/hostid",
    "dc698397-fa54-4cf2-82c8-b1b5307a6a7f": "FreeBSD libexec/rc/rc.d/hostid",
    "8a95d198-7f46-11e5-bf8b-08002704d48e": "SolidRun/lx2160a_uefi#4: every board of firmware before 2021",
}
"""UUIDs that boards share, each with the public source that says so.

One byte throughout (all 0, all F, fefefefe-... of osquery/osquery#8887, 58585858-... of FreeBSD), one that ends in all
F (FreeBSD) and one that counts (12345678-1234-...) are found by their pattern.
"""
_UUID: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_ONE_BYTE: Final = re.compile(r"(..)\1{15}")
_PATTERNS: Final = ("12345678-1234-", "01234567-89ab-")
_SHARED_TAIL: Final = "-ffff-ffff-ffff-ffffffffffff"

PLACEHOLDERS: Final = frozenset((
    "asset", "assettag", "baseboardserialnumber", "chassisserialnumber", "default",
    "defaultstring", "enterserial", "empty", "invalid", "na", "noassetinformation", "noassettag", "none",
    "notapplicable", "notavailable", "notprovided", "notpresent", "notset", "notsettable", "notspecified", "null",
    "oem", "serial", "serialnumber", "sn", "standard", "system", "systemserialnumber", "systemsn", "tobefilledbyoem",
    "tobefilledbyoemmore", "type1serialnumber", "type2boardserialnumber", "type3chassisserialnumber", "undefined",
    "unknown", "xserialnumber", "emptystring", "defaultassettag", "chassisassettag", "noenclosure", "pcie2",
))  # fmt: skip
"""Serial numbers and asset tags as firmware leaves them, letters and digits only (lf-edge/eve#6381, FOG)."""
_LETTERS: Final = re.compile(r"[^0-9a-z]")
_COUNTING: Final = re.compile(r"0+|x+|(.)\1{3,}|0?1?2?3456789(0|abcdef)?|12345(6(78?)?)?")

_PART: Final = re.compile(r"\{(mac|serial|asset|counter)(?::([1-9]))?\}")
_LITERAL: Final = re.compile(r"[A-Za-z0-9._ -]*")
_UNFIT: Final = re.compile(r"[^A-Za-z0-9._-]+")
MAX_NAME: Final = 64


def genuine_uuid(text: str) -> bool:
    """Whether ``text`` is a UUID that belongs to one machine, as far as can be told; any case."""
    uuid = text.lower()
    if not _UUID.fullmatch(uuid) or uuid in SHARED_UUIDS:
        return False
    if uuid.startswith(_PATTERNS) or uuid.endswith(_SHARED_TAIL):
        return False
    return uuid[:2] != uuid[2:4] or not _ONE_BYTE.fullmatch(uuid.replace("-", ""))


def genuine_text(text: str) -> bool:
    """Whether a serial number or asset tag says something; firmware without one tells words such as "None"."""
    plain = _LETTERS.sub("", text.lower())
    return bool(plain) and plain not in PLACEHOLDERS and not _COUNTING.fullmatch(plain)


def check_template(text: str) -> None:
    """Raises ValueError for a template of which :func:`device_name` could make no name, or the same one for all."""
    literal = _PART.sub("", text)
    if not _LITERAL.fullmatch(literal):
        raise ValueError(
            f"{text!r} is no template for names: letters, digits, spaces and . _ - with {{mac}}, {{serial}}, {{asset}},"
            " {counter} or {counter:4}"
        )
    if any(found[2] and found[1] != "counter" for found in _PART.finditer(text)):
        raise ValueError(f"{text!r}: only {{counter}} has a number of digits")
    if literal == text:
        raise ValueError(f"{text!r} gives all devices one name: add {{mac}}, {{serial}}, {{asset}} or {{counter}}")
    if len(literal) > MAX_NAME // 2:
        raise ValueError(f"{text!r}: at most {MAX_NAME // 2} characters besides the parts in braces")


def device_name(template: str, *, mac: str, serial: str, asset: str, number: Callable[[], int]) -> str:
    """The name of a new device: ``pc-{counter:4}`` -> ``pc-0007``; ``mac`` appears as twelve digits.

    Empty while a part is not known or a placeholder; then ``number``, which takes the next of a counter, is not called.
    At most 64 characters; what is no letter, digit or one of ``. _ -`` becomes ``-``.
    """
    known = {"mac": _fit(mac.replace(":", "")), "serial": _told(serial), "asset": _told(asset)}
    parts = {found[1] for found in _PART.finditer(template)}
    if not all(known[part] for part in parts - {"counter"}):
        return ""
    value = number() if "counter" in parts else 0

    def part(found: re.Match[str]) -> str:
        return known[found[1]] if found[1] in known else f"{value:0{int(found[2] or 1)}d}"

    return _PART.sub(part, template)[:MAX_NAME].strip()


def _told(text: str) -> str:
    return _fit(text) if genuine_text(text) else ""


def _fit(text: str) -> str:
    return _UNFIT.sub("-", text.strip()).strip("-")
