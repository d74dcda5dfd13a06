"""RegistryURL: what is accepted, and that its password is in no message and no representation."""

from __future__ import annotations

from pathlib import Path

import pytest

from pbserv.conf.servers import Database
from pbserv.imaging.config import PbservConf


@pytest.mark.parametrize(
    "text",
    [
        "postgresql://pbserv:geheim@db.example:5432/pbserv",
        "postgres://pbserv:ge%40heim@127.0.0.1/pbserv",
        "postgresql://pbserv@[2001:db8::1]:5432/pbserv?sslmode=verify-full",
        "postgresql:///pbserv?host=/run/postgresql",
    ],
)
def test_what_is_accepted(text: str) -> None:
    conf = PbservConf(registry_url=Database().parse(text))
    assert conf.registry_place == text
    assert Database().show(conf.registry_url) == text
    assert "geheim" not in repr(conf) + str(conf) + str(conf.model_dump())


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("geheim", "is not postgresql"),
        ("mysql://u:geheim@h/d", "is not postgresql"),
        ("postgresql://u:geheim@h", "is not postgresql"),
        ("postgresql://u:geheim@h/", "is not postgresql"),
        ("postgresql://u:geheim@h:0/d", "is not postgresql"),
        ("postgresql://u:geheim@h:70000/d", "is not postgresql"),
        ("postgresql://u:ge/heim@h/d", "%2F for /"),
        ("postgresql://u:geheim@h/d#x", "is not postgresql"),
        ("postgresql://u:geheim@h/d?password=geheim", "is not postgresql"),
        ("postgresql://u:geheim@h/d?sslmode", "is not postgresql"),
        ("postgresql://u:geheim@h/d?sslmode=perhaps", "no such sslmode"),
        ("postgresql://u:ge@heim@h/d", "more than one @"),
        ("postgresql://u:geheim@/d", "names no host"),
        ("postgresql:///d", "names no host"),
    ],
)
def test_what_is_not(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason) as caught:
        Database().parse(text)
    assert "heim" not in str(caught.value)


def test_the_default_is_a_file(tmp_path: Path) -> None:
    assert PbservConf(state_directory=tmp_path).registry_place == tmp_path / "registry.db"
