"""`pbserv image` and `pbserv store` against a running server."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import httpx
import pytest

from tests.support.process import Installed, command


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installed]:
    installed = Installed(tmp_path_factory.mktemp("server"))
    installed.set("pbserv.conf", AllowImageOverwrite="YES")
    installed.ok("start")
    yield installed
    installed.finish()


def store(server: Installed, name: str, *bodies: bytes) -> None:
    for body in bodies:
        httpx.put(
            f"{server.url}/api/v1/images/{name}", params={"overwrite": "1"}, content=body,
            headers={"Authorization": f"Bearer {server.token}"}, trust_env=False,
        ).raise_for_status()  # fmt: skip


def refused(server: Installed, *arguments: str) -> str:
    done = server.call(*arguments)
    assert done.returncode in (1, 2), done.stdout
    assert not done.stdout
    return done.stderr


def test_versions_go_through_their_states(server: Installed) -> None:
    store(server, "room", b"one", b"two", b"three")
    assert "version 2 is served" in server.ok("image", "disable", "room")
    assert "version 3 is served" in server.ok("image", "enable", "room", "3")
    assert server.ok("image", "rollback", "room", "--to", "1") == "image room: version 1 is served\n"
    assert "version 2 is retired; version 1 is served" in server.ok("image", "retire", "room", "2")
    assert "restore it first" in refused(server, "image", "rollback", "room", "--to", "2")
    assert "disabled" in server.ok("image", "restore-version", "room", "2")
    assert "no version 9" in refused(server, "image", "enable", "room", "9")
    shown = server.json("image", "show", "room")
    assert (shown["served"], shown["states"]) == (1, {"1": "enabled", "2": "disabled", "3": "disabled"})
    assert all(each["by"].startswith("token:made at start") for each in shown["history"][1:])
    text = server.ok("image", "show", "room")
    assert "served         version 1" in text
    version = server.ok("image", "show", "room", "--version", "3")
    assert "image     room, version 3" in version
    assert "5 B" in version


def test_what_is_said_of_an_image(server: Installed) -> None:
    made = server.ok("image", "register", "said", "--title", "Of the [red] room", "--kind", "disk", "--keep", "2")
    assert made == "image said registered in store main; it has no version yet\n"
    assert "exists" in refused(server, "image", "register", "said")
    assert "no dots" in refused(server, "image", "register", "a.b")
    assert "said changed: profile, keep" in server.ok("image", "set", "said", "--profile", "Debian", "--keep", "-1")
    assert "--help" in refused(server, "image", "set", "said")
    assert server.json("image", "set", "said", "--title", "")["title"] == ""
    assert [image["name"] for image in server.json("image", "list", "--state", "registered")] == ["said"]
    assert server.ok("image", "list", "--kind", "boot") == "no such images\n"
    assert "no version yet" in refused(server, "image", "enable", "said")
    assert "no versions" in refused(server, "image", "delete", "said")
    assert server.json("image", "purge", "said", "--yes") == {"image": "said", "version": None, "purged": True}


def test_a_comment_has_lines_and_an_image_gets_an_owner(server: Installed) -> None:
    server.ok("image", "register", "lined", "--comment", "first\nsecond\x1b[2J")
    text = server.ok("image", "show", "lined")
    assert re.search(r"\ncomment +first\n {10,}second\?\[2J\n", text), text
    assert "RemoteStores" in refused(server, "image", "set", "lined", "--owner", "nowhere")
    assert server.json("image", "set", "lined", "--owner", "")["owner"] == ""


def test_an_image_is_registered_with_its_partition(server: Installed) -> None:
    server.ok("image", "register", "part", "--kind", "partition", "--partition", "2", "--partition-type", "ext4")
    assert re.search(r"(?m)^said to be of +partition 2 ext4$", server.ok("image", "show", "part"))
    changed = server.json("image", "set", "part", "--partition", "0", "--partition-type", "ntfs")
    assert (changed["partition"], changed["partition_type"]) == (None, "ntfs")
    assert "128" in refused(server, "image", "set", "part", "--partition", "129")


def test_what_a_version_is_made_of(server: Installed) -> None:
    store(server, "made", b"12345")
    digest = hashlib.sha256(b"12345").hexdigest()
    assert digest in server.ok("image", "show", "made", "--version", "1")
    assert "compressor" not in server.ok("image", "show", "made"), "of a file nobody knows"


def test_a_comment_of_a_version(server: Installed) -> None:
    store(server, "noted", b"one", b"two")
    set_ = ("image", "set", "noted", "--version", "1")
    assert server.ok(*set_, "--comment", "before the update") == "image noted version 1 changed: comment\n"
    assert "before the update" in server.ok("image", "show", "noted")
    assert "before the update" in server.ok("image", "show", "noted", "--version", "1")
    assert server.json("image", "show", "noted", "--version", "2")["comment"] == ""
    assert "comment alone" in refused(server, *set_, "--title", "x")
    assert "no version 3" in refused(server, "image", "set", "noted", "--version", "3", "--comment", "x")


def test_nothing_is_lost_without_a_question(server: Installed) -> None:
    store(server, "old", b"one", b"two")
    assert "say --yes" in refused(server, "image", "purge", "old")
    assert "retire" in refused(server, "image", "purge", "old", "--yes")
    server.ok("image", "retire", "old", "1")
    assert "no version 7" in refused(server, "image", "purge", "old", "--version", "7", "--yes")
    assert server.ok("image", "purge", "old", "--version", "1", "--yes") == "image old version 1 is gone\n"
    assert "pbserv image purge old" in server.ok("image", "delete", "old")
    assert server.json("image", "show", "old")["state"] == "retired"
    assert "say --yes" in refused(server, "image", "delete", "old", "--now")
    assert server.ok("image", "delete", "old", "--now", "--yes") == "image old is gone\n"
    assert "no image" in refused(server, "image", "show", "old")


def test_stores(server: Installed) -> None:
    store(server, "kept", b"12345")
    (main,) = server.json("store", "list")
    assert (main["name"], main["directory"]) == ("main", str(server.state / "images"))
    assert "main" in server.ok("store", "list")
    shown = server.ok("store", "show", "main")
    assert "any number of restores" in shown
    assert server.json("store", "show", "main")["images"] >= 1
    assert "no store" in refused(server, "store", "show", "other")
    (server.state / "images/kept/1/file").unlink()
    server.ok("restart", "imaging")
    assert "damaged, not served: kept/1:" in server.ok("store", "show", "main")
    assert "damaged" in server.ok("image", "list")


@pytest.mark.parametrize(
    "verb",
    [
        "list",
        "show",
        "register",
        "set",
        "enable",
        "disable",
        "retire",
        "restore-version",
        "rollback",
        "purge",
        "delete",
    ],
)
def test_every_verb_explains_itself(server: Installed, verb: str) -> None:
    text = server.ok("image", verb, "--help")
    assert "--json" in text
    assert "Example" in text


def figures(server: Installed) -> list[int]:
    """PXE Requests, Images Sent, Images Received as zmgmcast -status prints them."""
    program = server.program.with_name("zmgmcast")
    printed = command([str(program), "-status", "--conf", str(server.conf)])
    return [int(line.split()[-1]) for line in printed.splitlines()[1:]]


def test_the_figures_cover_what_was_denied_and_what_failed(server: Installed, tmp_path: Path) -> None:
    requests, sent, received = figures(server)
    store(server, "counted", b"12345")
    assert figures(server) == [requests + 1, sent, received + 1]
    server.call("image", "purge", "counted", "--yes")  # denied: it is not retired
    server.call("image", "register", "a.b")  # failed
    nobody = httpx.post(f"{server.url}/api/v1/images/counted/rollback", json={}, trust_env=False)
    assert nobody.status_code == 401
    assert figures(server) == [requests + 4, sent, received + 1]
    server.ok("image", "list")
    server.ok("image", "download", "counted", str(tmp_path))
    assert figures(server) == [requests + 5, sent + 1, received + 1]
    told = server.json("statistics")
    assert told["pxe_requests"] == sum(told["imaging_results"].values()) == requests + 5
    assert told["imaging_results"]["denied"] >= 2
    assert "denied" in server.ok("statistics")
    url, admin = f"{server.url}/api/v1/statistics", {"Authorization": f"Bearer {server.token}"}
    over_http = httpx.get(url, headers=admin, trust_env=False).json()
    assert set(over_http) < set(told)
    since = datetime.fromisoformat(over_http.pop("since"))
    assert since.replace(microsecond=0) == datetime.fromisoformat(told["since"])
    assert over_http == {name: told[name] for name in over_http}
    assert httpx.get(url, trust_env=False).status_code == 401
    metrics = httpx.get(f"{server.url}/metrics", trust_env=False).text
    assert f'pbserv_imaging_results_total{{result="denied"}} {told["imaging_results"]["denied"]}.0' in metrics
    log = [line for line in server.log().splitlines() if "imaging request" in line and "purge" in line]
    assert any("denied" in line and "127.0.0.1" in line for line in log), log


def test_a_store_is_verified_with_a_task_that_can_be_watched(server: Installed) -> None:
    store(server, "verified", b"x" * 100_000)
    told = server.json("store", "scrub", "--image", "verified", "--deep", "--rate", "0")
    assert (told["state"], told["result"]) == ("done", "1 version verified, none damaged")
    assert server.json("image", "show", "verified")["history"][0]["verified"]
    (server.state / "images/verified/1/file").write_bytes(b"y" + b"x" * 99_999)
    assert "1 damaged and not served" in server.ok("store", "scrub", "--image", "verified")
    assert "image verified version 1 item file" in server.log()
    assert server.json("image", "show", "verified")["served"] is None
    begun = server.json("store", "scrub", "main", "--rate", "1", "--background")
    server.ok("store", "cancel", str(begun["task"]))
    assert [task["kind"] for task in server.json("store", "tasks")] == ["scrub"] * 3
    assert "scrub" in server.ok("store", "tasks")
    assert "say what" in refused(server, "store", "scrub")
    assert "no store" in refused(server, "store", "scrub", "other")
    assert "no task 99" in refused(server, "store", "cancel", "99")
