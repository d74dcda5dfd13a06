"""Long work on images over HTTP: verify stores and images, convert images; how far each task is, and its end.

One rule: a task is answered at once with its number, and goes on without whoever ordered it.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from functools import partial
from typing import Annotated, Any, Final  # Any: the fields of a log line

from fastapi import APIRouter, Path, Request
from fastapi.responses import Response
from pydantic import BaseModel, Field

from pbserv.imaging.converting import convert
from pbserv.imaging.guard import CHANGE
from pbserv.imaging.image_bodies import MAX_VERSION_NUMBER, Body
from pbserv.imaging.image_desk import Desk, api, who
from pbserv.imaging.scrub import DEFAULT_RATE_MB, ScrubOrder, ordered
from pbserv.imaging.store_routes import find
from pbserv.imaging.tasks import Task, Tasks, TaskState

TAG: Final = "stores"
Critical = Callable[..., Any]
TaskNumber = Annotated[int, Path(ge=1, le=2**31 - 1)]
Version = Annotated[int | None, Field(ge=1, le=MAX_VERSION_NUMBER)]


class ScrubBody(Body):
    """``rate_mb``: MB (10^6 bytes) per second, 0: as fast as it goes; null: as ScrubRate says. ``deep``: frames are
    uncompressed and compared with what was captured, too. ``repair``: damaged frames are replaced where another version
    has them."""

    rate_mb: Annotated[int | None, Field(ge=0, le=100_000)] = None
    deep: bool = False
    repair: bool = True


class ImageScrubBody(ScrubBody):
    """``version`` null: all of them."""

    version: Version = None


class ConvertBody(Body):
    """``version`` null: the one that is served."""

    version: Version = None


class TaskModel(BaseModel):
    task: int
    kind: str = Field(description="scrub, check, convert ...")
    what: str
    state: TaskState
    done: int = Field(description="bytes, as a rule")
    total: int = Field(description="0: not known yet")
    rate: int = Field(description="per second")
    eta_s: int | None
    result: str = Field(description="a sentence, at the end")
    started: datetime
    finished: datetime | None


class TasksModel(BaseModel):
    tasks: list[TaskModel]


def routers(desk: Desk, tasks: Tasks, critical: Critical, rate_mb: Callable[[], int]) -> tuple[APIRouter, ...]:
    """``critical`` writes what must not be overlooked; ``rate_mb``: the limit of a scrub that names none."""
    return _questions(desk, tasks), _orders(desk, tasks, critical, rate_mb)


def default_rate() -> int:
    return DEFAULT_RATE_MB


def _questions(desk: Desk, tasks: Tasks) -> APIRouter:
    routes = api(TAG, desk.looking(), 404, 422)

    @routes.get("/tasks", summary="What runs on the stores, and what ended not long ago; the newest first")
    async def list_tasks() -> TasksModel:
        return TasksModel(tasks=[_model(task) for task in tasks.all()])

    @routes.get("/tasks/{number}", summary="How far one task is")
    async def task(number: TaskNumber) -> TaskModel:
        return _model(tasks.one(number))

    return routes


def _orders(desk: Desk, tasks: Tasks, critical: Critical, rate_mb: Callable[[], int]) -> APIRouter:
    routes = api(TAG, desk.changing(), 400, 404, 409, 422)

    def scrub(body: ScrubBody, response: Response, *, store: str = "", image: str = "", version: int | None = None
              ) -> TaskModel:  # fmt: skip
        rate = rate_mb() if body.rate_mb is None else body.rate_mb
        order = ScrubOrder(store, image, version, rate, body.deep, body.repair)
        return _begun(ordered(tasks, desk.store, order, critical), response)

    @routes.post("/stores/{name}/scrub", status_code=202, summary="Read a store again and verify all that is in it")
    async def scrub_store(name: str, body: ScrubBody, response: Response) -> TaskModel:
        find(desk, name)
        return scrub(body, response, store=name)

    @routes.post(
        "/stores/{name}/check", status_code=202, summary="Remove a store's leftovers, and look at its versions"
    )
    async def check_store(name: str, response: Response) -> TaskModel:
        """What a start does: uploads that nobody goes on with and what a crash left are removed, the registry learns
        which versions jobs made, and a version that is not whole is not served. No byte is read: that is a scrub."""
        find(desk, name)

        def tell(line: str) -> None:
            critical("found in a store", store=name, found=line)

        begun = tasks.run("check", f"store {name}", lambda report: desk.store.check(name, report, tell))
        return _begun(begun, response)

    @routes.post("/images/{name}/scrub", status_code=202, summary="Read an image again and verify it")
    async def scrub_image(name: str, body: ImageScrubBody, response: Response) -> TaskModel:
        found = desk.store.object(name)
        if body.version is not None:
            found.version(body.version)
        return scrub(body, response, image=name, version=body.version)

    @routes.post("/images/{name}/convert", status_code=202, summary="Make a version in frames of an imported one")
    async def convert_image(request: Request, name: str, body: ConvertBody, response: Response) -> TaskModel:
        """The version that is read stays. What cannot be converted ends the task with the reason."""
        owner = who(desk.allow(request, CHANGE))
        image = desk.store.info(desk.store.object(name).name, body.version)
        what = f"image {image.name} version {image.version}"
        committed = partial(desk.transfers.committed, source=owner)
        begun = tasks.run(
            "convert", what, lambda report: convert(desk.store, name, image.version, owner, report, committed)
        )
        return _begun(begun, response)

    @routes.post("/tasks/{number}/cancel", summary="End a task soon; what it changed stays as it is")
    async def cancel_task(number: TaskNumber) -> TaskModel:
        return _model(tasks.cancel(number))

    return routes


def _begun(task: Task, response: Response) -> TaskModel:
    response.headers["Location"] = f"/api/v1/tasks/{task.number}"
    return _model(task)


def _model(task: Task) -> TaskModel:
    return TaskModel(
        task=task.number, kind=task.kind, what=task.what, state=task.state, done=task.done, total=task.total,
        rate=task.rate, eta_s=task.eta_s, result=task.result, started=task.started, finished=task.finished,
    )  # fmt: skip
