"""Debian packages that are unpacked below .cache/bench instead of being installed.

One rule: nothing is enabled on the host. Installing tftpd-hpa would start a daemon, and atftpd conflicts with it.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

CACHE = Path(__file__).parents[2] / ".cache" / "bench"


class Missing(RuntimeError):
    """A peer cannot be had here; the message says what to do."""


def unpacked(package: str) -> Path:
    """The directory that stands for / of the package; fetched when it is not there yet."""
    folder = CACHE / package
    if not (folder / "VERSION").exists():
        _fetch(package, folder)
    return folder


def version(package: str) -> str:
    return (unpacked(package) / "VERSION").read_text().strip()


def _fetch(package: str, folder: Path) -> None:
    CACHE.mkdir(parents=True, exist_ok=True)
    try:
        if _run("apt-get", "download", package).returncode != 0:
            _run("apt-get", "update", "-qq")
            _run("apt-get", "download", package).check_returncode()
        archive = max(CACHE.glob(f"{package}_*.deb"), key=lambda found: found.stat().st_mtime)
        _run("dpkg-deb", "-x", str(archive), str(folder)).check_returncode()
        found = _run("dpkg-deb", "-f", str(archive), "Version")
        found.check_returncode()
    except FileNotFoundError as fault:
        raise Missing(f"{package} cannot be fetched: the bench needs Debian's apt-get and dpkg-deb") from fault
    except subprocess.CalledProcessError as fault:
        raise Missing(f"{package} cannot be fetched: {fault.stderr.strip()}; is there a network?") from fault
    (folder / "VERSION").write_text(found.stdout)


def _run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=CACHE, capture_output=True, text=True, check=False)
