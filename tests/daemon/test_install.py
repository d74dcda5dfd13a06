"""Installation into a tree of its own, and for real in a mount namespace whose /etc and /var are copies."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from pbserv.daemon.install import LEGACY_NAMES, Installation, _hints, install
from pbserv.daemon.privileges import find_account
from pbserv.daemon.unit import UnitPaths, unit_text
from pbserv.errors import PbservError
from tests.daemon.programs import ROOT, run_python

SAMPLES = {name: f"# {name}\n" for name in LEGACY_NAMES}
PATHS = UnitPaths(
    program=Path("/usr/bin/true"),
    conf=Path("/etc/pbserv"),
    state=Path("/var/lib/pbserv"),
    log=Path("/var/log/pbserv"),
    tftp=Path("/srv/tftp"),
    user="root",
)


def plan(root: Path, **changes: object) -> Installation:
    values: dict[str, object] = {"program": Path("/usr/bin/pbserv"), "samples": SAMPLES, "root": root} | changes
    return Installation(**values)  # type: ignore[arg-type]


def picture(root: Path) -> dict[str, tuple[object, ...]]:
    """Every entry with what a second run must not touch: kind, mode, owner, content, inode, time of last change."""
    seen: dict[str, tuple[object, ...]] = {}
    for path in sorted(root.rglob("*")):
        facts = path.lstat()
        content: object = path.readlink() if path.is_symlink() else path.read_bytes() if path.is_file() else None
        changed = None if path.is_dir() else facts.st_mtime_ns
        seen[str(path.relative_to(root))] = (facts.st_mode, facts.st_uid, facts.st_gid, content, facts.st_ino, changed)
    return seen


def test_image_stores_elsewhere_are_made_and_may_be_written(tmp_path: Path) -> None:
    install(plan(tmp_path, stores=(Path("/srv/images disk"), Path("/mnt/fast/images"))))
    assert (tmp_path / "srv/images disk").stat().st_mode & 0o777 == 0o750
    unit = (tmp_path / "etc/systemd/system/pbserv.service").read_text()
    assert '"-/srv/tftp" "-/srv/images disk" "-/mnt/fast/images"' in unit
    with pytest.raises(PbservError, match="absolute"):
        install(plan(tmp_path, stores=(Path("srv"),)))


def test_second_run_changes_nothing(tmp_path: Path) -> None:
    first = install(plan(tmp_path))
    before = picture(tmp_path)
    assert set(before) >= {
        *(f"etc/pbserv/{name}" for name in SAMPLES), "etc/systemd/system/pbserv.service", "srv/tftp",
        "var/lib/pbserv/run", "var/lib/pbserv/images", "var/lib/pbserv/client", "var/lib/pbserv/log", "var/log/pbserv",
    }  # fmt: skip
    assert (tmp_path / "var/lib/pbserv/log").readlink() == Path("/var/log/pbserv")
    assert (tmp_path / "etc/pbserv/tftp.conf").read_text() == SAMPLES["tftp.conf"]
    assert (tmp_path / "etc/pbserv/tftp.conf").stat().st_mode & 0o777 == 0o644
    second = install(plan(tmp_path))
    assert picture(tmp_path) == before
    assert any(line.startswith("wrote ") for line in first)
    assert not [line for line in second if line.startswith(("wrote ", "created ", "linked "))]


def test_what_the_administrator_wrote_stays(tmp_path: Path) -> None:
    conf = tmp_path / "etc/pbserv"
    conf.mkdir(parents=True)
    (conf / "pbserv.conf").write_text("mine")
    (conf / "novell-tftp.conf").write_text("migrated")
    (conf / "novell-proxydhcpd.conf").write_text("migrated too")
    done = install(plan(tmp_path))
    assert {path.name for path in conf.iterdir()} == {
        "pbserv.conf", "novell-tftp.conf", "novell-proxydhcpd.conf", "preboot-policy.conf"
    }  # fmt: skip
    assert (conf / "pbserv.conf").read_text() == "mine"
    assert f"kept {conf / 'pbserv.conf'}" in done
    assert f"kept {conf / 'novell-tftp.conf'}, which stands for tftp.conf" in done


def test_existing_log_directory(tmp_path: Path) -> None:
    log = tmp_path / "var/lib/pbserv/log"
    log.mkdir(parents=True)
    (log / "tftp.log").touch()
    os.chown(log.parent, os.geteuid(), os.getegid())
    assert f"kept {log}, which has logs in it" in install(plan(tmp_path))
    (log / "tftp.log").unlink()
    assert f"linked {log} -> /var/log/pbserv" in install(plan(tmp_path))


def test_other_places(tmp_path: Path) -> None:
    state = Path("/data/state")
    install(plan(tmp_path, state=state, log=state / "log", tftp=Path("/data/tftp"), user="imaging"))
    assert (tmp_path / "data/state/log").is_dir()
    assert not (tmp_path / "data/state/log").is_symlink()
    text = (tmp_path / "etc/systemd/system/pbserv.service").read_text()
    assert "User=imaging\n" in text
    assert 'ReadWritePaths="-/data/state" "-/data/state/log" "-/data/tftp"\n' in text
    assert "StateDirectory=" not in text


def test_changed_unit_is_replaced(tmp_path: Path) -> None:
    unit = tmp_path / "etc/systemd/system/pbserv.service"
    install(plan(tmp_path))
    done = install(plan(tmp_path, program=Path("/opt/pbserv/bin/pbserv")))
    assert f"wrote {unit}" in done
    assert "ExecStart=/opt/pbserv/bin/pbserv run --conf /etc/pbserv\n" in unit.read_text()
    assert [path.name for path in unit.parent.iterdir()] == [unit.name]


def add_service(text: str, name: str) -> str:
    return text if name in text else f"{text}Services = imaging tftp policy {name}\r\n"


@pytest.mark.parametrize("name", ["pbserv.conf", "novell-pbserv.conf"])
def test_proxydhcp_is_added_once(tmp_path: Path, name: str) -> None:
    path = tmp_path / "etc/pbserv" / name
    path.parent.mkdir(parents=True)
    path.write_bytes(b"\xef\xbb\xbf# caf\xe9\r\n")
    path.chmod(0o640)
    asked = plan(tmp_path, proxydhcp=True, add_service=add_service)
    assert f"{path}: added proxydhcp to Services" in install(asked)
    assert path.read_bytes() == b"\xef\xbb\xbf# caf\xe9\r\nServices = imaging tftp policy proxydhcp\r\n"
    assert path.stat().st_mode & 0o777 == 0o640
    before = picture(tmp_path)
    assert f"{path}: Services has proxydhcp" in install(asked)
    assert picture(tmp_path) == before


def test_proxydhcp_needs_a_file(tmp_path: Path) -> None:
    with pytest.raises(PbservError, match="no file to which proxydhcp could be added"):
        install(plan(tmp_path, samples={}, proxydhcp=True, add_service=add_service))


def test_things_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "srv").mkdir()
    (tmp_path / "srv/tftp").touch()
    with pytest.raises(PbservError, match="srv/tftp is in the way"):
        install(plan(tmp_path))
    (tmp_path / "srv/tftp").unlink()
    (tmp_path / "etc").touch()
    with pytest.raises(PbservError, match="etc"):
        install(plan(tmp_path))


def test_relative_and_unspeakable_paths(tmp_path: Path) -> None:
    with pytest.raises(PbservError, match="absolute"):
        install(plan(tmp_path, program=Path("pbserv")))
    with pytest.raises(PbservError, match="without quotes and control characters"):
        install(plan(tmp_path, state=Path("/var/lib/a\nUser=root")))
    assert list(tmp_path.iterdir()) == []


def test_not_root() -> None:
    program = """
        import os
        from pathlib import Path
        from pbserv.daemon.install import Installation, install
        from pbserv.errors import PbservError
        if os.geteuid() == 0:
            os.setresuid(65534, 65534, 65534)
        try:
            install(Installation(Path("/usr/bin/pbserv"), {}))
        except PbservError as error:
            print(error)
    """
    assert "pbserv install needs root rights" in run_python(program).stdout


def test_unit_is_hardened() -> None:
    lines = unit_text(PATHS).splitlines()
    capabilities = "CAP_NET_BIND_SERVICE CAP_NET_RAW CAP_NET_ADMIN"
    assert {
        "Type=notify", "NotifyAccess=main", "NoNewPrivileges=yes", "ProtectSystem=strict", "ProtectHome=yes",
        "PrivateTmp=yes", "SystemCallFilter=@system-service", "StateDirectory=pbserv", "LogsDirectory=pbserv",
        "RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX AF_NETLINK AF_PACKET", "Restart=on-failure",
        f"CapabilityBoundingSet={capabilities}", f"AmbientCapabilities={capabilities}",
    } <= set(lines)  # fmt: skip


@pytest.mark.skipif(
    shutil.which("systemd-analyze") is None and os.geteuid() != 0, reason="systemd-analyze is not on this machine"
)
@pytest.mark.parametrize("state", ["/var/lib/pbserv", "/home/some one/100% images", "/tmp/x/state"])
def test_systemd_understands_the_unit(tmp_path: Path, state: str) -> None:
    unit = tmp_path / "pbserv.service"
    unit.write_text(unit_text(dataclasses.replace(PATHS, state=Path(state))))
    result = subprocess.run(["systemd-analyze", "verify", "--man=no", unit], capture_output=True, text=True)
    complaints = [line for line in result.stderr.splitlines() if "pbserv.service" in line]
    assert (result.returncode, complaints) == (0, []), result.stderr


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to make a mount namespace")
def test_for_real_in_a_namespace_of_its_own(tmp_path: Path) -> None:
    """useradd and all, twice; /etc, /var/lib, /var/log and /srv are copies or empty, and systemd is out of sight."""
    program = """
        import json, pwd, os
        from pathlib import Path
        from pbserv.daemon.install import Installation, install
        from tests.daemon.test_install import SAMPLES, picture
        places = [Path(name) for name in ("/etc", "/var/lib", "/var/log", "/srv")]
        plan = Installation(Path("/usr/bin/true"), SAMPLES)
        first = install(plan)
        before = [picture(place) for place in places]
        second = install(plan)
        user = pwd.getpwnam("pbserv")
        owners = {name: os.stat(name).st_uid == user.pw_uid for name in
                  ("/var/lib/pbserv", "/var/lib/pbserv/run", "/var/lib/pbserv/log", "/var/log/pbserv", "/etc/pbserv")}
        print(json.dumps(dict(first=first, second=second, same=before == [picture(place) for place in places],
                              shell=user.pw_shell, home=user.pw_dir, system=user.pw_uid < 1000, owners=owners)))
    """
    shell = f"""
        set -e
        cp -a /etc {tmp_path}/etc
        sed -i '/^pbserv:/d' {tmp_path}/etc/passwd {tmp_path}/etc/shadow {tmp_path}/etc/group {tmp_path}/etc/gshadow
        rm -rf {tmp_path}/etc/pbserv {tmp_path}/etc/systemd/system/pbserv.service
        mount --bind {tmp_path}/etc /etc
        for place in /var/lib /var/log /srv; do mount -t tmpfs tmpfs $place; done
        if [ -d /run/systemd ]; then mount -t tmpfs tmpfs /run/systemd; fi
        exec {sys.executable} -c "$PROGRAM"
    """
    result = subprocess.run(
        ["unshare", "--mount", "--propagation", "private", "sh", "-c", shell],
        capture_output=True, text=True, cwd=ROOT, env={**os.environ, "PROGRAM": textwrap.dedent(program)},
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    facts = json.loads(result.stdout)
    assert "created user pbserv" in facts["first"]
    assert "user pbserv exists" in facts["second"]
    assert facts["same"] is True
    assert (facts["shell"], facts["home"], facts["system"]) == ("/usr/sbin/nologin", "/var/lib/pbserv", True)
    assert facts["owners"] == {
        "/var/lib/pbserv": True, "/var/lib/pbserv/run": True, "/var/lib/pbserv/log": True, "/var/log/pbserv": True,
        "/etc/pbserv": False,
    }  # fmt: skip
    assert any(line.startswith("systemd does not run here") for line in facts["first"])


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to look at the whole machine")
def test_closed_program_directory_is_pointed_out(tmp_path: Path) -> None:
    folder = tmp_path / "closed"
    folder.mkdir(mode=0o700)
    (folder / "pbserv").touch(mode=0o755)
    done: list[str] = []
    _hints(plan(Path("/"), program=folder / "pbserv", conf=Path("/etc")), find_account("nobody"), done)
    assert len(done) == 1
    assert "user pbserv cannot reach" in done[0]
    assert "is closed to others" in done[0]
