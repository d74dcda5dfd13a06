"""`pbserv device images`: which image, when, how it was verified and how long it took."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.client.site import MAC, Site
from tests.client.test_orders import ITEM, MANIFEST, Wire
from tests.support.process import Installed

WORKED_S = 1.2


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    installed = Installed(tmp_path / "server")
    installed.ok("start")
    installed.ok("device", "accept", MAC)
    yield Site(installed, tmp_path)
    installed.finish()


def worked(site: Site, kind: str, **result: str) -> tuple[datetime, datetime]:
    """The device captures or restores the image room; from when to when, as the clock of tables shows it."""
    site.order(f"to-{kind}", kind=kind, image="room")
    wire = Wire(site, site.token)
    began = datetime.now(UTC)
    assert wire.begin(client="2")["ACTION"] == kind
    time.sleep(WORKED_S)
    if kind == "capture":
        stored = wire.call("PUT", f"/jobs/{wire.job}/items/p0", content=ITEM).text.split()
        wire.call("POST", f"/jobs/{wire.job}/commit", content=MANIFEST.format(sum=stored[1]))
    assert wire.call("POST", f"/jobs/{wire.job}/result", data={"ok": "1", **result}).text == "OK\n"
    return began, datetime.now(UTC)


def on_clock(at: datetime) -> str:
    return at.astimezone().strftime("%Y-%m-%d %H:%M:%S")


def test_when_a_device_got_which_image_and_how_long_it_took(site: Site) -> None:
    assert site.server.ok("device", "images", MAC) == "no image was written to this device or taken of it\n"
    times = {kind: worked(site, kind, **said) for kind, said in (("capture", {}), ("restore", {"verified": "read"}))}
    told = site.server.json("device", "images", MAC)["history"]
    current, titles, *rows = site.server.ok("device", "images", MAC).splitlines()
    assert titles.split() == ["Time", "What", "Image", "Store", "State", "Verified", "Took", "Reason"]
    for each, row, (kind, verified) in zip(told, rows, (("restore", "read"), ("capture", "")), strict=True):
        began, over = times[kind]
        started, finished = (datetime.fromisoformat(each[name]) for name in ("started", "finished"))
        assert began <= started < finished <= over
        assert each["seconds"] == round((finished - started).total_seconds(), 1) >= WORKED_S
        shown = re.fullmatch(rf"(\S+ \S+) +{kind} +room 1 +main +done +{verified} +(\d+) s *", row)
        assert shown, row
        assert (shown[1], int(shown[2])) == (on_clock(started), round(each["seconds"]))
        assert on_clock(began) <= shown[1] <= on_clock(over)
    assert current == f"device {MAC}: room 1 since {on_clock(datetime.fromisoformat(told[0]['finished']))}"
