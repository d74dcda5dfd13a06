"""A wheel of this checkout in an empty environment with the pinned run-time requirements and nothing else."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.support.process import command

ROOT = Path(__file__).parents[2]


def build_wheel(place: Path) -> Path:
    """The wheel's path below ``place``."""
    command([sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(place), str(ROOT)])
    return next(place.glob("*.whl"))


def install_wheel(wheel: Path, place: Path) -> Path:
    """Make the environment ``place``/venv and install into it; the directory of its programs."""
    command([reachable_python(), "-m", "venv", str(place / "venv")])
    pip = str(place / "venv/bin/pip")
    quiet = ["--quiet", "--disable-pip-version-check"]
    command([pip, "install", *quiet, "--require-hashes", "-r", str(ROOT / "requirements/runtime.txt")])
    command([pip, "install", *quiet, "--no-deps", str(wheel)])
    return place / "venv/bin"


def reachable_python() -> str:
    """A Python that every user can run; the one of the tests may lie below a closed home directory."""
    base = Path(sys.base_prefix)
    if all(parent.stat().st_mode & 1 for parent in [base, *base.parents]):
        return sys.executable
    found = Path("/usr/bin/python3")
    assert found.exists(), "no interpreter that an unprivileged user can run: apt-get install python3-venv"
    return str(found)
