"""The variables of iPXE scripts. Pure.

One rule: whatever goes into a script has gone through :func:`ipxe_text`.
"""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Final
from urllib.parse import urlsplit

from pbserv.policy.decide import Ruling
from pbserv.policy.rendering.facts import BootFacts, ipxe_name, ipxe_text
from pbserv.policy.rendering.menus import shown
from pbserv.policy.rendering.places import Places
from pbserv.policy.rendering.plan import WIMBOOT, Load
from pbserv.registry.records import BundleKind
from pbserv.types import Verdict

TEMPLATES: Final[dict[BundleKind, str]] = {
    BundleKind.LINUX: "linux.ipxe.j2",
    BundleKind.INSTALL: "linux.ipxe.j2",
    BundleKind.EFI: "efi.ipxe.j2",
    BundleKind.ISO: "iso.ipxe.j2",
    BundleKind.IPXE: "script.ipxe.j2",
    BundleKind.CHAIN: "chain.ipxe.j2",
    BundleKind.MEMTEST: "memtest.ipxe.j2",
    BundleKind.WINPE: "winpe.ipxe.j2",
    BundleKind.LOCAL: "local.ipxe.j2",
    BundleKind.NOTHING: "silent.ipxe.j2",
}
"""All other kinds are the imaging client's."""
VERDICTS: Final = {Verdict.SILENT: "silent.ipxe.j2", Verdict.LOCAL: "local.ipxe.j2", Verdict.LOADER: "local.ipxe.j2"}


def device_values(facts: BootFacts) -> dict[str, object]:
    """What every iPXE script, and every script of a bundle, knows of the device and the server."""
    places = Places(facts)
    return {
        "mac": facts.mac, "mac_hyphens": facts.hyphens, "name": ipxe_text(facts.name), "uuid": ipxe_text(facts.uuid),
        "serial": ipxe_text(facts.serial), "asset": ipxe_text(facts.asset), "arch": str(facts.arch or ""),
        "labels": {name: ipxe_text(value) for name, value in facts.labels.items()},
        "url": facts.url, "files": places.files, "client_url": f"{places.base}/client/", "server": facts.server,
        "session": facts.session, "token": facts.token,
    }  # fmt: skip


def values(ruling: Ruling, facts: BootFacts) -> dict[str, object]:
    """For all of the ruling but the bundle."""
    decision = ruling.decision
    return {
        **device_values(facts), "verdict": decision.verdict.value, "reason": ipxe_text(decision.reason),
        "done_url": "", "failed_url": "",
    }  # fmt: skip


def load_values(load: Load, facts: BootFacts, script: str) -> dict[str, object]:
    """``script``: the bundle's, rendered."""
    places = Places(facts)
    parts = urlsplit(load.url)
    host = parts.hostname if parts.scheme.lower() == "tftp" else None
    boot = {
        "kind": load.kind.value, "title": ipxe_text(load.title), "arguments": ipxe_text(load.arguments),
        "kernel": _kernel(load, places), "initrd": _initrd(load, places),
        "file": places.url(load.file) if load.file else "",
        "files": [{"name": _leaf(each), "url": places.url(each)} for each in _windows(load)],
        "url": load.url, "host": host or "", "path": parts.path.lstrip("/"), "script": script,
    }  # fmt: skip
    return {
        "boot": boot,
        "done_url": places.done() if load.reports else "",
        "failed_url": "" if load.client else _failed(places),
    }


def _failed(places: Places) -> str:
    url = places.done(ok=False)
    return f"{url}&reason=the%20loader%20could%20not%20load%20it" if url else ""


def _kernel(load: Load, places: Places) -> str:
    if load.client:
        return places.client(load.kernel)
    if load.kind is BundleKind.WINPE:
        return places.url(next((each for each in load.files if _leaf(each).lower() == WIMBOOT), WIMBOOT))
    return places.url(load.kernel) if load.kernel else ""


def _initrd(load: Load, places: Places) -> list[dict[str, str]]:
    """A name of its own for each: UEFI's kernel asks for them by ``initrd=``."""
    where = places.client if load.client else places.url
    return [
        {"name": f"initrd{number if number > 1 else ''}.img", "url": where(each)}
        for number, each in enumerate(load.initrd, 1)
    ]


def _windows(load: Load) -> list[str]:
    return [each for each in load.files if _leaf(each).lower() != WIMBOOT]


def _leaf(place: str) -> str:
    return ipxe_name(PurePosixPath(urlsplit(place).path if "://" in place else place).name)


def menu_values(ruling: Ruling, facts: BootFacts) -> dict[str, object]:
    menu, places = shown(ruling), Places(facts)
    entries = [
        {"label": each.label, "title": ipxe_text(each.title), "does": each.does, "url": places.script(each.item)}
        for each in menu.entries
    ]
    return {
        "menu": {
            "title": ipxe_text(menu.title), "timeout_s": menu.timeout_s, "key": menu.key, "entries": entries,
            "default": {"label": menu.default.label},
        }
    }  # fmt: skip
