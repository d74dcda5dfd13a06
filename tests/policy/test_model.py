"""Objects of a policy: what is valid by itself."""

from __future__ import annotations

from typing import Any

import pytest

from pbserv.policy.model import (
    DEFAULT_MENU,
    KINDS,
    Assignment,
    Bundle,
    Folder,
    Group,
    Installer,
    Menu,
    MenuItem,
    Report,
    Rule,
    check_folder,
    check_name,
    check_place,
)  # fmt: skip
from pbserv.registry.records import BundleKind, Finish

VALID: dict[BundleKind, dict[str, Any]] = {
    BundleKind.RESTORE: {"image": "win11", "target_disk": "serial:S1", "finish": Finish.POWEROFF, "arguments": "quiet"},
    BundleKind.MULTICAST: {"image": "win11", "clients": 5, "wait_min": 15},
    BundleKind.CACHE: {"image": "win11", "version": 3, "finish": Finish.POWEROFF},
    BundleKind.DEPLOY: {"image": "win11", "partitions": (1, 2), "before": "true\n", "verify": "read"},
    BundleKind.CAPTURE: {"image": "win11", "overwrite": True, "target_disk": "/dev/nvme0n1"},
    BundleKind.SCRIPT: {"script": "true\n", "finish": Finish.NONE},
    BundleKind.MAINTENANCE: {"arguments": "quiet"},
    BundleKind.LINUX: {"kernel": "d/vmlinuz", "initrd": ("d/initrd", "http://h/x"), "report": Report.SYSTEM},
    BundleKind.INSTALL: {"kernel": "k", "installer": Installer.PRESEED, "answer": "x", "meta": "y", "initrd": ("i",)},
    BundleKind.EFI: {"file": "uki.efi", "arguments": "quiet"},
    BundleKind.ISO: {"file": "http://10.0.0.1/a.iso"},
    BundleKind.IPXE: {"script": "#!ipxe\nexit"},
    BundleKind.CHAIN: {"url": "tftp://10.0.0.1/a.kpxe"},
    BundleKind.MEMTEST: {"file": "memtest.bin"},
    BundleKind.WINPE: {"files": ("bootmgr", "BCD", "boot.sdi", "boot.wim")},
    BundleKind.LOCAL: {},
    BundleKind.NOTHING: {},
}


@pytest.mark.parametrize("kind", BundleKind)
def test_each_kind_of_bundle(kind: BundleKind) -> None:
    bundle = Bundle(name="it", kind=kind, title="It", retries=2, **VALID[kind])
    once = ("restore", "multicast", "cache", "deploy", "capture", "script", "maintenance", "install")
    assert bundle.once is (kind.value in once)


@pytest.mark.parametrize("kind", [kind for kind in BundleKind if kind not in
    (BundleKind.MAINTENANCE, BundleKind.MEMTEST, BundleKind.LOCAL, BundleKind.NOTHING)])  # fmt: skip
def test_a_bundle_without_what_its_kind_needs(kind: BundleKind) -> None:
    with pytest.raises(ValueError, match=f"a bundle of kind {kind} needs: .* is missing"):
        Bundle(name="it", kind=kind)


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({"partitions": (1, 1)}, "different"),
        ({"partitions": (0,)}, "partitions"),
        ({"partitions": (1025,)}, "partitions"),
        ({"partitions": (1,), "resize": True}, "resize"),
        ({"partitions": (1, 2), "target_partition": 3}, "target_partition"),
        ({"target_partition": -1}, "target_partition"),
        ({"verify": "twice"}, "verify"),
        ({"addons": ("../x",)}, "addons"),
        ({"addons": tuple("abcdefghijklmnopq")}, "addons"),
        ({"version": -1}, "version"),
        ({"priority": 101}, "priority"),
        ({"after": "x" * 65_537}, "65536"),
        ({"store": "main"}, "store"),
    ],
)
def test_options_of_a_restore_that_make_no_sense(fields: dict[str, Any], word: str) -> None:
    with pytest.raises(ValueError, match=word):
        Bundle(name="it", kind=BundleKind.RESTORE, image="i", **fields)


def test_a_store_has_a_name_that_can_be_one() -> None:
    assert Bundle(name="it", kind=BundleKind.CAPTURE, image="i", store="main-2").store == "main-2"
    for store in ("../x", "a" * 33, "a b"):
        with pytest.raises(ValueError, match="no name of an image store"):
            Bundle(name="it", kind=BundleKind.CAPTURE, image="i", store=store)


def test_a_folder_bears_so_many_jobs() -> None:
    assert Folder(name="/labs", max_jobs=4).max_jobs == 4
    for number in (-1, 100_001):
        with pytest.raises(ValueError, match="max_jobs"):
            Folder(name="/labs", max_jobs=number)


FIELDS = ("image", "script", "kernel", "url", "answer", "overwrite", "clients")


@pytest.mark.parametrize(
    ("kind", "field"), [(kind, field) for kind, fields in VALID.items() for field in FIELDS if field not in fields]
)
def test_a_field_without_effect_is_refused(kind: BundleKind, field: str) -> None:
    extra: dict[str, Any] = {field: {"overwrite": True, "clients": 2}.get(field, "x")}
    with pytest.raises(ValueError, match=f"a bundle of kind {kind} has no {field}"):
        Bundle(name="it", kind=kind, **VALID[kind], **extra)


@pytest.mark.parametrize(
    ("kind", "reporter"),
    [(BundleKind.RESTORE, Report.CLIENT), (BundleKind.MAINTENANCE, Report.CLIENT), (BundleKind.LINUX, Report.SYSTEM),
     (BundleKind.INSTALL, Report.SYSTEM), (BundleKind.EFI, Report.LOADER), (BundleKind.IPXE, Report.LOADER)],
)  # fmt: skip
def test_who_reports(kind: BundleKind, reporter: Report) -> None:
    assert Bundle(name="it", kind=kind, **VALID[kind]).reporter is reporter


def test_linux_reports_by_the_loader_unless_said_otherwise() -> None:
    assert Bundle(name="it", kind=BundleKind.LINUX, kernel="k").reporter is Report.LOADER


@pytest.mark.parametrize(
    ("kind", "change", "said"),
    [
        (BundleKind.RESTORE, {"target_disk": "sda"}, "target_disk: write"),
        (BundleKind.RESTORE, {"target_disk": "/dev/sda; reboot"}, "target_disk: write"),
        (BundleKind.RESTORE, {"image": "a\nb"}, "image is one line"),
        (BundleKind.RESTORE, {"arguments": "x" * 1025}, "arguments is one line of at most 1024"),
        (BundleKind.RESTORE, {"arguments": "a\x00"}, "printable"),
        (BundleKind.MULTICAST, {"clients": -1}, "clients 0 to 10000"),
        (BundleKind.MULTICAST, {"wait_min": 1441}, "wait_min 0 to 1440"),
        (BundleKind.LOCAL, {"retries": 101}, "retries is 0 to 100"),
        (BundleKind.LINUX, {"kernel": "/etc/shadow"}, "below TFTPDirectory"),
        (BundleKind.LINUX, {"kernel": "a/../../b"}, "below TFTPDirectory"),
        (BundleKind.LINUX, {"kernel": "a b"}, "below TFTPDirectory"),
        (BundleKind.LINUX, {"kernel": "${net0/mac}"}, "below TFTPDirectory"),
        (BundleKind.LINUX, {"kernel": "file:///etc/shadow"}, "write http://"),
        (BundleKind.LINUX, {"initrd": ("ok", "http://h/a b")}, "write http://"),
        (BundleKind.LINUX, {"report": Report.CLIENT}, "report is system or loader"),
        (BundleKind.CHAIN, {"url": "10.0.0.1"}, "url '10.0.0.1'"),
        (BundleKind.CHAIN, {"url": "http://h/$(x)"}, "write http://"),
        (BundleKind.IPXE, {"script": "x" * 65_537}, "at most 65536"),
        (BundleKind.INSTALL, {"answer": "x" * 65_537}, "at most 65536"),
        (BundleKind.INSTALL, {"installer": None}, "installer is missing"),
        (BundleKind.LOCAL, {"name": "a/b"}, "no name of a bundle"),
        (BundleKind.LOCAL, {"title": "a\tb"}, "title is one line"),
    ],
)
def test_bundles_that_are_refused(kind: BundleKind, change: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said.replace("$", r"\$")):
        Bundle(**{"name": "it", "kind": kind, **VALID[kind], **change})


@pytest.mark.parametrize("name", ["a", "A 1", "a.b_c-d", "x" * 64, "7"])
def test_names(name: str) -> None:
    check_name(name, "thing")


@pytest.mark.parametrize("name", ["", " ", "a ", "-a", "a/b", "ä", "a\n", "x" * 65, "a:b", "a~b"])
def test_what_is_no_name(name: str) -> None:
    with pytest.raises(ValueError, match="no name of a thing"):
        check_name(name, "thing")


@pytest.mark.parametrize("path", ["/", "/a", "/a b/c.d", "/1/2/3/4/5/6/7/8"])
def test_folders(path: str) -> None:
    check_folder(path)
    assert Folder(name=path).name == path


@pytest.mark.parametrize("path", ["", "a", "/a/", "//", "/a//b", "/../a", "/1/2/3/4/5/6/7/8/9", "/a\n", "/~"])
def test_what_is_no_folder(path: str) -> None:
    with pytest.raises(ValueError, match="is no folder"):
        check_folder(path)
    with pytest.raises(ValueError, match="is no folder"):
        Group(name="g", folder=path)


@pytest.mark.parametrize("place", ["a", "a/b.c", "nfs://h/x", "HTTPS://h:8080/x/y"])
def test_places(place: str) -> None:
    check_place(place, "file")


@pytest.mark.parametrize("change", [{}, {"device": "", "group": ""}, {"group": "g"}, {"folder": "/"}])
def test_an_assignment_has_one_place(change: dict[str, str]) -> None:
    places = {"device": "52:54:00:00:00:01", **change}
    if sum(map(bool, places.values())) == 1:
        Assignment(name="a", bundle="b", **places)
        return
    with pytest.raises(ValueError, match="for one device, group or folder"):
        Assignment(name="a", bundle="b", **places)


@pytest.mark.parametrize("text", ["52:54:00:AB:cd:01", "52-54-00-ab-cd-01", "525400ABCD01", "5254.00ab.cd01"])
def test_the_device_of_an_assignment_in_any_spelling(text: str) -> None:
    assert Assignment(name="a", bundle="b", device=text).device == "52:54:00:ab:cd:01"


@pytest.mark.parametrize(
    ("kind", "change", "said"),
    [
        (Assignment, {"device": "till-1"}, "is not a MAC address"),
        (Assignment, {"folder": "north"}, "is no folder"),
        (Assignment, {"group": "g", "schedule": "soon"}, "is no schedule"),
        (Assignment, {"group": "g", "arguments": "a\nb"}, "arguments is one line"),
        (Rule, {"when": "a ="}, "column"),
        (Rule, {"when": ""}, "is empty"),
        (Rule, {"when": "true", "schedule": "at noon"}, "write at"),
        (Rule, {"when": "true", "name": "a:b"}, "no name of a rule"),
    ],
)
def test_assignments_and_rules_that_are_refused(kind: type, change: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        kind(**{"name": "it", "bundle": "b", **change})


ITEM = MenuItem(name="a", title="A", action="local")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"items": ()}, "1 to 50 items"),
        ({"items": (ITEM, ITEM)}, "a name of its own"),
        ({"items": tuple(MenuItem(name=str(n), title="x", action="exit") for n in range(51))}, "1 to 50 items"),
        ({"default": "b"}, "is none of the items: a"),
        ({"timeout_s": -1}, "timeout_s is 0"),
        ({"timeout_s": 3601}, "timeout_s is 0"),
        ({"title": "a\nb"}, "title is one line"),
    ],
)
def test_menus_that_are_refused(change: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Menu(**{"name": "m", "items": (ITEM,), **change})


@pytest.mark.parametrize("change", [{}, {"bundle": "b", "action": "local"}])
def test_a_menu_item_has_a_bundle_or_an_action(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="a bundle or an action"):
        MenuItem(name="a", title="A", **change)


def test_the_default_menu_has_the_items_of_the_manual() -> None:
    assert [item.action for item in DEFAULT_MENU.items] == ["imaging", "maintenance", "local", "exit"]


def test_objects_do_not_change_and_have_values() -> None:
    group = Group(name="g")
    with pytest.raises(AttributeError):
        group.name = "h"
    assert {group: 1}[Group(name="g")] == 1
    assert list(KINDS) == ["bundle", "group", "folder", "assignment", "rule", "menu"]
