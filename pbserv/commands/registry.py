"""Commands about devices, work and images: tables by rich, JSON on request, all through the HTTP API."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from pbserv.commands.api import Api, named

Row = dict[str, Any]


def device_list(conf: Path, state: str | None, as_json: bool) -> None:
    devices = Api(conf).get("/devices", state=state)
    if as_json:
        return print(json.dumps(devices))
    table = _table("MAC", "Name", "State", "Architecture", "Address", "Last seen", "Work")
    for d in devices:
        work = d["work"]
        todo = f"{work['id']}: {work['kind']} {work['image']} ({work['state']})" if work else ""
        _add(table, d["mac"], d["name"], d["state"], d["arch_name"], d["address"], _time(d["last_seen"]), todo)
    nothing = f"no device is {state}" if state else "no devices yet: the first one registers itself when it boots"
    _show(table, nothing)
    return None


def device_show(conf: Path, mac: str, as_json: bool) -> None:
    api = Api(conf)
    device = api.get(named("devices", mac))
    history = api.get(named("devices", mac, "history"))
    jobs = api.get("/jobs", mac=mac, limit=10)
    if as_json:
        return print(json.dumps({"device": device, "history": history, "jobs": jobs}))
    console = Console(highlight=False)
    facts = [
        device["mac"],
        device["name"],
        device["state"],
        device["arch_name"],
        device["address"],
        device["uuid"] or "",
    ]
    console.print("  ".join(escape(fact) for fact in facts if fact))
    table = _table("Time", "What", "Detail")
    for e in history:
        _add(table, _time(e["time"]), e["what"], e["detail"])
    _show(table, "no history yet")
    return None


def device_accept(conf: Path, mac: str, name: str | None) -> None:
    device = Api(conf).post(named("devices", mac, "accept"), {"name": name} if name else None)
    print(f"device {device['mac']} accepted")


def device_deny(conf: Path, mac: str) -> None:
    device = Api(conf).post(named("devices", mac, "deny"))
    print(f"device {device['mac']} denied: it is not answered any more")


def device_forget(conf: Path, mac: str) -> None:
    Api(conf).delete(named("devices", mac))
    print(f"device {mac} forgotten")


def work_add(conf: Path, kind: str, mac: str, image: str, disk: str, finish: str, *, overwrite: bool) -> None:
    body = {
        "mac": mac, "kind": kind, "image": image, "target_disk": disk, "finish": finish, "overwrite": overwrite,
    }  # fmt: skip
    created = Api(conf).post("/work", body)
    work = created["work"]
    print(f"work {work['id']}: {kind} {image} at the next network boot of {work['mac']}")
    for warning in created["warnings"]:
        print(f"warning: {warning}")


def work_list(conf: Path, everything: bool, as_json: bool) -> None:
    api = Api(conf)
    works = api.get("/work", everything=everything)
    newest: dict[int, Row] = {}
    for job in reversed(api.get("/jobs", limit=1000)):
        newest[job["work_id"]] = job
    if as_json:
        return print(json.dumps([{**work, "job": newest.get(work["id"])} for work in works]))
    table = _table("No.", "Device", "Kind", "Image", "State", "Progress", "Reason")
    for w in works:
        job = newest.get(w["id"])
        _add(table, str(w["id"]), w["mac"], w["kind"], w["image"], w["state"], _progress(job), w["reason"])
    _show(table, "no work" if everything else "no work waits or runs; see also --all")
    return None


def work_cancel(conf: Path, number: int) -> None:
    work = Api(conf).post(f"/work/{number}/cancel")
    print(f"work {work['id']} cancelled")


def image_list(conf: Path, as_json: bool) -> None:
    images = Api(conf).get("/images")["images"]
    if as_json:
        return print(json.dumps(images))
    table = _table("Name", "Version", "Items", "Stored", "Created")
    for i in images:
        _add(table, i["name"], str(i["version"]), str(len(i["items"])), _size(i["stored_bytes"]), _time(i["created"]))
    _show(table, "no images yet: take one with pbserv work capture MAC IMAGE")
    return None


def image_delete(conf: Path, image: str) -> None:
    Api(conf).delete(named("images", image))
    print(f"image {image} deleted")


def _progress(job: Row | None) -> str:
    if job is None:
        return ""
    percent = f"{100 * job['bytes_done'] // job['bytes_total']} %" if job["bytes_total"] else _size(job["bytes_done"])
    return f"{job['stage']} {job['item']} {percent} {_size(job['rate'])}/s" if job["state"] == "running" else percent


def _size(count: int) -> str:
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if value < 1024 or unit == "TiB":
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return ""


def _time(text: str) -> str:
    return text[:19].replace("T", " ")


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for index, column in enumerate(columns):
        table.add_column(column, no_wrap=index == 0)
    return table


def _add(table: Table, *cells: str) -> None:
    table.add_row(*(escape(cell or "") for cell in cells))


def _show(table: Table, nothing: str) -> None:
    if not table.row_count:
        print(nothing)
        return
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 200
    console.print(table)
