"""Builds the imaging client's kernel and initramfs from Debian packages (recipe: ``client/``).

One rule: only this host's own Debian package sources are used, and nothing is left outside the output folder.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from importlib import resources
from pathlib import Path

from pbserv.errors import PbservError

Progress = Callable[[str], None]

RESULTS = ("vmlinuz", "initrd.img")
BUILD_ID = "build-id"
DEBIAN_KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
# Room for the chroot (about 900 MB with the package files) while it is being built.
NEEDED_BYTES = 1_500_000_000
# The host's own way to its mirror, handed on to the build's apt.
HANDED_ON = re.compile(r"^Acquire::(https?|Check-Valid-Until|Check-Date|Retries|ForceIPv[46])\b.*;$")
INDEX_FORMAT = "$(ORIGIN)|$(REPO_URI)|$(RELEASE)|$(COMPONENT)"
LEAVE_OUT = ("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*", "/usr/share/info/*")


class BuildError(PbservError):
    """The client could not be built; the message names the remedy."""


def build(output: Path, progress: Progress, *, force: bool = False) -> None:
    """Puts ``vmlinuz``, ``initrd.img`` and ``build-id`` into ``output``; each appears whole or not at all.

    Does nothing when the present files were built from the same recipe, unless ``force``.
    Raises BuildError: no root rights, a missing program, no Debian package source, no room, a failed build, another
    build in this folder.
    """
    recipe = find_recipe()
    wanted = recipe_id(recipe)
    if not force and is_current(output, wanted):
        progress(f"{output}: up to date (build {wanted[:12]}); --force builds it again")
        return
    _check_host()
    output.mkdir(parents=True, exist_ok=True)
    with _alone(output):
        _build(recipe, wanted, output, progress)
    for name in RESULTS:
        progress(f"{output / name}: {(output / name).stat().st_size / 1_000_000:.1f} MB")


def _build(recipe: Path, wanted: str, output: Path, progress: Progress) -> None:
    _remove_leftovers(output)
    free = shutil.disk_usage(output).free
    if free < NEEDED_BYTES:
        raise BuildError(f"{output}: {free // 1_000_000} MB free, the build needs {NEEDED_BYTES // 1_000_000} MB")
    with _work_folder(output) as work:
        _run(recipe, work, progress)
        (work / BUILD_ID).write_text(wanted + "\n")
        (output / BUILD_ID).unlink(missing_ok=True)
        for name in (*RESULTS, BUILD_ID):
            _publish(work / name, output / name)


def find_recipe() -> Path:
    """The folder ``client/``: of the checkout this code runs from, else the copy inside the installed package."""
    package = Path(str(resources.files("pbserv")))
    for folder in (package.parent / "client", package / "_share" / "client"):
        if (folder / "pbclient.sh").is_file():
            return folder
    raise BuildError(f"the client recipe is missing (looked in {package.parent / 'client'} and {package / '_share'})")


def recipe_id(recipe: Path) -> str:
    """Hash of every file of the recipe that goes into the build, names included."""
    digest = hashlib.sha256()
    for path in sorted(path for path in recipe.rglob("*") if path.is_file() and path.suffix != ".md"):
        if path.name.startswith("."):
            continue
        digest.update(f"{path.relative_to(recipe)}\0{path.stat().st_size}\0".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


def is_current(output: Path, wanted: str) -> bool:
    """Whether ``output`` holds a whole build of exactly this recipe."""
    try:
        present = (output / BUILD_ID).read_text().strip()
    except OSError:
        return False
    return present == wanted and all((output / name).is_file() for name in RESULTS)


def _check_host() -> None:
    if os.geteuid() != 0:
        raise BuildError("building the imaging client needs root rights: run it as root (or with sudo)")
    for program, package in (("mmdebstrap", "mmdebstrap"), ("apt-get", "apt"), ("unshare", "util-linux")):
        if shutil.which(program) is None:
            raise BuildError(f"{program} is missing: apt-get install {package}")


def _remove_leftovers(output: Path) -> None:
    """Removes what a killed build left; never a folder into which something is still mounted."""
    mounts = Path("/proc/self/mountinfo").read_text()
    for folder in output.glob(".build-*"):
        if str(folder.resolve()) in mounts:
            raise BuildError(f"{folder}: file systems are still mounted there; unmount them and try again")
        shutil.rmtree(folder)


@contextlib.contextmanager
def _alone(output: Path) -> Iterator[None]:
    """No second build works in this folder: it would take the first one's for a leftover.

    The folder itself is locked, so nothing stays in it, and the lock ends with the process.
    """
    folder = os.open(output, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as fault:
            raise BuildError(f"{output}: another pbserv client build works there: wait until it ends") from fault
        yield
    finally:
        os.close(folder)


@contextlib.contextmanager
def _work_folder(output: Path) -> Iterator[Path]:
    work = Path(tempfile.mkdtemp(prefix=".build-", dir=output))
    work.chmod(0o755)  # apt's unprivileged download user must get through
    try:
        yield work
    finally:
        _remove_leftovers(output)


def debian_sources(work: Path, progress: Progress) -> list[str]:
    """This host's package sources that are Debian's own, as one-line apt entries.

    apt is asked, so both file formats count. A host without package lists gets them in ``work``, not in its own cache.
    """
    listed = _index_targets([])
    if not listed:
        progress("reading this host's package sources")
        lists = work / "lists"
        (lists / "partial").mkdir(parents=True)
        options = ["-o", f"Dir::State::lists={lists}", "-o", "APT::Sandbox::User=root"]
        subprocess.run(["apt-get", "-qq", "update", *options], check=False, capture_output=True)
        listed = _index_targets(options)
    signed = f"[signed-by={DEBIAN_KEYRING}] " if DEBIAN_KEYRING.exists() else ""
    entries: dict[tuple[str, str], list[str]] = {}
    for line in listed:
        origin, uri, release, component = line.split("|")
        if origin == "Debian" and not uri.startswith("cdrom:"):
            parts = entries.setdefault((uri, release), [])
            if component not in parts:
                parts.append(component)
    if not entries:
        raise BuildError("no Debian package source found on this host: check /etc/apt, then run apt-get update")
    return [f"deb {signed}{uri} {release} {' '.join(parts)}" for (uri, release), parts in entries.items()]


def _index_targets(options: list[str]) -> list[str]:
    command = ["apt-get", "indextargets", *options, "--format", INDEX_FORMAT, "Created-By: Packages"]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    return [line for line in done.stdout.splitlines() if line.count("|") == 3]


def _apt_options() -> str:
    """Proxy and similar settings of the host's apt, and where it keeps the access data of its mirrors."""
    dump = subprocess.run(["apt-config", "dump"], check=False, capture_output=True, text=True).stdout
    lines = [line for line in dump.splitlines() if HANDED_ON.match(line)]
    lines += ['Acquire::Languages "none";', 'APT::Install-Recommends "false";']
    lines += ['Dir::Etc::netrc "/etc/apt/auth.conf";', 'Dir::Etc::netrcparts "/etc/apt/auth.conf.d";']
    return "\n".join(lines) + "\n"


def packages(recipe: Path) -> list[str]:
    """The package names of the recipe's list, comments left out."""
    words = (line.split("#")[0].strip() for line in (recipe / "packages").read_text().splitlines())
    return [word for word in words if word]


def _command(recipe: Path, work: Path, sources: list[str]) -> list[str]:
    (work / "apt.conf").write_text(_apt_options())
    (work / "sources.list").write_text("\n".join(sources) + "\n")
    command = [
        "mmdebstrap",
        "--mode=root",
        "--variant=essential",
        "--format=null",
        f"--include={','.join(packages(recipe))}",
        f"--aptopt={work / 'apt.conf'}",
        *(f"--dpkgopt=path-exclude={pattern}" for pattern in LEAVE_OUT),
        "--dpkgopt=force-unsafe-io",
        '--customize-hook=sh "$PB_RECIPE/customize" "$1"',
    ]
    rest = ["", "-", str(work / "sources.list")]
    if subprocess.run(["unshare", "--mount", "true"], check=False, capture_output=True).returncode != 0:
        # A container that may not mount: the build does without /proc and /sys.
        return [*command, "--skip=chroot/mount,check/canmount", *rest]
    # What it mounts is gone with its processes, also when they are killed.
    return ["unshare", "--mount", "--propagation", "private", *command, *rest]


def _run(recipe: Path, work: Path, progress: Progress) -> None:
    sources = debian_sources(work, progress)
    progress(f"building the imaging client from {len(sources)} Debian package source(s) of this host")
    environment = os.environ | {
        "PB_RECIPE": str(recipe),
        "PB_RESULT": str(work),
        "TMPDIR": str(work),
        "INITRD": "No",  # the kernel package must not make an initramfs of its own
        "LC_ALL": "C.UTF-8",
    }
    last: list[str] = []
    with subprocess.Popen(
        _command(recipe, work, sources),
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
    ) as process:
        try:
            assert process.stderr is not None  # noqa: S101  (a pipe was asked for)
            for line in process.stderr:
                last = [*last[-19:], line.rstrip()]
                if step := _step(line):
                    progress(step)
        except BaseException:
            process.terminate()  # it unmounts and removes its chroot
            raise
    if process.returncode != 0:
        raise BuildError("mmdebstrap failed:\n  " + "\n  ".join(last))
    missing = [name for name in RESULTS if not (work / name).is_file()]
    if missing:
        raise BuildError(f"the build made no {' and no '.join(missing)}:\n  " + "\n  ".join(last))


def _step(line: str) -> str | None:
    """What a line of mmdebstrap's output means to the reader; None for the many that mean nothing."""
    if line.startswith("I: ") and not re.match(r"I: (automatically|chroot|skipping|.* is used)", line):
        return line[3:].strip()
    return line[4:].strip() if line.startswith("PB: ") else None


def _publish(source: Path, target: Path) -> None:
    """Makes the file durable, then visible under its name in one step."""
    temporary = target.with_name(f".{target.name}.new")
    shutil.copyfile(source, temporary)
    temporary.chmod(0o644)
    with temporary.open("rb") as file:
        os.fsync(file.fileno())
    temporary.replace(target)
