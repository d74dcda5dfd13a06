"""`pbserv tftp map-test`, as a program."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.support.process import PBSERV, Installed

RULES = r"""
rg \\ /                # Windows
rE ^ boxes/\x/
a \.pvt$ private
"""


@pytest.fixture
def place(tmp_path: Path) -> Installed:
    made = Installed(tmp_path)
    (tmp_path / "map").write_text(RULES)
    for name in ("boot/bcd", "boxes/0A000007/x", "undionly.kpxe"):
        path = made.tftp / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    return made


def map_test(place: Installed, *words: str | bytes, stdin: bytes = b"") -> tuple[int, list[str]]:
    done = subprocess.run(
        [PBSERV, "tftp", "map-test", "--conf", place.conf, *words], input=stdin, capture_output=True, timeout=60
    )
    return done.returncode, (done.stdout + done.stderr).decode().splitlines()


def test_steps_and_results(place: Installed) -> None:
    place.set("tftp.conf", TFTPDirectory=str(place.tftp), TFTPMapFile=str(place.place / "map"))
    code, lines = map_test(place, "boot\\BCD", "x", "k.pvt", "none", "--client", "10.0.0.7")
    assert lines == [
        "boot\\\\BCD",
        "  line 2: rg \\\\ /: boot\\\\BCD -> boot/BCD, goes on",
        "  line 3: rE ^ boxes/\\x/: boot/BCD -> boot/BCD, goes on, as there is no such file",
        "  = boot/bcd, 8 bytes",
        "x",
        "  line 3: rE ^ boxes/\\x/: x -> boxes/0A000007/x, ends, as there is such a file",
        "  = boxes/0A000007/x, 16 bytes",
        "k.pvt",
        "  line 3: rE ^ boxes/\\x/: k.pvt -> k.pvt, goes on, as there is no such file",
        "  line 4: a \\.pvt$ private: k.pvt -> k.pvt, refuses",
        "  = ERROR 2 private",
        "none",
        "  line 3: rE ^ boxes/\\x/: none -> none, goes on, as there is no such file",
        "  = ERROR 1 file not found (files that services make are not looked at)",
    ]
    assert code == 1


def test_names_from_stdin_and_another_map_file(place: Installed) -> None:
    other = place.place / "other"
    other.write_bytes(b"r4 ^ boxes/\\x/\nr6 ^ boot/\n")
    words = ("--map-file", str(other))
    code, lines = map_test(place, *words, "--client", "2001:db8::7", stdin=b"bcd\n\nbcd\xff\n")
    assert code == 0
    assert [line for line in lines if line.startswith("  =")] == ["  = boot/bcd, 8 bytes"] * 2
    assert "bcd\\xff" in lines


def test_without_a_map_file(place: Installed) -> None:
    assert map_test(place, "nvlnbp.sys") == (
        0,
        ["no TFTPMapFile is set: names are taken as they come", "nvlnbp.sys", "  = undionly.kpxe, 13 bytes"],
    )


def test_directories_of_clients_and_uploads(place: Installed) -> None:
    home = place.tftp / "52-54-00-12-34-56"
    home.mkdir()
    (home / "old").write_text("four")
    place.set("tftp.conf", TFTPDirectory=str(place.tftp), TFTPClientDirectories="mac")
    code, lines = map_test(place, "--put", "--mac", "52:54:00:12:34:56", "new", "OLD", "none/x")
    assert lines[1:] == [
        "TFTPAllowWrites is 0: every upload is refused as long as it is",
        "new", "  = 52-54-00-12-34-56/new, a new file",
        "OLD", "  = 52-54-00-12-34-56/old, replaces 4 bytes",
        "none/x", "  = ERROR 1 directory not found",
    ]  # fmt: skip
    assert code == 1
    assert sorted(path.name for path in home.iterdir()) == ["old"], "nothing is made"


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (
            ("--client", "nobody", "x"),
            2,
            "pbserv: --client nobody: not an address; write it as 10.0.0.7 or 2001:db8::7",
        ),
        (("--mac", "12", "x"), 2, "pbserv: --mac '12' is not a MAC address; write it as aa:bb:cc:dd:ee:ff"),
        (("--map-file", "/none", "x"), 1, "pbserv: map file /none: No such file or directory"),
    ],
)
def test_wrong_words(place: Installed, words: tuple[str, ...], code: int, message: str) -> None:
    found, lines = map_test(place, *words)
    assert found == code
    assert lines[0].startswith(message)


def test_a_faulty_map_file(place: Installed) -> None:
    (place.place / "map").write_text("r a b\nq a b\n")
    code, lines = map_test(place, "--map-file", str(place.place / "map"), "x")
    assert code == 1
    assert lines == [
        f"pbserv: map file {place.place}/map: line 2, column 1: 'q' is no operation; use letters of 46EGPaegijrs~"
    ]
