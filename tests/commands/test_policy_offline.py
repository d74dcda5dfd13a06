"""What needs no server: validating a policy file, explaining by one, trying a condition. The real program does it."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.core import TyperCommand, TyperGroup

from pbserv.cli import command
from pbserv.cli.bundles import KindName
from pbserv.cli.menus import ShowName
from pbserv.cli.options import InstallerName, ReportName
from pbserv.cli.shared import FinishName, StateName
from pbserv.cli.tokens import RoleName
from pbserv.commands.kinds import ABOUT, options_of
from pbserv.commands.objects import ACTIONS
from pbserv.policy.model import Installer, MenuAction, Report
from pbserv.registry.records import BundleKind, DeviceState, Finish, Role
from tests.support.process import PBSERV

MAC = "52:54:00:12:34:56"
POLICY = """
[bundle.rescue]
kind = "linux"
kernel = "rescue/vmlinuz"

[bundle.night]
kind = "restore"
image = "classroom"

[group."lab 1"]

[assignment.nightly]
bundle = "night"
group = "lab 1"
schedule = "window daily 22:00-06:00"

[assignment.zone]
bundle = "rescue"
folder = "/"

[rule.dell]
when = 'manufacturer == "Dell Inc."'
bundle = "rescue"
unknown = true

[menu.students]
[folder."/halls"]
menu = "students"

[device."52:54:00:12:34:56"]
name = "lab1-07"
groups = ["lab 1"]

[device."52:54:00:12:34:57"]
state = "denied"

[device."52:54:00:12:34:58"]
folder = "/halls/2"
"""


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """In a window that is wide enough for the names of all options."""
    wide = {**os.environ, "COLUMNS": "240"}
    return subprocess.run([str(PBSERV), *arguments], capture_output=True, text=True, check=False, env=wide)


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    file = tmp_path / "policy.toml"
    file.write_text(POLICY)
    return file


def test_a_good_file(policy: Path) -> None:
    done = run("policy", "validate", str(policy))
    assert (done.returncode, done.stderr) == (0, "")
    contents = "2 bundles, 1 group, 1 folder, 2 assignments, 1 rule, 1 menu, 3 devices"
    assert f"{contents}: nothing is wrong" in done.stdout


def test_all_that_is_wrong_is_said_at_once(tmp_path: Path) -> None:
    file = tmp_path / "broken.toml"
    file.write_text('[bundle.a]\nkind = "linux"\n[rule.r]\nwhen = "x =="\nbundle = "a"\n')
    done = run("policy", "validate", str(file))
    assert done.returncode == 1
    assert f"{file}: line 1: [bundle.a]: " in done.stderr
    assert f"{file}: line 3: [rule.r]: " in done.stderr
    file.write_text('[bundle.a]\nkind = "local"\n[rule.r]\nwhen = "colour"\nbundle = "b"\n')
    done = run("policy", "validate", str(file), "--json")
    said = json.loads(done.stdout)
    assert done.returncode == 1
    assert said["problems"] == [f"{file}: rule 'r': there is no bundle 'b'"]
    assert [word for word in ("colour", "nothing assigns") if not any(word in text for text in said["warnings"])] == []


def test_templates_that_cannot_be_rendered(tmp_path: Path) -> None:
    file = tmp_path / "policy.toml"
    (tmp_path / "preseed.cfg").write_text("d-i a string {{ name }}\nd-i b string {{ nam }}\n")
    head = '[bundle.i]\nkind = "install"\nkernel = "k"\ninstaller = "preseed"\n'
    file.write_text(f'{head}answer_file = "preseed.cfg"\n')
    done = run("policy", "validate", str(file))
    assert done.returncode == 1
    assert f"{file}: bundle 'i': preseed.cfg of bundle i, line 2: 'nam' is undefined" in done.stderr


def test_files_beside_a_policy(tmp_path: Path) -> None:
    place = tmp_path / "policy"
    place.mkdir()
    (tmp_path / "secret").write_text("secret")
    (place / "boot.ipxe").write_text("#!ipxe\nexit\n")
    file = place / "policy.toml"
    file.write_text('[bundle.a]\nkind = "ipxe"\nscript_file = "boot.ipxe"\n')
    assert run("policy", "validate", str(file)).returncode == 0
    (place / "link").symlink_to(tmp_path / "secret")
    for name, words in (("../secret", "leads out"), ("link", "leads out"), ("none", "there is no file"),
                        (str(tmp_path / "secret"), "leads out")):  # fmt: skip
        file.write_text(f'[bundle.a]\nkind = "ipxe"\nscript_file = "{name}"\n')
        done = run("policy", "validate", str(file))
        assert (done.returncode, words in done.stderr) == (1, True), done.stderr


@pytest.mark.parametrize("name", ["policy.txt", "policy"])
def test_names_that_say_no_form(tmp_path: Path, name: str) -> None:
    done = run("policy", "validate", str(tmp_path / name))
    assert done.returncode == 2
    assert ".toml or .json" in done.stderr


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "bytes.toml").write_bytes(b"\xff")
    for name, words in (("none.toml", "No such file"), ("bytes.toml", "no UTF-8")):
        done = run("policy", "validate", str(tmp_path / name))
        assert (done.returncode, words in done.stderr) == (1, True)
        assert "Traceback" not in done.stderr


AT = ("--at", "2026-11-20 23:00")


@pytest.mark.parametrize(
    ("arguments", "expect"),
    [
        ((MAC, *AT), "boot:night"),
        ((MAC, "--at", "2026-11-20 12:00"), "boot:rescue"),
        (("52-54-00-12-34-57",), "silent"),
        (("52:54:00:12:34:58",), "menu:students"),
        (("52:54:00:12:34:99",), "silent"),
        (("52:54:00:12:34:99", "--label", "manufacturer=dell inc."), "boot:rescue"),
    ],
)
def test_explain_by_a_file(policy: Path, arguments: tuple[str, ...], expect: str) -> None:
    done = run("explain", "--file", str(policy), "--mac", *arguments, "--expect", expect)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    assert f"verdict    {expect}" in done.stdout
    other = run("explain", "--file", str(policy), "--mac", *arguments, "--expect", "loader")
    assert other.returncode == 1
    assert f"expected loader, but it is {expect}" in other.stderr


def test_explain_names_the_losers_and_why(policy: Path) -> None:
    text = run("explain", "--file", str(policy), "--mac", MAC, *AT).stdout
    assert text.startswith(f"{MAC}  lab1-07  known")
    assert "group lab 1: restore night" in text
    assert "the zone: rescue loses" in text
    answer = json.loads(run("explain", "--file", str(policy), "--mac", MAC, *AT, "--arch", "x64", "--json").stdout)
    assert (answer["verdict"], answer["bundle"], answer["kind"]) == ("boot", "night", "restore")
    menu = run("explain", "--file", str(policy), "--mac", "52:54:00:12:34:58").stdout
    assert "by itself  boot rescue" in menu


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "--mac"),
        (("--mac", "nonsense"), "aa:bb:cc:dd:ee:ff"),
        (("--mac", MAC, "--at", "noon"), "2026-12-24 18:00"),
        (("--mac", MAC, "--arch", "vax"), "option 93"),
        (("--mac", MAC, "--label", "x"), "NAME=VALUE"),
        (("--mac", MAC, "--expect", "coffee"), "boot:BUNDLE"),
    ],
)
def test_wrong_questions_are_named(policy: Path, arguments: tuple[str, ...], words: str) -> None:
    done = run("explain", "--file", str(policy), *arguments)
    assert done.returncode == 2, done
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_a_file_that_does_not_fit_together_explains_nothing(tmp_path: Path) -> None:
    file = tmp_path / "broken.json"
    file.write_text(json.dumps({"rule": {"r": {"when": "true", "bundle": "none"}}}))
    done = run("explain", "--file", str(file), "--mac", MAC)
    assert (done.returncode, "there is no bundle 'none'" in done.stderr) == (1, True)


def test_conditions() -> None:
    condition = 'like(product, "OptiPlex*") and memory_mb >= 8192'
    true = run("rule", "test", condition, "--label", "product=optiplex 7010", "--label", "memory_mb=16384")
    assert (true.returncode, true.stdout.splitlines()[0]) == (0, "true")
    false = run("rule", "test", condition, "--label", "product=optiplex 7010", "--json")
    assert false.returncode == 1
    assert json.loads(false.stdout) == {
        "true": False, "labels": {"memory_mb": None, "product": "optiplex 7010"}
    }  # fmt: skip
    wrong = run("rule", "test", "product =")
    assert (wrong.returncode, "column" in wrong.stderr) == (2, True)
    assert "manufacturer" in run("rule", "labels").stdout


def test_kinds_of_bundles() -> None:
    assert set(ABOUT) == set(BundleKind)
    lines = run("bundle", "kinds").stdout.splitlines()[1:]
    rows = {line.split()[0]: line for line in lines if not line.startswith(" ")}  # long ones go on below themselves
    assert set(rows) == {kind.value for kind in BundleKind}
    assert "--kernel --installer --answer" in rows["install"]
    options = run("bundle", "set", "--help").stdout
    for kind in json.loads(run("bundle", "kinds", "--json").stdout).values():
        for name in (*kind["needs"], *kind["may"]):
            assert options_of((name,)) in options


def test_words_of_options_are_those_of_the_objects() -> None:
    def words(declared: type) -> set[str]:
        return {each.value for each in declared}  # type: ignore[attr-defined]

    for option, declared in ((KindName, BundleKind), (StateName, DeviceState), (FinishName, Finish),
                             (InstallerName, Installer), (RoleName, Role)):  # fmt: skip
        assert words(option) == words(declared)
    assert words(ReportName) == words(Report) - {"client"}
    assert words(ShowName) == {"always", "never", "key"}
    assert {"", *ACTIONS} == set(MenuAction.__args__)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "group",
    ["device", "group", "folder", "pool", "bundle", "assign", "rule", "menu", "policy", "work", "image", "token"],
)
def test_every_verb_has_help(group: str) -> None:
    listing = run(group, "--help").stdout
    verbs = [line.split()[1] for line in listing.partition("Commands")[2].splitlines() if line.startswith("│ ")
             and not line.startswith("│  ")]  # fmt: skip
    assert verbs
    for verb in verbs:
        done = run(group, verb, "--help")
        assert (done.returncode, done.stderr) == (0, ""), (group, verb)


def test_programs_can_read_what_every_verb_prints() -> None:
    def verbs(verb: TyperCommand | TyperGroup, path: str) -> Iterator[tuple[str, TyperCommand | TyperGroup]]:
        subs = getattr(verb, "commands", {})
        for name, sub in subs.items():
            yield from verbs(sub, f"{path} {name}".strip())
        if not subs:
            yield path, verb

    without = {path for path, verb in verbs(command(), "") if "--json" not in {o for p in verb.params for o in p.opts}}
    own_form = {"device export", "policy export"}
    for_people = {"client build", "loaders install", "tftp map-test", "install", "check", "run"}
    control = {"start", "stop", "restart", "force-reload", "showpid"}
    assert without == own_form | for_people | control


def test_paragraphs_of_help_are_as_wide_as_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "250")
    text = run("apply", "--help").stdout
    assert "all or nothing. Elsewhere it does not ask, but deletes nothing without --yes." in text
    assert "\n   pbserv apply policy.toml --dry-run" in text, "examples keep their lines"
    assert "PBSERV_TOKEN" in run("--help").stdout


def test_too_many_devices_are_said_before_a_server_is_asked(tmp_path: Path) -> None:
    tables = (f'[device."52:54:01:00:{n >> 8:02x}:{n & 255:02x}"]\nname = "m{n}"\n' for n in range(10_001))
    (tmp_path / "big.toml").write_text("".join(tables))
    done = run("apply", str(tmp_path / "big.toml"))
    assert (done.returncode, "pbserv device import" in done.stderr) == (1, True), done.stderr


def test_what_a_menu_does_where_nothing_is_decided(tmp_path: Path) -> None:
    (tmp_path / "menu.toml").write_text('[zone]\nunknown = "menu"\n')
    done = run("explain", "--file", str(tmp_path / "menu.toml"), "--mac", MAC, "--expect", "menu:default")
    assert (done.returncode, "by itself  the menu's default item" in done.stdout) == (0, True), done.stdout
