"""`pbserv policy validate|export` and `pbserv apply`: a whole policy as a file.

One rule: nothing is applied that was not shown before.
"""

from __future__ import annotations

import difflib
import json
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final  # Any: the values of objects, as JSON and TOML have them

from rich.console import Console
from rich.text import Text

from pbserv.commands import policy_others
from pbserv.commands.api import Api
from pbserv.commands.policy_files import judged, load
from pbserv.commands.tables import Row, console, plain, print_json, warn
from pbserv.errors import PbservError, UsageError
from pbserv.policy.documents import kind_of, read_object, values_of
from pbserv.policy.entries import DEVICE_FIELDS, Entry
from pbserv.policy.files import Form, PolicyFile, PolicyFileError, write_policy

_SIGNS: Final = {"create": ("+", "green"), "change": ("~", "yellow"), "delete": ("-", "red")}
_TO_DO: Final = {"create": "to make", "change": "to change", "delete": "to delete"}
_DONE: Final = {"create": "made", "change": "changed", "delete": "deleted"}


def validate(file: Path, as_json: bool) -> int:
    """Print everything that is wrong with a policy file; the exit code: 0 nothing, 1 something."""
    wrong: Sequence[str]
    odd: Sequence[str] = ()
    policy = None
    try:
        policy = load(file)
        wrong, odd = judged(file, policy)
    except PolicyFileError as fault:
        wrong = fault.problems
    if as_json:
        print_json({"problems": list(wrong), "warnings": list(odd)})
        return int(bool(wrong))
    for problem in wrong:
        print(plain(problem), file=sys.stderr)
    warn(odd)
    if policy is not None and not wrong:
        print(f"{file}: {_contents(policy)}: nothing is wrong")
    return int(bool(wrong))


def export(conf: Path, form: Form, devices: bool) -> None:
    """The server's policy to stdout, as `apply` reads it."""
    api = Api(conf)
    found = api.get("/export")
    objects = [read_object(kind, name, values) for kind, named in found.items() for name, values in named.items()]
    entries = {each["mac"]: _entry(each) for each in api.pages("/devices")} if devices else None
    others = policy_others.exported(api, entries or {})
    sys.stdout.write(write_policy(objects, form, entries, others=others))


def _entry(device: Row) -> Entry:
    """What differs from a new device."""
    entry: Entry = {key: device[key] for key in DEVICE_FIELDS if device[key]}
    if entry.get("folder") == "/":
        del entry["folder"]
    return entry


def apply(conf: Path, file: Path, prune: bool, dry_run: bool, yes: bool, as_json: bool) -> int:
    """Make the server's policy what the file says. The exit code: 1 when it was not agreed to."""
    policy = load(file)
    if len(policy.entries) > _MOST_DEVICES:
        raise PbservError(
            f"{file}: {len(policy.entries)} devices are more than {_MOST_DEVICES}; leave them out, and give them to:"
            " pbserv device import"
        )
    api = Api(conf)
    body = _body(policy, prune)
    planned = api.post("/apply", {**body, "dry_run": True})
    of_policy = [change for change in planned["changes"] if change["action"] != "none"]
    others = policy_others.changes(api, policy)
    wanted = [*of_policy, *(each.row for each in others)]
    if not as_json:
        show_changes(console(), wanted)
        warn([*planned["warnings"], *(_ZONED if policy.zoned else ())])
    if wanted and not dry_run and not _agreed(wanted, yes, as_json):
        print("nothing was changed", file=sys.stderr)
        return 1
    done = planned
    if not dry_run:
        done = api.post("/apply", {**body, "dry_run": False}) if of_policy else planned
        policy_others.carry_out(api, others)
    if as_json:
        print_json({**done, "changes": [*done["changes"], *(each.row for each in others)],
                    "applied": bool(wanted) and not dry_run})  # fmt: skip
    elif not wanted:
        print(f"{file}: the server's policy is like this already")
    else:
        print(_summary(wanted, _DONE) if not dry_run else f"nothing was changed yet: {_summary(wanted, _TO_DO)}")
    return 0


_MOST_DEVICES: Final = 10_000
_ZONED: Final = (
    "[zone] is for pbserv explain --file; on the server it is ZoneDefault, UnknownDevices and NovellPolicyEngine",
)


def _body(policy: PolicyFile, prune: bool) -> dict[str, Any]:
    objects: dict[str, dict[str, Any]] = {}
    for each in policy.objects:
        objects.setdefault(kind_of(each), {})[each.name] = values_of(each)
    return {"objects": objects, "devices": dict(policy.entries), "prune": prune}


def _agreed(wanted: Sequence[Row], yes: bool, as_json: bool) -> bool:
    """On a terminal somebody is asked; elsewhere what deletes nothing needs no word."""
    deletes = sum(change["action"] == "delete" for change in wanted)
    if yes:
        return True
    if not as_json and sys.stdin.isatty() and sys.stdout.isatty():
        try:
            return input(f"Apply ({_summary(wanted, _TO_DO)})? [y/N] ").strip().lower() in ("y", "yes")
        except EOFError:
            return False
    if deletes:
        raise UsageError(f"{deletes} objects would be deleted; say --yes to do it")
    return True


def _summary(wanted: Sequence[Row], words: Mapping[str, str]) -> str:
    counts = Counter(change["action"] for change in wanted)
    return ", ".join(f"{counts[action]} {word}" for action, word in words.items() if counts[action])


def show_changes(out: Console, changes: Sequence[Row]) -> None:
    """One block for each: a sign, what it is, and its fields; of texts with several lines those that differ."""
    for change in changes:
        sign, colour = _SIGNS[change["action"]]
        out.print(Text(f"{sign} {change['kind']} {plain(change['name'])}", style=f"bold {colour}"), soft_wrap=True)
        for mark, line in _fields(change["before"] or {}, change["after"] or {}):
            style = {"+": "green", "-": "red"}.get(mark, "dim")
            out.print(Text(f"    {mark} {plain(line)}".rstrip(), style=style), soft_wrap=True)


def _fields(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for key in [*before, *(key for key in after if key not in before)]:
        one, other = before.get(key), after.get(key)
        if one == other:
            continue
        if any(isinstance(value, str) and "\n" in value for value in (one, other)):
            yield " ", f"{key}:"
            for line in difflib.unified_diff(_lines(one), _lines(other), lineterm="", n=2):
                if not line.startswith(("---", "+++")):
                    yield line[:1], line[1:]
            continue
        if one is not None:
            yield "-", f"{key} = {_value(one)}"
        if other is not None:
            yield "+", f"{key} = {_value(other)}"


def _lines(value: object) -> list[str]:
    return value.splitlines() if isinstance(value, str) else []


def _value(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def _contents(policy: PolicyFile) -> str:
    counts = Counter(kind_of(each) for each in policy.objects)
    counts["device"] = len(policy.devices)
    counts.update({table: len(things) for table, things in policy.others.items()})
    return ", ".join(f"{count} {kind}{'s' if count > 1 else ''}" for kind, count in counts.items() if count) or "empty"
