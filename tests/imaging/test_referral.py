from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pbserv.imaging.referral import LONGEST_S, Scope, sign, verify
from pbserv.registry.tokens import digest

NOW = 1_800_000_000
NAMES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", fullmatch=True)
SCOPES = st.builds(Scope, st.sampled_from(("get", "put")), NAMES, st.none() | st.integers(1, 999_999_999))
SENDS = st.builds(
    lambda image, upload: Scope("send", image, upload=upload), NAMES, st.from_regex(r"[0-9a-f]{16}", fullmatch=True)
)
OURS, OTHERS = digest("the site token"), digest("another one")


@given(SCOPES, st.integers(1, LONGEST_S))
def test_a_ticket_opens_what_it_says_until_it_is_over(scope: Scope, seconds: int) -> None:
    ticket = sign(scope, OURS, NOW + seconds)
    assert verify(ticket, [OTHERS, OURS], NOW) == scope
    assert verify(ticket, [OTHERS, OURS], NOW + seconds - 1) == scope
    assert verify(ticket, [OTHERS, OURS], NOW + seconds) is None
    assert verify(ticket, [OTHERS], NOW) is None
    assert verify(ticket, [], NOW) is None
    assert scope.opens(scope.what, scope.image, scope.version)
    assert not scope.opens(scope.what, scope.image + "x", scope.version)
    assert not scope.opens("delete", scope.image, scope.version)
    assert scope.opens(scope.what, scope.image, 7) == (scope.version in (None, 7))
    assert not Scope("get", "x", 3).opens("get", "x", None)


@given(SENDS)
def test_a_ticket_to_send_is_for_one_upload(scope: Scope) -> None:
    assert verify(sign(scope, OURS, NOW + 60), [OURS], NOW) == scope
    for upload in ("", scope.upload.upper() + "X", scope.upload + ":1"):
        assert verify(sign(Scope("send", scope.image, upload=upload), OURS, NOW + 60), [OURS], NOW) is None
    assert not scope.opens("put", scope.image, None)
    assert not scope.opens("get", scope.image, None)


def test_none_is_good_for_longer_than_a_day() -> None:
    assert verify(sign(Scope("get", "x"), OURS, NOW + LONGEST_S + 1), [OURS], NOW) is None


@given(SCOPES, st.integers(0, 10_000), st.characters())
def test_one_character_changed_opens_nothing(scope: Scope, place: int, character: str) -> None:
    ticket = sign(scope, OURS, NOW + 60)
    place %= len(ticket)
    changed = ticket[:place] + character + ticket[place + 1 :]
    assert verify(changed, [OURS], NOW) == (scope if changed == ticket else None)


@given(st.text(max_size=300))
def test_any_text_is_a_ticket_or_opens_nothing(text: str) -> None:
    assert verify(text, [OURS], NOW) is None


@given(st.text(alphabet="0123456789.:getpuxsnd-", max_size=80))
def test_what_looks_like_one_opens_nothing(text: str) -> None:
    assert verify(text, [OURS], NOW) is None
    assert verify(f"{text}.{'0' * 64}", [OURS], NOW) is None
