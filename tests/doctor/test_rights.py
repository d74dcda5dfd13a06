"""Rights: root, capabilities, and modes of directories."""

from __future__ import annotations

import stat

import pytest

from pbserv.doctor import rights
from pbserv.doctor.facts import Place, Rights, ServerFacts
from pbserv.doctor.finding import Severity
from tests.doctor.made_up import facts, only, settings

NOBODY = Rights(uid=1000, user_uid=990, user_gids=frozenset((990, 5)))
DIRECTORY, FILE = stat.S_IFDIR, stat.S_IFREG


def test_low_ports_need_rights() -> None:
    note = only(rights.rights_to_start, facts(rights=NOBODY))
    assert note.severity is Severity.NOTE
    assert "67, 4011" not in note.evidence
    assert "ports 67, 69" in note.evidence
    high = {"proxydhcp.conf": {"ProxyDHCPPort": "6700"}, "tftp.conf": {"TFTPPort": "6900"}}
    for fine in (
        facts(),
        facts(rights=Rights(uid=1000, capabilities=frozenset((10,)))),
        facts(rights=NOBODY, server=ServerFacts(7)),
        facts(settings(high), rights=NOBODY),
    ):
        assert list(rights.rights_to_start(fine)) == []


def test_looking_needs_rights_too() -> None:
    assert only(rights.rights_to_look, facts(rights=NOBODY)).remedy == ("sudo pbserv doctor",)
    assert list(rights.rights_to_look(facts())) == []


@pytest.mark.parametrize(
    ("place", "read", "allowed"),
    [
        (Place("/d", DIRECTORY | 0o755, 0, 0), True, True),
        (Place("/d", DIRECTORY | 0o711, 0, 0), True, False),
        (Place("/d", DIRECTORY | 0o711, 0, 0), False, True),
        (Place("/d", DIRECTORY | 0o750, 0, 5), True, True),
        (Place("/d", DIRECTORY | 0o705, 0, 5), True, False),
        (Place("/d", DIRECTORY | 0o077, 990, 0), True, False),
        (Place("/d", DIRECTORY | 0o500, 990, 0), True, True),
        (Place("/f", FILE | 0o644, 0, 0), True, True),
        (Place("/f", FILE | 0o600, 0, 0), True, False),
        (Place("/f", FILE | 0o600, 0, 0, acl=True), True, None),
        (Place("/f", FILE | 0o400, 990, 0, acl=True), True, True),
    ],
)
def test_modes(place: Place, read: bool, allowed: bool | None) -> None:
    assert rights.may(place, NOBODY, read=read) is allowed


def test_root_may_all() -> None:
    assert rights.may(Place("/f", FILE, 7, 7), Rights(user="root", user_uid=0), read=True) is True


def test_the_first_closed_directory_is_named() -> None:
    path = (
        Place("/", DIRECTORY | 0o755, 0, 0), Place("/srv", DIRECTORY | 0o700, 0, 0),
        Place("/srv/tftp", DIRECTORY | 0o700, 0, 0),
    )  # fmt: skip
    with_path = Rights(user="pbserv", user_uid=990, tftp_path=path)
    found = only(rights.tftp_directory, facts(rights=with_path))
    assert found.severity is Severity.ERROR
    assert found.evidence == "/srv: mode 0700, owner 0:0"
    assert found.remedy == ("chmod o+x /srv",)
    last = Rights(user="pbserv", user_uid=990, tftp_path=path[:1] + path[2:])
    assert only(rights.tftp_directory, facts(rights=last)).remedy == ("chmod o+rx /srv/tftp",)
    unknown_user = Rights(user_uid=None, tftp_path=path)
    assert list(rights.tftp_directory(facts(rights=unknown_user))) == []
