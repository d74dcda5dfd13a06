"""The state directory: made, taken over, or refused."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from pbserv.daemon.directories import SUBDIRECTORIES, prepare_directories
from pbserv.daemon.privileges import Account
from pbserv.errors import PbservError

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give directories away")
SERVICE = Account("service", 54321, 54322)
OTHER = 54399


def owner_and_mode(path: Path) -> tuple[int, int, int]:
    facts = path.stat()
    return facts.st_uid, facts.st_gid, stat.S_IMODE(facts.st_mode)


def test_made_for_ourselves(tmp_path: Path) -> None:
    state = tmp_path / "var" / "lib" / "pbserv"
    old = os.umask(0o000)
    try:
        done = prepare_directories(state)
    finally:
        os.umask(old)
    assert done == [f"created {path}" for path in (state.parent.parent, state.parent, state)] + [
        f"created {state / name}" for name in SUBDIRECTORIES
    ]
    for path in (state, *(state / name for name in SUBDIRECTORIES)):
        assert owner_and_mode(path) == (os.geteuid(), os.getegid(), 0o750)
    assert prepare_directories(state) == []


@pytest.mark.root
@needs_root
def test_given_to_the_service_user(tmp_path: Path) -> None:
    state = tmp_path / "pbserv"
    prepare_directories(state, SERVICE)
    for path in (state, *(state / name for name in SUBDIRECTORIES)):
        assert owner_and_mode(path) == (SERVICE.uid, SERVICE.gid, 0o750)


@pytest.mark.root
@needs_root
def test_roots_empty_directory_and_a_state_directory_used_as_root_are_taken_over(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir(mode=0o755)
    prepare_directories(empty, SERVICE)
    assert owner_and_mode(empty) == (SERVICE.uid, SERVICE.gid, 0o750)
    used = tmp_path / "used"
    prepare_directories(used)
    (used / "registry.db").touch()
    (used / "client" / "vmlinuz").touch()
    prepare_directories(used, SERVICE)
    assert {owner_and_mode(path)[0] for path in (used, used / "client")} == {SERVICE.uid}


@pytest.mark.root
@needs_root
def test_directory_with_other_things_is_not_taken_over(tmp_path: Path) -> None:
    (tmp_path / "precious").touch()
    before = owner_and_mode(tmp_path)
    with pytest.raises(PbservError, match="has other things in it; if it is meant for pbserv: chown -R service:"):
        prepare_directories(tmp_path, SERVICE)
    assert owner_and_mode(tmp_path) == before


@pytest.mark.root
@needs_root
def test_somebody_elses_directory_is_refused(tmp_path: Path) -> None:
    os.chown(tmp_path, OTHER, OTHER)
    with pytest.raises(PbservError, match=f"belongs to user {OTHER}, not to service"):
        prepare_directories(tmp_path, SERVICE)


def test_file_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "images").touch()
    with pytest.raises(PbservError, match=r"images: Not a directory; pbserv needs a directory there"):
        prepare_directories(tmp_path)


def test_world_writable_directory_is_closed(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run").chmod(0o777)
    prepare_directories(tmp_path)
    assert owner_and_mode(tmp_path / "run")[2] == 0o770


@pytest.mark.root
@needs_root
def test_link_made_by_root_is_followed_and_its_target_left_alone(tmp_path: Path) -> None:
    state, logs = tmp_path / "state", tmp_path / "logs"
    prepare_directories(state, SERVICE)
    (state / "log").rmdir()
    logs.mkdir(mode=0o700)
    (state / "log").symlink_to(logs)
    assert prepare_directories(state, SERVICE) == []
    assert owner_and_mode(logs) == (0, 0, 0o700)


@pytest.mark.root
@needs_root
def test_link_made_by_the_service_user_is_refused(tmp_path: Path) -> None:
    """Else that user could have root give it any directory of the machine."""
    state, target = tmp_path / "state", tmp_path / "etc"
    prepare_directories(state, SERVICE)
    target.mkdir()
    (state / "images").rmdir()
    (state / "images").symlink_to(target)
    os.chown(state / "images", SERVICE.uid, SERVICE.gid, follow_symlinks=False)
    with pytest.raises(PbservError, match="neither root nor the caller made"):
        prepare_directories(state, SERVICE)
    assert owner_and_mode(target)[0] == 0


def test_links_to_nothing_and_to_files(tmp_path: Path) -> None:
    (tmp_path / "log").symlink_to(tmp_path / "missing")
    with pytest.raises(PbservError, match="leads nowhere"):
        prepare_directories(tmp_path)
    (tmp_path / "missing").touch()
    with pytest.raises(PbservError, match="not a directory"):
        prepare_directories(tmp_path)


def test_state_directory_that_is_a_link(tmp_path: Path) -> None:
    place = tmp_path / "large-disk"
    place.mkdir()
    (tmp_path / "state").symlink_to(place)
    prepare_directories(tmp_path / "state")
    assert sorted(entry.name for entry in place.iterdir()) == sorted(SUBDIRECTORIES)


def test_parent_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(PbservError, match="Not a directory"):
        prepare_directories(tmp_path / "file" / "state")


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: it gives directories away")
def test_what_root_built_before_the_first_start_is_taken_over(tmp_path: Path) -> None:
    state = tmp_path / "state"
    (state / "client").mkdir(parents=True)
    nobody = Account("nobody", 65534, 65534)
    prepare_directories(state, nobody)
    assert (state.stat().st_uid, (state / "client").stat().st_uid) == (65534, 65534)
    other = tmp_path / "other"
    (other / "client").mkdir(parents=True)
    (other / "somebody's file").touch()
    with pytest.raises(PbservError, match="other things"):
        prepare_directories(other, nobody)
