"""How what is said of an image changes: by a commit, a move, a roll-back, a purge. Pure.

One rule: a refusal names image, version and state, and what would have to come first.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from pbserv.imaging.about import About, VersionAbout
from pbserv.imaging.faults import InUse, UnknownImage, WrongState
from pbserv.imaging.states import VersionState, beyond, may, rollback, served, ways


@dataclass(frozen=True, slots=True)
class Signing:
    """What a commit writes into ``about``; asked when it happens, for the configuration may change meanwhile.

    ``made_of``: the version that the new one has the content of; it takes its place only where that is served.
    """

    creator: str
    auto_enable: Callable[[], bool]
    keep_of: Callable[[About], int]
    made_of: int | None = None

    def signed(self, about: About, number: int, manifest_sha256: str, at: datetime) -> About:
        """With the new version: signed off, enabled where that is the rule, and what is too many retired."""
        whole = {one: found.state for one, found in about.versions.items() if not found.damage}
        enabled = self.auto_enable() and self.made_of in (None, served(whole))
        state = VersionState.ENABLED if enabled else VersionState.VALIDATED
        version = VersionAbout(state, at, self.creator, manifest_sha256)
        about = replace(about, creator=about.creator or self.creator, created=about.created or at)
        about = about.with_version(number, version)
        many = beyond(about.states, self.keep_of(about))
        return about.moved(dict.fromkeys(many, VersionState.RETIRED), "keep", at)


def check_move(name: str, about: About, version: int, to: VersionState) -> About:
    """``about`` itself when the version may become ``to``; raises UnknownImage or WrongState."""
    found = about.versions.get(version)
    if found is None:
        known = ", ".join(map(str, sorted(about.versions))) or "none"
        raise UnknownImage(f"image {name} has no version {version}, but {known}")
    if not may(found.state, to):
        raise WrongState(
            f"image {name} version {version} is {found.state.value} and cannot become {to.value}, but "
            f"{' or '.join(way.value for way in ways(found.state))}"
        )
    return about


def rolled_back(name: str, about: About, to: int | None) -> dict[int, VersionState]:
    """The changes of a roll-back; raises WrongState."""
    try:
        return rollback(about.states, to)
    except ValueError as error:
        raise WrongState(f"image {name}: {error}") from None


def check_purge(name: str, about: About, version: int | None, damaged: Collection[int]) -> None:
    """Raises UnknownImage, or WrongState when what is to be purged was not retired; damaged versions may go at once."""
    if version is not None and version not in about.versions:
        raise UnknownImage(f"image {name} has no version {version}")
    for number, found in sorted(about.versions.items()):
        if version in (None, number) and found.state is not VersionState.RETIRED and number not in damaged:
            raise WrongState(
                f"image {name} version {number} is {found.state.value}; retire it first (pbserv image retire), then"
                " purge it"
            )


def retired_before(about: About, before: datetime) -> tuple[int, ...]:
    """The versions that have been retired since then, oldest first."""
    retired = ((number, found) for number, found in about.versions.items() if found.state is VersionState.RETIRED)
    return tuple(sorted(number for number, found in retired if found.since is not None and found.since < before))


def refuse_users(name: str, version: int | None, users: Sequence[str]) -> None:
    """Raises InUse that names them, when there are any."""
    if users:
        what = f"image {name}" + (f" version {version}" if version is not None else "")
        raise InUse(f"{what} is in use: {', '.join(users[:20])}{' and more' if len(users) > 20 else ''}")


def completed(about: About | None, numbers: Collection[int], missing: VersionState) -> About:
    """What is said of an image, with exactly the versions that are there; ``missing``: of one that it does not know.

    None: an older pbserv's, which served everything.
    """
    if about is None:
        about, missing = About(), VersionState.ENABLED
    kept = {number: found for number, found in about.versions.items() if number in numbers}
    kept.update({number: VersionAbout(missing) for number in numbers if number not in kept})
    return replace(about, last=max(about.last, max(numbers, default=0)), versions=dict(sorted(kept.items())))
