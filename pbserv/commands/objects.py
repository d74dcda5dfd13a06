"""`pbserv bundle|group|folder|assign|rule|menu`: the objects of the policy, all through the HTTP API.

One rule: a change is made to what is there and names the state that it was made for; nobody's change is lost.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final  # Any: JSON values as the API takes and answers them

from pbserv.commands.api import Api, RefusedError, named
from pbserv.commands.devices import show_devices
from pbserv.commands.tables import Row, plain, print_json, said, show_table, warn
from pbserv.errors import PbservError, UsageError
from pbserv.policy.model import check_folder, check_name
from pbserv.registry.records import CLIENT_KINDS

Fields = dict[str, Any]
_KEPT: Final = ("name", "revision", "changed", "warnings")
"""What an answer has beyond the fields."""
_USUAL: Final = {"verify": "stream", "efi_entry": True}
"""Values that a bundle has when nobody said another; of all other fields an empty one."""
_NEEDED: Final = {"bundle": ("kind",), "rule": ("when", "bundle")}
"""What a new object cannot be made without; the server says what a kind of bundle needs."""
ACTIONS: Final = ("decision", "imaging", "maintenance", "local", "shell", "reboot", "poweroff", "exit")
"""What an item of a menu can do that is no bundle."""


def path_of(kind: str, name: str) -> str:
    """``/bundles/NAME``; a folder without its first slash, the zone as ``~``. Raises UsageError for what is no name."""
    try:
        check_folder(name) if kind == "folder" else check_name(name, kind)
    except ValueError as fault:
        raise UsageError(str(fault)) from None
    if kind != "folder":
        return named(f"{kind}s", name)
    return named("folders", *name[1:].split("/")) if name != "/" else "/folders/~"


def listed(
    conf: Path,
    kind: str,
    columns: Mapping[str, Callable[[Row], object]],
    as_json: bool,
    order: Callable[[Row], Any] = lambda each: each["name"],
) -> None:
    """``columns``: the heads of the table, and what of an object stands below each."""
    found = sorted(Api(conf).pages(f"/{kind}s"), key=order)
    if as_json:
        return print_json(found)
    rows = ([str(column(each)) for column in columns.values()] for each in found)
    return show_table(tuple(columns), rows, f"no {kind}s yet; see: pbserv {_VERB[kind]} --help")


_VERB: Final = {"assignment": "assign", **{kind: kind for kind in ("bundle", "group", "folder", "rule", "menu")}}


def show(conf: Path, kind: str, name: str, as_json: bool) -> None:
    """All fields that differ from their defaults."""
    found = Api(conf).get(path_of(kind, name))
    print_json(found) if as_json else show_object(kind, found)


def show_object(kind: str, found: Row) -> None:
    print(f"{kind} {plain(found['name'])}")
    for key, value in found.items():
        if _says_nothing(key, value, found):
            continue
        if isinstance(value, bool):
            print(f"  {key}: {'yes' if value else 'no'}")
        elif key == "items":
            for item in value:
                print(f"  item {_item_text(item)}")
        elif isinstance(value, str) and "\n" in value:
            print(f"  {key}:")
            for line in value.splitlines():
                print(f"    {plain(line)}")
        else:
            print(f"  {key}: {plain(', '.join(map(str, value)) if isinstance(value, list) else value)}")


def _says_nothing(key: str, value: object, found: Row) -> bool:
    """Whether a field has its usual value, or one without an effect."""
    if key == "enabled":
        return bool(value)
    if key == "finish":
        return found["kind"] not in CLIENT_KINDS
    if key in _USUAL:
        return value == _USUAL[key]
    return key in _KEPT or value in ("", None, [], False) or (value == 0 and key != "timeout_s")


def put(conf: Path, kind: str, name: str, given: Mapping[str, Any], as_json: bool) -> None:
    """Make the object, or change the fields that are given (None: not given) of the one that is there."""
    api, path = Api(conf), path_of(kind, name)
    before, etag = api.find(path)
    fields = {key: value for key, value in given.items() if value is not None}
    if before is not None and not fields:
        raise UsageError(f"say what to change; see: pbserv {_VERB[kind]} set --help")
    if before is None:
        _check_new(kind, name, fields)
    stored = api.put(path, {**_fields(before, fields), **fields}, etag)
    if as_json:
        return print_json(stored)
    print(f"{kind} {stored['name']} {'changed' if before else 'made'}")
    return warn(stored["warnings"])


def _check_new(kind: str, name: str, fields: Fields) -> None:
    """Raises UsageError for an object that cannot be made of these fields."""
    if kind == "assignment":
        raise UsageError(f"there is no assignment {name!r}; make one with: pbserv assign add BUNDLE")
    missing = [f"--{each}" for each in _NEEDED.get(kind, ()) if each not in fields]
    if missing:
        raise UsageError(f"there is no {kind} {name!r} yet; a new one needs {' and '.join(missing)}")


def _fields(before: Row | None, given: Fields) -> Fields:
    """What stays of the object: nothing that another kind of bundle, or another place, has no use for."""
    if before is None:
        return {}
    kept = {key: value for key, value in before.items() if key not in _KEPT}
    if "kind" in given and given["kind"] != before["kind"]:
        return {"title": kept["title"], "retries": kept["retries"]}
    if any(given.get(key) for key in ("device", "group", "folder")) and "bundle" in kept:
        kept |= {"device": "", "group": "", "folder": ""}
    return kept


def delete(conf: Path, kind: str, name: str, as_json: bool) -> None:
    Api(conf).delete(path_of(kind, name))
    said({"kind": kind, "name": name, "deleted": True}, f"{kind} {name} deleted", as_json)


def text_of(file: Path | None) -> str | None:
    """The text of a file that an option names; None: the option was not given."""
    if file is None:
        return None
    try:
        return file.read_text(encoding="utf-8")
    except OSError as fault:
        raise PbservError(f"{file}: {fault.strerror}") from None
    except UnicodeDecodeError:
        raise PbservError(f"{file} is no text in UTF-8") from None


# groups


def group_show(conf: Path, name: str, as_json: bool) -> None:
    api = Api(conf)
    found = api.get(path_of("group", name))
    members = list(api.pages(f"{path_of('group', name)}/members"))
    if as_json:
        return print_json({**found, "members": members})
    show_object("group", found)
    print()
    return show_devices(members, f"no device is in it; put some in: pbserv group add '{name}' MAC")


def group_members(conf: Path, name: str, add: Sequence[str], remove: Sequence[str], as_json: bool) -> None:
    done = Api(conf).post(f"{path_of('group', name)}/members", {"add": list(add), "remove": list(remove)})
    if as_json:
        return print_json(done)
    for way in ("added", "removed"):
        if done[way]:
            print(f"group {name}: {way} {', '.join(done[way])}")
    if not done["added"] and not done["removed"]:
        print(f"group {name}: nothing to do")
    return None


# assignments


def place_of(device: str | None, group: str | None, folder: str | None, zone: bool) -> Fields:
    """The one place that was named; raises UsageError."""
    given = {"device": device, "group": group, "folder": "/" if zone else folder}
    places = {key: value for key, value in given.items() if value}
    if len(places) != 1 or (zone and folder):
        raise UsageError("say for whom, one of: --device MAC, --group NAME, --folder PATH, --zone")
    return places


def place_text(each: Row) -> str:
    if each["folder"] == "/":
        return "the zone"
    return next(f"{kind} {each[kind]}" for kind in ("device", "group", "folder") if each[kind])


def assign(conf: Path, bundle: str, place: Fields, name: str | None, fields: Mapping[str, Any], as_json: bool) -> None:
    """A new assignment; without ``name`` one is made of bundle and place."""
    [where] = place.values()
    name = name or _fit(f"{bundle} for {'the zone' if where == '/' else where}")
    body = {**place, "bundle": bundle, **{key: value for key, value in fields.items() if value is not None}}
    try:
        stored = Api(conf).put(path_of("assignment", name), body, None)
    except RefusedError as fault:
        if fault.status != 412:
            raise
        raise PbservError(
            f"there is an assignment {name!r} already; give the new one another --name, or: pbserv assign set"
        ) from None
    if as_json:
        return print_json(stored)
    print(f"assignment {stored['name']}: {bundle} for {place_text(stored)}")
    return warn(stored["warnings"])


def _fit(text: str) -> str:
    name = re.sub(r"[^A-Za-z0-9._ -]+", " ", text.replace(":", "-")).strip(" ._-")
    if len(name) > 64:
        raise UsageError("the assignment needs a name of at most 64 characters: --name")
    return re.sub(" +", " ", name)


# menus


def items_of(texts: Sequence[str], arguments: Sequence[str]) -> list[Fields] | None:
    """``NAME:WHAT[:TITLE]`` and ``NAME:ARGUMENTS``; None: no items were given. Raises UsageError."""
    if not texts:
        if arguments:
            raise UsageError("--item-arguments belong to items that are given with --item")
        return None
    items = [_item(text) for text in texts]
    for text in arguments:
        name, sign, value = text.partition(":")
        found = [item for item in items if item["name"] == name.strip()]
        if not sign or not found:
            raise UsageError(f"--item-arguments {text!r}: write NAME:ARGUMENTS, with the name of an --item")
        found[0]["arguments"] = value.strip()
    return items


def _item(text: str) -> Fields:
    name, _, rest = text.partition(":")
    doing, _, title = rest.partition(":")
    name, doing, title = name.strip(), doing.strip(), title.strip()
    if not name or not doing:
        raise UsageError(f"--item {text!r}: write NAME:WHAT:TITLE; WHAT is a bundle, or {', '.join(ACTIONS)}")
    if doing.startswith("bundle="):
        return {"name": name, "title": title or name, "bundle": doing.removeprefix("bundle=")}
    return {"name": name, "title": title or name, "action" if doing in ACTIONS else "bundle": doing}


def _item_text(item: Row) -> str:
    doing = item["action"] or item["bundle"]
    more = f" ({item['arguments']})" if item["arguments"] else ""
    return plain(f"{item['name']}: {doing}: {item['title']}{more}")


def menu_assign(conf: Path, menu: str, place: Fields, as_json: bool) -> None:
    """``menu``: its name, or nothing: the place inherits its menu then."""
    if "device" in place:
        stored = Api(conf).patch(named("devices", place["device"]), {"menu": menu})
        whom = f"device {stored['mac']}"
    elif "folder" in place:
        api, path = Api(conf), path_of("folder", place["folder"])
        before, etag = api.find(path)
        stored = api.put(path, {**_fields(before, {}), "menu": menu}, etag)
        whom = "the zone" if place["folder"] == "/" else f"folder {place['folder']}"
    else:
        raise UsageError("a menu is for a device, a folder or the zone; a group has none")
    if as_json:
        return print_json(stored)
    return print(f"{whom}: " + (f"menu {menu}" if menu else "no menu of its own any more"))
