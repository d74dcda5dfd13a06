"""Puts the iPXE boot loaders of Debian's ``ipxe`` package into the TFTP directory.

One rule: nothing is installed on the host; a package that is not there is only unpacked into a temporary folder.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

from pbserv.errors import PbservError

Progress = Callable[[str], None]

# undionly.kpxe: PC BIOS, over the card's own driver. snponly.efi: UEFI x64, over the firmware's driver (the default,
# docs/adr/0003). ipxe.efi: UEFI x64 with iPXE's own drivers, for the few machines on which the other fails.
LOADERS = ("undionly.kpxe", "snponly.efi", "ipxe.efi")
FOLDER = Path("usr/lib/ipxe")
PACKAGE = "ipxe"


class LoaderError(PbservError):
    """The loaders could not be put in place; the message names the remedy."""


def install(tftp_directory: Path, progress: Progress, *, root: Path = Path("/")) -> list[str]:
    """Places the loaders, each whole or not at all, readable by everyone; returns their names.

    ``root`` is the system that may have the package installed. Raises LoaderError: no such directory, no package and
    no way to get it, a write that failed.
    """
    if not tftp_directory.is_dir():
        raise LoaderError(f"{tftp_directory}: no such directory (TFTPDirectory in tftp.conf)")
    if all(_find(root, name) for name in LOADERS):
        _place_all(root, tftp_directory, progress)
    else:
        with tempfile.TemporaryDirectory(prefix="pbserv-ipxe-") as folder:
            _place_all(_unpack(Path(folder), progress), tftp_directory, progress)
    return list(LOADERS)


def _find(root: Path, name: str) -> Path | None:
    """The loader's file below ``root``. The package has absolute links (ipxe.efi lies in /boot): they stay below it."""
    path = root / FOLDER / name
    if path.is_symlink():
        link = path.readlink()
        path = root / link.relative_to("/") if link.is_absolute() else path.parent / link
    return path if path.is_file() else None


def _place_all(root: Path, target: Path, progress: Progress) -> None:
    for name in LOADERS:
        source = _find(root, name)
        if source is None:
            raise LoaderError(f"the package {PACKAGE} lacks {name}")
        try:
            _place(source, target / name)
        except OSError as fault:
            raise LoaderError(f"{target / name}: {fault.strerror}") from None
        progress(f"{target / name}: {(target / name).stat().st_size} bytes, from Debian's package {PACKAGE}")


def _place(source: Path, target: Path) -> None:
    descriptor, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as out, source.open("rb") as data:
            shutil.copyfileobj(data, out)
            out.flush()
            os.fchmod(out.fileno(), 0o644)
            os.fsync(out.fileno())
        temporary.replace(target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _unpack(folder: Path, progress: Progress) -> Path:
    """Downloads and unpacks Debian's package into ``folder``; returns the root of what was in it."""
    remedy = f"install Debian's package (apt-get install {PACKAGE}) and try again"
    if os.geteuid() != 0 or shutil.which("apt-get") is None or shutil.which("dpkg") is None:
        raise LoaderError(f"/{FOLDER} has no boot loaders: {remedy}")
    progress(f"downloading Debian's package {PACKAGE} (nothing is installed)")
    folder.chmod(0o755)  # apt's unprivileged download user must get through
    _run(["apt-get", "-q", "-o", "APT::Sandbox::User=root", "download", PACKAGE], folder, remedy)
    package = next(folder.glob(f"{PACKAGE}_*.deb"), None)
    if package is None:
        raise LoaderError(f"apt-get downloaded no {PACKAGE} package: {remedy}")
    _run(["dpkg", "-x", str(package), str(folder / "root")], folder, remedy)
    return folder / "root"


def _run(command: list[str], folder: Path, remedy: str) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, errors="replace", check=False)
    if done.returncode != 0:
        last = (done.stderr.strip() or done.stdout.strip() or "no message").splitlines()[-1]
        raise LoaderError(f"{command[0]} failed: {last}; run apt-get update, or {remedy}")
