"""A hook on a real connection: what it may answer, how it may fail, and what is never asked."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pbserv.log import ServiceLog
from pbserv.policy.oracles.hook import Hook, HookSettings
from pbserv.policy.oracles.ports import Answer
from pbserv.policy.oracles.questions import AT_A_TIME, FAILED_S, KEPT_S, MOST_KEPT
from pbserv.registry.records import BundleKind
from pbserv.types import ClientArch, MacAddress, Sighting, Verdict
from tests.policy.oracles.host import Host, answer, owned

MAC = MacAddress.parse("52:54:00:12:34:56")
SIGHTING = Sighting(MAC, None, ClientArch(7), "dhcp")
BOOTS = answer(200, {"kernel": "/vmlinuz", "initrd": ["/initrd"], "cmdline": "quiet"})
UUID = "4c4c4544-0043-4410-8052-b4c04f4e4d32"


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@contextlib.asynccontextmanager
async def asking(
    host: Host, clock: Clock | None = None, log: ServiceLog | None = None, path: str = "/v1/boot/{mac}", **settings: Any
) -> AsyncIterator[Hook]:
    given = {"url": f"http://127.0.0.1:{host.port}{path}", "timeout_s": 5.0, "failure": "open", **settings}
    async with owned() as supervisor:
        hook = Hook(HookSettings(**given), supervisor.spawn, log or ServiceLog("policy"), clock or Clock())
        await hook.open()
        yield hook
        await hook.close()


async def asked(says: bytes, **settings: Any) -> Answer:
    async with Host(says).serving() as host, asking(host, **settings) as hook:
        return await hook.wait(SIGHTING, 5.0)


async def test_it_boots_a_device() -> None:
    async with Host(BOOTS).serving() as host, asking(host) as hook:
        assert hook.known(SIGHTING, 1000.0) is None
        found = await hook.wait(SIGHTING._replace(uuid=UUID), 5.0)
        assert found.ruling is not None
        assert (found.failed, found.ruling.decision.verdict) == (False, Verdict.BOOT)
        bundle = found.ruling.bundle
        assert bundle is not None
        assert (bundle.name, bundle.kind, bundle.kernel) == ("hook", BundleKind.LINUX, f"{host.url}/vmlinuz")
        assert (bundle.initrd, bundle.arguments) == ((f"{host.url}/initrd",), "quiet")
        assert found.ruling.decision.bundle == "hook"
        assert f"127.0.0.1:{host.port}" in found.why
        (question,) = host.asked
        assert (question.method, question.target) == ("GET", f"/v1/boot/52:54:00:12:34:56?arch=7&uuid={UUID}")


async def test_a_template_with_a_query_keeps_it() -> None:
    async with Host(BOOTS).serving() as host, asking(host, path="/ask?zone=a%20b&mac={mac}") as hook:
        await hook.wait(SIGHTING, 5.0)
        assert httpx.URL(f"{host.url}{host.asked[0].target}").params.multi_items() == [
            ("zone", "a b"), ("mac", "52:54:00:12:34:56"), ("arch", "7"),
        ]  # fmt: skip


@pytest.mark.parametrize("status", [404, 403, 204, 418])
async def test_all_but_200_leaves_the_device(status: int) -> None:
    found = await asked(answer(status, "no"), failure="closed")
    assert (found.ruling, found.failed) == (None, False)
    assert str(status) in found.why


FAILURES = {
    "gateway": (answer(502), "502"),
    "no JSON": (answer(200, b"<html>"), "no JSON"),
    "deep": (answer(200, b"[" * 60_000), "no JSON"),
    "no object": (answer(200, b"[1]"), "no object"),
    "no text": (answer(200, b'{"kernel": "\xff"}'), "no JSON"),
    "no kernel": (answer(200, {}), "kernel"),
    "a bad kernel": (answer(200, {"kernel": "file:///etc/shadow"}), "kernel"),
    "huge": (answer(200, b'{"kernel": "/k", "x": "' + b"x" * 70_000 + b'"}'), "64 KiB"),
    "a bomb": (answer(200, gzip.compress(b" " * 10_000_000), Content_Encoding="gzip"), "compressed"),
    "not HTTP": (b"220 mail.example ESMTP\r\n", "HTTP"),
    "nothing": (b"", "HTTP"),
    "cut off": (b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n{", ""),
    "elsewhere": (answer(302, Location="http://169.254.169.254/latest"), "another server"),
    "another port": (answer(302, Location="http://127.0.0.1:1/v1"), "another server"),
    "round and round": (answer(302, Location="/v1/boot/again"), "redirects more"),
    "nowhere": (answer(302, Location="http://[::1"), "HTTP"),
    "bad headers": (b"HTTP/1.1 200 OK\r\nX" + b": " + b"y" * 200_000 + b"\r\n\r\n", "HTTP"),
}


@pytest.mark.parametrize("name", FAILURES)
@pytest.mark.parametrize("failure", ["open", "closed"])
async def test_what_is_no_answer_counts_as_the_settings_say(name: str, failure: str) -> None:
    says, why = FAILURES[name]
    found = await asked(says, failure=failure, timeout_s=0.3 if name == "cut off" else 5.0)
    assert found.failed
    assert why in found.why
    assert f"PolicyHookFailure = {failure}" in found.why
    if failure == "open":
        assert found.ruling is None
    else:
        assert found.ruling is not None
        assert (found.ruling.decision.verdict, found.ruling.decision.reason) == (Verdict.SILENT, found.why)


async def test_a_redirect_on_the_same_server_is_followed() -> None:
    async with Host(answer(307, Location="/elsewhere/")).serving() as host, asking(host) as hook:
        host.then = answer(200, {"kernel": "vmlinuz"})
        found = await hook.wait(SIGHTING, 5.0)
        assert found.ruling is not None
        assert found.ruling.bundle is not None
        assert found.ruling.bundle.kernel == f"{host.url}/elsewhere/vmlinuz"
        assert [each.target for each in host.asked] == ["/v1/boot/52:54:00:12:34:56?arch=7", "/elsewhere/"]


async def test_a_dead_server_is_a_failure_at_once() -> None:
    host = Host()
    async with host.serving():
        pass
    async with asking(host) as hook:
        found = await hook.wait(SIGHTING, 5.0)
    assert (found.ruling, found.failed) == (None, True)
    assert "cannot be reached" in found.why


async def test_a_slow_server_is_waited_for_as_long_as_the_settings_say() -> None:
    async with Host(BOOTS).serving() as host, asking(host, timeout_s=0.1) as hook:
        host.holds.clear()
        found = await hook.wait(SIGHTING, 5.0)
        assert (found.ruling, found.failed) == (None, True)
        assert "did not answer within 0.1 s" in found.why
        assert hook.known(SIGHTING, 1000.0) == found


async def test_who_waits_may_have_less_time() -> None:
    async with Host(BOOTS).serving() as host, asking(host) as hook:
        host.holds.clear()
        found = await hook.wait(SIGHTING, 0.05)
        assert found.failed
        assert hook.known(SIGHTING, 1000.0) is None  # it is still being asked
        host.holds.set()
        assert (await hook.wait(SIGHTING, 5.0)).ruling is not None
        assert len(host.asked) == 1


async def test_one_question_for_all_who_ask_at_once() -> None:
    async with Host(BOOTS).serving() as host, asking(host) as hook:
        async with asyncio.TaskGroup() as group:
            for _ in range(50):
                hook.ask(SIGHTING)
                group.create_task(hook.wait(SIGHTING, 5.0))
        assert len(host.asked) == 1
        assert hook.counters == {"asked": 1, "answered": 1}


async def test_few_questions_at_a_time_for_many_devices() -> None:
    macs = [MacAddress(bytes((2, 0, 0, 0, 0, number))) for number in range(3 * AT_A_TIME)]
    async with Host(BOOTS).serving() as host, asking(host) as hook:
        host.holds.clear()
        for mac in macs:
            hook.ask(Sighting(mac))
        while len(host.asked) < AT_A_TIME:
            await asyncio.sleep(0.001)
        host.holds.set()
        for mac in macs:
            assert (await hook.wait(Sighting(mac), 5.0)).ruling is not None
        assert (len(host.asked), host.most) == (len(macs), AT_A_TIME)
        assert host.connections <= AT_A_TIME + len(macs)


async def test_who_waits_for_a_turn_too_long_has_a_failed_answer() -> None:
    macs = [MacAddress(bytes((2, 0, 0, 0, 0, number))) for number in range(3 * AT_A_TIME)]
    async with Host(BOOTS).serving() as host, asking(host, timeout_s=0.2, failure="closed") as hook:
        host.holds.clear()
        for mac in macs:
            hook.ask(Sighting(mac))
        found = [await hook.wait(Sighting(mac), 5.0) for mac in macs]
        assert all(each.failed for each in found)
        assert hook.counters["failed"] == len(macs)


async def test_an_answer_stands_for_a_boot_and_a_failure_for_a_moment() -> None:
    clock = Clock()
    late = SIGHTING._replace(via="http")
    async with Host(BOOTS).serving() as host, asking(host, clock) as hook:
        await hook.wait(SIGHTING, 5.0)
        assert hook.known(late, clock.now + KEPT_S - 1) is not None
        assert hook.known(late, clock.now + KEPT_S) is None
        clock.now += KEPT_S
        host.says = answer(500)
        assert (await hook.wait(late, 5.0)).failed
        assert hook.known(late, clock.now + FAILED_S - 0.1) is not None
        assert hook.known(late, clock.now + FAILED_S) is None


async def test_firmware_that_asks_again_later_boots_anew_but_its_ipxe_does_not() -> None:
    ipxe = SIGHTING._replace(details=(("client_kind", "ipxe"),))
    firmware = SIGHTING._replace(details=(("client_kind", "bios"),))
    async with Host(BOOTS).serving() as host, asking(host) as hook:
        await hook.wait(firmware, 5.0)
        assert hook.known(firmware._replace(address="10.0.0.9"), 1059.0) is not None
        assert hook.known(ipxe, 1100.0) is not None
        assert hook.known(firmware._replace(address="10.0.0.9"), 1061.0) is None


async def test_a_device_that_tells_more_is_asked_about_again() -> None:
    async with Host(BOOTS).serving() as host, asking(host) as hook:
        await hook.wait(Sighting(MAC, via="http", details=(("serial", "x"),)), 5.0)
        await hook.wait(Sighting(MAC, via="http", details=(("asset", "y"),)), 5.0)
        assert len(host.asked) == 1
        await hook.wait(Sighting(MAC, UUID, via="http"), 5.0)
        await hook.wait(Sighting(MAC, None, ClientArch(0), via="http"), 5.0)
        assert [each.target.partition("?")[2] for each in host.asked] == ["", f"uuid={UUID}", f"arch=0&uuid={UUID}"]
        assert hook.known(Sighting(MAC, via="http"), 1000.0) is not None


async def test_what_is_forgotten_is_asked_again() -> None:
    async with Host(BOOTS).serving() as host, asking(host) as hook:
        await hook.wait(SIGHTING, 5.0)
        hook.forget(str(MAC))
        assert hook.known(SIGHTING, 1000.0) is None
        host.holds.clear()
        hook.ask(SIGHTING)
        while len(host.asked) < 2:
            await asyncio.sleep(0.001)
        hook.forget(str(MAC))  # the answer that is under way is of before
        host.holds.set()
        assert (await hook.wait(SIGHTING, 5.0)).failed
        assert hook.known(SIGHTING, 1000.0) is None
        assert not (await hook.wait(SIGHTING, 5.0)).failed


async def test_nothing_of_the_environment_leads_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    assert (await asked(BOOTS)).ruling is not None


async def test_what_is_kept_is_bounded() -> None:
    clock = Clock()
    async with Host(answer(404)).serving() as host, asking(host, clock) as hook:
        first = Sighting(MacAddress(bytes(6)))
        await hook.wait(first, 5.0)
        entry = hook._questions._entries[bytes(6)]  # ten thousand exchanges would take half a minute
        for number in range(1, MOST_KEPT):
            hook._questions._entries[number.to_bytes(6, "big")] = entry
        await hook.wait(SIGHTING, 5.0)
        assert len(hook._questions._entries) == MOST_KEPT
        assert hook.known(first, clock.now) is None


async def test_the_log_says_once_that_it_fails_and_that_it_is_over(tmp_path: Path) -> None:
    log, clock = ServiceLog("policy"), Clock()
    log.configure(2, tmp_path / "log", 1, "json", quiet=True)
    async with Host(answer(500)).serving() as host, asking(host, clock, log) as hook:
        for number in range(5):
            await hook.wait(Sighting(MacAddress(bytes((2, 0, 0, 0, 0, number)))), 5.0)
        host.says = BOOTS
        await hook.wait(SIGHTING, 5.0)
    log.close()
    lines = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert [line["event"] for line in lines] == ["another server does not decide", "another server decides again"]
    assert lines[0]["reason"] == "answers 500"


@given(body=st.binary(max_size=200), status=st.integers(200, 599))
@settings(deadline=None)  # real connections: how long one takes says nothing
async def test_any_answer_is_an_answer(body: bytes, status: int) -> None:
    found = await asked(answer(status, body))
    assert found.why
    assert found.failed or found.ruling is None
