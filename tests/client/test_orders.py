"""What imaging maintenance may order, as calls of the wire protocol to the real server."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass

import httpx
import pytest

from tests.client.site import MAC, Site

ITEM = b"a partition's bytes"
MANIFEST = "pbserv-image 1\ndisk 1048576 512 none bios\nitem p0 raw 0 19 {sum} 19\n"


@dataclass
class Wire:
    """Speaks for a device with the token of its work."""

    site: Site
    token: str
    job: str = ""

    def call(self, method: str, path: str, **arguments: object) -> httpx.Response:
        return httpx.request(
            method, f"{self.site.server.url}/client/v1{path}", headers={"Authorization": f"Bearer {self.token}"},
            trust_env=False, **arguments,  # type: ignore[arg-type]
        )  # fmt: skip

    def begin(self, **told: str) -> dict[str, str]:
        """Ask for work."""
        answer = read(self.call("POST", "/work", data={"mac": MAC, **told}))
        self.job = answer.get("JOB", "")
        return answer

    def order(self, **form: str) -> httpx.Response:
        return self.call("POST", f"/jobs/{self.job}/order", data=form)


def read(answer: httpx.Response) -> dict[str, str]:
    """The shell lines of an answer."""
    assert answer.status_code == 200, answer.text
    return dict(shlex.split(line)[0].split("=", 1) for line in answer.text.splitlines())


@pytest.fixture
def wire(site: Site) -> Wire:
    """In maintenance."""
    number = site.order("maintained", kind="maintenance")
    made = Wire(site, site.token)
    told = made.begin()
    assert (told["ACTION"], told["FINISH"], told["BUNDLE"]) == ("maintenance", "none", "maintained")
    assert made.token.startswith(f"{number}.")
    return made


def figures(site: Site) -> dict[str, int]:
    """How many imaging requests there were, and how many of them ended so."""
    told = site.server.json("statistics")
    found = {"all": told["pxe_requests"], **told["imaging_results"]}
    return {name: found.get(name, 0) for name in ("all", "started", "denied", "failed")}


def more(site: Site, before: dict[str, int]) -> dict[str, int]:
    """What came to the figures since then."""
    return {name: count - before[name] for name, count in figures(site).items() if count != before[name]}


def logged(site: Site, begins: str, result: str) -> bool:
    """Whether a line of the request log begins and ends so."""
    lines = [line for line in site.server.log().splitlines() if f"imaging request {begins}" in line]
    return any(result in line for line in lines)


@pytest.mark.parametrize(
    ("form", "status", "said"),
    [
        ({"action": "format"}, 422, "restore, capture or auto"),
        ({}, 422, "restore, capture or auto"),
        ({"action": "restore", "image": "none-such"}, 404, "none-such"),
        ({"action": "capture", "image": "../../etc/passwd"}, 400, "error: "),
        ({"action": "capture", "image": "x", "disk": "/dev/sda;reboot"}, 400, "names no disk"),
        ({"action": "capture", "image": "x", "disk": "a\nb"}, 400, "names no disk"),
    ],
)
def test_orders_that_are_refused_make_no_job(wire: Wire, form: dict[str, str], status: int, said: str) -> None:
    before = figures(wire.site)
    answer = wire.order(**form)
    assert answer.status_code == status, answer.text
    assert said in answer.text
    assert [job["kind"] for job in wire.site.newest()["jobs"]] == ["maintenance"]
    assert more(wire.site, before) == {"all": 1, "failed": 1}
    kind = form.get("action", "order").replace("format", "order")
    assert logged(wire.site, f"source={MAC} type={kind} ", "result=failed")


def test_who_has_no_token_or_may_not_is_counted_and_logged_as_denied(wire: Wire) -> None:
    before = figures(wire.site)
    nobody = Wire(wire.site, "9.nobodys", wire.job)
    assert nobody.call("POST", "/work", data={"mac": MAC}).status_code == 401
    assert nobody.order(action="restore", image="x").status_code == 401
    assert nobody.call("POST", f"/jobs/{wire.job}/progress").status_code == 401, "no request of imaging"
    assert wire.call("POST", "/work", data={"mac": "52:54:00:00:cc:99"}).status_code == 200
    assert wire.call("POST", "/jobs/999999/order", data={"action": "auto"}).status_code == 404
    assert more(wire.site, before) == {"all": 4, "denied": 3, "failed": 1}


def test_an_order_is_counted_once(wire: Wire) -> None:
    before = figures(wire.site)
    told = read(wire.order(action="capture", image="once"))
    wire.call("POST", f"/jobs/{told['JOB']}/result", data={"ok": "0", "reason": "disk failed"})
    assert more(wire.site, before) == {"all": 1, "started": 1}
    assert read(wire.order(action="auto"))["ACTION"] == "local"
    assert more(wire.site, before) == {"all": 2, "started": 1, "failed": 1}


def test_an_order_is_a_job_of_the_same_work_with_the_same_token(wire: Wire) -> None:
    told = read(wire.order(action="capture", image="ordered", disk="serial:S 1"))
    assert (told["ACTION"], told["IMAGE"], told["TARGET_DISK"], told["FINISH"]) == (
        "capture", "ordered", "serial:S 1", "none",
    )  # fmt: skip
    place = f"/jobs/{told['JOB']}"
    assert wire.call("GET", f"{place}/manifest").status_code == 409, "a capture reads no images"
    stored = wire.call("PUT", f"{place}/items/p0", content=ITEM).text.split()
    manifest = MANIFEST.format(sum=stored[1])
    assert wire.call("POST", f"{place}/commit", content=manifest).text == "COMMITTED\n"
    assert wire.call("POST", f"{place}/progress", data={"stage": "commit"}).text == "CONTINUE\n"
    assert wire.call("POST", f"{place}/result", data={"ok": "1"}).text == "OK\n"
    assert wire.call("POST", f"/jobs/{wire.job}/progress").text == "CONTINUE\n", "the maintenance goes on"
    assert "ordered  version 1" in wire.call("GET", f"/jobs/{wire.job}/images").text
    assert "table none" in wire.call("GET", f"/jobs/{wire.job}/images/ordered").text

    told = read(wire.order(action="restore", image="ordered"))
    assert wire.call("GET", f"/jobs/{told['JOB']}/manifest").text == manifest
    assert wire.call("GET", f"/jobs/{told['JOB']}/items/p0").content == ITEM
    wire.call("POST", f"/jobs/{wire.job}/result", data={"ok": "1"})
    assert wire.call("GET", f"/jobs/{told['JOB']}/items/p0").status_code == 409, "over with the maintenance"
    assert wire.order(action="restore", image="ordered").status_code == 409
    assert wire.call("GET", f"/jobs/{wire.job}/images").status_code == 409
    work = wire.site.newest()
    assert (work["state"], [job["state"] for job in work["jobs"]]) == ("done", ["failed", "done", "done"])


def test_a_capture_that_failed_frees_its_name(wire: Wire) -> None:
    told = read(wire.order(action="capture", image="half"))
    wire.call("PUT", f"/jobs/{told['JOB']}/items/p0", content=ITEM)
    admin = {"Authorization": f"Bearer {wire.site.server.token}"}
    url = f"{wire.site.server.url}/api/v1/images/half"
    assert httpx.put(url, content=b"x", headers=admin, trust_env=False).status_code == 409
    wire.call("POST", f"/jobs/{told['JOB']}/result", data={"ok": "0", "reason": "disk failed"})
    assert httpx.put(url, content=b"x", headers=admin, trust_env=False).status_code == 201
    assert wire.call("POST", f"/jobs/{wire.job}/progress").text == "CONTINUE\n"


def test_maintenance_from_the_menu_has_no_images(site: Site) -> None:
    """Whoever sits there may be anybody: MaintenanceImages = ordered."""
    site.api("PATCH", f"/devices/{MAC}", {"menu": "default"})
    path = f"{site.server.url}/boot/{MAC.replace(':', '-')}.ipxe?item=maintenance"
    found = re.search(r"pb\.token=(\S+)", httpx.get(path, trust_env=False).text)
    assert found
    wire = Wire(site, found[1])
    assert wire.begin()["ACTION"] == "maintenance"
    refused = (
        wire.order(action="restore", image="x"), wire.order(action="capture", image="x"),
        wire.call("GET", f"/jobs/{wire.job}/images"), wire.call("GET", f"/jobs/{wire.job}/images/x"),
    )  # fmt: skip
    for answer in refused:
        assert (answer.status_code, "MaintenanceImages = all" in answer.text) == (409, True)
    assert read(wire.order(action="auto"))["ACTION"] == "local", "what is assigned is open to it; here nothing is"
    site.api("PATCH", f"/devices/{MAC}", {"menu": ""})
    site.cancel(int(wire.token.partition(".")[0]))


def test_a_cancel_of_the_maintenance_ends_what_was_ordered(wire: Wire) -> None:
    told = read(wire.order(action="capture", image="cancelled"))
    wire.site.cancel(wire.site.newest()["id"])
    for job in (wire.job, told["JOB"]):
        assert wire.call("POST", f"/jobs/{job}/progress").text == "CANCEL\n"
    assert wire.call("PUT", f"/jobs/{told['JOB']}/items/p0", content=ITEM).status_code == 409


def test_auto_keeps_the_maintenance_when_the_assigned_image_is_not_there(wire: Wire) -> None:
    site = wire.site
    site.apply({
        "bundle": {"of nothing": {"kind": "restore", "image": "not-there"}},
        "assignment": {"of nothing": {"bundle": "of nothing", "device": MAC}},
    })  # fmt: skip
    try:
        answer = wire.order(action="auto")
        assert answer.status_code == 404
        assert "not-there" in answer.text
        assert wire.call("POST", f"/jobs/{wire.job}/progress").text == "CONTINUE\n"
    finally:
        site.api("DELETE", "/assignments/of nothing")


def test_lies_about_the_machine_are_bounded(site: Site) -> None:
    site.order("liar", kind="script", script="true")
    wire = Wire(site, site.token)
    lies = {f"label_{n}": "x" for n in range(100)}
    told = wire.begin(**lies, product="\x00\x1b[2Jx" + "y" * 5000, memory_mb="lots", groups="admins", state="denied",
                      disks="\n".join("/dev/sda size=9 " + "z" * 500 for _ in range(99)), cpus="7")  # fmt: skip
    assert told["ACTION"] == "script"
    device = site.api("GET", f"/devices/{MAC}")
    assert not [name for name in device["learned"] if name.startswith("label_")]
    assert device["learned"]["product"].startswith("[2Jxyyy")
    assert len(device["learned"]["product"]) == 128
    assert device["learned"]["cpus"] == "7"
    assert (device["state"], device["groups"]) == ("known", [])
    wire.call("POST", f"/jobs/{wire.job}/result", data={"ok": "1"})


def test_how_jobs_ended_is_in_the_figures_and_in_the_log(site: Site) -> None:
    def ended() -> dict[str, int]:
        found: dict[str, int] = site.server.json("statistics")["imaging_jobs"].get("script", {})
        return {how: found.get(how, 0) for how in ("done", "failed")}

    before = ended()
    site.order("ends", kind="script", script="true", retries=1)
    wire = Wire(site, site.token)
    jobs = [wire.begin()["JOB"], wire.begin()["JOB"]]
    assert ended() == before | {"failed": before["failed"] + 1}
    wire.call("POST", f"/jobs/{jobs[1]}/result", data={"ok": "0", "reason": "disk broke"})
    jobs.append(wire.begin()["JOB"])
    wire.call("POST", f"/jobs/{jobs[2]}/result", data={"ok": "1"})
    assert ended() == {"failed": before["failed"] + 2, "done": before["done"] + 1}
    assert "script failed" in site.server.ok("statistics")
    metrics = httpx.get(f"{site.server.url}/metrics", trust_env=False).text
    assert f'pbserv_imaging_jobs_total{{kind="script",result="done"}} {before["done"] + 1}.0' in metrics
    lines = [line for line in site.server.log().splitlines() if f" job device={MAC} " in line]
    told = ("before it reported", "disk broke", "result=done")
    assert [words in line for words, line in zip(told, lines[-3:], strict=True)] == [True] * 3, lines
