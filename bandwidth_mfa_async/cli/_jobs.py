"""The command `jobs`: list, cancel and resume the workers' jobs in a ledger."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import TYPE_CHECKING, Any

import attrs
import click

from ..errors import LedgerError, MFAError
from ._formats import plural
from ._limit_options import show_warnings

if TYPE_CHECKING:
    from ..worker import JobProgress

_COLUMNS = (
    *("accepted", "rejected", "not_sent", "unknown", "invalid", "skipped", "pending", "sending"),
    *("possible_duplicates", "possible_duplicates_unrecorded"),
)

_EXAMPLES = """
\b
Examples:
  bandwidth-mfa jobs --ledger redis://localhost:6379/0
  bandwidth-mfa jobs launch --cancel --ledger redis://localhost:6379/0
  bandwidth-mfa jobs launch --resume --ledger redis://localhost:6379/0
"""


@click.command(epilog=_EXAMPLES)
@click.argument("name", required=False)
@click.option(
    "--ledger",
    "url",
    metavar="URL",
    envvar="BW_LEDGER_URL",
    show_envvar=True,
    required=True,
    help="The ledger's Redis.",
)
@click.option("--prefix", default="bandwidth-mfa", show_default=True, help="The prefix of the ledger's keys.")
@click.option("--cancel", is_flag=True, help="Start no more items of the job NAME; those in flight finish.")
@click.option("--resume", is_flag=True, help="Continue the job NAME, and retry items that were not sent.")
@click.option("--json", "as_json", is_flag=True, help="Print one line of JSON per job.")
def jobs(  # noqa: PLR0913 - options
    name: str | None,
    url: str,
    prefix: str,
    cancel: bool,  # noqa: FBT001 - click passes flags this way
    resume: bool,  # noqa: FBT001
    as_json: bool,  # noqa: FBT001
) -> None:
    """Show the workers' jobs, oldest first, or only the job NAME.

    Set the ledger's URL as BW_LEDGER_URL rather than on the command line if it contains a password.
    """
    if (cancel or resume) and (name is None or (cancel and resume)):
        raise click.UsageError("--cancel and --resume need the NAME of one job, and exclude each other")
    show_warnings()
    try:
        jobs_with_progress, errors = asyncio.run(_query(name, url, prefix, cancel=cancel, resume=resume))
    except MFAError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(2)
    for job, progress in jobs_with_progress:
        if as_json:
            click.echo(json.dumps({"name": job, **attrs.asdict(progress), "done": progress.done}))
        else:
            click.echo(_line(job, progress))
    for ledger_error in errors:
        click.echo(f"error: {ledger_error}", err=True)
    if errors:
        sys.exit(2)
    if not jobs_with_progress and not as_json:
        click.echo("no jobs")


async def _query(
    name: str | None, url: str, prefix: str, *, cancel: bool, resume: bool
) -> tuple[list[tuple[str, JobProgress]], list[LedgerError]]:
    """Cancel or resume the jobs if asked; return them with their counts, and the errors of unreadable jobs."""
    from ..worker import RedisLedger, known_jobs

    async with RedisLedger(url, prefix=prefix, require_aof=False) as ledger:
        selected = [job for job in await known_jobs(ledger) if name in {None, job.name}]
        if name is not None and not selected:
            raise click.UsageError(f"there is no job {name!r} in this ledger")
        for job in selected:
            if cancel:
                await job.cancel()
            if resume:
                await job.resume()
        jobs_with_progress: list[tuple[str, JobProgress]] = []
        errors: list[LedgerError] = []
        for job in selected:
            try:
                jobs_with_progress.append((job.name, await job.progress()))
            except LedgerError as error:
                errors.append(error)
        return jobs_with_progress, errors


def _counted(column: str, number: int) -> str:
    return (
        plural(number, "possible duplicate")
        if column == "possible_duplicates"
        else f"{number:,} {column.replace('_', ' ')}"
    )


def _line(name: str, progress: JobProgress) -> str:
    counts: list[tuple[str, Any]] = [(column, getattr(progress, column)) for column in _COLUMNS]
    counted = ", ".join(_counted(column, count) for column, count in counts if count)
    state = progress.ending or ("running" if progress.complete else "being submitted")
    return f"{name}: {state}, {progress.done:,} of {progress.total:,} done" + (f" ({counted})" if counted else "")
