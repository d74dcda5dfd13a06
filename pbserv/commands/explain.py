"""`pbserv explain`: what would a device get, and why? From the running server, or from a policy file alone."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final  # Any: JSON values as the API answers them

from pbserv.commands.api import Api
from pbserv.commands.tables import Row, pairs, plain, print_json
from pbserv.errors import PbservError, UsageError
from pbserv.policy.decide import Query, Ruling, decide
from pbserv.policy.entries import device_mac
from pbserv.policy.snapshot import Snapshot
from pbserv.registry.records import Device
from pbserv.types import ClientArch

ARCHES: Final = {
    "bios": 0, "ia32": 6, "x64": 7, "arm32": 10, "arm64": 11, "http-ia32": 15, "http-x64": 16, "http-arm64": 19,
    "riscv64": 27, "loongarch64": 39, "pi": 41,
}  # fmt: skip
_EXPECTED: Final = re.compile(r"silent|local|loader|(boot|menu)(:.+)?")


@dataclass(frozen=True, slots=True)
class Asked:
    """What is told of the device, as it stands in the options. ``at``: a time, for policy files only."""

    mac: str | None
    uuid: str | None
    arch: str | None
    labels: Sequence[str]
    at: str | None


def explain(conf: Path, asked: Asked, file: Path | None, expect: str | None, as_json: bool) -> int:
    """The exit code: 1 when another answer than ``expect`` comes, else 0."""
    if expect is not None and not _EXPECTED.fullmatch(expect):
        raise UsageError(f"--expect {expect!r}: write silent, local, loader, boot, boot:BUNDLE, menu or menu:NAME")
    if asked.mac is None and (asked.uuid is None or file is not None):
        raise UsageError("say of which device: --mac aa:bb:cc:dd:ee:ff")
    answer = _live(conf, asked) if file is None else _offline(file, asked)
    print_json(answer) if as_json else _show(answer)
    if expect is None or _is(answer, expect):
        return 0
    print(f"pbserv: expected {expect}, but it is {_short(answer)}", file=sys.stderr)
    return 1


def _live(conf: Path, asked: Asked) -> Row:
    if asked.at is not None:
        raise UsageError("--at is for policy files: the running server decides for now; give --file too")
    arch = None if asked.arch is None else int(arch_of(asked.arch))
    pairs(asked.labels, "--label")
    found: Row = Api(conf).get("/explain", mac=asked.mac, uuid=asked.uuid, arch=arch, label=list(asked.labels))
    return found


def _offline(file: Path, asked: Asked) -> Row:
    from pbserv.commands.policy_files import judged, load

    policy = load(file)
    wrong, _ = judged(file, policy)
    if wrong:
        raise PbservError("\n".join(wrong))
    snapshot = Snapshot.of(policy.devices, policy.objects, policy.zone)
    try:
        mac = device_mac(asked.mac or "")
    except ValueError as fault:
        raise UsageError(f"--mac: {fault}") from None
    live = pairs(asked.labels, "--label")
    if asked.arch is not None:
        live["arch"] = str(arch_of(asked.arch))
    if asked.uuid is not None:
        live["uuid"] = asked.uuid.lower()
    device = snapshot.device(mac)
    return answer_of(mac, device, decide(Query(mac, device, live), snapshot, _moment(asked.at), everything=True))


def answer_of(mac: str, device: Device | None, ruling: Ruling) -> dict[str, Any]:
    """As the API answers it, but for the device's record and work, which a file has not."""
    decision = ruling.decision
    return {
        "mac": mac, "verdict": decision.verdict.value, "reason": decision.reason, "steps": list(decision.steps),
        "bundle": decision.bundle, "kind": ruling.bundle.kind if ruling.bundle else None, "work": None,
        "order": ruling.order, "menu": ruling.menu.name if ruling.menu else "",
        "without_menu": ruling.without_menu.value if ruling.without_menu else "", "arguments": ruling.arguments,
        "refused": ruling.refused,
        "device": None if device is None else {"mac": device.mac, "name": device.name, "state": device.state.value},
    }  # fmt: skip


def arch_of(text: str) -> ClientArch:
    """A name of :data:`ARCHES`, a number of DHCP option 93, or the name as pbserv prints it."""
    if text.lower() in ARCHES:
        return ClientArch(ARCHES[text.lower()])
    if text.isascii() and text.isdecimal() and int(text[:6]) <= 0xFFFF:
        return ClientArch(int(text))
    for number in range(64):
        if str(ClientArch(number)).lower() == text.lower():
            return ClientArch(number)
    raise UsageError(f"--arch {text!r}: write {', '.join(ARCHES)}, or the number of DHCP option 93")


def _moment(text: str | None) -> datetime:
    """Aware; without a zone in the text it is this host's."""
    try:
        return datetime.now().astimezone() if text is None else _aware(datetime.fromisoformat(text))
    except (ValueError, OverflowError):
        raise UsageError(f"--at {text!r}: write 2026-12-24 18:00") from None


def _aware(moment: datetime) -> datetime:
    return moment if moment.tzinfo is not None else moment.astimezone()


def _is(answer: Mapping[str, Any], expect: str) -> bool:
    verdict, _, name = expect.partition(":")
    if verdict != answer["verdict"]:
        return False
    if not name:
        return True
    return name == (answer["menu"] if verdict == "menu" else _what(answer))


def _what(answer: Row) -> str:
    return str(answer["bundle"] or (answer["work"] or {}).get("image", ""))


def _short(answer: Row) -> str:
    name = {"boot": _what(answer), "menu": answer["menu"]}.get(answer["verdict"], "")
    return f"{answer['verdict']}:{name}" if name else str(answer["verdict"])


def _show(answer: Row) -> None:
    device = answer["device"]
    state = f"{device['name']}  {device['state']}" if device else "not registered"
    print(plain(f"{answer['mac']}  {state.strip()}"))
    print(plain(f"verdict    {_short(answer)}"))
    if answer["menu"]:
        alone = answer["without_menu"]
        print(plain(f"by itself  {alone} {_what(answer)}".rstrip()) if alone else "by itself  the menu's default item")
    print(plain(f"reason     {answer['reason']}"))
    if answer["order"]:
        print(plain(f"work       is made when the device asks, of {answer['order']}"))
    if answer["arguments"]:
        print(plain(f"arguments  {answer['arguments']}"))
    print("steps")
    for number, step in enumerate(answer["steps"], 1):
        print(plain(f"  {number:2}. {step}"))
