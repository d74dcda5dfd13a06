"""Which server decides, of the settings; what is wrong with them."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest

from pbserv.errors import StartError
from pbserv.log import ServiceLog
from pbserv.policy.config import PolicyConf
from pbserv.policy.oracles.build import oracle_of, oracle_settings, read_token
from pbserv.policy.oracles.hook import Hook, HookSettings
from pbserv.policy.oracles.preboot_server import FILE, PrebootServer, ServerSettings

URL = "http://10.0.0.7:8080/v1/boot/{mac}"


@pytest.fixture
def token(tmp_path: Path) -> Path:
    path = tmp_path / "site.token"
    path.write_text("abc-DEF_123\n")
    path.chmod(0o640)
    return path


def spawn(_name: str, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
    return asyncio.get_running_loop().create_task(work)


async def made(conf: PolicyConf, state: Path | None = None) -> object:
    return oracle_of(oracle_settings(conf, 8067, state), spawn, ServiceLog("policy"))


async def test_nobody_else_by_default() -> None:
    assert await made(PolicyConf()) is None


async def test_a_hook() -> None:
    conf = PolicyConf(hook=URL, hook_timeout_ms=250, hook_failure="closed")
    assert oracle_settings(conf, 8067, None) == HookSettings(URL, 0.25, "closed")
    oracle = await made(conf)
    assert isinstance(oracle, Hook)
    assert oracle.name == "PolicyHook 10.0.0.7:8080"
    await oracle.close()


@pytest.mark.parametrize(
    ("server", "asked"), [("zen.example", "zen.example:8067"), ("198.51.100.7:80", "198.51.100.7:80")]
)
async def test_a_preboot_server(token: Path, tmp_path: Path, server: str, asked: str) -> None:
    conf = PolicyConf(preboot_server=server, preboot_server_token=token)
    assert oracle_settings(conf, 8067, tmp_path) == ServerSettings(asked, "abc-DEF_123", tmp_path / FILE)
    oracle = await made(conf)
    assert isinstance(oracle, PrebootServer)
    assert oracle.name == f"PrebootServer {asked}"
    await oracle.close()


@pytest.mark.parametrize("server", ["127.0.0.1", "127.0.0.1:8067", "localhost"])
def test_this_server_is_no_other(server: str) -> None:
    assert oracle_settings(PolicyConf(preboot_server=server), 8067, None) is None


def test_the_same_host_on_another_port_is_another(token: Path) -> None:
    conf = PolicyConf(preboot_server="127.0.0.1:9000", preboot_server_token=token)
    assert isinstance(oracle_settings(conf, 8067, None), ServerSettings)


def test_a_token_is_needed() -> None:
    with pytest.raises(StartError, match=r"PrebootServerToken.*pbserv token"):
        oracle_settings(PolicyConf(preboot_server="zen.example"), 8067, None)


PEM = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
FINGERPRINT = ":".join(["AB"] * 32)


async def test_a_preboot_server_over_tls(token: Path) -> None:
    conf = PolicyConf(preboot_server="https://zen.example:8443", preboot_server_token=token)
    assert oracle_settings(conf, 8067, None) == ServerSettings("https://zen.example:8443", "abc-DEF_123", None, "")
    oracle = await made(conf)
    assert isinstance(oracle, PrebootServer)
    assert oracle.name == "PrebootServer https://zen.example:8443"
    await oracle.close()
    pinned = oracle_settings(conf.model_copy(update={"preboot_server_ca": FINGERPRINT}), 8067, None)
    assert isinstance(pinned, ServerSettings)
    assert (pinned.trust, pinned.url) == (FINGERPRINT, "https://zen.example:8443/api/v1/policy/resolve")


@pytest.mark.parametrize("text", ["", "nothing", "\u00fcmlaut", PEM, "x" * 2_000_000])
def test_files_without_certificates(token: Path, tmp_path: Path, text: str) -> None:
    (tmp_path / "ca.pem").write_text(text)
    conf = PolicyConf(
        preboot_server="https://zen.example:8443", preboot_server_token=token, preboot_server_ca=f"{tmp_path}/ca.pem"
    )
    with pytest.raises(StartError, match=r"PrebootServerCA: .*ca\.pem holds no certificate"):
        oracle_settings(conf, 8067, None)


def test_a_file_of_certificates_that_is_not_there(token: Path, tmp_path: Path) -> None:
    conf = PolicyConf(
        preboot_server="https://zen.example:8443", preboot_server_token=token, preboot_server_ca=f"{tmp_path}/ca.pem"
    )
    with pytest.raises(StartError, match=r"PrebootServerCA: .*No such file"):
        oracle_settings(conf, 8067, None)


def test_nobody_can_be_believed_over_plain_http(token: Path) -> None:
    conf = PolicyConf(preboot_server="zen.example", preboot_server_token=token, preboot_server_ca=FINGERPRINT)
    with pytest.raises(StartError, match="https://HOST:PORT"):
        oracle_settings(conf, 8067, None)


def test_one_server_decides(token: Path) -> None:
    conf = PolicyConf(preboot_server="zen.example", preboot_server_token=token, hook=URL)
    with pytest.raises(StartError, match="PolicyHook and PrebootServer"):
        oracle_settings(conf, 8067, None)


def test_a_token_that_everybody_can_read(token: Path) -> None:
    token.chmod(0o644)
    with pytest.raises(StartError, match="chmod o-r"):
        read_token(token)


@pytest.mark.parametrize("text", ["", "\n", "two words", "two\nlines", "\u00fcmlaut", "x" * 600, "a\0b"])
def test_what_is_no_token(token: Path, text: str) -> None:
    token.write_text(text)
    with pytest.raises(StartError, match="does not hold one token"):
        read_token(token)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(StartError, match=f"{tmp_path}/absent"):
        read_token(tmp_path / "absent")
    with pytest.raises(StartError, match=str(tmp_path)):
        read_token(tmp_path)
