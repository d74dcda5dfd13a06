"""Orders that could only fail on the device are refused at once: here by the name of the image of a capture."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import pytest

from pbserv.imaging.elsewhere import Elsewhere
from pbserv.imaging.faults import ImageExists, InvalidName
from pbserv.imaging.referring import Referring, Remotes
from pbserv.imaging.stores import Stores
from pbserv.log import ServiceLog
from pbserv.registry.options import WorkOptions
from pbserv.registry.records import BundleKind
from tests.imaging.test_store import opened, put
from tests.imaging.test_stores import settings_of
from tests.imaging.working import read, working

MAC = "52:54:00:00:00:01"
FORBIDDEN = [f"a{character}b" for character in ".\\/`'[]*?\"<>|: "]


async def test_a_capture_is_ordered_under_a_name_that_its_upload_may_have(tmp_path: Path) -> None:
    async with working(tmp_path) as site:
        await site.device(MAC)
        order = {"mac": MAC, "kind": "capture"}
        for name in FORBIDDEN:
            refused = await site.api("POST", "/work", {**order, "image": name}, 400)
            assert "cannot be the name of" in refused["error"], name
        assert "no dots; try 'a-b'" in (await site.api("POST", "/work", {**order, "image": "a.b"}, 400))["error"]
        assert await site.api("GET", "/work") == []
        wire = await site.order(MAC, kind="capture", image="a-b_1")
        assert (await wire.ask())["ACTION"] == "capture"
        await wire.capture()


async def test_so_is_one_at_the_console_of_a_device_in_maintenance(tmp_path: Path) -> None:
    async with working(tmp_path) as site:
        await site.device(MAC)
        await site.api("POST", "/apply", {"objects": {"bundle": {"m": {"kind": "maintenance"}}}})
        wire = await site.order(MAC, bundle="m")
        await wire.ask()
        form = {"action": "capture", "image": "a.b", "client": "2"}
        refused = await wire.call("POST", f"/jobs/{wire.job}/order", data=form)
        assert (refused.status_code, "no dots; try 'a-b'" in refused.text) == (400, True), refused.text
        ordered = read(await wire.call("POST", f"/jobs/{wire.job}/order", data={**form, "image": "a-b"}))
        assert ordered["ACTION"] == "capture"


async def older(root: Path) -> None:
    """A store with an image from the time when names could have dots."""
    async with opened(root) as store:
        await put(store, "win", {"a": b"x"})
    (root / "win").rename(root / "win.11")
    for name in ("about", "1/facts"):
        (root / "win.11" / name).unlink()


def capture(elsewhere: Elsewhere, image: str, store: str = "", *, overwrite: bool = False) -> None:
    elsewhere.check_order(BundleKind.CAPTURE, image, overwrite=overwrite, options=WorkOptions(store=store))


@pytest.fixture
def referring() -> Referring:
    made = Referring(tuple, lambda _upload: None)
    made.remotes = Remotes({"branch": "http://127.0.0.1:9"}, "d" * 64)
    return made


async def test_an_image_that_has_such_a_name_gets_new_versions(tmp_path: Path, referring: Referring) -> None:
    settings = settings_of(tmp_path, "a")
    await older(settings.places[0].directory)
    stores = Stores(settings)
    elsewhere = Elsewhere(stores, referring, cast("ServiceLog", None))
    await stores.start()
    try:
        capture(elsewhere, "win.11", overwrite=True)
        with pytest.raises(ImageExists):
            capture(elsewhere, "win.11")
        with pytest.raises(InvalidName, match="no dots"):
            capture(elsewhere, "win.12", overwrite=True)
    finally:
        await stores.close()


async def test_a_capture_into_a_store_of_another_server_is_checked_too(tmp_path: Path, referring: Referring) -> None:
    stores = Stores(settings_of(tmp_path, "a"))
    elsewhere = Elsewhere(stores, referring, cast("ServiceLog", None))
    await stores.start()
    try:
        capture(elsewhere, "win-11", "branch")
        for name in FORBIDDEN:
            with pytest.raises(InvalidName):
                capture(elsewhere, name, "branch")
        capture(elsewhere, "win.11", "branch", overwrite=True)  # there it may be an older image: that server knows
        with pytest.raises(InvalidName):
            capture(elsewhere, "win 11", "branch", overwrite=True)
    finally:
        await stores.close()
