"""`pbserv image info` on images that the real programs wrote, in all compressors and in volumes."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from pbserv.imaging.importing import survey
from pbserv.imaging.inspection import InspectionError, inspect
from pbserv.imaging.verifying import verified
from tests.client.disks import loop
from tests.support.process import PBSERV

MEBIBYTE = 1 << 20
PATH = f"{os.environ['PATH']}:/usr/sbin:/sbin"


def run(program: str, *arguments: str) -> bytes:
    """Its output. As root a program that is missing is a failure: `make packages` installs all of them."""
    path = shutil.which(program, path=PATH)
    if path is None and os.geteuid() != 0:
        pytest.skip(f"{program} is not on this machine")
    assert path, f"{program} is not installed: make packages"
    return subprocess.run([path, *arguments], capture_output=True, check=True, timeout=60).stdout


def empty(path: Path, mebibytes: int) -> Path:
    with path.open("wb") as file:
        file.truncate(mebibytes * MEBIBYTE)
    return path


@pytest.fixture(scope="module")
def partclone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An ext4 file system of 16 MiB as partclone saves it."""
    folder = tmp_path_factory.mktemp("partclone")
    raw = empty(folder / "ext4.raw", 16)
    run("mkfs.ext4", "-q", "-F", "-b", "4096", str(raw))
    run("partclone.ext4", "-c", "-s", str(raw), "-o", str(folder / "ext4.pcl"), "-L", "/dev/null")
    return folder / "ext4.pcl"


LINES = {"ntfs": "NTFS", "fat": "FAT16", "xfs": "XFS", "btrfs": "BTRFS", "ext2": "EXT2", "ext3": "EXT3", "ext4": "EXT4",
         "exfat": "EXFAT", "f2fs": "F2FS", "swap": "SWAP"}  # fmt: skip
MAKE = {
    "ntfs": ("mkfs.ntfs", "-q", "-F", "-f"), "fat": ("mkfs.fat", "-F", "16"), "xfs": ("mkfs.xfs", "-q"),
    "btrfs": ("mkfs.btrfs", "-q"), "ext2": ("mkfs.ext2", "-q", "-F"), "ext3": ("mkfs.ext3", "-q", "-F"),
    "ext4": ("mkfs.ext4", "-q", "-F"), "exfat": ("mkfs.exfat",), "f2fs": ("mkfs.f2fs", "-q"), "swap": ("mkswap", "-q"),
}  # fmt: skip
SIZES = {"xfs": 320, "btrfs": 128, "f2fs": 64, "exfat": 16}


@pytest.mark.parametrize("kind", LINES)
def test_raw_file_systems(tmp_path: Path, kind: str) -> None:
    size = SIZES.get(kind, 32)
    raw = empty(tmp_path / "partition.raw", size)
    run(*MAKE[kind], str(raw))
    raw.chmod(0o600)
    (report,) = inspect(raw)
    said, kilobytes = report.line.rsplit(":", 1)
    assert said == f"DD:NONE:{LINES[kind]}"
    assert (size - 1) * 1024 <= int(kilobytes) <= size * 1024
    assert 0 <= report.found.used_bytes < size * MEBIBYTE


@pytest.mark.parametrize(("bits", "mebibytes"), [("12", 2), ("32", 64)])
def test_the_kind_of_fat_follows_from_its_clusters(tmp_path: Path, bits: str, mebibytes: int) -> None:
    raw = empty(tmp_path / "fat.raw", mebibytes)
    run("mkfs.fat", "-F", bits, "-s", "1" if bits == "32" else "4", "-n", "BOOT", str(raw))
    (report,) = inspect(raw)
    assert (report.line, report.found.label) == (f"DD:NONE:FAT{bits}:{mebibytes * 1024}", "BOOT")


@pytest.mark.parametrize("kind", ["ext4", "ntfs", "xfs", "fat", "btrfs"])
def test_partclone_says_the_same_as_we_do(tmp_path: Path, kind: str) -> None:
    raw = empty(tmp_path / "partition.raw", SIZES.get(kind, 32))
    run(*MAKE[kind], str(raw))
    run(f"partclone.{kind}", "-c", "-s", str(raw), "-o", str(tmp_path / "image"), "-L", "/dev/null")
    shown = subprocess.run(
        [shutil.which("partclone.info", path=PATH) or "", str(tmp_path / "image")],
        capture_output=True, text=True, check=False, env={"LC_ALL": "C", "PATH": PATH},
    )  # fmt: skip
    words = (shown.stdout + shown.stderr).replace(": ", "\n").split()
    megabytes = float(words[words.index("Device") + 2])
    (report,) = inspect(tmp_path / "image")
    assert report.line == f"PARTCLONE:NONE:{words[words.index('system') + 1]}:{int(megabytes * 10 + 0.5) * 1024 // 10}"
    used = int(words[words.index("use") + 4]) * report.found.block_bytes
    said = dict(report.found.facts)["Used by superblock"]  # Btrfs counts what it keeps twice once
    assert said == (f"{used} bytes" if report.found.used_bytes != used else "")


def test_ntfsclone(tmp_path: Path) -> None:
    raw = empty(tmp_path / "ntfs.raw", 16)
    run(*MAKE["ntfs"], str(raw))
    run("ntfsclone", "--save-image", "-O", str(tmp_path / "image"), str(raw))
    (report,) = inspect(tmp_path / "image")
    assert report.line == f"NTFSCLONE:NONE:NTFS:{report.found.device_bytes // 1000}"
    assert 15 * MEBIBYTE < report.found.device_bytes <= 16 * MEBIBYTE
    assert 0 < report.found.used_bytes < 4 * MEBIBYTE


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: fsarchiver reads block devices only")
def test_fsarchiver(tmp_path: Path) -> None:
    with loop(tmp_path / "disk", 32 * MEBIBYTE, scan=False) as device:
        run("mkfs.ext4", "-q", "-L", "system", device)
        run("fsarchiver", "savefs", str(tmp_path / "image.fsa"), device)
    (report,) = inspect(tmp_path / "image.fsa")
    assert report.line.startswith("FSARCHIVER:NONE:EXT4:")
    assert 0 < report.found.used_bytes < report.found.device_bytes <= 32 * MEBIBYTE
    assert report.found.label == "system"
    assert dict(report.found.facts)["Compressed inside by"] == "zstd"


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: partimage reads block devices only")
def test_partimage(tmp_path: Path) -> None:
    with loop(tmp_path / "disk", 16 * MEBIBYTE, scan=False) as device:
        run("mkfs.fat", "-F", "16", "-s", "4", "-n", "WINDOWS", device)
        stored = run(
            "partimage", "-f3", "-o", "-d", "-B", "gui=no", "-c", "-z0", "--volume=0", "save", device, "stdout"
        )
    (tmp_path / "image").write_bytes(lzma.compress(stored))
    (report,) = inspect(tmp_path / "image")
    assert report.line == "PARTIMAGE:XZ:FAT16:16384"
    assert (report.found.label, report.found.block_bytes) == ("WINDOWS", 512)
    assert 0 < report.found.used_bytes < len(stored)


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: fsarchiver reads block devices only")
def test_volumes_of_fsarchiver_are_refused(tmp_path: Path) -> None:
    """Each has its own headers: the first alone would be an image that ends too early."""
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "random").write_bytes(os.urandom(5 * MEBIBYTE))
    with loop(tmp_path / "disk", 32 * MEBIBYTE, scan=False) as device:
        run("mkfs.ext4", "-q", "-d", str(tmp_path / "files"), device)
        run("fsarchiver", "savefs", "-Z1", "-s", "2", str(tmp_path / "lab.fsa"), device)
        run("fsarchiver", "savefs", "-Z1", str(tmp_path / "one.fsa"), device)
    assert (tmp_path / "lab.f02").exists()
    assert inspect(tmp_path / "one.fsa")[0].found.tool == "fsarchiver"
    (tmp_path / "one.f01").touch()  # of something else: the archive itself says that it is whole
    inspect(tmp_path / "one.fsa")
    with pytest.raises(InspectionError, match=r"lab\.fsa: the first of several volumes of fsarchiver, .*without -s"):
        inspect(tmp_path / "lab.fsa")
    with pytest.raises(InspectionError, match=r"lab\.f01: volume 1 of an archive of fsarchiver"):
        inspect(tmp_path / "lab.f01")
    (tmp_path / "lab.fsa.gz").write_bytes(gzip.compress((tmp_path / "lab.fsa").read_bytes(), 1))
    with pytest.raises(InspectionError, match=r"with lab\.f01 beside it"):
        inspect(tmp_path / "lab.fsa.gz")
    (tmp_path / "alone").mkdir()
    (tmp_path / "lab.fsa").rename(tmp_path / "alone" / "lab.img")  # under any name, without its neighbours
    with pytest.raises(InspectionError, match="first of several volumes"):
        inspect(tmp_path / "alone" / "lab.img")
    (tmp_path / "cut.fsa").write_bytes((tmp_path / "one.fsa").read_bytes()[:-100])
    with pytest.raises(InspectionError, match="without its end"):
        inspect(tmp_path / "cut.fsa")


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: partimage reads block devices only")
@pytest.mark.parametrize("level", ["-z0", "-z1", "-z2"])
def test_volumes_of_partimage_are_refused(tmp_path: Path, level: str) -> None:
    """Each has its own header: one after the other they restore to a damaged file system."""
    raw = empty(tmp_path / "fat.raw", 32)
    run("mkfs.fat", "-F", "16", "-s", "4", str(raw))
    (tmp_path / "random").write_bytes(os.urandom(3 * MEBIBYTE))
    run("mcopy", "-i", str(raw), str(tmp_path / "random"), "::")
    with loop(tmp_path / "disk", 32 * MEBIBYTE, scan=False) as device:
        Path(device).write_bytes(raw.read_bytes())
        options = ("-f3", "-o", "-d", "-B", "gui=no", "-c", level)
        run("partimage", *options, "-V1", "save", device, str(tmp_path / "lab"))
        stored = run("partimage", *options, "-V0", "save", device, "stdout")
    assert (tmp_path / "lab.001").exists()
    for name in ("lab", "lab.000", "lab.001"):
        with pytest.raises(InspectionError, match=r"lab: volumes of partimage, .* with -V0"):
            inspect(tmp_path / name)
    (tmp_path / "one.000").write_bytes(stored[:MEBIBYTE])  # what `split` makes of one file is joined
    (tmp_path / "one.001").write_bytes(stored[MEBIBYTE:])
    (report,) = inspect(tmp_path / "one.000")
    assert (report.found.tool, len(report.volumes)) == ("partimage", 2)
    (tmp_path / "lab.000").rename(tmp_path / "alone.img")
    with pytest.raises(InspectionError, match=r"alone\.img: an image of partimage without its end"):
        _read_to_its_end(tmp_path / "alone.img")  # of a compressed one its end is known then alone


def _read_to_its_end(image: Path) -> None:
    source = survey(image)
    verified(source, source.plans[0])


@pytest.mark.parametrize("label", ["dos", "gpt"])
def test_raw_disks(tmp_path: Path, label: str) -> None:
    disk = empty(tmp_path / "disk.img", 32)
    table = f"label: {label}\n2048,16384\n18432,16384\n"
    subprocess.run([shutil.which("sfdisk", path=PATH) or "", "-q", str(disk)], input=table, text=True, check=True)
    (report,) = inspect(disk)
    size = 32 * 1024 if label == "gpt" else (18432 + 16384) // 2
    assert report.line == f"DD:NONE:{'GPT' if label == 'gpt' else 'MBR'}:{size}"
    assert [name for name, _ in report.found.facts] == ["Partition 1", "Partition 2"]
    assert "8388608 bytes from sector 2048" in report.found.facts[0][1]


@pytest.mark.parametrize("form", ["qcow2", "vmdk", "vdi"])
def test_disks_of_virtual_machines(tmp_path: Path, form: str) -> None:
    run("qemu-img", "create", "-q", "-f", form, str(tmp_path / "disk"), "64M")
    (report,) = inspect(tmp_path / "disk")
    assert report.line == f"{form.upper()}:NONE:DISK:65536"


@pytest.mark.parametrize("kind", ["gzip", "bzip2", "xz", "lzop", "lz4", "zstd"])
def test_each_compressor_whole_and_in_volumes(tmp_path: Path, partclone: Path, kind: str) -> None:
    own = {"gzip": gzip.compress, "bzip2": bz2.compress, "xz": lzma.compress}
    stored = own[kind](partclone.read_bytes()) if kind in own else run(kind, "-c", str(partclone))
    (tmp_path / "image").write_bytes(stored)
    (report,) = inspect(tmp_path / "image")
    assert report.line == f"PARTCLONE:{kind.upper()}:EXTFS:17203"
    assert report.stored_bytes == len(stored)
    for number in range(3):
        piece = -(-len(stored) // 3)
        (tmp_path / f"sda1.ext4-ptcl-img.a{'abc'[number]}").write_bytes(stored[number * piece : (number + 1) * piece])
    (split,) = inspect(tmp_path)
    assert (split.line, len(split.volumes), split.stored_bytes) == (report.line, 3, len(stored))


@pytest.mark.parametrize("kind", ["gzip", "bzip2", "xz", "lzop", "lz4", "zstd"])
def test_a_damaged_file_is_an_error_that_names_it(tmp_path: Path, partclone: Path, kind: str) -> None:
    own = {"gzip": gzip.compress, "bzip2": bz2.compress, "xz": lzma.compress}
    stored = own[kind](partclone.read_bytes()) if kind in own else run(kind, "-c", str(partclone))
    for damaged in (stored[:20], stored[:20] + b"\xff" * 400):
        (tmp_path / "image").write_bytes(damaged)
        with pytest.raises(InspectionError, match=str(tmp_path / "image")):
            inspect(tmp_path / "image")


def test_a_bomb_is_not_uncompressed(tmp_path: Path) -> None:
    """A gigabyte of zeros in a megabyte: only its first bytes are made."""
    (tmp_path / "image.gz").write_bytes(gzip.compress(bytes(64 * MEBIBYTE), 1) * 16)
    with pytest.raises(InspectionError, match="begins with 00 00"):
        inspect(tmp_path / "image.gz")


def test_a_program_that_is_not_installed_is_named(
    tmp_path: Path, partclone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "image").write_bytes(run("lzop", "-c", str(partclone)))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InspectionError, match="apt-get install lzop"):
        inspect(tmp_path / "image")


def test_volumes_that_are_missing(tmp_path: Path, partclone: Path) -> None:
    data = partclone.read_bytes()
    (tmp_path / "d1p1.img.000").write_bytes(data[:1000])
    (tmp_path / "d1p1.img.002").write_bytes(data[2000:])
    done = _pbserv("image", "info", str(tmp_path / "d1p1.img.002"))
    assert done.returncode == 0
    assert "volumes are missing: d1p1.img.001" in done.stderr
    (tmp_path / "d1p1.img.000").unlink()
    with pytest.raises(InspectionError, match=r"first volume d1p1\.img\.000 is missing"):
        inspect(tmp_path / "d1p1.img")


def test_the_verb(tmp_path: Path, partclone: Path) -> None:
    image = tmp_path / "lab.img"
    image.write_bytes(run("lzop", "-c", str(partclone)))
    (tmp_path / "lab.img.full.sum").write_text("0" * 32)
    shown = _pbserv("image", "info", str(image)).stdout
    first, _, rest = shown.partition("\n")
    assert first == "PARTCLONE:LZOP:EXTFS:17203"
    assert "(16777216 bytes)" in rest
    assert "OpenGnSys" in rest
    value = json.loads(_pbserv("image", "info", "--json", str(image)).stdout)
    assert value["line"] == first
    assert (value["kilobytes"], value["device_bytes"], value["block_bytes"]) == (17203, 16777216, 4096)
    assert (value["compressor"], value["checksum"], value["missing"]) == ("lzop", "crc32", [])


def test_what_is_no_image_ends_with_one_line(tmp_path: Path) -> None:
    for path, why in ((tmp_path / "nothing", "no such file"), (tmp_path, "none of Clonezilla's or FOG's")):
        done = _pbserv("image", "info", str(path))
        assert done.returncode == 1
        assert why in done.stderr
        assert "Traceback" not in done.stderr


def _pbserv(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(PBSERV), *arguments], capture_output=True, text=True, check=False, timeout=60)
