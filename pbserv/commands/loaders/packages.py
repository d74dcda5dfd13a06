"""Files of Debian packages: from this host where they are installed, else downloaded and only unpacked.

One rule: nothing is installed and nothing of the host's apt is changed; its lists and its cache are private copies.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterable
from pathlib import Path

from pbserv.commands.client_build import BuildError, Progress, debian_sources
from pbserv.commands.loaders.place import LoaderError
from pbserv.commands.loaders.table import Loader

_TIMEOUT_S = 300
_ROLLING = ("sid", "unstable", "experimental")


def collect(loaders: Iterable[Loader], progress: Progress, *, suite: str, root: Path) -> dict[str, bytes]:
    """The bytes of each loader by its name.

    ``root`` is the system that may have the packages installed; with ``suite`` they are always downloaded, from that
    release of Debian. Raises LoaderError: no package, no way to get it, a package without the file.
    """
    found: dict[str, bytes] = {}
    absent: dict[str, list[Loader]] = {}
    for loader in loaders:
        path = None if suite else find(root, loader.path)
        if path is None:
            absent.setdefault(loader.architecture, []).append(loader)
        else:
            found[loader.name] = _read(path)
    for architecture, group in absent.items():
        with tempfile.TemporaryDirectory(prefix="pbserv-loaders-") as folder:
            found |= _download(Apt(Path(folder), architecture, suite, progress), group)
    return found


def find(root: Path, name: str) -> Path | None:
    """The file ``name`` below ``root``. Packages have absolute links (ipxe.efi lies in /boot): they stay below it."""
    path = root / name
    if path.is_symlink():
        link = path.readlink()
        path = root / link.relative_to("/") if link.is_absolute() else path.parent / link
    return path if path.is_file() else None


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as fault:
        raise LoaderError(f"{path}: {fault.strerror}") from None


def _download(apt: Apt, loaders: list[Loader]) -> dict[str, bytes]:
    apt.update()
    for package in dict.fromkeys(loader.package for loader in loaders):
        apt.unpack(package)
    found: dict[str, bytes] = {}
    for loader in loaders:
        path = find(apt.root, loader.path)
        if path is None:
            newer = f"; try --suite {loader.suite}" if loader.suite else ""
            raise LoaderError(f"Debian's package {loader.package}{apt.release} has no {loader.path}{newer}")
        found[loader.name] = _read(path)
    return found


class Apt:
    """An apt with lists of its own below ``folder``, for one architecture and the host's or another release."""

    def __init__(self, folder: Path, architecture: str, suite: str, progress: Progress) -> None:
        for program in ("apt-get", "dpkg"):
            if shutil.which(program) is None:
                raise LoaderError(f"{program} is missing: install on a Debian system, or use --from FILE --sha256 HEX")
        self.root = folder / "root"
        self.release = f" of {suite}" if suite else ""
        self._folder, self._progress = folder, progress
        self._architecture = architecture
        for part in ("lists/partial", "archives/partial", "empty", "root"):
            (folder / part).mkdir(parents=True)
        (folder / "status").touch()
        (folder / "sources.list").write_text("\n".join(self._sources(suite)) + "\n")

    def update(self) -> None:
        """Read the package lists. Raises LoaderError."""
        self._progress(f"reading Debian's package lists{self.release} for {self._architecture}")
        self._run("update")

    def unpack(self, package: str) -> None:
        """Download a package and unpack it below ``root``; ``a | b``: the first that there is. Raises LoaderError."""
        first, *others = package.split(" | ")
        self._progress(f"downloading Debian's package {first}{self.release} (nothing is installed)")
        try:
            self._run("download", first)
        except LoaderError:
            if not others:
                raise
            return self.unpack(" | ".join(others))
        archive = next(self._folder.glob(f"{first}_*.deb"), None)
        if archive is None:
            raise LoaderError(f"apt-get downloaded no {first}: check /etc/apt")
        self._call(["dpkg", "-x", str(archive), str(self.root)])
        archive.unlink()
        return None

    def _sources(self, suite: str) -> list[str]:
        try:
            lines = debian_sources(self._folder / "host", self._progress)
        except BuildError as fault:
            raise LoaderError(str(fault)) from None
        if not suite:
            return lines
        wanted = dict.fromkeys(line for each in lines if (line := in_suite(each, suite)))
        if not wanted:
            raise LoaderError(f"no package source of this host can be asked for {suite}: check /etc/apt")
        return list(wanted)

    def _run(self, *words: str) -> None:
        folder = self._folder
        options = {
            "Dir::Etc::sourcelist": folder / "sources.list", "Dir::Etc::sourceparts": folder / "empty",
            "Dir::Etc::preferences": "/dev/null", "Dir::Etc::preferencesparts": folder / "empty",
            "Dir::State": folder, "Dir::State::lists": folder / "lists", "Dir::State::status": folder / "status",
            "Dir::Cache": folder, "Dir::Cache::archives": folder / "archives",
            "APT::Architecture": self._architecture, "APT::Architectures": self._architecture,
            "APT::Default-Release": "", "APT::Sandbox::User": "", "Acquire::Languages": "none",
        }  # fmt: skip
        self._call(["apt-get", "-q", *(word for name, value in options.items() for word in ("-o", f"{name}={value}")),
                    *words])  # fmt: skip

    def _call(self, command: list[str]) -> None:
        environment = os.environ | {"LC_ALL": "C.UTF-8"}
        try:
            done = subprocess.run(
                command, cwd=self._folder, env=environment, capture_output=True, text=True, errors="replace",
                check=False, timeout=_TIMEOUT_S,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            raise LoaderError(f"{command[0]} did not end within {_TIMEOUT_S} s: check the way to the mirror") from None
        if done.returncode != 0:
            last = (done.stderr.strip() or done.stdout.strip() or "no message").splitlines()[-1]
            raise LoaderError(f"{command[0]} failed: {last}; or install from a file: --from FILE --sha256 HEX")


def in_suite(line: str, suite: str) -> str | None:
    """A line of sources.list for another release; None for what that release does not have.

    Of the host's sources only the archive itself and its security updates have every release.
    """
    head, _, rest = line.rpartition("] ")
    uri, release, components = rest.removeprefix("deb ").split(maxsplit=2)
    before = f"{head}] " if head else "deb "
    if release.endswith("-security") and suite not in _ROLLING:
        return f"{before}{uri} {suite}-security {components}"
    return None if "-" in release or "/" in release else f"{before}{uri} {suite} {components}"
