"""Which files are one image, and which system they come from, by names alone."""

from __future__ import annotations

import pytest

from pbserv.imaging.formats.volumes import streams, system_of, together

CLONEZILLA = [
    "parts", "disk", "sda-pt.sf", "sda1.vfat-ptcl-img.gz.aa", "sda2.ext4-ptcl-img.gz.aa", "sda2.ext4-ptcl-img.gz.ab",
    "sda3.ntfs-ptcl-img.zst", "Info-lshw.txt", "clonezilla-img",
]  # fmt: skip
FOG = ["d1.mbr", "d1p1.img", "d1p2.img.000", "d1p2.img.001", "d1.partitions", "d1.original.fstypes"]


@pytest.mark.parametrize(
    ("name", "beside", "volumes", "missing"),
    [
        ("a.img", ["a.img"], ["a.img"], []),
        ("a.gz", ["a.gz", "a.xz"], ["a.gz"], []),
        ("a.gz", ["a.gz", "a.gz.aa"], ["a.gz"], []),
        ("a.gz.aa", ["a.gz.aa", "a.gz.ab", "b.gz.ac"], ["a.gz.aa", "a.gz.ab"], []),
        ("a.gz", ["a.gz.aa", "a.gz.ab"], ["a.gz.aa", "a.gz.ab"], []),
        ("a.gz.ac", ["a.gz.aa", "a.gz.ac"], ["a.gz.aa", "a.gz.ac"], ["a.gz.ab"]),
        ("a.gz.ab", ["a.gz.ab"], ["a.gz.ab"], ["a.gz.aa"]),
        ("d1p1.img", ["d1p1.img.000", "d1p1.img.002"], ["d1p1.img.000", "d1p1.img.002"], ["d1p1.img.001"]),
        ("nothing", [], ["nothing"], []),
    ],
)
def test_volumes(name: str, beside: list[str], volumes: list[str], missing: list[str]) -> None:
    image = together(name, beside)
    assert (list(image.volumes), list(image.missing)) == (volumes, missing)


def test_none_of_a_thousand_volumes_is_passed_over() -> None:
    names = [f"a.{number:03d}" for number in range(1000)]
    assert together("a", names).missing == ()
    assert together("a", [name for name in names if name not in ("a.675", "a.800")]).missing == ("a.675", "a.800")


def test_after_az_comes_ba() -> None:
    names = [f"a.{first}{second}" for first in "ab" for second in "abcdefghijklmnopqrstuvwxyz"]
    assert together("a", names).volumes == tuple(names)


def test_directories_of_clonezilla_and_fog() -> None:
    system, images = streams(CLONEZILLA)
    assert system == "Clonezilla"
    assert [(image.name, len(image.volumes)) for image in images] == [
        ("sda1.vfat-ptcl-img.gz", 1), ("sda2.ext4-ptcl-img.gz", 2), ("sda3.ntfs-ptcl-img.zst", 1),
    ]  # fmt: skip
    system, images = streams(FOG)
    assert (system, [image.volumes for image in images]) == ("FOG", [("d1p1.img",), ("d1p2.img.000", "d1p2.img.001")])
    system, images = streams([*CLONEZILLA, "sda4.aa", "sda4.ab", "sda5.000", "other.aa"])
    assert [image.name for image in images][3:] == ["sda4", "sda5"]
    assert images[3].volumes == ("sda4.aa", "sda4.ab")
    assert streams(["parts", "disk"]) == ("Clonezilla", [])
    assert streams(["a.img"]) == ("", [])


@pytest.mark.parametrize(
    ("name", "beside", "system"),
    [
        ("windows.img", ["windows.img", "windows.img.full.sum"], "OpenGnSys"),
        ("windows.img", ["windows.img"], ""),
        ("graphical.i686-3.1.4", ["graphical.i686-3.1.4.md5"], "SLEPOS"),
        ("graphical.i686-3.1.4.gz", ["graphical.i686-3.1.4.md5"], "SLEPOS"),
        ("d1p2.img.000", FOG, "FOG"),
        ("sda2.ext4-ptcl-img.gz.aa", CLONEZILLA, "Clonezilla"),
    ],
)
def test_where_a_file_comes_from(name: str, beside: list[str], system: str) -> None:
    assert system_of(name, beside) == system
