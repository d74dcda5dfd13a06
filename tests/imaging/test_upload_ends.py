"""However an upload ends (given up, refused, a failed commit, a start without room), nothing of it is held or lost."""

import hashlib
import os
from pathlib import Path

import pytest

from pbserv.imaging.faults import InvalidName, UnknownImage
from pbserv.imaging.manifest import check_item_name, single_file
from tests.imaging.image_server import sha256
from tests.imaging.test_sessions import KIND, MADE, manifest_of, parts_of, told
from tests.imaging.test_store import chunks_of, opened

TABLE = b"label: gpt\n"


def held(root: Path) -> list[str]:
    """Files of uploads and versions that this process has open."""
    found = []
    for number in os.listdir("/proc/self/fd"):
        try:
            path = os.readlink(f"/proc/self/fd/{number}")
        except FileNotFoundError:
            continue
        if path.startswith(f"{root}/") and path != f"{root}/.incoming":
            found.append(path)
    return found


def text_of(item: str) -> str:
    """The manifest of an upload of MADE as this one item."""
    return manifest_of(**{item: (KIND, *told(parts_of(MADE.stream)), len(MADE.stream))})


@pytest.mark.parametrize("name", ["session", "session.new", "x.state.new"])
async def test_the_upload_s_own_files_are_no_items(tmp_path, name):
    async with opened(tmp_path) as store:
        session = store.open_session("win", owner="job:17")
        await session.receive("table", chunks_of(TABLE))
        (own,) = tmp_path.glob(".incoming/*/session")
        before = own.read_bytes()
        with pytest.raises(InvalidName):
            await session.receive(name, chunks_of(b"{}"))
        with pytest.raises(InvalidName):
            await session.part(name, "file", 1, chunks_of(b"{}"), sha256(b"{}"))
        assert own.read_bytes() == before
    if name.startswith("session"):
        with pytest.raises(InvalidName):
            check_item_name(name)


@pytest.mark.parametrize("trash", [".deleted.lab.1.0123456789abcdef", ".deleted.lab.0123456789abcdef"])
@pytest.mark.parametrize("versions", [1, 2])
async def test_a_dropped_image_that_was_being_purged_does_not_come_back(tmp_path, trash, versions):
    """Killed between the rename that makes it invisible and the removal of its other name in the root."""
    async with opened(tmp_path) as store:
        for number in range(versions):
            data = bytes(1000 + number)
            manifest = single_file("lab.raw", len(data), hashlib.sha256(data).hexdigest())
            (tmp_path / "lab.img").unlink(missing_ok=True)
            (tmp_path / "lab.img").write_bytes(data)
            (tmp_path / "lab.img.sum").write_text("x")
            await store.take_file(tmp_path / "lab.img", "lab", manifest)
    gone = tmp_path / "lab" / str(versions) if ".1." in trash and versions > 1 else tmp_path / "lab"
    gone.rename(tmp_path / ".incoming" / trash)
    async with opened(tmp_path) as store:
        assert not list(tmp_path.glob("lab.img*"))
        assert os.listdir(tmp_path / ".incoming") == []
        if gone.name == "lab":
            with pytest.raises(UnknownImage):
                store.info("lab")


async def _raises(work, fault) -> bool:
    with pytest.raises(fault):
        await work
    return True
