"""Do the objects of a policy fit together? References that lead nowhere, and who names an object. Pure.

One rule: a problem is a sentence that begins with the kind and name of the object in which it has to be put right.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Final, Literal

from pbserv.policy.condition import parse_condition
from pbserv.policy.labels import KNOWN
from pbserv.policy.model import DEFAULT_MENU, ROOT
from pbserv.policy.snapshot import Objects
from pbserv.registry.records import Device

_NAMED: Final = 3
"""So many devices are named one by one; of further ones the number is said."""


def problems(objects: Objects, devices: Iterable[Device] = ()) -> list[str]:
    """Every reference that leads nowhere; empty: all is well. A folder need not have an object to be named."""
    return [*_of_objects(objects), *_of_devices(objects, devices)]


def warnings(objects: Objects, devices: Iterable[Device] = ()) -> list[str]:
    """What is allowed and probably not meant: labels that nothing gives, objects that nothing names.

    ``devices``: their own labels count as known.
    """
    known = {*KNOWN, *(name for device in devices for name, _ in device.labels)}
    return [*_strange_labels(objects, known), *_never_asked(objects)]


def uses(objects: Objects, kind: str, name: str, devices: Iterable[Device] = ()) -> list[str]:
    """Who names the object, as in ``assignment 'a'``; devices beyond three are counted. Empty: it may be deleted."""
    match kind:
        case "bundle":
            return [*_placing(objects, "bundle", name), *_of_menus(objects, name)]
        case "group":
            return [*_placing(objects, "group", name), *_counted(d for d in devices if name in d.groups)]
        case "folder" if name == ROOT:  # it is there without its object, which only has settings
            return []
        case "folder":
            groups = [f"group {each.name!r}" for each in objects.groups.values() if each.folder == name]
            return [*_placing(objects, "folder", name), *groups, *_counted(d for d in devices if d.folder == name)]
        case "menu" if name != DEFAULT_MENU.name:  # without an object, that name means the menu that is built in
            folders = [f"folder {each.name!r}" for each in objects.folders.values() if each.menu == name]
            return [*folders, *_counted(d for d in devices if d.menu == name)]
    return []


def _of_objects(objects: Objects) -> Iterator[str]:
    for menu in objects.menus.values():
        for item in menu.items:
            if item.bundle and item.bundle not in objects.bundles:
                yield f"menu {menu.name!r}: item {item.name!r}: there is no bundle {item.bundle!r}"
    for folder in objects.folders.values():
        if not _is_menu(objects, folder.menu):
            yield f"folder {folder.name!r}: there is no menu {folder.menu!r}"
    yield from _of_assignments(objects)
    for rule in objects.rules.values():
        if rule.bundle not in objects.bundles:
            yield f"rule {rule.name!r}: there is no bundle {rule.bundle!r}"


def _of_assignments(objects: Objects) -> Iterator[str]:
    for each in objects.assignments.values():
        if each.bundle not in objects.bundles:
            yield f"assignment {each.name!r}: there is no bundle {each.bundle!r}"
        if each.group and each.group not in objects.groups:
            yield f"assignment {each.name!r}: there is no group {each.group!r}"


def _of_devices(objects: Objects, devices: Iterable[Device]) -> Iterator[str]:
    for device in devices:
        for group in device.groups:
            if group not in objects.groups:
                yield f"device {device.mac}: there is no group {group!r}"
        if not _is_menu(objects, device.menu):
            yield f"device {device.mac}: there is no menu {device.menu!r}"


def _strange_labels(objects: Objects, known: set[str]) -> Iterator[str]:
    for rule in objects.rules.values():
        strange = sorted(parse_condition(rule.when).names - known)
        if strange:
            yield (
                f"rule {rule.name!r}: {', '.join(strange)}: no label that pbserv learns by itself; the rule counts for"
                " devices only that were given it (pbserv device set MAC --label NAME=VALUE)"
            )


def _never_asked(objects: Objects) -> Iterator[str]:
    named = Counter(assignment.bundle for assignment in objects.assignments.values())
    named.update(rule.bundle for rule in objects.rules.values())
    named.update(item.bundle for menu in objects.menus.values() for item in menu.items)
    for bundle in objects.bundles.values():
        if not named[bundle.name]:
            yield f"bundle {bundle.name!r}: nothing assigns it; it is there for one-shot work only"


def _placing(objects: Objects, field: Literal["bundle", "group", "folder"], name: str) -> Iterator[str]:
    for assignment in objects.assignments.values():
        if getattr(assignment, field) == name:
            yield f"assignment {assignment.name!r}"
    if field == "bundle":
        yield from (f"rule {rule.name!r}" for rule in objects.rules.values() if rule.bundle == name)


def _of_menus(objects: Objects, bundle: str) -> Iterator[str]:
    for menu in objects.menus.values():
        yield from (f"menu {menu.name!r}, item {item.name!r}" for item in menu.items if item.bundle == bundle)


def _counted(devices: Iterable[Device]) -> list[str]:
    found = [f"device {device.mac}" + (f" ({device.name})" if device.name else "") for device in devices]
    more = len(found) - _NAMED
    return found if more <= 0 else [*found[:_NAMED], f"{more} more device" + ("s" if more > 1 else "")]


def _is_menu(objects: Objects, name: str) -> bool:
    return not name or name in objects.menus or name == DEFAULT_MENU.name
