"""A ruling as JSON, from the server that decides to the one that asked, and the question.

One rule: work stays where it is. Its number means nothing to who asked: it comes with URL and token, or not at all.
"""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from typing import Annotated, Any, Final  # Any: the JSON of policy objects, which documents.py checks

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from pbserv.policy.decide import Ruling
from pbserv.policy.documents import PolicyError, read_object, values_of
from pbserv.policy.model import Bundle, Menu, check_place
from pbserv.registry.records import BundleKind, Finish, Work, WorkState
from pbserv.types import ClientArch, Decision, MacAddress, Sighting, Verdict

VIA: Final = "site"
"""How a question of another server is noted: nothing that DHCP would say of an address follows from it."""
MOST_STEPS: Final = 1024
MOST_LETTERS: Final = 4096
Line = Annotated[str, Field(max_length=MOST_LETTERS, pattern=r"^[^\x00-\x1f\x7f]*$")]
_Short = Annotated[str, Field(max_length=256)]


class WireFault(ValueError):
    """JSON that is no ruling; the text says what is wrong with it."""


class Question(BaseModel):
    """What a server of another site asks. ``via``: how it was asked itself (dhcp, tftp, http)."""

    model_config = ConfigDict(extra="forbid")

    mac: Annotated[str, Field(max_length=32)]
    uuid: Annotated[str, Field(pattern=r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")] | None = None
    arch: Annotated[int, Field(ge=0, le=0xFFFF)] | None = None
    labels: Annotated[dict[Annotated[str, Field(max_length=32)], _Short], Field(max_length=64)] = {}
    address: Annotated[str, Field(max_length=45)] = ""
    via: Annotated[str, Field(max_length=16)] = ""

    def sighting(self) -> Sighting:
        """Raises ValueError for a MAC address that is none."""
        arch = None if self.arch is None else ClientArch(self.arch)
        details = tuple(sorted(self.labels.items()))
        return Sighting(MacAddress.parse(self.mac), self.uuid, arch, VIA, self.address, details)


def question_of(sighting: Sighting) -> dict[str, Any]:
    return {
        "mac": str(sighting.mac), "uuid": sighting.uuid, "arch": None if sighting.arch is None else int(sighting.arch),
        "labels": {name: value[:256] for name, value in sighting.details if len(name) <= 32},
        "address": sighting.address, "via": sighting.via,
    }  # fmt: skip


class WireWork(BaseModel):
    """A summary of one-shot work: for logs, and for what the loader is told of it."""

    id: int
    mac: Line
    kind: BundleKind
    image: Line = ""
    target_disk: Line = ""
    finish: Finish = Finish.REBOOT
    overwrite: bool = False
    state: WorkState = WorkState.QUEUED
    created: datetime
    bundle: Line = ""
    assignment: Line = ""


class WireRuling(BaseModel):
    """``bundle`` and ``menu`` are as the API shows them, with their name. ``url``: the base of the files and calls of
    the server that decided; ``token``: of the work. Empty ``refused``: the device may ask for files."""

    verdict: Verdict
    reason: Line
    steps: Annotated[list[Line], Field(max_length=MOST_STEPS)] = []
    file: Line = ""
    refused: Line = ""
    bundle: dict[str, Any] | None = None
    work: WireWork | None = None
    arguments: Annotated[str, Field(max_length=65_536, pattern=r"^[^\x00-\x1f\x7f]*$")] = ""
    menu: dict[str, Any] | None = None
    without_menu: Verdict | None = None
    url: Annotated[str, Field(max_length=256, pattern=r"^(https?://[A-Za-z0-9.:\[\]_-]+(/[A-Za-z0-9._/-]*)?)?$")] = ""
    token: Annotated[str, Field(max_length=256, pattern=r"^[A-Za-z0-9._-]*$")] = ""


_ADAPTER: Final = TypeAdapter(WireRuling)


def wire_of(ruling: Ruling, *, url: str, token: str) -> WireRuling:
    """``url`` and ``token``: of this server, unless the ruling came from yet another one."""
    decision, work = ruling.decision, ruling.work
    return WireRuling(
        verdict=decision.verdict, reason=_line(decision.reason), file=decision.file, refused=_line(ruling.refused),
        steps=[_line(step) for step in decision.steps[-MOST_STEPS:]],
        bundle=_values(ruling.bundle), menu=_values(ruling.menu),
        work=None if work is None else WireWork(**asdict(work)),
        arguments=ruling.arguments, without_menu=ruling.without_menu,
        url=ruling.url or url, token="" if work is None else ruling.token or token,
    )  # fmt: skip


def _line(text: str) -> str:
    return "".join(letter if letter >= " " and letter != "\x7f" else " " for letter in text[:MOST_LETTERS])


def _values(each: Bundle | Menu | None) -> dict[str, Any] | None:
    return None if each is None else {"name": each.name, **values_of(each)}


def read_ruling(text: bytes | str) -> Ruling:
    """Raises WireFault. ``order`` is always empty, and the decision has no number of work: see the rule above."""
    try:
        wire = _ADAPTER.validate_json(text)
    except ValidationError as fault:
        first = fault.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"])) or "the whole"
        raise WireFault(f"{where}: {first['msg']}") from None
    if wire.work is not None and not (wire.url and wire.token):
        raise WireFault("work: it came without the url or the token of its server")
    try:
        if wire.file:
            check_place(wire.file, "file")
        bundle, menu = _object("bundle", wire.bundle), _object("menu", wire.menu)
    except (PolicyError, ValueError) as fault:
        raise WireFault(str(fault)) from None
    if bundle is None and wire.verdict is Verdict.BOOT:
        raise WireFault("bundle: it is missing, and the verdict is boot")
    if (bundle is not None and not isinstance(bundle, Bundle)) or (menu is not None and not isinstance(menu, Menu)):
        raise WireFault("bundle, menu: one is not what its name says")
    name = "" if bundle is None else bundle.name
    decision = Decision(wire.verdict, wire.reason, tuple(wire.steps), bundle=name, file=wire.file)
    return Ruling(
        decision, wire.refused, bundle, None if wire.work is None else _work(wire.work), arguments=wire.arguments,
        menu=menu, without_menu=wire.without_menu, url=wire.url, token=wire.token,
    )  # fmt: skip


def write_ruling(ruling: Ruling) -> str:
    """As a server sends it that has the ruling of another one; also how it is kept."""
    return wire_of(ruling, url="", token="").model_dump_json(exclude_defaults=True)


def _object(kind: str, values: dict[str, Any] | None) -> object:
    if values is None:
        return None
    name = values.get("name")
    if not isinstance(name, str):
        raise WireFault(f"{kind}: it has no name")
    return read_object(kind, name, {key: value for key, value in values.items() if key != "name"})


def _work(wire: WireWork) -> Work:
    return Work(
        wire.id, wire.mac, wire.kind, wire.image, wire.target_disk, wire.finish, wire.overwrite, wire.state, "",
        wire.created, bundle=wire.bundle, assignment=wire.assignment,
    )  # fmt: skip
