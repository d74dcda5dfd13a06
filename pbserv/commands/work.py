"""`pbserv work`: what devices are to do once. All through the HTTP API."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pbserv.commands.api import Api
from pbserv.commands.tables import Row, clock, print_json, show_facts, show_table, size, warn
from pbserv.errors import UsageError
from pbserv.registry.records import CLIENT_KINDS


def order(conf: Path, body: Mapping[str, Any], as_json: bool) -> None:
    """``body``: see the API; values that are None are left out. One of ``mac`` and ``group`` is given."""
    if (body.get("mac") is None) == (body.get("group") is None):
        raise UsageError("say for whom: a MAC address, or --group NAME")
    made = Api(conf).post("/work", {key: value for key, value in body.items() if value is not None})
    if as_json:
        return print_json(made)
    works = made["work"] if isinstance(made["work"], list) else [made["work"]]
    for work in works:
        print(f"work {work['id']}: {what(work)} at the next network boot of {work['mac']}")
    return warn([*(f"{mac}: {reason}" for mac, reason in made["refusals"].items()), *made["warnings"]])


def listed(conf: Path, everything: bool, as_json: bool) -> None:
    api = Api(conf)
    works = list(api.pages("/work", everything=everything))
    newest = _newest_jobs(api)
    if as_json:
        return print_json([{**work, "job": newest.get(work["id"])} for work in works])
    rows = (
        (str(w["id"]), w["mac"], w["kind"], w["bundle"] or w["image"], w["state"], progress(newest.get(w["id"])),
         w["reason"])
        for w in works
    )  # fmt: skip
    nothing = "no work" if everything else "no work waits, runs or is held; what has ended: pbserv work list --all"
    return show_table(("No.", "Device", "Kind", "What", "State", "Progress", "Reason"), rows, nothing)


def show(conf: Path, number: int, as_json: bool) -> None:
    api = Api(conf)
    work = api.get(f"/work/{number}")
    jobs = [job for job in api.get("/jobs", mac=work["mac"], limit=100) if job["work_id"] == number]
    if as_json:
        return print_json({**work, "jobs": jobs})
    show_facts((
        ("work", str(work["id"])), ("device", work["mac"]), ("what", what(work)), ("state", work["state"]),
        ("reason", work["reason"]), ("disk", work["target_disk"]),
        ("afterwards", work["finish"] if work["kind"] in CLIENT_KINDS else ""),
        ("of", work["assignment"]), ("made", clock(work["created"])), ("expires", clock(work["expires"])),
        ("runs", str(work["attempts"])), ("retries left", str(work["retries"])), ("asked for", asked(work["options"])),
        ("priority", str(work["priority"] or "")), ("wake", _waking(work)),
    ))  # fmt: skip
    if jobs:
        print()
        rows = (
            (str(j["id"]), clock(j["started"]), clock(j["finished"]), j["state"], progress(j), j["reason"])
            for j in jobs
        )
        show_table(("Job", "Started", "Ended", "State", "Progress", "Reason"), rows, "")
    return None


def cancel(conf: Path, number: int, as_json: bool) -> None:
    work = Api(conf).post(f"/work/{number}/cancel")
    print_json(work) if as_json else print(f"work {work['id']} cancelled")


def retry(conf: Path, number: int, as_json: bool) -> None:
    work = Api(conf).post(f"/work/{number}/retry")
    print_json(work) if as_json else print(f"work {work['id']}: {what(work)} waits for {work['mac']} again")


def what(work: Row) -> str:
    """``restore classroom``; with a bundle its name."""
    return f"{work['kind']} {work['bundle'] or work['image']}".rstrip()


def asked(options: Row) -> str:
    """What work is asked for beyond image and disk, in the words of its options."""
    usual = {"verify": "stream", "efi_entry": True}
    said = []
    for name, value in options.items():
        if value == usual.get(name) or (name not in usual and not value):
            continue
        text = "" if value is True else " no" if value is False else f" {value}"
        said.append(f"{name}{' ' + ', '.join(map(str, value)) if isinstance(value, list) else text}")
    return "; ".join(said)


def _waking(work: Row) -> str:
    if not work["wake"]:
        return ""
    return f"woken {clock(work['woken'])}" if work["woken"] else "yes"


def progress(job: Row | None) -> str:
    if job is None:
        return ""
    percent = f"{100 * job['bytes_done'] // job['bytes_total']} %" if job["bytes_total"] else size(job["bytes_done"])
    return f"{job['stage']} {job['item']} {percent} {size(job['rate'])}/s" if job["state"] == "running" else percent


def _newest_jobs(api: Api) -> dict[int, Row]:
    """Of each piece of work; those of the last thousand jobs."""
    newest: dict[int, Row] = {}
    for job in reversed(api.get("/jobs", limit=1000)):
        newest[job["work_id"]] = job
    return newest
