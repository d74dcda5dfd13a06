"""Scripts, imaging maintenance and what is told of the machine: the client and the real server, on this machine."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.client import disks
from tests.client.disks import MEBIBYTE
from tests.client.site import MAC, SHELLS, Site, until

Fixture = Callable[..., str]
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root rights: loop devices")
TABLE = "label: dos\nstart=2048, size=20MiB, type=83\n"


@pytest.fixture
def loop(tmp_path: Path) -> Iterator[Fixture]:
    """``loop(name, size_mib, table)`` gives the path of a loop device."""
    with contextlib.ExitStack() as stack:

        def make(name: str, size_mib: int, table: str = "") -> str:
            return stack.enter_context(disks.loop(tmp_path / f"{name}.img", size_mib * MEBIBYTE, table=table))

        yield make


ASK = 'curl -sS -H "Authorization: Bearer $(cat "$PB_TOKEN_FILE")" "$PB_URL/client/v1/jobs/$PB_JOB'


def typed(lines: list[str]) -> str:
    """What a person types who looks at the exit code of each command."""
    return "".join(f'{line}; echo "got $?"\n' for line in lines)


def leftovers(site: Site) -> list[str]:
    return [path.name for path in site.place.iterdir() if path.name.startswith(("pbclient.", "img."))]


# scripts


@pytest.mark.parametrize("shell", SHELLS)
def test_script_runs_in_a_folder_of_its_own_and_knows_its_job(site: Site, shell: str) -> None:
    site.shell = SHELLS[shell]
    text = 'pwd; ls -A | wc -l; echo "$PB_URL $PB_MAC $PB_JOB"\r\n' + f'{ASK}/script"\n'
    site.order("count", kind="script", script=text)
    output = site.run()
    assert output.endswith("exit 0"), output
    job = site.newest()["jobs"][0]
    lines = output.splitlines()
    assert f"{site.server.url} {MAC} {job['id']}" in lines
    at = next(n for n, line in enumerate(lines) if line.startswith(str(site.place / "pbclient.")))
    assert lines[at + 1].strip() == "0", "an empty folder"
    assert "pwd; ls -A | wc -l; echo" in lines[at + 3], "its token opens its own script"
    assert (job["state"], job["kind"]) == ("done", "script")
    assert f"| {site.server.url} {MAC} {job['id']}" in job["log"], "the end of its output is kept"
    assert leftovers(site) == []


def test_script_that_fails_says_with_what(site: Site) -> None:
    number = site.order("fails", kind="script", script="echo working\necho 'no such drive: Z' >&2\nexit 7\n")
    assert site.run().endswith("exit 1")
    work = site.work(number)
    assert (work["state"], work["reason"]) == ("held", "script ended with 7: no such drive: Z")
    assert any("script failed: script ended with 7: no such drive: Z" in line for line in site.history())


def test_script_that_fails_runs_again_when_it_has_retries(site: Site) -> None:
    number = site.order("again", kind="script", script="exit 3", retries=1)
    site.run()
    assert site.work(number)["state"] == "queued"
    assert site.run().endswith("exit 1")
    work = site.work(number)
    assert (work["state"], [job["reason"] for job in work["jobs"]]) == ("held", ["script ended with 3"] * 2)


def test_cancel_ends_a_script_with_all_that_it_started(site: Site) -> None:
    mark = site.place / "mark"
    number = site.order("long", kind="script", script=f"(while :; do date >>{mark}; sleep 0.2; done) & sleep 1000\n")
    with site.start() as client:
        until(mark.exists)
        until(lambda: site.work(number)["jobs"][0]["stage"] == "script")
        site.cancel(number)
        output, _ = client.communicate(timeout=30)
    assert "FAILED: cancelled" in output
    assert client.returncode == 1
    size = mark.stat().st_size
    assert (site.work(number)["state"], site.work(number)["jobs"][0]["state"]) == ("cancelled", "cancelled")
    assert mark.stat().st_size == size, "it went on"
    assert leftovers(site) == []


def test_script_that_leaves_something_running_ends_all_the_same(site: Site) -> None:
    """Also what left the script's session: it is not waited for."""
    pid = site.place / "pid"
    text = f"sleep 500 & setsid sh -c 'echo $$ >{pid}; exec sleep 501' &\nwhile [ ! -s {pid} ]; do sleep 0.1; done\n"
    number = site.order("leaves", kind="script", script=text)
    assert site.run().endswith("exit 0")
    assert site.work(number)["state"] == "done"
    os.kill(int(pid.read_text()), 9)


def test_output_without_end_fills_nothing(site: Site) -> None:
    number = site.order("loud", kind="script", script="seq 300000; echo over; exit 1")
    output = site.run()
    assert "\n300000\n" in output
    work = site.work(number)
    assert work["reason"] == "script ended with 1: over"
    assert len(work["jobs"][0]["log"].splitlines()) <= 40


# multicast


@pytest.mark.root
@needs_root
def test_multicast_is_a_restore_until_there_are_sessions(site: Site, loop: Fixture) -> None:
    source = loop("source", 32, TABLE)
    with disks.partition(source, 1) as node:
        disks.run("mkfs.ext4", "-q", node)
    site.order("take-it", kind="capture", image="cast")
    assert site.run("--disk", source).endswith("exit 0")
    number = site.order("cast-it", kind="multicast", image="cast", clients=5)
    target = loop("target", 40)
    output = site.run("--disk", target)
    assert output.endswith("exit 0"), output
    work = site.work(number)
    assert (work["state"], work["kind"]) == ("done", "multicast")
    assert "no multicast sessions yet" in work["reason"]
    assert any("multicast cast started" in line and "no multicast sessions yet" in line for line in site.history())
    with disks.partition(target, 1) as node:
        disks.run("e2fsck", "-fn", node)


# what is told of the machine


def test_the_machine_is_told_and_a_rule_matches_it(site: Site) -> None:
    site.order("look", kind="script", script="true")
    assert site.run().endswith("exit 0")
    learned = site.api("GET", f"/devices/{MAC}")["learned"]
    assert int(learned["memory_mb"]) > 100
    assert int(learned["cores"]) <= int(learned["cpus"])
    assert learned["machine"] == os.uname().machine
    site.apply({
        "bundle": {"of this machine": {"kind": "memtest"}},
        "rule": {"this machine": {"when": f'machine == "{os.uname().machine}" and memory_mb > 100 and cores >= 1',
                                  "bundle": "of this machine"}},
    })  # fmt: skip
    ruling = site.api("GET", f"/explain?mac={MAC}")
    assert (ruling["verdict"], ruling["bundle"]) == ("boot", "of this machine")
    site.api("DELETE", "/rules/this machine")


# maintenance


@pytest.mark.parametrize("shell", SHELLS)
def test_maintenance_is_a_shell_whose_exit_ends_it(site: Site, shell: str) -> None:
    site.shell = SHELLS[shell]
    number = site.order("look around", kind="maintenance")
    output = site.run(stdin="echo in the shell $PB_MAC\nimg help\nimg info\nfalse\nexit 3\n")
    assert output.endswith("exit 0"), output
    assert f"in the shell {MAC}" in output
    assert "img restore [-y] IMAGE [DISK]" in output
    assert f"Images of {site.server.url}:" in output
    assert f"machine        {os.uname().machine}" in output
    assert site.work(number)["state"] == "done"
    assert leftovers(site) == []


def test_cancel_ends_the_shell(site: Site) -> None:
    number = site.order("forgotten", kind="maintenance")
    with site.start() as client:
        until(lambda: site.work(number)["jobs"][0]["stage"] == "maintenance" if site.work(number)["jobs"] else False)
        site.cancel(number)
        assert client.wait(30) == 1
    assert site.work(number)["jobs"][0]["state"] == "cancelled"


def test_img_refuses_what_it_cannot_do(site: Site) -> None:
    number = site.order("mistakes", kind="maintenance")
    lines = ["img restore no-such", "img make -o 'bad name'", "img frobnicate", "img restore", "img p /dev/none list",
             "img restore -y no-such /dev/none", "img auto", "img auto -y", "img make x 'semi;colon'"]  # fmt: skip
    output = site.run(stdin="".join(f'{line}; echo "got $?"\n' for line in lines))
    assert [line for line in output.splitlines() if line.startswith("got ")] == [
        "got 1", "got 2", "got 2", "got 2", "got 1", "got 1", "got 1", "got 1", "got 1",
    ], output  # fmt: skip
    assert "no image no-such" in output or "there is no image 'no-such'" in output
    assert "no imaging is assigned to this device" in output
    assert "nobody can be asked here: say -y" in output
    work = site.work(number)
    assert (work["state"], len(work["jobs"])) == ("done", 1), "a refused order is no job"


def test_orders_are_for_maintenance_only(site: Site) -> None:
    """The token of other work opens no images and makes no jobs."""
    codes = "-w '%{http_code}\\n'"
    text = f'{ASK}/images" {codes}\n{ASK}/images/x" {codes}\n{ASK}/order" {codes} -d action=restore -d image=x\n'
    number = site.order("curious", kind="script", script=text)
    output = site.run()
    assert output.count("409") == 3, output
    assert "is a script, not imaging maintenance" in output
    assert len(site.work(number)["jobs"]) == 1


class TestDisks:
    """``img`` on loop devices."""

    pytestmark = [pytest.mark.root, needs_root]  # noqa: RUF012

    def test_make_and_restore_by_hand(self, site: Site, loop: Fixture, tmp_path: Path) -> None:
        source, target = loop("source", 32, TABLE), loop("target", 48)
        with disks.partition(source, 1) as node:
            disks.run("mkfs.ext4", "-q", "-L", "by-hand", node)
            with disks.mounted(node, tmp_path / "m") as mount:
                disks.fill(mount, 11)
                files = disks.hashes(mount)
        number = site.order("by hand", kind="maintenance")
        short = target.removeprefix("/dev/")
        lines = [f"img make hand {source}", f"img make hand {source}", f"img make -o hand {source}", "img info hand",
                 f"img restore hand {target}", f"img r -y hand {short}", f"img d {target}"]  # fmt: skip
        output = site.run(stdin="".join(f'{line}; echo "got $?"\n' for line in lines))
        got = [line for line in output.splitlines() if line.startswith("got ")]
        # AllowImageOverwrite is NO unless set; it is not here.
        assert got[:2] == ["got 0", "got 1"], output
        assert got[3:] == ["got 0", "got 1", "got 0", "got 0"], output
        assert "image hand exists" in output
        assert "p1.ext4.zst" in output
        assert "LABEL=by-hand" in output.rsplit("got ", 2)[1]
        with disks.partition(target, 1) as node, disks.mounted(node, tmp_path / "m") as mount:
            assert disks.hashes(mount) == files
        work = site.work(number)
        assert work["state"] == "done"
        kinds = [(job["kind"], job["state"]) for job in reversed(work["jobs"])]
        assert kinds[0] == ("maintenance", "done")
        assert {("capture", "done"), ("restore", "done")} <= set(kinds[1:])
        assert any("restore hand done: ok" in line for line in site.history())
        assert leftovers(site) == []

    def test_auto_does_what_is_assigned_and_ends_maintenance(self, site: Site, loop: Fixture) -> None:
        source, target = loop("source", 32, TABLE), loop("target", 40)
        with disks.partition(source, 1) as node:
            disks.run("mkfs.ext4", "-q", node)
        site.order("take", kind="capture", image="assigned")
        assert site.run("--disk", source).endswith("exit 0")
        number = site.order("then auto", kind="maintenance")
        site.apply({
            "bundle": {"auto bundle": {"kind": "restore", "image": "assigned", "target_disk": target,
                                       "finish": "none"}},
            "assignment": {"for auto": {"bundle": "auto bundle", "device": MAC}},
        })  # fmt: skip
        output = site.run(stdin=typed(["img auto -y", f"img make late {source}", "sleep 5"]) + "echo still\n")
        assert [line for line in output.splitlines() if line.startswith("got ")] == ["got 0", "got 1", "got 0"], output
        assert "still" in output, "the shell stays until its exit"
        assert (site.work(number)["state"], site.work(number)["reason"]) == ("done", "went on with auto bundle")
        newest = site.newest()
        assert (newest["bundle"], newest["state"], newest["assignment"]) == ("auto bundle", "done", "for auto")
        ruling = site.api("GET", f"/explain?mac={MAC}")
        assert ruling["bundle"] != "auto bundle", "the assignment has had its run"
        site.api("DELETE", "/assignments/for auto")
        with disks.partition(target, 1) as node:
            disks.run("e2fsck", "-fn", node)

    def test_partitions_are_made_deleted_and_activated(self, site: Site, loop: Fixture) -> None:
        disk = loop("disk", 64)
        site.order("tables", kind="maintenance")
        lines = [
            f"img partition {disk} create linux 20M", f"img p -y {disk} create linux 20M", f"img p {disk} c -y fat 5M",
            f"img p {disk} create -y swap", f"img p {disk} -y activate 2", f"img p {disk} delete -y 1",
            f"img p {disk} delete -y 1", f"img p {disk} list", f"img p {disk} create -y gold",
            f"img p {disk} create -y linux 5X",
        ]  # fmt: skip
        output = site.run(stdin="".join(f'{line}; echo "got $?"\n' for line in lines))
        got = [line.removeprefix("got ") for line in output.splitlines() if line.startswith("got ")]
        assert got == ["1", "0", "0", "0", "0", "0", "1", "0", "2", "2"], output
        dump = disks.run("sfdisk", "-d", disk)
        parts = [line.partition(" : ")[2] for line in dump.splitlines() if " : start" in line]
        assert len(parts) == 2
        assert "type=c" in parts[0]
        assert parts[0].endswith("bootable")
        assert "type=82" in parts[1]

    def test_a_disk_in_use_is_not_partitioned(self, site: Site, loop: Fixture, tmp_path: Path) -> None:
        disk = loop("disk", 32)
        disks.run("mkfs.ext4", "-q", disk)
        site.order("careful", kind="maintenance")
        with disks.mounted(disk, tmp_path / "m"):
            output = site.run(stdin=f"img p -y {disk} create linux\n")
        assert "is mounted on" in output
        assert disks.run("blkid", "-p", "-o", "value", "-s", "TYPE", disk).strip() == "ext4"
