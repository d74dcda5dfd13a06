"""`pbserv job`: verbs to exit codes."""

from __future__ import annotations

import enum
from typing import Annotated

import typer

from pbserv.cli.shared import AsJson, group

app = group("Jobs: runs of work on devices, live.")

Number = Annotated[int, typer.Argument(metavar="NUMBER", help="number of the job; see: pbserv job list")]


class JobStateName(enum.StrEnum):
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


@app.command("list")
def job_list(
    context: typer.Context,
    mac: Annotated[str | None, typer.Option("--device", metavar="MAC", help="Only of this device.")] = None,
    state: Annotated[JobStateName | None, typer.Option(help="Only in this state.")] = None,
    limit: Annotated[int, typer.Option(metavar="N", min=1, max=1000, help="So many at most, the newest first.")] = 100,
    as_json: AsJson = False,
) -> None:
    """List jobs, the newest first.

    \b
    Example:
      pbserv job list --state running
    """
    from pbserv.commands import jobs

    jobs.listed(context.obj, mac, state and state.value, limit, as_json)


@app.command("show")
def job_show(context: typer.Context, number: Number, as_json: AsJson = False) -> None:
    """Show one job with its figures and its log; of a dry run the plan."""
    from pbserv.commands import jobs

    jobs.show(context.obj, number, as_json)


@app.command("watch")
def job_watch(
    context: typer.Context,
    numbers: Annotated[list[int] | None, typer.Argument(metavar="[NUMBER]...", help="none: all jobs that run")] = None,
    as_json: AsJson = False,
) -> None:
    """Follow jobs until they are over, with a bar for each device. Exit code 1: one of them did not succeed.

    \b
    Examples:
      pbserv job watch
      pbserv job watch 17
    """
    from pbserv.commands import jobs

    raise typer.Exit(jobs.watch(context.obj, numbers or [], as_json))


@app.command("cancel")
def job_cancel(context: typer.Context, number: Number, as_json: AsJson = False) -> None:
    """Stop a job within seconds: with its work, or alone when it was ordered in imaging maintenance."""
    from pbserv.commands import jobs

    jobs.cancel(context.obj, number, as_json)


@app.command("retry")
def job_retry(context: typer.Context, number: Number, as_json: AsJson = False) -> None:
    """Queue the work of a job again that failed or was cancelled."""
    from pbserv.commands import jobs

    jobs.retry(context.obj, number, as_json)


@app.command("queue")
def job_queue(context: typer.Context, as_json: AsJson = False) -> None:
    """Show who restores or captures now, and who waits for a place, in the order of their turns."""
    from pbserv.commands import jobs

    jobs.queue(context.obj, as_json)
