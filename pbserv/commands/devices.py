"""`pbserv device`: who boots, who may, and what is said of them. All through the HTTP API."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pbserv.commands.api import Api, RefusedError, named
from pbserv.commands.tables import Row, clock, pairs, plain, print_json, said, sentence, show_facts, show_table
from pbserv.commands.work import progress, what
from pbserv.errors import PbservError, UsageError

_MEDIA = {".csv": "text/csv", ".json": "application/json"}


def listed(
    conf: Path, state: str | None, folder: str | None, group: str | None, search: str | None, as_json: bool
) -> None:
    found = list(Api(conf).pages("/devices", state=state, folder=folder, group=group, text=search))
    if as_json:
        return print_json(found)
    chosen = state or folder or group or search
    nothing = "no device is like that" if chosen else "no devices yet: the first one registers itself when it boots"
    return show_devices(found, nothing)


def show_devices(devices: Sequence[Row], nothing: str) -> None:
    rows = (
        (d["mac"], d["name"], d["state"], d["arch_name"], d["address"], d["folder"], ", ".join(d["groups"]),
         clock(d["last_seen"]) if d["arch_name"] or d["address"] else "", _todo(d["work"]))
        for d in devices
    )  # fmt: skip
    columns = ("MAC", "Name", "State", "Architecture", "Address", "Folder", "Groups", "Last seen", "Work")
    show_table(columns, rows, nothing)


def show(conf: Path, mac: str, as_json: bool) -> None:
    api = Api(conf)
    device = api.get(named("devices", mac))
    history = api.get(named("devices", mac, "history"))
    jobs = api.get("/jobs", mac=device["mac"], limit=10)
    boots = api.get("/journal", mac=device["mac"], limit=10)
    if as_json:
        return print_json({"device": device, "history": history, "jobs": jobs, "boots": boots})
    show_facts(_facts(device))
    if jobs:
        print()
        rows = ((clock(j["started"]), j["kind"], j["image"], j["state"], progress(j), j["reason"]) for j in jobs)
        show_table(("Job", "Kind", "Image", "State", "Progress", "Reason"), rows, "")
    if boots:
        print()
        of_boots = ((clock(b["started"]), b["mac"], b["result"], b["why"]) for b in boots)
        show_table(("Boot", "Address", "How far", "Why"), of_boots, "")
    print()
    rows_of_history = ((clock(e["time"]), e["mac"], e["what"], e["detail"]) for e in history)
    return show_table(("Time", "Address", "What", "Detail"), rows_of_history, "no history yet")


def _facts(device: Row) -> tuple[tuple[str, str], ...]:
    return (
        ("device", device["mac"]), ("also", ", ".join(device["macs"])), ("name", device["name"]),
        ("state", device["state"]), ("architecture", device["arch_name"]), ("address", device["address"]),
        ("uuid", device["uuid"] or ""), ("serial", device["serial"]), ("asset", device["asset"]),
        ("folder", device["folder"]), ("groups", ", ".join(device["groups"])), ("labels", sentence(device["labels"])),
        ("learned", sentence(device["learned"])), ("menu", device["menu"]), ("loader", device["loader"]),
        ("arguments", device["arguments"]), ("first seen", clock(device["first_seen"])),
        ("last seen", clock(device["last_seen"])), ("work", _todo(device["work"])),
        ("runs", "; ".join(f"{r['assignment']} {r['state']} {clock(r['ended'])}" for r in device["runs"])),
    )  # fmt: skip


def accept(conf: Path, mac: str, name: str | None, as_json: bool) -> None:
    device = Api(conf).post(named("devices", mac, "accept"), {"name": name} if name else None)
    said(device, f"device {device['mac']} accepted", as_json)


def deny(conf: Path, mac: str, as_json: bool) -> None:
    device = Api(conf).post(named("devices", mac, "deny"))
    said(device, f"device {device['mac']} denied: it is not answered any more", as_json)


def retire(conf: Path, mac: str, as_json: bool) -> None:
    device = Api(conf).post(named("devices", mac, "retire"))
    said(device, f"device {device['mac']} retired: its record is kept, it gets nothing any more", as_json)


def forget(conf: Path, mac: str, as_json: bool) -> None:
    Api(conf).delete(named("devices", mac))
    said({"mac": mac, "forgotten": True}, f"device {mac} forgotten", as_json)


def change(
    conf: Path, mac: str, given: Mapping[str, str | None], groups: Sequence[str], labels: Sequence[str], as_json: bool
) -> None:
    """``groups``: all that it is in from now on, an empty name for none. ``labels``: NAME=VALUE; NAME= removes one."""
    api = Api(conf)
    path = named("devices", mac)
    body: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
    etag = None
    if groups:
        body["groups"] = [name for name in groups if name]
    if labels:
        before, etag = api.find(path)
        merged = {**(before or {"labels": {}})["labels"], **pairs(labels, "--label")}
        body["labels"] = {name: value for name, value in merged.items() if value}
    if not body:
        raise UsageError("say what to change; see: pbserv device set --help")
    device = api.patch(path, body, etag)
    said(device, f"device {device['mac']} changed: {', '.join(body)}", as_json)


def add(
    conf: Path, mac: str, given: Mapping[str, str | None], groups: Sequence[str], labels: Sequence[str], as_json: bool
) -> None:
    """A device that was never seen."""
    body: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
    body |= {"mac": mac, "groups": [name for name in groups if name], "labels": pairs(labels, "--label")}
    device = Api(conf).post("/devices", body)
    said(device, f"device {device['mac']} added: {device['state']}", as_json)


def join(conf: Path, mac: str, other: str, as_json: bool) -> None:
    device = Api(conf).post(named("devices", mac, "join"), {"mac": other})
    said(device, f"device {device['mac']} has these addresses too: {', '.join(device['macs'])}", as_json)


def split(conf: Path, mac: str, other: str, as_json: bool) -> None:
    device = Api(conf).post(named("devices", mac, "split"), {"mac": other})
    said(device, f"device {device['mac']} stands for itself: {device['state']}", as_json)


def read_file(conf: Path, file: Path, dry_run: bool, as_json: bool) -> int:
    """Import devices; the exit code. All rows are taken, or none."""
    media = _MEDIA.get(file.suffix.lower())
    if media is None:
        raise UsageError(f"{file}: the name has to end in .csv or .json")
    try:
        content = file.read_bytes()
    except OSError as fault:
        raise PbservError(f"{file}: {fault.strerror}") from None
    try:
        done = Api(conf).upload("/devices/import", content, media, dry_run=dry_run)
    except RefusedError as fault:
        if not fault.errors:
            raise
        if as_json:
            print_json({"created": 0, "changed": 0, "unchanged": 0, "errors": fault.errors})
            return 1
        for each in fault.errors:
            print(f"{file}: row {each['row']}: {plain(each['error'])}", file=sys.stderr)
        raise PbservError(f"{file}: nothing was imported") from None
    if as_json:
        print_json(done)
        return 0
    tense = "would be " if dry_run else ""
    print(f"{file}: {done['created']} {tense}created, {done['changed']} {tense}changed, {done['unchanged']} unchanged")
    return 0


def write_file(conf: Path, form: str) -> None:
    """All devices to stdout, as import reads them."""
    sys.stdout.write(Api(conf).download("/devices/export", format=form).decode())


def _todo(work: Row | None) -> str:
    return f"{work['id']}: {what(work)} ({work['state']})" if work else ""
