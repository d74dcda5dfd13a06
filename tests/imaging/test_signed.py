"""A manifest is served as it was signed off: any other one is damage of that version alone, at a start and later."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pbserv.imaging.about import AboutChange
from pbserv.imaging.layout import Layout
from pbserv.imaging.manifest import DiskFacts, Fact, Manifest, ManifestItem
from pbserv.imaging.scrub import ScrubOrder, scrub
from pbserv.imaging.states import VersionState
from pbserv.imaging.stored import Scan
from pbserv.imaging.stores import Stores
from pbserv.imaging.tasks import Report
from tests.imaging.image_server import sha256
from tests.imaging.test_sessions import CHANGED, MADE, commit, send
from tests.imaging.test_store import opened, put
from tests.imaging.test_stores import settings_of


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("signed") / "a"
    asyncio.run(_fill(root))
    return root


async def _fill(root: Path) -> None:
    async with opened(root, allow_overwrite=True) as store:
        for name, data in (("win", b"one"), ("win", b"two"), ("lab", b"three")):
            await put(store, name, {"a": data})


def scanned(root: Path) -> Scan:
    layout = Layout(root)
    layout.open()
    try:
        return layout.scan()
    finally:
        layout.close()


@given(st.data())
@settings(deadline=None)
def test_every_changed_byte_is_damage_of_its_version_alone(stored: Path, data: st.DataObject) -> None:
    path = stored / "win/2/manifest"
    good = path.read_bytes()
    changed = bytearray(good)
    changed[data.draw(st.integers(0, len(good) - 1))] ^= data.draw(st.integers(0, 255))
    path.write_bytes(changed)
    try:
        found = scanned(stored)
    finally:
        path.write_bytes(good)
    same = bytes(changed) == good
    versions = {("lab", 1), ("win", 1), *([("win", 2)] if same else [])}
    assert {(image.name, image.version) for image in found.images} == versions
    assert [damage.path for damage in found.damages] == ([] if same else ["win/2"])


def moved(root: Path, place: str) -> bytes:
    """Another number of a partition in a manifest; what it was."""
    path = root / place / "manifest"
    good = path.read_bytes()
    path.write_bytes(good.replace(b"item a raw 0 ", b"item a raw 3 "))
    assert path.read_bytes() != good
    return good


async def test_another_partition_is_not_served_after_a_start(tmp_path: Path) -> None:
    await _fill(tmp_path)
    good = moved(tmp_path, "win/2")
    async with opened(tmp_path) as store:
        [damage] = store.damages
        assert damage.path == "win/2"
        assert "manifest: it is not the one that was signed off: its SHA-256 is " in damage.reason
        assert (store.info("win").version, store.info("lab").version) == (1, 1)
    (tmp_path / "win/2/manifest").write_bytes(good)
    async with opened(tmp_path) as store:
        assert (store.info("win").version, store.damages) == (2, ())


@pytest.mark.parametrize("checked", [False, True])
async def test_scrub_and_check_compare_it_while_the_store_runs(tmp_path: Path, checked: bool) -> None:
    await _fill(tmp_path / "a")
    stores = Stores(settings_of(tmp_path, "a"))
    await stores.start()
    try:
        good = moved(tmp_path / "a", "win/2")
        lines: list[str] = []
        if checked:
            result = await stores.check("a", Report(), lines.append)
        else:
            result = await scrub([stores.store("a")], ScrubOrder(rate_mb=0), Report(), lines.append)
        assert ", 1 damaged and not served" in result
        [line] = lines
        assert line.startswith("image win version 2: manifest: it is not the one that was signed off")
        assert stores.info("win").version == 1
        (tmp_path / "a/win/2/manifest").write_bytes(good)
        result = await scrub([stores.store("a")], ScrubOrder(rate_mb=0), Report(), lines.append)
        assert (result, stores.info("win").version) == ("3 versions verified, none damaged", 2)
        (tmp_path / "a/win/2/manifest").unlink()
        result = await scrub([stores.store("a")], ScrubOrder(rate_mb=0), Report(), lines.append)
        assert "1 damaged" in result
        assert "No such file" in lines[-1]
    finally:
        await stores.close()


async def test_what_has_no_digest_stays_as_it_is(tmp_path: Path) -> None:
    """Of an older pbserv, or of a commit that a crash ended before its last step."""
    await _fill(tmp_path)
    moved(tmp_path, "win/2")
    about = json.loads((tmp_path / "win/about").read_text())
    del about["versions"]["2"]["manifest_sha256"]
    (tmp_path / "win/about").write_text(json.dumps(about))
    async with opened(tmp_path) as store:
        assert (store.info("win").version, store.damages) == (2, ())
        assert await scrub([store], ScrubOrder(rate_mb=0), Report(), print) == "3 versions verified, none damaged"


async def test_whatever_becomes_of_a_version_keeps_both_in_step(tmp_path: Path) -> None:
    async with opened(tmp_path, allow_overwrite=True) as store:
        for made in (MADE, CHANGED):
            session = store.open_session("win", overwrite=True)
            await send(session, "p1", made.stream)
            await commit(session, "p1", made.stream)
        big = os.urandom(3 << 20)
        for name in ("old", "other"):
            await put(store, name, {"a": big})
        (tmp_path / "old/1/a.pbx").unlink()
        with (tmp_path / "other/1/a").open("r+b") as file:
            file.write(b"damage")
        assert "1 frame repaired" in await scrub([store], ScrubOrder(rate_mb=0), Report(), print)
        (tmp_path / "drop.img").write_bytes(b"abc")
        item = ManifestItem("drop.img", "raw", 0, 3, sha256(b"abc"), 3)
        facts = (Fact("drop.img", "tool", "a tool"),)
        await store.take_file(
            tmp_path / "drop.img", "drop", Manifest(DiskFacts(0, 512, "none", "bios"), (item,), facts)
        )
        await store.change("win", AboutChange(title="title", remarks={1: "first"}))
        await store.move("win", 2, VersionState.DISABLED, "anna")
        await store.rollback("win", 1, "anna")
        versions = [version for image in store.all() for version in image.versions]
        assert len(versions) == 5
        for version in versions:
            path = tmp_path / version.image.name / str(version.number) / "manifest"
            assert version.about.manifest_sha256 == sha256(path.read_bytes())
    async with opened(tmp_path) as store:
        assert store.damages == ()
