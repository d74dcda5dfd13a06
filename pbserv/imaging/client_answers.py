"""What a device is told to do, as the keys of the wire (docs/wire/client.md), and what it has to be able to do. Pure.

One rule: an older client gets the keys that it knows, or work that these say completely; never half of what was asked.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from pbserv.imaging.states import ImageKind
from pbserv.imaging.transports import transport_of
from pbserv.registry.options import NO_OPTIONS, WorkOptions
from pbserv.registry.records import BundleKind, Finish, Job, Work

PROTOCOL: Final = 2
"""The newest that this server speaks."""
OLDEST: Final = 1
"""That of a client which does not say."""
REMEDY: Final = "this needs a newer imaging client: pbserv client build --force"


def protocol_of(said: str) -> int:
    """The protocol to speak with a client that says ``client=said``; what is no number is an old client."""
    return (
        max(OLDEST, min(int(said), PROTOCOL)) if said.isascii() and said.isdigit() and 1 <= len(said) <= 4 else OLDEST
    )


def beyond(kind: BundleKind, options: WorkOptions, scripts: Collection[str] = ()) -> str:
    """Why a client of the oldest protocol cannot do work of this kind, with these options and scripts around it; empty:
    it can.

    ``store`` and ``version`` are the server's business; no boot entry is what such a client makes anyway.
    """
    asked = {
        "partitions": options.partitions, "target_partition": options.target_partition, "resize": options.resize,
        "verify = read": options.verify == "read", "dry_run": options.dry_run, "addons": options.addons,
        "cache = use": options.cache == "use",
    }  # fmt: skip
    wanted = [f"work of kind {kind}"] if kind in (BundleKind.CACHE, BundleKind.DEPLOY) else []
    wanted += [name for name, value in asked.items() if value]
    wanted += [f"script {name}" for name in scripts]
    return f"{', '.join(wanted)}: {REMEDY}" if wanted else ""


def work_answer(
    protocol: int, work: Work, job: Job, *, kind: ImageKind | None = None, part_bytes: int = 0, identity: bool = False,
    scripts: Collection[str] = (), follow: bool = False,
) -> dict[str, str]:  # fmt: skip
    """The answer to the question for work. ``kind``: of the image; ``part_bytes``: of an upload, 0: whole items;
    ``identity``: there is image-safe data for the device; ``scripts``: ``before`` and ``after``, where there are;
    ``follow``: the image is another server's."""
    answer = _first(work.kind, job.id, work.image, work.target_disk, work.finish)
    answer["BUNDLE"] = work.bundle
    answer |= _second(protocol, job, work.options, kind, part_bytes, follow=follow)
    if protocol >= PROTOCOL:
        answer |= {
            "IDENTITY": _flag(identity),
            "BEFORE": _flag("before" in scripts),
            "AFTER": _flag("after" in scripts),
        }
    return answer


def order_answer(
    protocol: int,
    job: Job,
    target_disk: str,
    *,
    kind: ImageKind | None = None,
    part_bytes: int = 0,
    follow: bool = False,
) -> dict[str, str]:
    """The answer to an order of somebody in imaging maintenance: the machine goes on afterwards."""
    answer = _first(job.kind, job.id, job.image, target_disk, Finish.NONE)
    return answer | _second(protocol, job, NO_OPTIONS, kind, part_bytes, follow=follow)


def _first(kind: BundleKind, job: int, image: str, target_disk: str, finish: Finish) -> dict[str, str]:
    """What clients of every protocol know."""
    action = BundleKind.RESTORE if kind is BundleKind.MULTICAST else kind
    return {
        "ACTION": action.value, "JOB": str(job), "IMAGE": image, "TARGET_DISK": target_disk, "FINISH": finish.value,
    }  # fmt: skip


def _second(
    protocol: int, job: Job, options: WorkOptions, kind: ImageKind | None, part_bytes: int, *, follow: bool
) -> dict[str, str]:
    if protocol < PROTOCOL:
        return {}
    answer = {
        "PROTOCOL": str(PROTOCOL),
        "VERSION": "" if job.version is None else str(job.version),
        "KIND": "" if kind is None else kind.value,
        "PARTITIONS": " ".join(map(str, options.partitions)),
        "TARGET_PARTITION": str(options.target_partition or ""),
        "VERIFY": options.verify,
        "RESIZE": _flag(options.resize),
        "DRY_RUN": _flag(options.dry_run),
        "EFI_ENTRY": _flag(options.efi_entry),
        "ADDONS": " ".join(options.addons),
        "CACHE": options.cache,
    }
    if transport := transport_of(job.kind):
        answer["TRANSPORT"] = transport.value
    if part_bytes and job.kind is BundleKind.CAPTURE:
        answer["PART_BYTES"] = str(part_bytes)
        if follow:
            answer["FOLLOW"] = "1"
    return answer


def _flag(value: bool) -> str:
    return "1" if value else "0"
