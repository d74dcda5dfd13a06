"""A device that headquarters denies gets no files in the branch either, whatever happens to the branch meanwhile."""

from __future__ import annotations

from pathlib import Path

import pytest

from pbserv.journal.journal import Journal
from pbserv.log import ServiceLog
from pbserv.policy.config import PolicyConf
from pbserv.policy.decide import Ruling
from pbserv.policy.service import PolicyService, PolicySettings
from pbserv.registry.migrate import migrate
from pbserv.registry.registry import Registry
from pbserv.registry.tokens import WorkTokens
from pbserv.types import Decision, MacAddress, Sighting, Verdict
from tests.policy.oracles.host import Host, owned
from tests.policy.oracles.test_preboot_server import MAC, STANDING, Calendar, says

PEER = "10.0.0.7"
DENIED = says(Ruling(Decision(Verdict.SILENT, "device is denied"), "device is denied"))


async def test_what_was_refused_stays_so_until_it_is_said_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pbserv.policy.answers.REMEMBERED", 3)
    (tmp_path / "token").write_text("x\n")
    (tmp_path / "token").chmod(0o600)
    migrate(tmp_path / "registry.db")
    registry, clock = Registry.open(tmp_path / "registry.db"), Calendar()
    ask = Sighting(MacAddress.parse(MAC), via="dhcp", address=PEER)
    async with owned() as supervisor, Host(DENIED).serving() as host:
        policy = PolicyService(
            ServiceLog("policy"), registry, Journal(registry), WorkTokens(b"s" * 32), spawn=supervisor.spawn,
            clock=clock, calendar=clock.calendar,
        )  # fmt: skip
        conf = PolicyConf(preboot_server=f"127.0.0.1:{host.port}", preboot_server_token=tmp_path / "token")
        settings = PolicySettings(conf, None, 8067)
        await policy.start(settings)
        assert (await policy.settle(ask)).refused == "device is denied"
        assert policy.refuses(PEER) == "device is denied"
        await registry.change_documents([("bundle", "b", '{"kind": "local"}')])
        assert policy.refuses(PEER) == "device is denied", "all answers are void, and nobody has asked since"
        (await policy.prepare(settings)).commit()
        assert policy.refuses(PEER) == "device is denied"
        host.says = says(STANDING)
        clock.now += 1000
        policy.ruling(ask)
        assert policy.refuses(PEER) == "device is denied", "it is being asked about"
        assert (await policy.settle(ask)).refused == ""
        assert policy.refuses(PEER) == ""
        host.says = DENIED
        clock.now += 1000
        await policy.settle(ask)
        for number in range(2):
            await policy.settle(Sighting(MacAddress(bytes([2, 0, 0, 0, 0, number])), via="dhcp"))
        assert policy.refuses(PEER) == "device is denied"
        await policy.stop()
    await registry.close()
