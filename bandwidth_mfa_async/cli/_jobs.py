"""`bandwidth-mfa jobs`: the workers' jobs in a ledger, with their counts."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import TYPE_CHECKING, Any

import attrs
import click

from ..errors import LedgerError, MFAError
from ._limit_options import show_warnings

if TYPE_CHECKING:
    from ..worker import JobProgress

_COLUMNS = ("accepted", "rejected", "not_sent", "unknown", "invalid", "skipped", "pending", "sending")

_EXAMPLES = """
\b
Examples:
  bandwidth-mfa jobs --ledger redis://localhost:6379/0
  bandwidth-mfa jobs launch --cancel --ledger redis://localhost:6379/0
  bandwidth-mfa jobs launch --resume --ledger redis://localhost:6379/0
"""


@click.command(epilog=_EXAMPLES)
@click.argument("name", required=False)
@click.option("--ledger", "url", metavar="URL", envvar="BW_LEDGER_URL", required=True, help="The ledger's Redis.")
@click.option("--prefix", default="bandwidth-mfa", show_default=True, help="What the ledger's keys begin with.")
@click.option("--cancel", is_flag=True, help="Begin no more of the job NAME; what is under way ends.")
@click.option("--resume", is_flag=True, help="Let the job NAME go on, and try again what was not sent.")
@click.option("--json", "as_json", is_flag=True, help="Print one line of JSON a job.")
def jobs(  # noqa: PLR0913 - options
    name: str | None,
    url: str,
    prefix: str,
    cancel: bool,  # noqa: FBT001 - a flag of the command line
    resume: bool,  # noqa: FBT001 - the same
    as_json: bool,  # noqa: FBT001 - the same
) -> None:
    """Show the workers' jobs, or the job NAME, oldest first.

    The ledger's URL is better kept in BW_LEDGER_URL than on the command line, since it may hold a password.
    """
    if (cancel or resume) and (name is None or (cancel and resume)):
        raise click.UsageError("--cancel and --resume are about one job: name it, and choose one of the two")
    show_warnings()
    try:
        found, errors = asyncio.run(_asked(name, url, prefix, cancel=cancel, resume=resume))
    except MFAError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(2)
    for job, progress in found:
        if as_json:
            click.echo(json.dumps({"name": job, **attrs.asdict(progress), "done": progress.done}))
        else:
            click.echo(_line(job, progress))
    for wrong in errors:
        click.echo(f"error: {wrong}", err=True)
    if errors:
        sys.exit(2)
    if not found and not as_json:
        click.echo("no jobs")


async def _asked(
    name: str | None, url: str, prefix: str, *, cancel: bool, resume: bool
) -> tuple[list[tuple[str, JobProgress]], list[LedgerError]]:
    """Return the jobs with their counts, and what is wrong with those that this version cannot read."""
    from ..worker import RedisLedger, known_jobs

    async with RedisLedger(url, prefix=prefix) as ledger:
        found = [job for job in await known_jobs(ledger) if name in {None, job.name}]
        if name is not None and not found:
            raise click.UsageError(f"there is no job {name!r} in this ledger")
        for job in found:
            if cancel:
                await job.cancel()
            if resume:
                await job.resume()
        told: list[tuple[str, JobProgress]] = []
        errors: list[LedgerError] = []
        for job in found:
            try:
                told.append((job.name, await job.progress()))
            except LedgerError as error:
                errors.append(error)
        return told, errors


def _line(name: str, progress: JobProgress) -> str:
    counts: list[tuple[str, Any]] = [(column, getattr(progress, column)) for column in _COLUMNS]
    told = ", ".join(f"{count:,} {column.replace('_', ' ')}" for column, count in counts if count)
    state = progress.ending or ("going" if progress.complete else "being submitted")
    return f"{name}: {state}, {progress.done:,} of {progress.total:,} done" + (f" ({told})" if told else "")
