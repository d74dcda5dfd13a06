"""What the policy and HTTPS lean on, tried out on real files, servers and databases."""

from __future__ import annotations

import asyncio
import contextlib
import http.server
import os
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from pbserv.doctor import reach
from pbserv.doctor.handed_out import Stock
from pbserv.policy.documents import encode
from pbserv.policy.model import Bundle
from pbserv.registry.migrate import migrate
from pbserv.registry.records import BundleKind
from pbserv.registry.registry import DeviceChange, Registry
from pbserv.settings import Settings, load_settings
from pbserv.web.tls import TlsSettings, pair_of
from tests.support.postgres import ESCAPED, PASSWORD, running_postgres
from tests.support.process import free_port

LIVE = Bundle(name="live", kind=BundleKind.LINUX, kernel="live/vmlinuz")


def conf(place: Path, policy: str = "", **keys: str) -> Settings:
    """Settings with these keys of pbserv.conf and this preboot-policy.conf."""
    directory = place / "conf"
    directory.mkdir(exist_ok=True)
    keys = {"StateDirectory": str(place / "state"), **keys}
    (directory / "pbserv.conf").write_text("".join(f"{key} = {value}\n" for key, value in keys.items()))
    (directory / "preboot-policy.conf").write_text(policy)
    (place / "state").mkdir(exist_ok=True)
    return load_settings(directory)


# templates


@pytest.fixture
def templates(tmp_path: Path) -> Path:
    path = tmp_path / "templates"
    path.mkdir(mode=0o755)
    return path


def test_templates_that_are_well(templates: Path) -> None:
    assert reach.templates(None) == reach.templates(templates) == ()
    (templates / "menu.ipxe.j2").write_text("#!ipxe\necho {{ reason }}\n")
    (templates / "_shared.j2").write_text("x")
    (templates / "README").write_text("{% if %}")
    assert reach.templates(templates) == ()


def test_all_that_do_not_parse(templates: Path) -> None:
    (templates / "menu.ipxe.j2").write_text("#!ipxe\n{% if x %}\n")
    (templates / "linux.ipxe.j2").write_text("#!ipxe\n\n{{ x ")
    (templates / "local.ipxe.j2").write_bytes(b"\xff\xfe")
    linux, local, menu = reach.templates(templates)
    assert linux.startswith(f"{templates}/linux.ipxe.j2, line 3: ")
    assert local == f"{templates}/local.ipxe.j2: not UTF-8 text"
    assert menu.startswith(f"{templates}/menu.ipxe.j2, line ")


def test_what_does_not_render_and_names_that_nobody_asks_for(templates: Path) -> None:
    broken = templates / "local.ipxe.j2"
    broken.write_text("#!ipxe\necho {{ nothing_of_this_name }}\n")
    (fault,) = reach.templates(templates)
    assert "local.ipxe.j2, line 2: 'nothing_of_this_name' is undefined" in fault
    broken.unlink()
    (templates / "locale.ipxe.j2").write_text("x")
    (fault,) = reach.templates(templates)
    assert "no template has this name" in fault


def test_root_runs_no_template_that_others_can_write(templates: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root has rights to lose")
    (templates / "local.ipxe.j2").write_text("#!ipxe\necho {{ nothing_of_this_name }}\n")
    (templates / "local.ipxe.j2").chmod(0o666)
    assert reach.templates(templates) == ()


def test_a_directory_that_is_not_there(tmp_path: Path) -> None:
    assert reach.templates(tmp_path / "none") == (f"{tmp_path}/none: No such file or directory",)


# the certificate


def test_no_https_and_none_made_yet(tmp_path: Path) -> None:
    assert reach.certificate(conf(tmp_path)) is None
    assert reach.certificate(conf(tmp_path, HTTPSPort="8443")) is None
    assert not (tmp_path / "state" / "tls").exists(), "looking makes none"


def test_the_servers_own(tmp_path: Path) -> None:
    settings = conf(tmp_path, HTTPSPort="8443")
    made = pair_of(TlsSettings(8443, None, None, tmp_path / "state" / "tls"))
    found = reach.certificate(settings)
    assert found is not None
    assert (found.own, found.fault, found.path) == (True, "", str(made.certificate))
    assert "127.0.0.1" in found.addresses
    assert "localhost" in found.names
    assert found.expires > datetime.now(UTC).timestamp() + 800 * 86_400
    assert found.key[-1].mode & 0o777 == 0o600


def given(place: Path, now: datetime | None = None) -> dict[str, str]:
    """Keys that name a certificate which was made at ``now``."""
    made = pair_of(TlsSettings(8443, None, None, place), now)
    return {"HTTPSPort": "8443", "TLSCertificate": str(made.certificate), "TLSKey": str(made.key)}


def test_one_that_was_given(tmp_path: Path) -> None:
    keys = given(tmp_path / "given")
    found = reach.certificate(conf(tmp_path, **keys))
    assert found is not None
    assert (found.own, found.fault) == (False, "")
    assert "127.0.0.1" in found.resolved, "localhost is one of its names"
    both = tmp_path / "both.pem"
    both.write_text(Path(keys["TLSCertificate"]).read_text() + Path(keys["TLSKey"]).read_text())
    both.chmod(0o644)
    in_one = reach.certificate(conf(tmp_path, HTTPSPort="8443", TLSCertificate=str(both)))
    assert in_one is not None
    assert (in_one.fault, in_one.key[-1].path, in_one.key[-1].mode & 0o777) == ("", str(both), 0o644)


def test_what_cannot_be_shown(tmp_path: Path) -> None:
    old = given(tmp_path / "old", datetime.now(UTC) - timedelta(days=900))
    expired = reach.certificate(conf(tmp_path, **old))
    assert expired is not None
    assert "has expired on" in expired.fault
    mixed = given(tmp_path / "one") | {"TLSKey": given(tmp_path / "two")["TLSKey"]}
    other = reach.certificate(conf(tmp_path, **mixed))
    assert other is not None
    assert "is not the key of the certificate" in other.fault
    alone = reach.certificate(conf(tmp_path, HTTPSPort="8443", TLSKey=mixed["TLSKey"]))
    assert alone is not None
    assert "a key without a certificate" in alone.fault
    gone = reach.certificate(conf(tmp_path, HTTPSPort="8443", TLSCertificate="/nonexistent"))
    assert gone is not None
    assert "/nonexistent: No such file" in gone.fault


# the other server


class Other(http.server.BaseHTTPRequestHandler):
    status = 422
    asked: list[tuple[str, str, str, bytes]]

    def do_HEAD(self) -> None:
        self.do_POST()

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        self.asked.append((self.command, self.path, self.headers.get("Authorization", ""), body))
        self.send_response(self.status)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(b'{"error": "a token is needed"}')

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextlib.contextmanager
def other(status: int) -> Iterator[tuple[int, type[Other]]]:
    handler = type("Handler", (Other,), {"status": status, "asked": []})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server.server_address[1], handler
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def token(tmp_path: Path) -> Path:
    path = tmp_path / "site.token"
    path.write_text("the-token\n")
    path.chmod(0o640)
    return path


def test_nobody_else(tmp_path: Path) -> None:
    assert reach.elsewhere(conf(tmp_path)) is None


def test_a_hook_is_asked_about_no_device(tmp_path: Path) -> None:
    with other(404) as (port, handler):
        found = reach.elsewhere(conf(tmp_path, f"PolicyHook = http://127.0.0.1:{port}/v1/boot/{{mac}}\n"))
    assert found is not None
    assert (found.key, found.server, found.silent, found.wrong) == ("PolicyHook", f"127.0.0.1:{port}", "", "")
    assert [(method, path) for method, path, _, _ in handler.asked] == [("HEAD", "/")]
    gone = reach.elsewhere(conf(tmp_path, f"PolicyHook = http://127.0.0.1:{port}/v1/boot/{{mac}}\n"))
    assert gone is not None
    assert gone.silent


def test_a_preboot_server_that_takes_the_token(tmp_path: Path, token: Path) -> None:
    with other(422) as (port, handler):
        keys = f"PrebootServer = 127.0.0.1:{port}\nPrebootServerToken = {token}\n"
        found = reach.elsewhere(conf(tmp_path, keys))
    assert found is not None
    assert (found.server, found.silent, found.refusal) == (f"127.0.0.1:{port}", "", "")
    assert found.token[-1].path == str(token.resolve())
    assert handler.asked == [("POST", "/api/v1/policy/resolve", "Bearer the-token", b"{}")]
    gone = reach.elsewhere(conf(tmp_path, keys))
    assert gone is not None
    assert "cannot be reached" in gone.silent


def test_one_that_refuses_it(tmp_path: Path, token: Path) -> None:
    with other(401) as (port, _):
        found = reach.elsewhere(conf(tmp_path, f"PrebootServer = 127.0.0.1:{port}\nPrebootServerToken = {token}\n"))
    assert found is not None
    assert found.refusal == 'it answers 401: {"error": "a token is needed"}'


def test_settings_that_do_not_go_together(tmp_path: Path, token: Path) -> None:
    found = reach.elsewhere(conf(tmp_path, "PrebootServer = zen.example\n"))
    assert found is not None
    assert "needs PrebootServerToken" in found.wrong
    token.chmod(0o644)
    read = reach.elsewhere(conf(tmp_path, f"PrebootServer = zen.example\nPrebootServerToken = {token}\n"))
    assert read is not None
    assert "everybody can read" in read.wrong


# the database


async def filled(place: Path | str) -> None:
    registry = Registry.open(place)
    for number, loader in enumerate(("shimx64.efi", "", "pxelinux.0", "shimx64.efi")):
        await registry.change_device(f"52:54:00:00:00:0{number}", DeviceChange(loader=loader))
    await registry.change_documents([("bundle", "live", encode(LIVE)), ("group", "lab", "{}")], [])
    await registry.close()


NAMED = Stock(("pxelinux.0", "shimx64.efi"), (LIVE,))


def test_what_the_file_names(tmp_path: Path) -> None:
    settings = conf(tmp_path)
    path = tmp_path / "state" / "registry.db"
    assert reach.database(settings) == (None, Stock())
    assert not path.exists(), "looking makes none"
    path.write_bytes(b"this is no database, and long enough to be taken for one" * 20)
    assert reach.database(settings) == (None, Stock())
    path.unlink()
    migrate(path)
    asyncio.run(filled(path))
    assert reach.database(settings) == (None, NAMED)


def test_a_server_that_is_not_there(tmp_path: Path) -> None:
    found, stock = reach.database(conf(tmp_path, RegistryURL=f"postgresql://pb:secret@127.0.0.1:{free_port()}/pbserv"))
    assert found is not None
    assert found.fault
    assert (found.password, stock) == (True, Stock())
    assert found.conf[-1].path == str((tmp_path / "conf" / "pbserv.conf").resolve())
    assert "secret" not in f"{found}"


def test_a_real_postgresql(tmp_path: Path) -> None:
    with running_postgres() as postgres:
        url = postgres.new_database()
        empty, stock = reach.database(conf(tmp_path, RegistryURL=url))
        assert empty is not None
        assert (empty.fault, stock) == ("", Stock()), "the first start makes the tables"
        migrate(url)
        asyncio.run(filled(url))
        well, stock = reach.database(conf(tmp_path, RegistryURL=url))
        assert well is not None
        assert (well.fault, well.password, stock) == ("", True, NAMED)
        assert PASSWORD not in f"{well}"
        for wrong in (url.replace(ESCAPED, "wrong"), url.rpartition("/")[0] + "/no_such_database"):
            found, _ = reach.database(conf(tmp_path, RegistryURL=wrong))
            assert found is not None
            assert found.fault, wrong
