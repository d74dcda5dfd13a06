"""A job gets an add-on of the version that it was told of, and nobody takes that away while it runs."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from pbserv.imaging.config import PbservConf
from pbserv.imaging.service import ImagingSettings
from pbserv.imaging.trees import pack_tree
from tests.imaging.working import Wire, Working, working

MAC = "52:54:00:00:00:01"
MAKER = "52:54:00:00:0f:01"


def packed(place: Path, text: str) -> bytes:
    place.mkdir()
    (place / "motd").write_text(text)
    return b"".join(pack_tree(place))


async def store(site: Working, data: bytes) -> None:
    """The next version of the add-on."""
    wire = await site.order(MAKER, kind="capture", image="lab", overwrite=True)
    assert (await wire.ask())["ACTION"] == "capture"
    size, digest = (await wire.call("PUT", f"/jobs/{wire.job}/items/tree", content=data)).text.split()
    manifest = f"pbserv-image 1\ndisk 0 512 none bios\nitem tree tree 0 {size} {digest} 0\n"
    answer = await wire.call("POST", f"/jobs/{wire.job}/commit", content=manifest)
    assert answer.text == "COMMITTED\n", answer.text
    assert await wire.result(ok=1) == "OK"


@asynccontextmanager
async def with_addon(place: Path, data: bytes) -> AsyncIterator[Working]:
    """An image ``classroom`` and version 1 of the add-on ``lab``, of which more versions can be made."""
    async with working(place) as site:
        settings = ImagingSettings(PbservConf(state_directory=place, allow_overwrite=True))
        (await site.imaging.prepare(settings)).commit()
        await site.image()
        for mac in (MAC, MAKER):
            await site.device(mac)
        await store(site, data)
        yield site


async def begun(site: Working) -> Wire:
    wire = await site.order(MAC, kind="restore", image="classroom", addons=["lab"])
    assert (await wire.ask())["ACTION"] == "restore"
    return wire


async def told(wire: Wire) -> str:
    """What the add-on consists of, as the device gets it."""
    return (await wire.call("GET", f"/jobs/{wire.job}/addons/lab/manifest")).text


async def fetched(wire: Wire) -> bytes:
    return (await wire.call("GET", f"/jobs/{wire.job}/addons/lab/items/tree")).content


async def test_a_job_keeps_the_version_of_an_add_on_that_it_was_told_of(tmp_path: Path) -> None:
    old, new = packed(tmp_path / "old", "old\n"), packed(tmp_path / "new", "new, and longer\n")
    async with with_addon(tmp_path, old) as site:
        wire = await begun(site)
        manifest = await told(wire)
        await store(site, new)
        assert await fetched(wire) == old
        assert await told(wire) == manifest
        refused = await site.api("POST", "/images/lab/versions/1/retire", status=409)
        assert f"job {wire.job} of {MAC}" in refused["error"]
        await site.api("PATCH", "/images/lab", {"keep": 1})
        await store(site, new)  # retires the versions before it without asking
        assert await fetched(wire) == old
        refused = await site.api("DELETE", "/images/lab?version=1", status=409)
        assert f"job {wire.job} of {MAC}" in refused["error"]
        await site.api("DELETE", "/images/lab?version=2")
        assert await wire.result(ok=1) == "OK"
        await site.api("DELETE", "/images/lab?version=1")
        assert site.imaging._pins.jobs("lab", 1) == frozenset(), "gone with the job"
        later = await begun(site)
        assert await told(later) != manifest
        assert await told(later) != manifest
        assert await fetched(later) == new


async def test_without_having_been_told_it_gets_the_version_that_is_served_now(tmp_path: Path) -> None:
    """So does one whose server was started again meanwhile."""
    old, new = packed(tmp_path / "old", "old\n"), packed(tmp_path / "new", "new\n")
    async with with_addon(tmp_path, old) as site:
        wire = await begun(site)
        assert await fetched(wire) == old
        await store(site, new)
        assert await fetched(wire) == new


async def test_work_that_was_cancelled_needs_no_add_on(tmp_path: Path) -> None:
    old, new = packed(tmp_path / "old", "old\n"), packed(tmp_path / "new", "new\n")
    async with with_addon(tmp_path, old) as site:
        wire = await begun(site)
        await told(wire)
        await store(site, new)
        await site.api("POST", "/images/lab/versions/1/retire", status=409)
        [work] = [each for each in await site.api("GET", "/work") if each["mac"] == MAC]
        await site.api("POST", f"/work/{work['id']}/cancel")
        await site.api("POST", "/images/lab/versions/1/retire")
