"""`pbserv job` and what it shows of a device at work: the real server, and calls of the wire protocol."""

from __future__ import annotations

import contextlib
import json
import re
import sqlite3
import subprocess

from tests.client.site import MAC, Site, until
from tests.client.test_orders import ITEM, MANIFEST, Wire


def begun(site: Site, **bundle: object) -> Wire:
    """A device at work."""
    site.order("job", **bundle)
    wire = Wire(site, site.token)
    assert wire.begin(client="2")["ACTION"] == bundle["kind"]
    return wire


def captured(wire: Wire) -> None:
    """All that a capture of one item sends."""
    place = f"/jobs/{wire.job}"
    stored = wire.call("PUT", f"{place}/items/p0", content=ITEM).text.split()
    assert wire.call("POST", f"{place}/commit", content=MANIFEST.format(sum=stored[1])).text == "COMMITTED\n"


def test_a_job_from_its_list_to_the_history_of_its_device(site: Site) -> None:
    wire = begun(site, kind="capture", image="seen")
    form = {"stage": "upload", "item": "p0", "bytes": "250", "total": "1000", "rate": "50"}
    assert wire.call("POST", f"/jobs/{wire.job}/progress", data=form).text == "CONTINUE\n"
    server = site.server
    lines = server.ok("job", "list", "--state", "running")
    assert re.search(rf"{wire.job}\s+{MAC}\s+capture\s+seen\s+running\s+upload p0 25 % 50 B/s\s+15 s", lines), lines
    assert "left      15 s" in re.sub(r" {6,}", " " * 6, server.ok("job", "show", wire.job))
    [busy] = server.json("job", "queue")["running"]
    assert (busy["mac"], busy["direction"], busy["store"]) == (MAC, "capture", "main")
    assert "at work" in server.ok("job", "queue")
    captured(wire)
    wire.call("POST", f"/jobs/{wire.job}/result", data={"ok": "1", "log": "all well"})
    shown = server.ok("job", "show", wire.job)
    assert "capture seen 1" in shown
    assert "all well" in shown
    assert f"{wire.job}" not in server.ok("job", "list", "--state", "running")
    assert "capture" in server.ok("device", "images", MAC)
    assert "nobody restores" in server.ok("job", "queue")
    assert server.json("job", "list", "--device", MAC)[0]["state"] == "done"


def test_watching_ends_with_the_job_and_says_how(site: Site) -> None:
    wire = begun(site, kind="capture", image="watched")
    server = site.server
    command = [*server.prefix, str(server.program), "--conf", str(server.conf), "job", "watch", wire.job, "--json"]
    watching = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert watching.stderr is not None
    assert f"{MAC} job {wire.job}: capture watched" in watching.stderr.readline()
    wire.call("POST", f"/jobs/{wire.job}/result", data={"ok": "0", "reason": "no disk"})
    out, err = watching.communicate(timeout=60)
    assert watching.returncode == 1, err
    assert "failed after" in err
    assert "no disk" in err
    assert [job["state"] for job in json.loads(out)] == ["failed"]
    retried = site.server.json("job", "retry", wire.job)
    assert (retried["state"], retried["mac"]) == ("queued", MAC)


def test_a_job_is_cancelled_within_a_report(site: Site) -> None:
    wire = begun(site, kind="capture", image="stopped")
    assert f"job {wire.job} on {MAC} is told to stop" in site.server.ok("job", "cancel", wire.job)
    assert wire.call("POST", f"/jobs/{wire.job}/progress").text == "CANCEL\n"
    assert site.newest()["state"] == "cancelled"
    assert site.server.call("job", "cancel", wire.job).returncode == 1


def test_progress_is_written_down_by_the_running_server(site: Site) -> None:
    """Every few seconds, and when the stage changes; nobody asks for it here."""
    wire = begun(site, kind="capture", image="written")
    wire.call("POST", f"/jobs/{wire.job}/progress", data={"stage": "upload", "item": "p7", "bytes": "9"})
    place = site.server.state / "registry.db"

    def written() -> tuple[str, str, int]:
        with contextlib.closing(sqlite3.connect(f"file:{place}?mode=ro", uri=True)) as database:
            query = "select stage, item, bytes_done from job where id = ?"
            found: tuple[str, str, int] = database.execute(query, (int(wire.job),)).fetchone()
            return found

    until(lambda: written() == ("upload", "p7", 9), timeout_s=60)


def test_work_is_asked_for_on_the_command_line(site: Site) -> None:
    wire = begun(site, kind="capture", image="base")
    captured(wire)
    wire.call("POST", f"/jobs/{wire.job}/result", data={"ok": "1"})
    options = ("--partition", "0", "--verify", "read", "--priority", "7", "--no-efi-entry")
    refused = site.server.call("work", "restore", MAC, "base", *options)
    assert (refused.returncode, "partitions" in refused.stderr) == (1, True), refused.stderr
    site.server.ok("work", "restore", MAC, "base", "--verify", "read", "--priority", "7", "--no-efi-entry", "--dry-run")
    shown = site.server.ok("work", "show", str(site.newest()["id"]))
    assert "verify read; efi_entry no; dry_run" in shown
    told = Wire(site, site.token).begin(client="2")
    assert (told["VERIFY"], told["EFI_ENTRY"], told["DRY_RUN"], told["VERSION"]) == ("read", "0", "1", "1")
