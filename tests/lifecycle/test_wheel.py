"""A wheel in an empty environment installs, migrates and runs: samples, client recipe and migrations are packaged.

The namespaces are its own: /etc, /var and /srv are copies, so nothing of the installation stays on this machine.
"""

from __future__ import annotations

import os
import subprocess
import textwrap
import zipfile
from pathlib import Path

import pytest

from tests.support.process import command
from tests.support.wheel import build_wheel, install_wheel

SCRIPT = """
    set -e
    cp -a /etc "$PLACE/etc"
    for file in passwd shadow group gshadow; do
        [ ! -e "$PLACE/etc/$file" ] || sed -i "/^pbserv:/d" "$PLACE/etc/$file"
    done
    rm -rf "$PLACE/etc/pbserv"
    mount --bind "$PLACE/etc" /etc
    for place in /var/lib /var/log /srv; do mount -t tmpfs -o mode=755 tmpfs $place; done
    ip link set lo up
    pbserv="$PLACE/venv/bin/pbserv"
    cd /
    $pbserv install
    $pbserv install
    $pbserv check
    $pbserv start
    $pbserv status
    $pbserv device accept 52:54:00:00:00:01
    $pbserv device list
    id -u pbserv
    stat -c %U /var/lib/pbserv/registry.db /var/log/pbserv/pbserv.log
    "$PLACE/venv/bin/zmgmcast" -status
    $pbserv stop
    $pbserv install proxydhcp
    grep -n '^Services' /etc/pbserv/pbserv.conf
    $pbserv start
    $pbserv status
    $pbserv stop
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_wheel(tmp_path_factory.mktemp("wheel"))


def test_the_wheel_holds_what_the_program_needs(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    for name in (
        "pbserv/registry/migrations/versions/v0001_first.py",
        "pbserv/policy/rendering/templates/client.ipxe.j2",
        "pbserv/policy/rendering/templates/grub.cfg.j2",
        "pbserv/web/console.html",
        "pbserv/_share/client/pbclient.sh",
        "pbserv/_share/client/streams.sh",
        "pbserv/_share/client/img",
        "pbserv/_share/conf/tftp.conf",
        "pbserv/py.typed",
    ):
        assert name in names
    assert not any(name.startswith(("tests/", "bench/")) for name in names)


@pytest.mark.root
@pytest.mark.timeout(600)
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: it makes namespaces and installs the service in them")
def test_it_installs_migrates_and_runs(wheel: Path) -> None:
    # Below /var/tmp, because the service user must be able to reach it.
    place = Path(command(["mktemp", "-d", "/var/tmp/pbserv-wheel.XXXXXX"]).strip())
    place.chmod(0o755)
    try:
        install_wheel(wheel, place)
        done = subprocess.run(
            ["unshare", "--mount", "--net", "--propagation", "private", "sh", "-c", textwrap.dedent(SCRIPT)],
            capture_output=True, text=True, check=False, env={"PATH": os.environ["PATH"], "PLACE": str(place)},
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        assert "created user pbserv" in done.stdout
        assert done.stdout.count("pbserv\n") >= 2, "registry and log belong to the service user"
        assert "Services = imaging tftp policy proxydhcp" in done.stdout
        assert "pbserv proxyDHCP service running" in done.stdout
        assert "52:54:00:00:00:01" in done.stdout
    finally:
        command(["rm", "-rf", str(place)])
