"""`pbserv device identity`, `pbserv pool` and `pbserv start setjustimagedflag` against a server that runs."""

from __future__ import annotations

import hashlib
import hmac
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from pbserv.commands.identity import own_macs
from pbserv.imaging.identity import Identity, Served
from pbserv.registry.tokens import WorkTokens, load_secret
from tests.support.process import Installed

A, B = "52:54:00:00:00:01", "52:54:00:00:00:02"
MISSING = "52:54:00:00:00:99"


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installed]:
    installed = Installed(tmp_path_factory.mktemp("server"))
    installed.ok("start")
    for mac in (A, B):
        installed.ok("device", "add", mac, "--folder", "/labs/1")
    yield installed
    installed.finish()


def test_an_identity_from_its_making_to_its_end(installed: Installed) -> None:
    said = installed.ok(
        "device", "identity", A, "--hostname", "pc1", "--address", "10.0.0.7", "--netmask", "24", "--gateway",
        "10.0.0.1", "--dns", "10.0.0.2", "--dns", "10.0.0.3", "--domain", "school.example", "--workgroup", "LAB",
        "--suffix", "school.example", "--workstation", "CN=pc1",
    )  # fmt: skip
    for line in ("hostname     pc1", "netmask      255.255.255.0", "dns          10.0.0.2, 10.0.0.3",
                 "workstation  CN=pc1", "just imaged  no"):  # fmt: skip
        assert line in said
    assert installed.ok("device", "identity", A) == said
    by_dhcp = installed.json("device", "identity", A, "--dhcp", "--dns", "")
    assert (by_dhcp["dhcp"], by_dhcp["address"], by_dhcp["dns"]) == (True, "", [])
    assert "dhcp         yes" in installed.ok("device", "identity", A)
    taken = installed.call("device", "identity", B, "--hostname", "PC1")
    assert (taken.returncode, f"is that of device {A}" in taken.stderr) == (1, True)
    assert installed.ok("device", "identity", A, "--clear") == f"device {A}: nothing is said of it any more\n"
    assert installed.json("device", "identity", A)["hostname"] == ""


def test_what_cannot_be_said(installed: Installed) -> None:
    for arguments, words in (
        ((A, "--clear", "--hostname", "x"), "--clear takes all away"),
        ((A, "--address", "10.0.0.7"), "its netmask is missing"),
        ((MISSING, "--hostname", "x"), "pbserv device list"),
    ):
        refused = installed.call("device", "identity", *arguments)
        assert refused.returncode in (1, 2)
        assert words in refused.stderr


def test_pools_and_what_they_give(installed: Installed) -> None:
    assert "no pools yet" in installed.ok("pool", "list")
    made = installed.ok("pool", "set", "lab 1", "--pattern", "lab{n:02}", "--last", "1", "--network", "10.1.0.0/24",
                        "--gateway", "10.1.0.1", "--folder", "/labs")  # fmt: skip
    assert made == "pool lab 1 made\n"
    assert installed.ok("pool", "set", "lab 1", "--domain", "school.example") == "pool lab 1 changed\n"
    found = installed.ok("device", "identity", A, "--fill")
    assert "hostname     lab01  (pool lab 1)" in found
    assert "domain       school.example  (pool lab 1)" in found
    listed = installed.ok("pool", "list")
    assert "lab{n:02}, 1 to 1" in listed
    assert "2 of 254" in listed
    shown = installed.ok("pool", "show", "lab 1")
    assert "1 of 1 names, 1 of 253 addresses" in shown
    assert "lab01" in shown
    used_up = installed.call("device", "identity", B, "--fill")
    assert (used_up.returncode, "pbserv pool set 'lab 1' --last N" in used_up.stderr) == (1, True)
    refused = installed.call("pool", "delete", "lab 1")
    assert (refused.returncode, "--release" in refused.stderr) == (1, True)
    assert installed.ok("pool", "delete", "lab 1", "--release") == "pool lab 1 deleted\n"
    assert installed.json("pool", "list") == []
    nothing = installed.call("pool", "set", "x")
    assert (nothing.returncode, "pbserv pool set --help" in nothing.stderr) == (2, True)


def test_the_just_imaged_flag(installed: Installed) -> None:
    """Of two devices, or of none when one of them is not registered."""
    said = installed.ok("start", "setjustimagedflag", A.upper(), B.replace(":", "-"))
    assert said == "".join(f"device {mac}: the just-imaged flag is set\n" for mac in (A, B))
    assert "just imaged  yes" in installed.ok("device", "identity", A)
    installed.ok("device", "identity", A, "--clear")
    refused = installed.call("start", "setjustimagedflag", A, MISSING)
    assert (refused.returncode, f"no device {MISSING}" in refused.stderr) == (1, True)
    assert installed.json("device", "identity", A)["just_imaged"] is False
    assert installed.call("start", "setjustimagedflag", "x").returncode == 2
    assert installed.call("stop", "setjustimagedflag").returncode == 2


def test_the_flag_of_this_host(installed: Installed) -> None:
    refused = installed.call("start", "setjustimagedflag")
    assert refused.returncode == 1
    assert "none of this host's network cards" in refused.stderr
    cards = own_macs()
    if cards:
        installed.ok("device", "add", cards[0])
        assert installed.ok("start", "setjustimagedflag") == f"device {cards[0]}: the just-imaged flag is set\n"


def test_the_script_of_the_guide(installed: Installed, tmp_path: Path) -> None:
    """Run on a file as the imaging client leaves it; a second start has nothing to do."""
    guide = (Path(__file__).parents[2] / "docs/guide.md").read_text()
    script = guide.partition("```\n. /etc/pbserv/identity")[2].partition("```")[0]
    file, named = tmp_path / "identity", tmp_path / "named"
    script = f'hostnamectl() {{ echo "$2" >>{named}; }}\n. {file}{script}'
    installed.ok("device", "identity", A, "--hostname", "pc1")
    installed.ok("start", "setjustimagedflag", A)
    secret = load_secret(installed.state / "secret.key")
    token = hmac.new(WorkTokens(secret).key("identity"), A.encode(), hashlib.sha256).hexdigest()
    served = Served(Identity(hostname="older"), A, installed.url, token, True)
    file.write_text(served.text("linux"))
    for _ in range(2):
        subprocess.run(["sh", "-e", "-c", script], check=True, capture_output=True, text=True)
    assert named.read_text() == "pc1\n"
    assert installed.json("device", "identity", A)["just_imaged"] is False


def test_which_addresses_are_this_hosts(tmp_path: Path) -> None:
    for name, kind, address in (
        ("eth1", "1", "52:54:00:00:00:01"), ("eth0", "1", "52:54:00:00:00:02"), ("lo", "772", "00:00:00:00:00:00"),
        ("ib0", "32", "80:00:00:00:fe:80"), ("dummy", "1", "00:00:00:00:00:00"), ("odd", "1", "x"),
        ("group", "1", "01:00:5e:00:00:01"),
    ):  # fmt: skip
        (tmp_path / name).mkdir()
        (tmp_path / name / "type").write_text(f"{kind}\n")
        (tmp_path / name / "address").write_text(f"{address}\n")
    (tmp_path / "empty").mkdir()
    assert own_macs(tmp_path) == ["52:54:00:00:00:02", "52:54:00:00:00:01"]
    assert own_macs(tmp_path / "nothing") == []
