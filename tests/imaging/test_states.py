import pytest
from hypothesis import given
from hypothesis import strategies as st

from pbserv.imaging.manifest import DiskFacts, Manifest, ManifestItem
from pbserv.imaging.states import ImageKind, VersionState, beyond, image_state, kind_of, may, rollback, served, ways

VALIDATED, ENABLED, DISABLED, RETIRED = VersionState
every = st.dictionaries(st.integers(1, 9), st.sampled_from(VersionState))


@pytest.mark.parametrize(
    ("now", "to"),
    [(VALIDATED, {ENABLED, DISABLED, RETIRED}), (ENABLED, {DISABLED, RETIRED}), (DISABLED, {ENABLED, RETIRED}),
     (RETIRED, {DISABLED})],
)  # fmt: skip
def test_the_table_of_changes(now, to):
    assert {state for state in VersionState if may(now, state)} == to | {now}
    assert set(ways(now)) == to


@given(every)
def test_the_newest_enabled_version_is_served(states):
    enabled = [number for number, state in states.items() if state is ENABLED]
    assert served(states) == (max(enabled) if enabled else None)
    assert (image_state(states) == "enabled") == bool(enabled)


def test_the_state_of_an_image():
    assert image_state({}) == "registered"
    assert image_state({1: ENABLED, 2: VALIDATED}) == "enabled"
    assert image_state({1: RETIRED, 2: DISABLED}) == "disabled"


@given(every, st.integers(1, 9))
def test_after_a_roll_back_the_wanted_version_is_served_and_every_change_is_allowed(states, to):
    try:
        changes = rollback(states, to)
    except ValueError:
        assert to not in states or not may(states[to], ENABLED)
        return
    assert served({**states, **changes}) == to
    assert all(may(states[number], state) and states[number] is not state for number, state in changes.items())
    assert all(number >= to for number in changes)


def test_a_roll_back_without_a_number_goes_to_the_enabled_one_before():
    assert rollback({1: ENABLED, 2: DISABLED, 3: ENABLED, 4: RETIRED}) == {3: DISABLED}
    with pytest.raises(ValueError, match="no enabled version before"):
        rollback({1: DISABLED, 2: ENABLED})
    with pytest.raises(ValueError, match="no version is enabled"):
        rollback({1: DISABLED})
    with pytest.raises(ValueError, match="version 1 is retired"):
        rollback({1: RETIRED, 2: ENABLED}, 1)
    with pytest.raises(ValueError, match="no version 7"):
        rollback({1: ENABLED}, 7)


@given(every, st.integers(0, 5))
def test_generations(states, keep):
    many = beyond(states, keep)
    kept = [number for number, state in states.items() if state is not RETIRED and number not in many]
    if keep:
        assert len(kept) <= keep + 1  # the served one stays whatever it is
    else:
        assert many == ()
    assert served(states) not in many
    assert served({**states, **dict.fromkeys(many, RETIRED)}) == served(states)


def _manifest(table: str, *items: tuple[str, str]) -> Manifest:
    return Manifest(
        DiskFacts(1 << 30, 512, table, "bios"),
        tuple(ManifestItem(name, kind, 0, 1, "0" * 64, 1) for name, kind in items),
    )


@pytest.mark.parametrize(
    ("manifest", "kind"),
    [
        (_manifest("gpt", ("table", "sfdisk"), ("p1", "raw")), ImageKind.DISK),
        (_manifest("none", ("disk", "disk")), ImageKind.DISK),
        (_manifest("none", ("disk.raw.zst", "raw")), ImageKind.DISK),
        (_manifest("none", ("p1.ntfs", "partclone.ntfs")), ImageKind.PARTITION),
        (_manifest("none", ("a", "partimage")), ImageKind.PARTITION),
        (_manifest("none", ("files.tar", "tree")), ImageKind.TREE),
        (_manifest("none", ("kernel", "file"), ("initrd.img", "file")), ImageKind.BOOT),
        (_manifest("none", ("file", "file")), ImageKind.FILE),
    ],
)
def test_what_an_image_is_of(manifest, kind):
    assert kind_of(manifest) is kind
