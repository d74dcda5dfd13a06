"""What needs a token and what does not, on the running server."""

from __future__ import annotations

import httpx
import pytest

from tests.support.process import Installed

MAC = "52:54:00:00:aa:01"


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/api/v1/devices"),
        ("POST", f"/api/v1/devices/{MAC}/accept"),
        ("POST", f"/api/v1/devices/{MAC}/deny"),
        ("POST", "/api/v1/work"),
        ("GET", "/api/v1/work"),
        ("POST", "/api/v1/work/1/cancel"),
        ("GET", "/api/v1/jobs"),
        ("GET", "/api/v1/images"),
        ("PUT", "/api/v1/images/debian"),
        ("DELETE", "/api/v1/images/debian"),
        ("PATCH", "/api/v1/images/debian"),
        ("POST", "/api/v1/images/debian/rollback"),
        ("POST", "/api/v1/images/debian/uploads"),
        ("PUT", "/api/v1/uploads/1/items/p1/parts/1"),
        ("POST", "/api/v1/uploads/1/commit"),
        ("GET", "/api/v1/stores"),
        ("POST", "/api/v1/stores/main/scrub"),
        ("POST", "/api/v1/stores/main/check"),
        ("GET", "/api/v1/tasks"),
        ("POST", "/client/v1/work"),
        ("PUT", "/client/v1/jobs/1/items/p1"),
        ("POST", "/client/v1/jobs/1/commit"),
        ("POST", "/client/v1/jobs/1/progress"),
        ("POST", "/client/v1/jobs/1/result"),
    ],
)
def test_a_token_is_needed(nobody: httpx.Client, method: str, path: str) -> None:
    for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic eDp5"}):
        answer = nobody.request(method, path, headers=headers)
        assert answer.status_code == 401, (path, answer.text)
        assert "token" in answer.text
        assert answer.headers["WWW-Authenticate"] == "Bearer"


def test_boot_files_need_none(nobody: httpx.Client) -> None:
    assert nobody.get("/boot.ipxe").text.startswith("#!ipxe\n")
    pending = nobody.get("/boot/52-54-00-00-aa-77.ipxe")
    assert (pending.status_code, pending.text.count("\n")) == (403, 1)
    assert "pbserv device accept 52:54:00:00:aa:77" in pending.text
    assert nobody.head("/boot.ipxe").status_code == 200
    refused = nobody.get("/boot/nonsense.ipxe")
    assert (refused.status_code, refused.text.startswith("error: ")) == (404, True)
    missing = nobody.get("/client/vmlinuz")
    assert missing.status_code == 404
    assert "pbserv client build" in missing.text
    assert nobody.get("/client/../registry.db").status_code == 404
    assert nobody.get("/healthz").text == "ok\n"


def test_the_console_and_the_description_are_served(nobody: httpx.Client) -> None:
    page = nobody.get("/")
    assert page.status_code == 200
    assert "<title>pbserv</title>" in page.text
    assert nobody.get("/api/openapi.json").json()["info"]["title"] == "pbserv"


def test_wrong_input_is_named(admin: httpx.Client) -> None:
    bad_mac = admin.post("/api/v1/devices/nonsense/accept")
    assert bad_mac.status_code == 422
    assert "aa:bb:cc:dd:ee:ff" in bad_mac.json()["error"]
    bad_body = admin.post("/api/v1/work", json={"mac": MAC, "kind": "explode", "image": "x"})
    assert bad_body.status_code == 422
    assert "kind" in bad_body.json()["error"]
    bad_name = admin.post("/api/v1/work", json={"mac": MAC, "kind": "capture", "image": "../x"})
    assert bad_name.status_code == 400
    bad_disk = admin.post(
        "/api/v1/work", json={"mac": MAC, "kind": "capture", "image": "x", "target_disk": "a'; reboot"}
    )
    assert bad_disk.status_code == 422
    assert admin.get("/api/v1/nothing").json() == {"error": "Not Found"}
    assert admin.get(f"/api/v1/devices/{MAC}").status_code == 404


def test_a_stopped_service_answers_503(server: Installed, admin: httpx.Client) -> None:
    server.ok("stop", "policy")
    try:
        assert admin.get("/api/v1/devices").status_code == 200, "the registry is always there"
        assert "pbserv start policy" in admin.get("/boot.ipxe").text
        assert admin.get("/api/v1/images").status_code == 200
    finally:
        server.ok("start", "policy")
    server.ok("stop", "imaging")
    try:
        assert admin.get("/api/v1/images").status_code == 503
        assert admin.get("/boot.ipxe").status_code == 200
    finally:
        server.ok("start", "imaging")
    assert server.call("status").returncode == 0
