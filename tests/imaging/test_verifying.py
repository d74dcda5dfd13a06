"""Files that are not whole, or not of the checksums that lie beside them, are refused before any of it is sent."""

from __future__ import annotations

import contextlib
import hashlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pbserv.imaging.formats import sums_files
from pbserv.imaging.formats.model import FormatError
from pbserv.imaging.import_plan import Plan
from pbserv.imaging.importing import survey
from pbserv.imaging.inspection import InspectionError
from pbserv.imaging.verifying import reads, verified
from tests.imaging import trees
from tests.imaging.trees import MIB, Disk


@pytest.fixture(scope="module")
def dos(tmp_path_factory: pytest.TempPathFactory) -> Disk:
    return trees.disk(tmp_path_factory.mktemp("dos"), "dos", ("ntfs", "ext4", "swap"))


def checked(path: Path) -> Plan:
    source = survey(path)
    return verified(source, source.plans[0])


def sums(folder: Path, program: str, name: str) -> None:
    files = sorted(path.name for path in folder.iterdir() if not path.name.endswith("SUMS"))
    (folder / name).write_bytes(
        b"".join(trees.run(program, str(folder / file)).replace(f"{folder}/".encode(), b"") for file in files)
    )


@pytest.mark.parametrize("kind", ["gzip", "zstd", "lzop", "xz", "bzip2", "lz4", "none"])
def test_the_last_volume_is_missing(tmp_path: Path, dos: Disk, kind: str) -> None:
    """Nothing in the names tells it."""
    path = trees.clonezilla(tmp_path / "lab", dos, kind, split=100_000 if kind == "none" else 500)
    checked(path)
    sorted(path.glob("sda2.ext4*"))[-1].unlink()
    with pytest.raises(InspectionError, match=r"sda2\.ext4-ptcl-img.*(cut off|too early|cannot read it)"):
        checked(path)


def test_a_volume_of_fog_is_missing(tmp_path: Path, dos: Disk) -> None:
    path = trees.fog(tmp_path / "lab", dos, "zstd", split=500)
    sorted(path.glob("d1p2.img*"))[-1].unlink()
    with pytest.raises(InspectionError, match=r"d1p2\.img: zstd cannot read it"):
        checked(path)


@pytest.mark.parametrize("kind", ["gzip", "none"])
def test_what_was_cut_off_before_it_was_compressed(tmp_path: Path, dos: Disk, kind: str) -> None:
    for name, data in (("disk", dos.path), ("ext4", dos.parts[1].raw), ("ntfs", dos.parts[0].raw)):
        image = tmp_path / f"{name}.raw{trees._SUFFIX[kind]}"
        whole = data.read_bytes()
        image.write_bytes(trees.packed(whole, kind))
        checked(image)
        image.write_bytes(trees.packed(whole[: len(whole) - 2 * MIB], kind))
        with pytest.raises(InspectionError, match=rf"{name}\.raw.*it is cut off: it has \d+ bytes, uncompressed, of"):
            checked(image)
    image = tmp_path / f"ext4.pcl{trees._SUFFIX[kind]}"
    image.write_bytes(trees.packed(trees.saved(dos.parts[1])[:-1], kind))
    with pytest.raises(InspectionError, match="cut off"):
        checked(image)


def test_a_disk_behind_a_compressor_is_as_large_as_it_was(tmp_path: Path, dos: Disk) -> None:
    """Its table of DOS says where the last partition ends, and nothing of what is behind."""
    image = tmp_path / "disk.raw.gz"
    image.write_bytes(trees.packed(dos.path.read_bytes(), "gzip"))
    assert survey(image).plans[0].disk.size_bytes < dos.size
    trees.run("bash", "-c", f'md5sum < "{image}" | cut -c1-32 > "{image}.full.sum"')
    plan = checked(image)
    assert plan.items[0].checks
    assert (plan.disk.size_bytes, plan.items[0].plain_bytes) == (dos.size, dos.size)


def test_what_need_not_be_read_is_not(tmp_path: Path, dos: Disk) -> None:
    image = trees.opengnsys(tmp_path, dos.parts[1], "none")
    source = survey(image)
    assert reads(source, source.plans[0].items[0]), "for its .full.sum"
    image.with_name("windows10.img.full.sum").unlink()
    source = survey(image)
    assert not reads(source, source.plans[0].items[0])
    heard: list[int] = []
    verified(source, source.plans[0], heard.append)
    assert sum(heard) <= MIB


@pytest.mark.parametrize(("program", "name"), [("md5sum", "MD5SUMS"), ("sha512sum", "SHA512SUMS"), ("b2sum", "B2SUMS")])
def test_lists_of_checksums(tmp_path: Path, dos: Disk, program: str, name: str) -> None:
    path = trees.clonezilla(tmp_path / "lab", dos, "none", split=100_000)
    sums(path, program, name)
    checked(path)
    volume = sorted(path.glob("sda2.ext4*"))[-1]
    checked(volume)
    kept = volume.read_bytes()
    volume.write_bytes(kept[:-1] + bytes([kept[-1] ^ 1]))
    for one in (path, volume):
        with pytest.raises(InspectionError, match=rf"{volume.name}: it is not of the digest that {name} says"):
            checked(one)
    volume.unlink()
    for one in (path, sorted(path.glob("sda2.ext4*"))[0]):
        with pytest.raises(InspectionError, match=rf"{name} names {volume.name}, which is not here"):
            survey(one)
    checked(sorted(path.glob("sda1.ntfs*"))[0])
    volume.write_bytes(kept)
    (path / "sda-pt.sf").write_bytes(dos.table + b"\n")
    with pytest.raises(InspectionError, match=rf"sda-pt.sf is not of the digest that {name} says"):
        survey(path)
    (path / name).write_text("nothing\n")
    with pytest.raises(InspectionError, match=rf"{name}: line 1: 'nothing' is no digest"):
        survey(path)
    checked(volume)


@given(st.dictionaries(st.sampled_from([*sums_files.ALGORITHMS]), st.binary(max_size=400)))
def test_any_bytes_are_a_list_or_an_error(lists: dict[str, bytes]) -> None:
    with contextlib.suppress(FormatError):
        sums_files.of_directory(lists, set())
    with contextlib.suppress(FormatError):
        sums_files.of_image("a", lists, {"a"})


def test_the_list_that_proves_most_counts() -> None:
    lists = {
        "MD5SUMS": b"0" * 32 + b"  a\n" + b"1" * 32 + b" *./b\n",
        "SHA256SUMS": hashlib.sha256(b"x").hexdigest().encode() + b"  a\n",
    }
    found = sums_files.of_directory(lists, {"a", "b"})
    assert (found["a"].source, found["b"].source) == ("SHA256SUMS", "MD5SUMS")
    assert sums_files.fits(b"x", found["a"])
    assert not sums_files.fits(b"y", found["a"])
