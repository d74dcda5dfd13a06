from __future__ import annotations

from pathlib import Path

import pytest

from pbserv.errors import PbservError
from pbserv.registry.access import Access, Caller
from pbserv.registry.records import Role
from pbserv.registry.tokens import WorkTokens, digest, load_secret, new_token

TOKENS = WorkTokens(b"s" * 32)


def test_a_works_token_opens_that_work_alone() -> None:
    token = TOKENS.issue(17)
    assert TOKENS.work_of(token) == 17
    assert TOKENS.work_of(token.replace("17.", "18.")) is None
    assert WorkTokens(b"t" * 32).work_of(token) is None


@pytest.mark.parametrize(
    "text", ["", ".", "17", "17.", "x.y", "-1.00", "１７.ab", "17." + "0" * 64, "9" * 30 + ".a", "17.é"]
)
def test_rubbish_is_nobodys_token(text: str) -> None:
    assert TOKENS.work_of(text) is None
    assert Access({}, TOKENS).authorize(text) is None


def test_administrators_are_known_by_their_digest() -> None:
    token = new_token()
    access = Access({digest(token): "admin"}, TOKENS)
    assert access.authorize(token) == Caller(Role.ADMIN)
    assert access.authorize(digest(token)) is None
    assert access.authorize(TOKENS.issue(3)) == Caller(None, 3)
    assert access.authorize(None) is None
    assert access.authorize("a" * 10_000) is None


def test_the_secret_is_made_once_and_private(tmp_path: Path) -> None:
    path = tmp_path / "secret.key"
    secret = load_secret(path)
    assert load_secret(path) == secret
    assert path.stat().st_mode & 0o777 == 0o600
    assert [p.name for p in tmp_path.iterdir()] == ["secret.key"]
    path.write_bytes(b"short")
    with pytest.raises(PbservError, match="shorter"):
        load_secret(path)


def test_a_caller_is_known_by_the_name_of_the_token_until_it_is_revoked() -> None:
    known, made = new_token(), new_token()
    access = Access({digest(known): "admin"}, TOKENS, {digest(known): "first"})
    access.put(digest(made), Role.OPERATOR, "helpdesk")
    assert access.authorize(known) == Caller(Role.ADMIN, name="first")
    assert access.authorize(made) == Caller(Role.OPERATOR, name="helpdesk")
    access.drop(digest(made))
    assert access.authorize(made) is None
