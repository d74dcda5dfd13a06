"""A large zone, the same each time: devices, groups, folders, assignments and rules. Measures nothing.

Devices have what a boot and an inventory leave behind; most of them reach the rules, of which few are ever true.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID

from pbserv.policy.model import Assignment, Bundle, Folder, Group, Menu, PolicyObject, Rule
from pbserv.registry.records import BundleKind, Device, DeviceState, Finish, Run, Work, WorkState

DEVICES: Final = 100_000
GROUPS: Final = 1_000
FOLDERS: Final = 300
ASSIGNMENTS: Final = 2_000
RULES: Final = 200
BUNDLES: Final = 50
MENUS: Final = 10
NOW: Final = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
_MAKERS: Final = ("Dell Inc.", "LENOVO", "HP", "FUJITSU", "ASUSTeK COMPUTER INC.")
_MODELS: Final = 60
_SIZES: Final = (4096, 8192, 16384, 32768)


def folders() -> list[str]:
    """10 sites of 29 rooms each."""
    sites = [f"/site {n}" for n in range(10)]
    return sites + [f"{sites[n % 10]}/room {n}" for n in range(FOLDERS - len(sites))]


def mac_of(number: int) -> str:
    return f"52:54:{number >> 24 & 255:02x}:{number >> 16 & 255:02x}:{number >> 8 & 255:02x}:{number & 255:02x}"


def devices(count: int = DEVICES) -> Iterator[Device]:
    chance = random.Random(1)
    places = folders()
    for number in range(count):
        yield _device(number, chance, places)


def _device(number: int, chance: random.Random, places: list[str]) -> Device:
    mac = mac_of(number)
    some = chance.random()
    state = DeviceState.DENIED if some < 0.01 else DeviceState.PENDING if some < 0.05 else DeviceState.KNOWN
    runs = (Run(f"assignment {number % ASSIGNMENTS}", WorkState.DONE, NOW - timedelta(days=9)),)
    return Device(
        mac, str(UUID(int=chance.getrandbits(128))), f"pc-{number:06}", chance.choice((0, 7)), state, "", NOW, NOW,
        _work(number, mac) if chance.random() < 0.02 and state is DeviceState.KNOWN else None,
        (mac_of(number + 2**24),) if chance.random() < 0.1 else (), f"S{number:07}", "",
        chance.choice(places), tuple(sorted({f"group {chance.randrange(GROUPS)}" for _ in range(chance.randrange(4))})),
        (("owner", f"unit {number % 40}"),) if chance.random() < 0.2 else (), _learned(chance),
        runs=runs if chance.random() < 0.1 else (),
    )  # fmt: skip


def _learned(chance: random.Random) -> tuple[tuple[str, str], ...]:
    model = chance.randrange(_MODELS)
    return (
        ("board_serial", f"B{chance.getrandbits(40):010x}"), ("buildarch", "x86_64"), ("client_kind", "uefi"),
        ("cores", str(chance.choice((4, 6, 8, 16)))), ("disk_gb", str(chance.choice((256, 512, 1024)))),
        ("manufacturer", _MAKERS[model % len(_MAKERS)]), ("memory_mb", str(chance.choice(_SIZES))),
        ("product", f"Model {model}"), ("vendor_class", "PXEClient:Arch:00007:UNDI:003016"),
    )  # fmt: skip


def _work(number: int, mac: str) -> Work:
    return Work(number + 1, mac, BundleKind.RESTORE, "win11", "", Finish.REBOOT, False, WorkState.QUEUED, "", NOW,
                bundle="bundle 1")  # fmt: skip


def objects() -> list[PolicyObject]:
    chance = random.Random(2)
    places = folders()
    return [
        *(_bundle(n) for n in range(BUNDLES)),
        *(Menu(name=f"menu {n}", show=("always", "never", "key")[n % 3]) for n in range(MENUS)),
        *(Group(name=f"group {n}", folder=chance.choice(places), priority=n % 3) for n in range(GROUPS)),
        *(Folder(name=place, menu=f"menu {n % MENUS}" if n % 5 == 0 else "", arguments="console=ttyS0" if n < 3 else "")
          for n, place in enumerate(places)),
        *(_assignment(n, chance, places) for n in range(ASSIGNMENTS)),
        *(_rule(n) for n in range(RULES)),
    ]  # fmt: skip


def _bundle(n: int) -> Bundle:
    if n % 2:
        return Bundle(name=f"bundle {n}", kind=BundleKind.RESTORE, image=f"image-{n}")
    return Bundle(name=f"bundle {n}", kind=BundleKind.LINUX, kernel="debian/vmlinuz", initrd=("debian/initrd.gz",))


def _assignment(n: int, chance: random.Random, places: list[str]) -> Assignment:
    """Half of them to devices; every tenth has a schedule."""
    name, bundle = f"assignment {n}", f"bundle {n % BUNDLES}"
    schedule = ("window mon-fri 22:00-06:00", "cron 0 2 * * sun")[n % 2] if n % 10 == 0 else ""
    if n < ASSIGNMENTS // 2:
        return Assignment(name=name, bundle=bundle, device=mac_of(chance.randrange(DEVICES)), schedule=schedule)
    if n < ASSIGNMENTS * 19 // 20:
        return Assignment(name=name, bundle=bundle, group=f"group {chance.randrange(GROUPS)}", schedule=schedule)
    return Assignment(
        name=name, bundle=bundle, folder=chance.choice(places[10:]), schedule=schedule, enabled=n % 3 == 0
    )


def _rule(n: int) -> Rule:
    """Three of four name a model or maker; the others are tried on every device."""
    when = (
        f'manufacturer == "{_MAKERS[n % 5]}" and product == "Model {n}" and memory_mb >= {_SIZES[n % 4]}',
        f'product in ["Model {n}", "Model {n + 100}"] and not cores < 8',
        f'client_kind == "uefi" and serial == "S{n:07}"',
        f'memory_mb >= {_SIZES[n % 4]} and like(product, "*{n}9*") and not has(owner)',
    )[n % 4]
    return Rule(name=f"rule {n}", when=when, bundle=f"bundle {n % BUNDLES}", position=n, unknown=n % 20 == 0)
