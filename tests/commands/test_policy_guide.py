"""docs/policy.md, command by command, against the running server; and that what is exported applies as it is."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

import httpx
import pytest

from tests.support.process import Installed

GUIDE = Path(__file__).parents[2] / "docs" / "policy.md"
MAC = "52:54:00:12:34:56"
ANSWERS = {"preseed.cfg": "d-i netcfg/get_hostname string {{ name }}\n", "repair.ipxe": "#!ipxe\nexit\n"}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the files that the guide speaks of."""
    place = tmp_path_factory.mktemp("guide")
    for name, text in ANSWERS.items():
        (place / name).write_text(text)
    for language, name in (("csv", "devices.csv"), ("toml", "policy.toml")):
        [text] = re.findall(rf"^```{language}\n(.*?)^```$", GUIDE.read_text(), re.DOTALL | re.MULTILINE)
        (place / name).write_text(text)
    return place


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installed]:
    installed = Installed(tmp_path_factory.mktemp("server"))
    installed.ok("start")
    image = installed.state / "images" / "classroom"
    make_image(installed, image)
    yield installed
    installed.finish()


def make_image(server: Installed, image: Path) -> None:
    """An image that can be restored: taken by the protocol of the imaging client."""
    from tests.web.test_jobs import P1, TABLE, Client, manifest

    mac = "52:54:00:00:bb:77"
    server.ok("device", "add", mac)
    server.ok("work", "capture", mac, image.name)
    script = httpx.get(f"{server.url}/boot/{mac.replace(':', '-')}.ipxe", trust_env=False).text
    found = re.search(r"pb\.token=(\S+)", script)
    assert found, script
    headers = {"Authorization": f"Bearer {found[1]}"}
    with httpx.Client(base_url=server.url, headers=headers, trust_env=False) as http:
        client = Client(http)
        client.begin(mac)
        for name, data in (("table", TABLE), ("p1", P1)):
            client.call("PUT", f"items/{name}", content=data)
        assert client.call("POST", "commit", content=manifest(table=TABLE, p1=P1)).text == "COMMITTED\n"
        client.call("POST", "result", data={"ok": "1", "seconds": "1"})
    server.ok("device", "forget", mac)


def commands() -> list[str]:
    blocks = re.findall(r"^```sh\n(.*?)^```$", GUIDE.read_text(), re.DOTALL | re.MULTILINE)
    return [line for block in blocks for line in block.splitlines() if line.startswith("pbserv ")]


def call(server: Installed, place: Path, line: str) -> subprocess.CompletedProcess[str]:
    _, *words = shlex.split(line)
    return subprocess.run(
        [str(server.program), "--conf", str(server.conf), *words],
        capture_output=True, text=True, check=False, cwd=place, stdin=subprocess.DEVNULL,
    )  # fmt: skip


def numbered(line: str, said: Mapping[str, str]) -> str:
    """The guide counts work from 1; here some was done before."""
    made = [int(number) for text in said.values() for number in re.findall(r"^work (\d+): ", text, re.MULTILINE)]
    before = min(made, default=1) - 1
    return re.sub(r"^(pbserv work (?:show|cancel)) (\d+)$", lambda m: f"{m[1]} {int(m[2]) + before}", line)


@pytest.mark.timeout(400)  # a process for each of some eighty commands
def test_every_command_of_the_guide(server: Installed, place: Path) -> None:
    said: dict[str, str] = {}
    for line in commands():
        done = call(server, place, numbered(line, said))
        assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
        assert "Traceback" not in done.stderr
        said[line] = done.stdout
    assert len(said) > 50
    assert "lab1-01" in said["pbserv device list --folder /labs"]
    assert "1 would be created, 0 would be changed, 1 unchanged" in said["pbserv device import devices.csv --dry-run"]
    assert "verdict    boot:rescue" in said[f"pbserv explain --mac {MAC}"]
    assert "nothing was changed yet" in said["pbserv apply policy.toml --dry-run"]
    assert "deleted" in said["pbserv apply policy.toml --prune --yes"]
    assert re.fullmatch(r"\S+\n", said["pbserv token create helpdesk --role operator"])


def test_what_is_exported_applies_as_it_is(server: Installed, place: Path) -> None:
    for form, more in (("toml", ()), ("json", ("--devices",))):
        exported = server.ok("policy", "export", "--format", form, *more)
        (place / f"again.{form}").write_text(exported)
        assert call(server, place, f"pbserv policy validate again.{form}").returncode == 0
        done = call(server, place, f"pbserv apply again.{form} --prune")
        assert (done.returncode, done.stderr) == (0, "")
        assert "is like this already" in done.stdout
        answer = json.loads(call(server, place, f"pbserv apply again.{form} --prune --json").stdout)
        assert answer["applied"] is False
        assert {change["action"] for change in answer["changes"]} <= {"none"}


def test_live_and_offline_answers_are_the_same(server: Installed, place: Path) -> None:
    (place / "same.toml").write_text(server.ok("policy", "export", "--devices"))
    for work in server.json("work", "list"):
        server.ok("work", "cancel", str(work["id"]))
    for mac in (MAC, "52:54:00:12:34:60", "52:54:00:12:34:77"):
        live = server.json("explain", "--mac", mac, "--arch", "x64")
        offline = json.loads(
            call(server, place, f"pbserv explain --file same.toml --mac {mac} --arch x64 --json").stdout
        )
        for key in ("verdict", "reason", "steps", "bundle", "menu", "without_menu", "arguments", "order"):
            assert live[key] == offline[key], (mac, key)


def test_nothing_is_deleted_without_a_word(server: Installed, place: Path) -> None:
    (place / "empty.toml").write_text('[group."lab 1"]\n')
    done = call(server, place, "pbserv apply empty.toml --prune")
    assert done.returncode == 2
    assert "--yes" in done.stderr
    assert "- bundle rescue" in done.stdout
    assert "rescue" in [each["name"] for each in server.json("bundle", "list")]


@pytest.mark.parametrize(
    ("line", "code", "words"),
    [
        ("pbserv bundle set odd --kind linux", 1, "kernel is missing"),
        ("pbserv bundle delete rescue", 1, "is named by"),
        ("pbserv bundle show none", 1, "none"),
        ("pbserv assign add none --zone", 1, "there is no bundle 'none'"),
        ("pbserv assign add rescue", 2, "--zone"),
        ("pbserv assign add rescue --zone --group x", 2, "--zone"),
        ("pbserv assign add rescue --folder / --name nights", 1, "already"),
        ("pbserv rule set big", 2, "say what to change"),
        ("pbserv rule set big --when 'x ='", 1, "column"),
        ("pbserv menu set m --item x", 2, "NAME:WHAT:TITLE"),
        ("pbserv folder set labs --title x", 2, "write /, or /NAME/NAME"),
        ("pbserv group add 'lab 1' 52:54:00:99:99:99", 1, "no device"),
        ("pbserv device set 52:54:00:12:34:56", 2, "say what to change"),
        ("pbserv device set 52:54:00:12:34:56 --label x", 2, "NAME=VALUE"),
        ("pbserv device set 52:54:00:12:34:56 --group none", 1, "there is no group 'none'"),
        ("pbserv device import none.csv", 1, "No such file"),
        ("pbserv device import policy.toml", 2, ".csv or .json"),
        ("pbserv work bundle rescue", 2, "for whom"),
        ("pbserv work restore a b c", 2, "MAC IMAGE"),
        ("pbserv explain", 2, "--mac"),
        ("pbserv explain --mac 52:54:00:12:34:56 --at 2026-01-01", 2, "--file"),
        ("pbserv token revoke 999", 1, "999"),
        ("pbserv bundle set new --title x", 2, "a new one needs --kind"),
        ("pbserv group set bad/name", 2, "is no name of a group"),
        ("pbserv rule set new --position 5", 2, "a new one needs --when and --bundle"),
        ("pbserv assign set none --disable", 2, "pbserv assign add"),
    ],
)
def test_wrong_calls_are_named(server: Installed, place: Path, line: str, code: int, words: str) -> None:
    done = call(server, place, line)
    assert done.returncode == code, done
    assert words in done.stderr, done
    assert "Traceback" not in done.stderr


def test_what_is_deleted_is_said_to_programs_too(server: Installed, place: Path) -> None:
    server.ok("group", "set", "gone")
    assert server.json("group", "delete", "gone") == {"kind": "group", "name": "gone", "deleted": True}
    server.ok("device", "add", "52:54:00:12:34:88")
    assert server.json("device", "forget", "52:54:00:12:34:88")["forgotten"] is True


def test_what_is_switched_off_says_so(server: Installed, place: Path) -> None:
    call(server, place, "pbserv assign add rescue --folder /off --name off")
    assert "enabled" not in call(server, place, "pbserv assign show off").stdout
    call(server, place, "pbserv assign set off --disable")
    assert "enabled: no" in call(server, place, "pbserv assign show off").stdout
    assert "finish" not in call(server, place, "pbserv bundle show rescue").stdout, "a kernel has none"


@pytest.mark.parametrize(
    ("url", "words"), [("127.0.0.1:{port}", "write http://HOST:PORT"), ("https://127.0.0.1:{port}", "port of HTTPS")]
)
def test_addresses_that_are_none(server: Installed, monkeypatch: pytest.MonkeyPatch, url: str, words: str) -> None:
    monkeypatch.setenv("PBSERV_URL", url.format(port=server.http_port))
    done = server.call("token", "list")
    assert (done.returncode, words in done.stderr) == (1, True), done.stderr


def test_a_broken_list_of_devices_names_every_row(server: Installed, place: Path) -> None:
    (place / "broken.csv").write_text("mac,name\nnonsense,a\n52:54:00:12:34:70,b\n01:00:5e:00:00:01,c\n")
    done = call(server, place, "pbserv device import broken.csv")
    assert done.returncode == 1
    assert [line.split(":")[1] for line in done.stderr.splitlines()[:2]] == [" row 2", " row 4"]
    assert server.call("device", "show", "52:54:00:12:34:70").returncode == 1


def test_lists_longer_than_a_page(server: Installed, place: Path) -> None:
    rows = "".join(f"52:54:01:00:{number >> 8:02x}:{number & 255:02x},m{number}\n" for number in range(2100))
    (place / "many.csv").write_text(f"mac,name\n{rows}")
    assert "2100 created" in call(server, place, "pbserv device import many.csv").stdout
    assert len(server.json("device", "list", "--search", "52:54:01:00")) == 2100
