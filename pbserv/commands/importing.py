"""`pbserv image import`: files of other imaging systems on this host become images of the server.

One rule: everything that can be found wrong is found before the first byte is sent, and what broke off can go on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any  # Any: JSON values

from pbserv.commands.api import Api, NoAnswerError, named
from pbserv.commands.progress import Bar
from pbserv.commands.tables import print_json, show_table, size, warn
from pbserv.commands.uploading import Upload
from pbserv.errors import UsageError
from pbserv.imaging.about import MAX_LINE
from pbserv.imaging.import_plan import Plan, bare, proposal
from pbserv.imaging.importing import Source, as_it_is, natively, send, survey, survey_tree
from pbserv.imaging.inspection import InspectionError
from pbserv.imaging.manifest import check_new_name
from pbserv.imaging.verifying import reads, verified


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the command was told. ``name`` empty: the file's or directory's own."""

    name: str = ""
    store: str = ""
    title: str = ""
    convert: bool = False
    tree: bool = False
    overwrite: bool = False
    resume: bool = False
    dry_run: bool = False
    as_json: bool = False


def run(conf: Path, path: Path, wishes: Wishes) -> None:
    """Look, check, send, commit; one image for each disk that was found."""
    source = survey_tree(path) if wishes.tree else survey(path)
    plans = _called(source.plans, path, wishes.name)
    keeps = {plan.name: as_it_is(plan, wishes.convert) for plan in plans}
    warn(f"{path}: {warning}" for plan in plans for warning in plan.warnings)
    if wishes.dry_run:
        return _show(plans, wishes)
    api = Api(conf)
    made = []
    for plan in plans:
        checked = _checked(source, plan)
        made.append(_import(api, source, checked, wishes, asis=keeps[plan.name], path=path))
    if wishes.as_json:
        return print_json([dict(one) for one in made])
    for one in made:
        newest = one["versions"][-1]
        print(f"image {one['name']} version {newest}: {one['states'][str(newest)]}")
    return None


def _called(plans: tuple[Plan, ...], path: Path, name: str) -> list[Plan]:
    """The plans by the names that their images get; raises UsageError where a name must be given."""
    own = bare(path.absolute().name)
    if name:
        check_new_name(name)
        ends = [plan.name.removeprefix(proposal(path.absolute().name)) if plans[1:] else "" for plan in plans]
        return [replace(plan, name=check_new_name(name + end)) for plan, end in zip(plans, ends, strict=True)]
    if own != proposal(own):
        raise UsageError(f"{own!r} cannot be the name of an image; say which: --name {proposal(own)}")
    return list(plans)


def _checked(source: Source, plan: Plan) -> Plan:
    """The plan with what was counted; raises InspectionError where a file is cut off or not of its checksums."""
    total = sum(item.stored_bytes for item in plan.items if reads(source, item))
    if not total:
        return verified(source, plan)
    with Bar(f"checking {plan.name}", total) as bar:
        return verified(source, plan, bar.add)


def _import(api: Api, source: Source, plan: Plan, wishes: Wishes, *, asis: bool, path: Path) -> Mapping[str, Any]:
    total = sum(item.stored_bytes for item in plan.items)
    going = _begun(api, plan) if wishes.resume else None
    if going is None:
        going = Upload.begin(
            api, plan.name, store=wishes.store, overwrite=wishes.overwrite, size_bytes=total, asis=asis
        )
    going.title = (wishes.title or going.title or plan.title)[:MAX_LINE]
    try:
        with Bar(f"image {plan.name}", total) as bar:
            made = send(source, plan, going, convert=wishes.convert, advance=bar.add)
    except InspectionError:  # the files themselves: no part that comes later mends that
        going.give_up()
        raise
    except (NoAnswerError, KeyboardInterrupt) as fault:
        raise going.broken(str(fault), f"the same command with --resume (image {plan.name}, {path})") from None
    title = wishes.title or ("" if made.get("title") else plan.title)
    if going.elsewhere:
        if wishes.title and made.get("title") != wishes.title:
            warn([f"image {plan.name} has a title on its own server already; it is changed there: pbserv image set"])
        return made
    return api.patch(named("images", plan.name), {"title": title}) if title else made


def _begun(api: Api, plan: Plan) -> Upload | None:
    """The upload to go on with. One that has nothing of the images yet may be of the other form, with --convert or
    without, and no comparison would show it: it is begun anew."""
    going = Upload.resume(api, plan.name)
    images = [item.name for item in plan.items if item.found is not None]
    if going is None or not images or any(going.next_part(name) > 1 for name in images):
        return going
    going.discard()
    return None


def _show(plans: list[Plan], wishes: Wishes) -> None:
    if wishes.as_json:
        return print_json([_json(plan, wishes) for plan in plans])
    rows = [
        (
            plan.name, item.name, item.kind, str(item.partition or ""), item.compressor, item.source,
            str(len(item.volumes) or ""), size(item.stored_bytes or len(item.content)),
            "to frames" if natively(item, wishes.convert) else "as it is" if item.volumes else "made",
        )
        for plan in plans for item in plan.items
    ]  # fmt: skip
    columns = ("Image", "Item", "Kind", "Partition", "Compressor", "From", "Volumes", "Bytes", "Sent")
    return show_table(columns, rows, "nothing")


def _json(plan: Plan, wishes: Wishes) -> dict[str, Any]:
    disk = plan.disk
    return {
        "image": plan.name, "title": wishes.title or plan.title, "system": plan.system, "warnings": list(plan.warnings),
        "disk": {"size_bytes": disk.size_bytes, "sector_bytes": disk.sector_bytes, "table": disk.table,
                 "firmware": disk.firmware},
        "items": [
            {"name": item.name, "kind": item.kind, "partition": item.partition, "compressor": item.compressor,
             "volumes": list(item.volumes), "stored_bytes": item.stored_bytes or len(item.content),
             "converted": natively(item, wishes.convert), "facts": dict(item.facts)}
            for item in plan.items
        ],
    }  # fmt: skip
