"""``pbserv install``: user, directories, sample files and systemd unit. The rule: a second run changes nothing.

What the administrator has written is never overwritten: only missing configuration files are added.
"""

from __future__ import annotations

import contextlib
import grp
import os
import pwd
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pbserv.daemon.directories import prepare_directories
from pbserv.daemon.privileges import Account, find_account, require_root
from pbserv.daemon.unit import UNIT_NAME, UnitPaths, unit_text
from pbserv.errors import PbservError

LEGACY_NAMES: Mapping[str, Sequence[str]] = {
    "pbserv.conf": ("novell-pbserv.conf",),
    "proxydhcp.conf": ("novell-proxydhcp.conf", "novell-proxydhcpd.conf"),
    "tftp.conf": ("novell-tftp.conf",),
    "preboot-policy.conf": ("novell-zmgprebootpolicy.conf",),
}
"""The names of the original product, which are read just as well; one of them and ours together would be an error."""

_UNIT_PLACE = Path("/etc/systemd/system") / UNIT_NAME
_COMMAND_TIMEOUT_S = 60


@dataclass(frozen=True, slots=True)
class Installation:
    """What to install, and where. All paths are as the installed server sees them, without ``root`` in front.

    ``samples`` are file names and texts for ``conf``. ``stores`` are image stores outside ``state``.
    ``proxydhcp`` asks for that service at every boot; then ``add_service`` edits the text of pbserv.conf: (text,
    service name) -> text.
    """

    program: Path
    samples: Mapping[str, str]
    root: Path = Path("/")
    conf: Path = Path("/etc/pbserv")
    state: Path = Path("/var/lib/pbserv")
    log: Path = Path("/var/log/pbserv")
    tftp: Path = Path("/srv/tftp")
    user: str = "pbserv"
    stores: tuple[Path, ...] = ()
    proxydhcp: bool = False
    add_service: Callable[[str, str], str] | None = None

    @property
    def here(self) -> bool:
        """Whether this very system is meant, and not a tree that will become one."""
        return self.root.resolve() == Path("/")

    def at(self, path: Path) -> Path:
        """Where ``path`` of the installed system is now."""
        return self.root / path.relative_to("/")

    def unit_paths(self) -> UnitPaths:
        return UnitPaths(self.program, self.conf, self.state, self.log, self.tftp, self.user, self.stores)


def install(plan: Installation) -> list[str]:
    """Do what is missing and return one line for each thing; raises PbservError.

    With a ``root`` of its own no user is made and systemd is not called: the lines say what is left to do there.
    """
    for path in (plan.program, plan.conf, plan.state, plan.log, plan.tftp, *plan.stores):
        if not path.is_absolute():
            raise PbservError(f"{path}: install needs absolute paths")
    if plan.here:
        require_root("pbserv install")
    text = unit_text(plan.unit_paths())
    done: list[str] = []
    try:
        account = _user(plan, done)
        _directories(plan, account, done)
        _samples(plan, done)
        if plan.proxydhcp:
            _add_proxydhcp(plan, done)
        _unit(plan, text, done)
    except OSError as error:
        raise PbservError(f"{error.filename or plan.root}: {error.strerror or error}") from error
    _hints(plan, account, done)
    return done


def _user(plan: Installation, done: list[str]) -> Account | None:
    if not plan.here:
        done.append(f"user {plan.user}: not made in {plan.root}; run `pbserv install` on the machine itself")
        return None
    with contextlib.suppress(KeyError):
        pwd.getpwnam(plan.user)
        done.append(f"user {plan.user} exists")
        return find_account(plan.user)
    command = ["useradd", "--system", "--no-create-home", "--home-dir", str(plan.state), "--comment", "pbserv"]
    command += ["--shell", "/usr/sbin/nologin"]
    try:
        grp.getgrnam(plan.user)
        command += ["--gid", plan.user]
    except KeyError:
        command += ["--user-group"]
    _call([*command, "--", plan.user])
    done.append(f"created user {plan.user}")
    return find_account(plan.user)


def _directories(plan: Installation, account: Account | None, done: list[str]) -> None:
    done += prepare_directories(plan.at(plan.log), account, ())
    state = plan.at(plan.state)
    done += prepare_directories(state, account, ("run", "images", "client"))
    for store in plan.stores:
        done += prepare_directories(plan.at(store), account, ())
    link = state / "log"
    if plan.log != plan.state / "log":
        _link_log(link, plan.log, done)
    tftp = plan.at(plan.tftp)
    if not tftp.exists():
        tftp.parent.mkdir(parents=True, exist_ok=True)
        tftp.mkdir()
        tftp.chmod(0o755)
        done.append(f"created {tftp}")
    elif not tftp.is_dir():
        raise PbservError(f"{tftp} is in the way: it is not a directory")


def _link_log(link: Path, target: Path, done: list[str]) -> None:
    """``StateDirectory``/log leads to /var/log/pbserv; a directory with logs in it stays as it is."""
    if link.is_symlink():
        if link.readlink() != target:
            done.append(f"kept {link} -> {link.readlink()}")
        return
    if link.exists():
        try:
            link.rmdir()
        except OSError:
            done.append(f"kept {link}, which has logs in it")
            return
    link.symlink_to(target)
    done.append(f"linked {link} -> {target}")


def _samples(plan: Installation, done: list[str]) -> None:
    folder = plan.at(plan.conf)
    if not folder.is_dir():
        folder.mkdir(parents=True)
        folder.chmod(0o755)
        done.append(f"created {folder}")
    for name, text in plan.samples.items():
        present = _present(folder, name)
        if present is None:
            _write(folder / name, text, replace=False)
            done.append(f"wrote {folder / name}")
        elif present.name == name:
            done.append(f"kept {present}")
        else:
            done.append(f"kept {present}, which stands for {name}")


def _present(folder: Path, name: str) -> Path | None:
    """The file that already has the part of ``name``, under whichever of its names."""
    candidates = (folder / other for other in (name, *LEGACY_NAMES.get(name, ())))
    return next((path for path in candidates if path.exists() or path.is_symlink()), None)


def _add_proxydhcp(plan: Installation, done: list[str]) -> None:
    path = _present(plan.at(plan.conf), "pbserv.conf")
    if path is None or plan.add_service is None:
        raise PbservError(f"{plan.conf}/pbserv.conf: there is no file to which proxydhcp could be added")
    old = path.read_bytes().decode("utf-8", "surrogateescape")
    new = plan.add_service(old, "proxydhcp")
    if new == old:
        done.append(f"{path}: Services has proxydhcp")
        return
    _write(path.resolve(), new, replace=True)
    done.append(f"{path}: added proxydhcp to Services")
    done.append("a server that runs takes it up with: pbserv force-reload")


def _unit(plan: Installation, text: str, done: list[str]) -> None:
    path = plan.at(_UNIT_PLACE)
    changed = not path.exists() or path.read_text() != text
    if changed:
        path.parent.mkdir(parents=True, exist_ok=True)
        _write(path, text, replace=True)
    done.append(f"{'wrote' if changed else 'kept'} {path}")
    if not plan.here:
        return
    if not Path("/run/systemd/system").is_dir() or shutil.which("systemctl") is None:
        done.append(
            "systemd does not run here: `pbserv start` starts the server; "
            f"with systemd: systemctl daemon-reload; systemctl enable --now {UNIT_NAME}"
        )
        return
    if changed:
        _call(["systemctl", "daemon-reload"])
    if subprocess.run(["systemctl", "is-enabled", "--quiet", UNIT_NAME], timeout=_COMMAND_TIMEOUT_S).returncode:
        _call(["systemctl", "--quiet", "enable", UNIT_NAME])
        done.append(f"enabled {UNIT_NAME}; start it with: systemctl start {UNIT_NAME}")


def _hints(plan: Installation, account: Account | None, done: list[str]) -> None:
    if account is None or account.uid == 0:
        return
    for path in (plan.program.resolve(), plan.conf):
        closed = next((at for at in (*reversed(path.parents), path) if not _open_to(account, at)), None)
        if closed is not None:
            done.append(f"warning: user {plan.user} cannot reach {path}: {closed} is closed to others")


def _open_to(account: Account, path: Path) -> bool:
    """Whether ``account`` may enter a directory or read a file, by its mode."""
    try:
        facts = path.stat()
    except OSError:
        return True
    bit = stat.S_IXOTH if stat.S_ISDIR(facts.st_mode) else stat.S_IROTH
    if facts.st_uid == account.uid:
        bit <<= 6
    elif facts.st_gid == account.gid:
        bit <<= 3
    return bool(facts.st_mode & bit)


def _write(path: Path, text: str, *, replace: bool) -> None:
    """Whole or not at all, and durable. A replaced file keeps mode and owner; without ``replace`` the name is free."""
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(text.encode("utf-8", "surrogateescape"))
            os.fchmod(descriptor, 0o644)
            with contextlib.suppress(FileNotFoundError):
                before = path.stat()
                os.fchmod(descriptor, stat.S_IMODE(before.st_mode))
                os.fchown(descriptor, before.st_uid, before.st_gid)
            stream.flush()
            os.fsync(descriptor)
        if replace:
            os.rename(temporary, path)
        else:
            os.link(temporary, path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _call(command: list[str]) -> None:
    """Run a program of the system; raises PbservError with its own words."""
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=_COMMAND_TIMEOUT_S)
    except FileNotFoundError:
        raise PbservError(f"{command[0]} is missing on this machine") from None
    except subprocess.TimeoutExpired:
        raise PbservError(f"{command[0]} did not end within {_COMMAND_TIMEOUT_S} s") from None
    if result.returncode:
        raise PbservError(f"{' '.join(command)}: {result.stderr.strip() or f'exit code {result.returncode}'}")
