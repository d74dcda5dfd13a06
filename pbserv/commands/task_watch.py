"""Tasks on the stores of images: begun, watched with a bar until they end, listed, cancelled."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, Final  # Any: JSON values

from pbserv.commands.api import Api
from pbserv.commands.progress import Bar
from pbserv.commands.tables import Row, clock, print_json, said, show_table, size
from pbserv.errors import PbservError

_LOOK_S: Final = 0.5


def begin(conf: Path, path: str, body: dict[str, Any], wait: bool, as_json: bool) -> None:
    """Order a task; ``wait``: until it has ended. Raises PbservError with its reason when it failed."""
    api = Api(conf)
    task = api.post(path, body)
    if not wait:
        return said(task, f"task {task['task']} has begun: pbserv store tasks", as_json)
    try:
        task = _watched(api, task)
    except KeyboardInterrupt:
        raise PbservError(
            f"task {task['task']} goes on: pbserv store tasks; to end it: pbserv store cancel {task['task']}"
        ) from None
    if task["state"] != "done":
        raise PbservError(f"{task['kind']} of {task['what']}: {task['result']}")
    return said(task, f"{task['what']}: {task['result']}", as_json)


def listed(conf: Path, as_json: bool) -> None:
    tasks = Api(conf).get("/tasks")["tasks"]
    if as_json:
        return print_json(tasks)
    rows = (
        (str(t["task"]), t["kind"], t["what"], t["state"], _progress(t), clock(t["started"]), clock(t["finished"]),
         t["result"])
        for t in tasks
    )  # fmt: skip
    columns = ("No.", "Kind", "What", "State", "Progress", "Started", "Ended", "Result")
    return show_table(columns, rows, "no tasks since the start of the server")


def cancel(conf: Path, number: int, as_json: bool) -> None:
    task = Api(conf).post(f"/tasks/{number}/cancel")
    over = task["state"] != "running"
    said(task, f"task {number} " + (f"had ended already: {task['result']}" if over else "ends soon"), as_json)


def _watched(api: Api, task: Row) -> Row:
    with Bar(f"{task['kind']} {task['what']}") as bar:
        while task["state"] == "running":
            bar.at(task["done"], task["total"])
            time.sleep(_LOOK_S)
            task = api.get(f"/tasks/{task['task']}")
        bar.at(task["done"], task["total"])
    return task


def _progress(task: Row) -> str:
    done = f"{100 * task['done'] // task['total']} % of {size(task['total'])}" if task["total"] else size(task["done"])
    return f"{done}, {size(task['rate'])}/s" if task["state"] == "running" else done
