"""The labels of a device: what rules ask for. Pure.

One rule: what a device tells never covers what its record says, and no more of it is kept than the bounds allow.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Final

from pbserv.registry.records import Device, Labels
from pbserv.types import ClientArch

MAX_LABELS: Final = 64
MAX_VALUE: Final = 128
_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,31}")
OF_RECORD: Final = frozenset(("mac", "name", "state", "folder", "group", "groups"))
"""Labels that only the record gives: nobody gets into a group by saying so."""

KNOWN: Final[Mapping[str, str]] = {
    "mac": "the address by which the device is registered or, without a record, asks; aa:bb:cc:dd:ee:ff",
    "uuid": "SMBIOS system UUID, from option 97 of DHCP or from iPXE",
    "serial": "SMBIOS system serial number, from iPXE or the imaging client",
    "asset": "SMBIOS chassis asset tag, from iPXE or the imaging client",
    "name": "the device's name in the registry",
    "state": "pending, known, denied or retired; missing for a device without a record",
    "folder": "the device's folder, / is the zone",
    "group": "the first of the device's groups",
    "groups": "all of the device's groups, with commas between them",
    "arch": 'processor architecture of option 93, such as "BIOS", "UEFI x64", "UEFI ARM64 HTTP"',
    "firmware": "bios or uefi, of the architecture or, where that is not known, from the imaging client",
    "vendor_class": "option 60 of DHCP",
    "client_kind": "what asks, as proxyDHCP tells it apart: bios, uefi, http, ipxe, pi, uboot and others",
    "interface": "the interface of this server on which the device asked",
    "relay": "address of the DHCP relay",
    "circuit_id": "option 82 of the relay: the port of the switch",
    "remote_id": "option 82 of the relay: the switch",
    "address": "the device's IP address, where it has one",
    "manufacturer": "SMBIOS system manufacturer, from iPXE or the imaging client",
    "product": "SMBIOS product name, from iPXE or the imaging client",
    "board": "SMBIOS board product name, from the imaging client",
    "board_serial": "SMBIOS board serial number, from iPXE or the imaging client",
    "bios_vendor": "SMBIOS vendor of the firmware, from the imaging client",
    "bios_version": "SMBIOS version of the firmware, from the imaging client",
    "bios_date": "SMBIOS date of the firmware as it is written there, often mm/dd/yyyy, from the imaging client",
    "platform": "iPXE's ${platform}: pcbios or efi",
    "buildarch": "iPXE's ${buildarch}: i386, x86_64, arm64",
    "hostname": "the name that DHCP gave the machine, from iPXE",
    "cpu": "the processor's name, from the imaging client",
    "machine": "processor architecture as Linux names it, such as x86_64 or aarch64, from the imaging client",
    "cores": "number of processor cores, from the imaging client",
    "cpus": "number of processors that Linux sees, threads included, from the imaging client",
    "memory_mb": "memory in MiB, from the imaging client",
    "disks": "number of internal disks, from the imaging client",
    "disk_gb": "size of the largest internal disk in GB, from the imaging client",
    "disk_model": "model of the largest internal disk, from the imaging client",
    "macs": "addresses of the machine's network cards with commas between them, seven at most, from the imaging client",
}
"""Labels that pbserv learns by itself, and where they come from. Others are given by administrators."""
_ALWAYS: Final = OF_RECORD | {"uuid", "serial", "asset", "arch"}


def labels_of(mac: str, device: Device | None, live: Mapping[str, str]) -> dict[str, str]:
    """All labels of a device for one decision: learned ones, over them those of this boot (``live``), over them those
    that administrators gave, over them what the record says."""
    if device is None:
        found = {name: value for name, value in live.items() if name not in OF_RECORD}
        found["mac"] = mac
    else:
        found = dict(device.learned)
        found.update(live)
        found.update(device.labels)
        _of_record(device, found, live)
    firmware = firmware_of(found.get("arch", ""))
    if (
        firmware
        and "firmware" not in live
        and (device is None or ("firmware", found.get("firmware")) not in device.labels)
    ):
        found["firmware"] = firmware  # of this boot; what was learned in another one may be of the other mode
    return found


def _of_record(device: Device, found: dict[str, str], live: Mapping[str, str]) -> None:
    found["mac"] = device.mac
    found["state"] = device.state.value
    found["folder"] = device.folder
    for name, value in (("name", device.name), ("group", device.groups[0] if device.groups else ""),
                        ("groups", ",".join(device.groups))):  # fmt: skip
        if value:
            found[name] = value
        else:
            found.pop(name, None)
    if device.uuid:
        found["uuid"] = device.uuid
    if device.serial:
        found["serial"] = device.serial
    if device.asset:
        found["asset"] = device.asset
    if device.arch is not None and "arch" not in live:
        found["arch"] = str(ClientArch(device.arch))


def firmware_of(arch: str) -> str:
    """``bios``, ``uefi`` or nothing, of an architecture as it prints."""
    return "uefi" if arch.startswith(("UEFI", "EFI")) else "bios" if arch.startswith("BIOS") else ""


@lru_cache(maxsize=1024)
def _is_name(text: str) -> bool:
    return _NAME.fullmatch(text) is not None


def merge(old: Labels, new: Mapping[str, str]) -> Labels:
    """``old`` with what was learned now: 64 labels at most, those there are first. An empty value removes its label.

    Left out are names other than ``[a-z][a-z0-9_]*`` of 32 characters, those that the record has fields for, and
    values that are longer than 128 characters or not printable.
    """
    found = dict(old)
    for name, value in new.items():
        if found.get(name) == value or name in _ALWAYS or not _is_name(name):
            continue
        if not value:
            found.pop(name, None)
        elif len(value) <= MAX_VALUE and value.isprintable() and (name in found or len(found) < MAX_LABELS):
            found[name] = value
    return old if len(found) == len(old) and found == dict(old) else tuple(sorted(found.items()))
