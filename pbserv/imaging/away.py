"""Captures into stores of other servers: one upload there per job, begun, committed and given up from here.

One rule: the bytes go from the device to the server that keeps them; what decides (begin, complete, commit, give up)
is asked there by this server, so the job is kept in one place. The other server knows the upload by a key that this one
makes of the job, and finds it again by that, whichever of the two was restarted.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Final, TypeVar
from urllib.parse import quote

from pydantic import BaseModel, ValidationError
from starlette.responses import Response

from pbserv.imaging.faults import DraftGone, ImagingFault
from pbserv.imaging.manifest import check_item_name
from pbserv.imaging.peer import ANSWER_S, NoAnswer, NotReferred, asked
from pbserv.imaging.referral import Scope
from pbserv.imaging.referring import Referring
from pbserv.imaging.upload_bodies import CompleteModel, ReferredModel
from pbserv.log import ServiceLog
from pbserv.registry.records import Device, Job

COMPLETE_S: Final = 1800.0
"""For an item to be completed there: as long as the client waits for it."""
COMMIT_S: Final = 600.0
_AGAIN_S: Final = 60.0
_GIVEN_UP_S: Final = 48 * 3600.0
"""After that the other server gives an upload up by itself."""
Model = TypeVar("Model", bound=BaseModel)


class _Begun(BaseModel):
    upload: str


@dataclass(slots=True, eq=False)
class _Going:
    """``wanted``: the store to ask for there, empty: where the image is. ``begun``: by a process before this one, where
    ``sent``: something may have been sent since; ``tried``: it was asked for there, whatever came of it."""

    job: int
    mac: str
    work_id: int
    image: str
    store: str
    key: str
    wanted: str = ""
    overwrite: bool = False
    begun: bool = False
    sent: bool = False
    tried: bool = False
    upload: str = ""
    asking: asyncio.Lock = field(default_factory=asyncio.Lock)
    ending: asyncio.Lock = field(default_factory=asyncio.Lock)
    ended: float = 0.0
    """When it was given up, by ``time.monotonic``."""

    @property
    def what(self) -> str:
        return f"image {self.image} of store {self.store}"


class Away:
    """Used from the event loop only. ``secret``: of this server, so that nobody else's jobs have the same keys."""

    def __init__(self, referring: Referring, secret: bytes, log: ServiceLog) -> None:
        self._referring = referring
        self._secret = secret
        self._log = log
        self._going: dict[int, _Going] = {}
        self._pending: list[_Going] = []
        self._wake = asyncio.Event()
        self._closed = False

    def __contains__(self, job: Job) -> bool:
        return job.id in self._going

    def begin(self, job: Job, store: str, wanted: str, *, overwrite: bool) -> None:
        """A device begins to capture into ``store`` of another server; nothing is asked there before its first item."""
        going = _Going(job.id, job.mac, job.work_id, job.image, store, self._key(job), wanted, overwrite)
        self._going[job.id] = going

    def resume(
        self, jobs: Sequence[Job], here: Callable[[str], bool], orders: Mapping[int, tuple[str, bool]] = {}
    ) -> None:
        """At the start: the jobs that still run, and go into stores of other servers; ``here``: a store of this one.
        ``orders``: of jobs that have sent nothing, the store to ask for there, and whether they may overwrite."""
        self._closed = False
        for job in jobs:
            if job.store in self._referring.remotes.urls and not here(job.store):
                wanted, overwrite = orders.get(job.id, ("", False))
                self._going[job.id] = _Going(
                    job.id, job.mac, job.work_id, job.image, job.store, self._key(job), wanted, overwrite, begun=True,
                    sent=job.id not in orders,
                )  # fmt: skip

    async def item(
        self, job: Job, item: str, part: int | None = None, kind: str = "", *, size_bytes: int = 0
    ) -> Response:
        """Where an item, or a part of it, is to be sent; ``size_bytes``: what the image will take, as far as the device
        can tell. Raises DraftGone, NoAnswer, NotReferred, Refused."""
        going = self._of(job)
        number = await self._upload(going, size_bytes)
        path = f"/client/v1/uploads/{number}/items/{check_item_name(item)}" + (f"/parts/{part}" if part else "")
        query = [("kind", kind)] if part else []
        location = self._referring.location(going.store, path, Scope("send", going.image, upload=number), query)
        return Response(
            status_code=HTTPStatus.TEMPORARY_REDIRECT, headers={"Location": location, "Cache-Control": "no-store"}
        )

    async def complete(self, job: Job, item: str, parts: int, plain_bytes: int) -> CompleteModel:
        """All parts of an item are there; raises as :meth:`item`."""
        going = self._of(job)
        path = f"/uploads/{await self._found(going)}/items/{check_item_name(item)}/complete"
        body = {"parts": parts, "bytes": plain_bytes}
        return _read(CompleteModel, await self._ask(going, "POST", path, json=body, answer_s=COMPLETE_S), going.what)

    async def commit(self, job: Job, manifest: str, title: str) -> int:
        """Make the image visible there: the number of its version. Repeating it is harmless; raises as :meth:`item`.

        ``title``: of the image, where it has none there.
        """
        going = self._of(job)
        async with going.asking:
            found = await self._look(going)
            if found.upload is not None:  # a version of the same key may be of an older job with this number
                path, query = f"/uploads/{found.upload.upload}/commit", [("title", title)] if title else []
                await self._ask(going, "POST", path, query=query, text=manifest, answer_s=COMMIT_S)
                found = await self._look(going)
            elif found.version is None:
                raise DraftGone(f"{going.what}: nothing was uploaded in job {going.job}")
        if found.version is None:
            raise NotReferred(f"{going.what}: it was committed there, but its server does not know of it")
        return found.version

    def end(self, job_id: int) -> None:
        """The job is over: what it uploaded and did not commit is given up there, soon."""
        self._drop(lambda going: going.job == job_id)

    def device_changed(self, device: Device) -> None:
        """Work that was cancelled, failed or done frees the name that its upload held."""
        active = device.work.id if device.work is not None and device.work.active else None
        self._drop(lambda going: going.mac == device.mac and going.work_id != active)

    def of_device(self, mac: str) -> None:
        """The device begins anew: what it had uploaded before is given up."""
        self._drop(lambda going: going.mac == mac)

    def close(self) -> None:
        """The service stops: what is there stays, and a later start goes on with it."""
        self._closed = True
        self._going.clear()

    async def run(self) -> None:
        """The owned task, until cancelled: gives up there what is not wanted any more."""
        while True:
            try:
                async with asyncio.timeout(_AGAIN_S if self._pending else None):
                    await self._wake.wait()
            except TimeoutError:
                pass
            self._wake.clear()
            for going in list(self._pending):
                try:
                    await self._give_up(going)
                except ImagingFault as fault:
                    self._log.warning("upload is not given up yet", job=going.job, image=going.image, reason=str(fault))
                    if time.monotonic() - going.ended > _GIVEN_UP_S or not isinstance(fault, NoAnswer):
                        self._forget(going)

    async def _upload(self, going: _Going, size_bytes: int) -> str:
        """The number of the upload there; it begins with the first item."""
        async with going.asking:
            if not going.upload:
                try:
                    going.upload = await (self._resumed if going.begun else self._begin)(going, size_bytes)
                finally:  # also where no answer came: it may have been begun there
                    ended = self._going.get(going.job) is not going
                    if ended and not self._closed:
                        self._give_up_soon(going)
                if ended:
                    raise self._over(going.job)
        return going.upload

    async def _begin(self, going: _Going, size_bytes: int) -> str:
        for old in [each for each in self._pending if (each.store, each.image) == (going.store, going.image)]:
            await self._give_up(old)
        going.tried = True
        body = {"store": going.wanted, "overwrite": going.overwrite, "referred": going.key, "bytes": size_bytes}
        return _read(_Begun, await self._ask(going, "POST", _uploads(going), json=body), going.what).upload

    async def _resumed(self, going: _Going, size_bytes: int) -> str:
        """What a process before this one had begun; where it had not yet, it begins: the key makes it one upload."""
        found = await self._look(going)
        if found.upload is None and found.version is None and not going.sent:
            return await self._begin(going, size_bytes)
        return self._number(going, found)

    async def _found(self, going: _Going) -> str:
        return self._number(going, await self._look(going))

    @staticmethod
    def _number(going: _Going, found: ReferredModel) -> str:
        if found.upload is None:
            raise DraftGone(f"{going.what}: the upload of job {going.job} is over there: the capture must start again")
        return found.upload.upload

    async def _look(self, going: _Going) -> ReferredModel:
        return _read(ReferredModel, await self._ask(going, "GET", f"{_uploads(going)}/{going.key}"), going.what)

    async def _give_up(self, going: _Going) -> None:
        async with going.ending:
            if going not in self._pending:
                return  # somebody else did it meanwhile
            ended = going.ended
            found = await self._look(going)
            if found.upload is not None:
                await self._ask(going, "DELETE", f"/uploads/{found.upload.upload}")
            if going.ended == ended:  # else it was begun meanwhile, and is to be given up once more
                self._forget(going)

    def _forget(self, going: _Going) -> None:
        if going in self._pending:
            self._pending.remove(going)

    async def _ask(
        self, going: _Going, method: str, path: str, *, query: Sequence[tuple[str, str]] = (), json: object = None,
        text: str | None = None, answer_s: float = ANSWER_S,
    ) -> bytes:  # fmt: skip
        remotes = self._referring.remotes
        if going.store not in remotes.urls or not remotes.token_digest:
            raise NotReferred(f"{going.what}: RemoteStores has no such store any more, or RemoteStoreToken is not set")
        location = self._referring.location(going.store, f"/api/v1{path}", Scope("put", going.image), query)
        return await asked(
            method, location, going.what, remotes.urls[going.store], json=json, text=text, answer_s=answer_s
        )

    def _of(self, job: Job) -> _Going:
        going = self._going.get(job.id)
        if going is None:
            raise self._over(job.id)
        return going

    @staticmethod
    def _over(job: int) -> DraftGone:
        return DraftGone(f"job {job} is over: the capture must start again")

    def _drop(self, lost: Callable[[_Going], bool]) -> None:
        for going in [each for each in self._going.values() if lost(each)]:
            del self._going[going.job]
            if going.tried or going.begun:
                self._give_up_soon(going)  # one that is being begun just now is given up again by who began it

    def _give_up_soon(self, going: _Going) -> None:
        going.ended = time.monotonic()
        self._forget(going)
        self._pending.append(going)
        self._wake.set()

    def _key(self, job: Job) -> str:
        said = f"{job.id} {job.mac} {job.image}"
        return hmac.new(self._secret, said.encode(), hashlib.sha256).hexdigest()[:32]


def _uploads(going: _Going) -> str:
    return f"/images/{quote(going.image, safe='')}/uploads"


def _read(model: type[Model], body: bytes, what: str) -> Model:
    """Raises NotReferred for what is no answer of a server of this version."""
    try:
        return model.model_validate_json(body)
    except ValidationError as fault:
        why = str(fault).splitlines()[0][:200]
        raise NotReferred(f"{what}: its server does not answer as one of this version does: {why}") from None
