"""Work with options, from its order to what the device is told; over the real routes."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import update

from pbserv.registry.models import WorkRow
from tests.imaging.working import ITEM, working

MAC = "52:54:00:00:00:01"
OTHER = "52:54:00:00:00:02"


async def test_options_reach_the_device(tmp_path: Path) -> None:
    async with working(tmp_path) as site:
        await site.image()
        await site.device(MAC)
        wire = await site.order(
            MAC, kind="restore", image="classroom", partitions=[1], target_partition=4, verify="read", efi_entry=False,
            cache="give-up",
            priority=7, wake=True,
        )  # fmt: skip
        [work] = await site.api("GET", "/work")
        assert (work["priority"], work["wake"], work["woken"]) == (7, True, None)
        assert work["options"] == {
            "version": 0, "partitions": [1], "target_partition": 4, "resize": False, "verify": "read", "addons": [],
            "efi_entry": False, "cache": "give-up", "store": "", "dry_run": False, "unreadable": "",
        }  # fmt: skip
        told = await wire.ask()
        assert (told["PROTOCOL"], told["VERSION"], told["KIND"], told["PARTITIONS"]) == ("2", "1", "disk", "1")
        assert (told["TARGET_PARTITION"], told["VERIFY"], told["EFI_ENTRY"], told["DRY_RUN"]) == ("4", "read", "0", "0")
        assert told["CACHE"] == "give-up"


async def test_an_older_client_restores_no_whole_disk_where_a_partition_was_asked_for(tmp_path: Path) -> None:
    async with working(tmp_path) as site:
        await site.image()
        await site.device(MAC)
        wire = await site.order(MAC, kind="restore", image="classroom", partitions=[1])
        told = await wire.ask(client="")
        assert (told["ACTION"], "JOB" in told, "PROTOCOL" in told) == ("local", False, False)
        assert "partitions: this needs a newer imaging client: pbserv client build --force" in told["REASON"]
        [work] = await site.api("GET", "/work")
        assert (work["state"], work["reason"]) == ("held", told["REASON"])
        await site.api("POST", f"/work/{work['id']}/cancel")
        plain = await site.order(MAC, kind="restore", image="classroom")
        assert list(await plain.ask(client="")) == ["ACTION", "JOB", "IMAGE", "TARGET_DISK", "FINISH", "BUNDLE"]


async def test_options_of_a_newer_server_are_not_guessed_at(tmp_path: Path) -> None:
    async with working(tmp_path) as site:
        await site.image()
        await site.device(MAC)
        wire = await site.order(MAC, kind="restore", image="classroom")
        async with site.registry._write() as change:
            await change.session.execute(update(WorkRow).values(options='{"sparing": true}'))
        assert "'sparing' is unknown" in (await wire.ask())["REASON"]
        assert (await site.api("GET", "/work"))[0]["state"] == "held"


@pytest.mark.parametrize(
    ("body", "status", "word"),
    [
        ({"partitions": [9]}, 409, "no partition 9; it has: 1"),
        ({"partitions": [1, 1]}, 422, "different"),
        ({"partitions": [0]}, 422, "partitions"),
        ({"partitions": [1], "resize": True}, 422, "resize"),
        ({"version": 5}, 404, "version 5"),
        ({"addons": ["none"]}, 404, "add-on image none"),
        ({"addons": ["classroom"]}, 409, "no file tree"),
        ({"store": "main"}, 422, "store"),
        ({"verify": "twice"}, 422, "verify"),
        ({"priority": 101}, 422, "priority"),
        ({"kind": "capture", "image": "other", "store": "attic"}, 400, "no image store attic"),
        ({"kind": "capture", "image": "other", "store": "../x"}, 422, "store"),
        ({"kind": "capture", "image": "other", "partitions": [1]}, 422, "partitions"),
    ],
)
async def test_options_that_could_only_fail_are_refused(
    tmp_path: Path, body: dict[str, object], status: int, word: str
) -> None:
    async with working(tmp_path) as site:
        await site.image()
        await site.device(MAC)
        order = {"mac": MAC, "kind": "restore", "image": "classroom", **body}
        assert word in (await site.api("POST", "/work", order, status))["error"]


async def test_a_bundle_says_them_too(tmp_path: Path) -> None:
    async with working(tmp_path) as site:
        await site.image()
        await site.device(MAC)
        await site.device(OTHER)
        bundle = {"kind": "restore", "image": "classroom", "resize": True, "priority": 3, "wake": True, "version": 1}
        await site.api("POST", "/apply", {"objects": {"bundle": {"new": bundle}, "folder": {"/lab": {"max_jobs": 4}}}})
        assert (await site.api("GET", "/folders/lab"))["max_jobs"] == 4
        wire = await site.order(MAC, bundle="new", priority=-5)
        (work,) = await site.api("GET", "/work")
        assert (work["priority"], work["wake"], work["options"]["resize"]) == (-5, True, True)
        told = await wire.ask()
        assert (told["RESIZE"], told["VERSION"], told["BUNDLE"]) == ("1", "1", "new")
        assert (await wire.call("GET", f"/jobs/{wire.job}/items/p1")).content == ITEM
        await site.order(OTHER, bundle="new", wake=False)
        assert [each["wake"] for each in await site.api("GET", "/work")] == [False, True]
