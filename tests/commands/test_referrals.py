"""Two running servers: one refers to the other for what belongs there; the commands follow."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from pbserv.commands.api import Api
from pbserv.commands.uploading import Upload
from pbserv.imaging.referral import Scope, sign
from pbserv.registry.tokens import digest
from tests.imaging import trees
from tests.support.process import Installed, command

BODY = b"0123456789" * 200_000


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installed]:
    """The server that has the images."""
    installed = Installed(tmp_path_factory.mktemp("lab"))
    installed.set("pbserv.conf", ImageStores=f"lab={installed.state}/images", AllowImageOverwrite="YES")
    installed.ok("start")
    yield installed
    installed.finish()


@pytest.fixture(scope="module")
def server(lab: Installed, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installed]:
    """The one that is asked."""
    installed = Installed(tmp_path_factory.mktemp("server"))
    installed.refers_to(lab, f"lab={lab.url}")
    installed.ok("start")
    yield installed
    installed.finish()


def test_an_image_of_another_server_is_stored_and_fetched_there(
    server: Installed, lab: Installed, tmp_path: Path
) -> None:
    said = server.ok("image", "register", "room", "--owner", "lab", "--title", "Class room")
    assert said == "image room registered; it belongs to store lab of another server\n"
    source = tmp_path / "disk"
    source.write_bytes(BODY)
    assert "image room version 1" in server.ok("image", "upload", "room", str(source))
    assert [(image["name"], image["title"]) for image in lab.json("image", "list")] == [("room", "Class room")]
    assert server.json("image", "show", "room")["versions"] == []
    server.ok("image", "download", "room", str(tmp_path / "back"))
    assert (tmp_path / "back/file").read_bytes() == BODY
    url, header = f"{server.url}/api/v1/images/room/items/file", f"Authorization: Bearer {server.token}"
    command(["curl", "-sfL", "-H", header, "-o", str(tmp_path / "curl"), url])
    assert (tmp_path / "curl").read_bytes() == BODY
    told = server.json("statistics")
    assert told["imaging_results"] == {"ok": 1, "referred": 2}, "registered; an upload, and curl's whole download"
    assert (told["images_sent"], told["images_received"]) == (0, 0)
    assert lab.json("statistics")["images_received"] == 1


@pytest.mark.parametrize("role", ["viewer", "operator", "admin", "site", "images"])
def test_tickets_are_signed_by_tokens_of_one_role_alone(lab: Installed, tmp_path: Path, role: str) -> None:
    """A branch that has its policies resolved here (role site) cannot have the images, too. 409: it exists."""
    (tmp_path / "disk").write_bytes(BODY)
    lab.ok("image", "upload", f"for-{role}", str(tmp_path / "disk"))
    token = lab.ok("token", "create", f"signs {role}", "--role", role).strip()
    place = f"{lab.url}/api/v1/images/for-{role}"
    for what, method, path in (("get", "GET", "/items/file"), ("put", "POST", "/uploads")):
        ticket = sign(Scope("get" if what == "get" else "put", f"for-{role}"), digest(token), int(time.time()) + 60)
        answer = httpx.request(method, place + path, params={"ticket": ticket}, json={}, trust_env=False)
        assert (answer.status_code == 401) is (role != "images"), (what, answer.text)
    headers = {"Authorization": f"Bearer {token}"}
    if role in ("site", "images"):
        for path in ("/images", f"/images/for-{role}", f"/images/for-{role}/items/file", "/stores", "/uploads"):
            assert httpx.get(f"{lab.url}/api/v1{path}", headers=headers, trust_env=False).status_code == 403


def test_an_import_goes_to_the_server_of_its_store(server: Installed, lab: Installed, tmp_path: Path) -> None:
    """Its title goes with it, and one that broke off there cannot go on from here."""
    disk = trees.disk(tmp_path / "made", "dos", ("ext4",))
    told = server.call("image", "import", str(disk.path), "--name", "hall", "--store", "lab", "--title", "Hall")
    assert (told.returncode, "title" in told.stderr) == (0, False)
    assert told.stdout == "image hall version 1: enabled\n"
    kept = lab.json("image", "show", "hall")
    assert (kept["stored_bytes"], kept["title"]) == (disk.size, "Hall")
    words = ("image", "import", str(disk.path), "--name", "hall", "--store", "lab", "--overwrite", "--title", "Another")
    assert "is changed there" in server.call(*words).stderr
    assert lab.json("image", "show", "hall")["title"] == "Hall"
    refused = server.call("image", "import", str(disk.path), "--name", "hall", "--store", "lab", "--resume")
    assert (refused.returncode, "goes on from there alone" in refused.stderr) == (1, True)


def test_an_upload_that_breaks_off_elsewhere_is_given_up(
    server: Installed, lab: Installed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as environment:
        environment.setenv("PBSERV_URL", server.url)
        environment.setenv("PBSERV_TOKEN", server.token)
        api = Api(tmp_path)
    going = Upload.begin(api, "broken", store="lab")
    with contextlib.closing(api._client), contextlib.closing(going._api._client):
        assert [each["image"] for each in lab.json("image", "uploads")] == ["broken"]
        assert "cannot go on: what came is removed there" in str(going.broken("", "the same"))
        assert lab.json("image", "uploads") == []
        assert "for 48 hours" in str(going.broken("", "the same"))
        here = Upload.begin(api, "here")
        assert str(here.broken("", "the same command")) == "interrupted; it can go on: the same command"
        here.discard()


def test_what_is_wrong_with_the_token_is_said_before_anything_changes(server: Installed) -> None:
    before = server.files["pbserv.conf"]["RemoteStoreToken"]
    server.set("pbserv.conf", RemoteStoreToken="/no/such/token")
    try:
        refused = server.call("force-reload")
        assert refused.returncode != 0
        assert "RemoteStoreToken: /no/such/token" in refused.stderr + refused.stdout
    finally:
        server.set("pbserv.conf", RemoteStoreToken=before)
    server.ok("force-reload")


def test_an_owner_that_nobody_knows_is_refused(server: Installed) -> None:
    refused = server.call("image", "register", "x", "--owner", "nowhere")
    assert (refused.returncode, "RemoteStores" in refused.stderr) == (1, True)
