"""Pools and image-safe data in policy files: from a server into a file, and back into one that lost them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from pbserv.commands.api import Api
from pbserv.commands.policy_files import load
from pbserv.commands.policy_others import carry_out, changes
from pbserv.errors import PbservError
from pbserv.policy.files import PolicyFileError, read_policy, write_policy
from tests.support.process import Installed

A, B, C, D = (f"52:54:00:00:00:0{number}" for number in range(1, 5))


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installed]:
    installed = Installed(tmp_path_factory.mktemp("server"))
    installed.ok("start")
    yield installed
    installed.finish()


def test_a_server_gets_back_what_it_exported(installed: Installed, tmp_path: Path) -> None:
    installed.ok("group", "set", "tills")
    installed.ok("device", "add", A, "--name", "till-1")
    installed.ok("pool", "set", "tills", "--pattern", "till{n}", "--last", "9", "--dns", "10.8.0.2", "--group", "tills")
    installed.ok("pool", "set", "all", "--pattern", "pc{n:03}", "--last", "400", "--dhcp")
    installed.ok("device", "identity", A, "--hostname", "till-1", "--address", "10.8.0.7", "--netmask", "24")
    installed.ok("device", "add", B)
    installed.ok("device", "identity", B, "--fill")
    assert "[pool.all]" in installed.ok("policy", "export")
    text = installed.ok("policy", "export", "--devices")
    file = tmp_path / "policy.toml"
    file.write_text(text)
    assert "pc001" not in text, "what a pool gave is not said by anybody"
    assert load(file).others["identity"] == {
        A: {"hostname": "till-1", "address": "10.8.0.7", "netmask": "255.255.255.0"}
    }
    assert "2 pools" in installed.ok("policy", "validate", str(file))
    assert "is like this already" in installed.ok("apply", str(file))

    installed.ok("device", "identity", A, "--clear")
    installed.ok("pool", "delete", "tills")
    installed.ok("group", "delete", "tills")
    shown = installed.ok("apply", str(file), "--dry-run")
    assert ("+ pool tills" in shown, f"+ identity {A}" in shown) == (True, True)
    assert "3 to make" in shown
    assert "pool tills" not in installed.ok("pool", "list")
    assert "3 made" in installed.ok("apply", str(file))
    assert installed.ok("policy", "export", "--devices") == text

    (tmp_path / "less.toml").write_text(text.replace('hostname = "till-1"', 'hostname = "till-2"'))
    [change] = [each for each in installed.json("apply", str(tmp_path / "less.toml"))["changes"]
                if each["action"] != "none"]  # fmt: skip
    assert (change["kind"], change["before"]["hostname"], change["after"]["hostname"]) == (
        "identity", "till-1", "till-2",
    )  # fmt: skip


def test_an_identity_after_the_pool_that_serves_its_device(installed: Installed, tmp_path: Path) -> None:
    """What is known of the device changes with the pool; what was said of it does not."""
    installed.ok("group", "set", "desks")
    installed.ok("device", "add", C, "--group", "desks")
    file = tmp_path / "policy.toml"
    file.write_text(
        '[group.halls]\n[pool.desks]\npattern = "desk{n}"\nlast = 9\ndns = ["10.9.0.2"]\ngroup = "desks"\n'
        f'[identity."{C}"]\naddress = "10.9.0.7"\nnetmask = "255.255.255.0"\n'
    )
    done = installed.call("apply", str(file))
    assert (done.returncode, "3 made" in done.stdout) == (0, True), done.stderr
    assert "is like this already" in installed.ok("apply", str(file))


def test_an_identity_that_another_changed_meanwhile_is_kept(installed: Installed, tmp_path: Path) -> None:
    installed.ok("device", "add", D)
    file = tmp_path / "policy.toml"
    file.write_text(f'[identity."{D}"]\nhostname = "mine"\n')
    with pytest.MonkeyPatch.context() as here:
        here.setenv("PBSERV_URL", installed.url)
        here.setenv("PBSERV_TOKEN", installed.token)
        api = Api(installed.conf)
    wanted = changes(api, load(file))
    installed.ok("device", "identity", D, "--hostname", "theirs")
    with pytest.raises(PbservError, match=f"identity {D}: it was changed since"):
        carry_out(api, wanted)
    assert api.get(f"/devices/{D}/identity")["hostname"] == "theirs"
    api._client.close()


def test_what_is_refused_is_said_with_what_stands(installed: Installed, tmp_path: Path) -> None:
    file = tmp_path / "policy.toml"
    file.write_text('[identity."52:54:00:00:00:99"]\nhostname = "x1"\n')
    refused = installed.call("apply", str(file))
    assert (refused.returncode, "there is no such device" in refused.stderr) == (1, True), refused.stderr
    file.write_text('[pool.new]\npattern = "n{n}"\nlast = 3\ngroup = "nobody"\n')
    refused = installed.call("apply", str(file))
    assert (refused.returncode, "pool new: there is no group 'nobody'" in refused.stderr) == (1, True), refused.stderr


def test_all_faults_at_once_with_their_lines(tmp_path: Path) -> None:
    file = tmp_path / "policy.toml"
    file.write_text(
        '[pool.a]\npattern = "lab"\n[pool.b]\nfirst = "1"\n[pool.c]\nwrong = 1\n'
        f'[identity."{A}"]\naddress = "10.0.0.7"\n[identity.x]\nhostname = "x"\n'
        '[identity."52-54-00-00-00-01"]\ndhcp = true\n'
    )
    with pytest.raises(PolicyFileError) as found:
        load(file)
    said = "\n".join(found.value.problems)
    assert len(found.value.problems) == 5, said
    for words in ("line 1: [pool.a]: pattern 'lab'", "line 3: [pool.b]: first cannot be '1'",
                  "[pool.c]: 'wrong' is unknown", "its netmask is missing", "[identity.x]"):  # fmt: skip
        assert words in said
    with pytest.raises(PolicyFileError, match="there is no such table; there are zone, device"):
        read_policy(file.read_text(), "toml", "policy.toml")


def test_both_forms_keep_them(tmp_path: Path) -> None:
    others = {
        "pool": {"b": {"pattern": "b{n}", "last": 2}, "a": {"dhcp": True}},
        "identity": {A: {"dns": ["10.0.0.1"]}},
    }
    for form in ("toml", "json"):
        file = tmp_path / f"policy.{form}"
        file.write_text(write_policy([], form, others=others))  # type: ignore[arg-type]
        assert load(file).others == others
