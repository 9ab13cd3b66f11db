"""A bulk run by worker processes: rows go into their ledger, and what comes of them is watched there."""

from __future__ import annotations

import asyncio
import pathlib
from typing import TYPE_CHECKING, Final

from click.core import ParameterSource

from ..._clock import SystemClock, sleep_until
from ...bulk import BulkSummary
from ...errors import ConfigurationError, Delivery, MFAError
from ...worker import RedisLedger
from ...worker._job import open_job
from ...worker._submission import Submission
from ...worker.ledger._ledger import checked_name
from .._limit_options import show_warnings
from ._display import REFRESH, SENDING, Display
from ._input_scan import SAMPLES
from ._plan import RunResult, open_rows
from ._row_producer import RowProducer
from ._rows import BadRow
from ._run import on_signals

if TYPE_CHECKING:
    import click
    from rich.console import Console

    from ...worker import Job, JobOutcome, JobProgress
    from ._plan import Plan
    from ._rejects import Rejects

SUBMITTING: Final = "submitting"
_CHUNK: Final = 500
# Answers about the item, which would come again: 4xx but for credentials, address, hour and pace.
_NOT_THE_ITEMS: Final = frozenset({401, 403, 404, 408, 425, 429})


def check_options(context: click.Context) -> None:
    """Refuse options that are about a run of this process.

    Raises:
        ConfigurationError: names the first of them, and the remedy.
    """
    for name in ("journal", "rate", "redis", "max_in_flight", "resend"):
        if context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            remedy = "the ledger remembers every code" if name == "journal" else "the workers' own settings count"
            raise ConfigurationError(f"--{name.replace('_', '-')}: leave it out with --worker: {remedy}")


def job_name(plan: Plan) -> str:
    """Return what the job is called: the run's name, or the file's.

    Raises:
        ConfigurationError: standard input has none, or the name can be no job's.
    """
    if plan.run:
        return checked_name("--run", plan.run)
    if plan.path == "-":
        raise ConfigurationError("--run: name the job, as standard input has no name that could be its")
    try:
        return checked_name("the file's name", pathlib.PurePath(plan.path).stem)
    except ConfigurationError as error:
        raise ConfigurationError(f"--run: name the job; {error}") from None


async def send(plan: Plan, url: str, *, total: int | None, rejects: Rejects | None, console: Console) -> RunResult:
    """Submit every row, watch until each has its outcome, and say how it went.

    Args:
        plan: what to do; the run's name is the job's.
        url: the ledger's Redis.
        total: rows in the input; None when that is not known.
        rejects: takes the rows that must be mended.
        console: where the display goes.
    """
    clock = SystemClock()
    done = RunResult(BulkSummary())
    show_warnings()
    try:
        async with RedisLedger(url) as ledger:
            job = open_job(ledger, job_name(plan))
            watch = _Watch(plan, ledger, job, done, rejects)
            with Display(console, done.summary, total, clock, throttled=False) as display, on_signals(watch.stop):
                await watch.run(display)
            if done.summary.ending == "finished":
                await watch.conclude()
    except MFAError as error:
        done.error = error
        done.summary.ending = "failed"
    done.rejects = 0 if rejects is None else rejects.count
    return done


class _Watch:
    """Submits and watches one job.

    Args:
        plan: what to submit.
        ledger: where to.
        job: its name there.
        done: kept up to date.
        rejects: takes the rows that must be mended.
    """

    def __init__(self, plan: Plan, ledger: RedisLedger, job: Job, done: RunResult, rejects: Rejects | None) -> None:
        self._plan = plan
        self._ledger = ledger
        self._job = job
        self._done = done
        self._rejects = rejects
        self._task: asyncio.Task[None] | None = None
        self._seen = 0
        self._resumes = False

    def stop(self) -> None:
        """Watch no longer, and submit no more."""
        if self._task is not None:
            self._task.cancel()

    async def run(self, display: Display) -> None:
        """Submit and watch to the end, or until stopped.

        Raises:
            MFAError: the input, or the ledger, cannot be used.
        """
        self._task = asyncio.ensure_future(self._run(display))
        await asyncio.wait([self._task])
        if not self._task.cancelled():
            self._task.result()
            return
        self._done.summary.ending = "stopped"
        self._done.why = (
            f"stopped watching: the workers go on with the {self._done.summary.taken:,} submitted; the same command "
            f"submits what is left and watches again; bandwidth-mfa jobs {self._job.name} --cancel stops them"
        )

    async def _run(self, display: Display) -> None:
        display.state = SUBMITTING
        self._resumes = bool(await self._ledger.facts(self._job.name))
        submitting = asyncio.ensure_future(self._submit())
        try:
            while not submitting.done():
                await self._look(display)
                await asyncio.wait([submitting], timeout=REFRESH)
            submitting.result()
        finally:
            submitting.cancel()
            await asyncio.wait([submitting])
        display.state = SENDING
        progress = await self._job.progress()
        if self._resumes and progress.ending is not None and (progress.ending != "finished" or progress.not_sent):
            progress = await self._job.resume()
        clock = self._ledger.clock
        while (progress := await self._look(display) or progress).ending is None:
            await sleep_until(clock, clock.monotonic() + REFRESH)
        if progress.ending == "finished":
            self._done.summary.ending = "finished"
        else:
            self._done.summary.ending = "stopped"
            self._done.why = _why(self._job.name, str(progress.ending))

    async def _submit(self) -> None:
        plan, feed = self._plan, RowProducer(self._plan, self._rejects)
        submission = Submission(self._ledger, self._job.name, feed, _CHUNK, plan.channel, plan.template, None)
        noting = asyncio.ensure_future(self._note(feed))
        try:
            await submission.run()
        finally:
            noting.cancel()
            feed.close()
            self._take(feed)
            self._done.ignored = feed.ignored

    async def _note(self, feed: RowProducer) -> None:
        """Forget the rows that were submitted, but for the bad ones, of which the command tells."""
        clock = self._ledger.clock
        while True:
            self._take(feed)
            await sleep_until(clock, clock.monotonic() + REFRESH)

    def _take(self, feed: RowProducer) -> None:
        for index in sorted(feed.under_way):
            row = feed.under_way.pop(index)
            if isinstance(row, BadRow):
                if len(self._done.samples) < SAMPLES:
                    self._done.samples.append(row)
                if self._rejects is not None:
                    self._rejects.add(row.line, row.reason, row.cells)

    async def _look(self, display: Display) -> JobProgress | None:
        """Bring the counts up to date; None while the job is not there yet."""
        if not await self._ledger.facts(self._job.name):
            return None
        progress = await self._job.progress()
        summary = self._done.summary
        for name in ("accepted", "rejected", "not_sent", "unknown", "invalid", "skipped"):
            setattr(summary, name, getattr(progress, name))
        summary.taken, summary.in_flight = progress.total, progress.sending
        self._done.previous[None] = progress.skipped
        summary.elapsed = display.elapsed
        ended = summary.accepted + summary.rejected + summary.not_sent + summary.unknown
        display.advance(max(0, ended - self._seen))
        self._seen = ended
        display.tick()
        return progress

    async def conclude(self) -> None:
        """Keep the rows that the service refused for a reason of their own; a pipe cannot be read again for that."""
        summary = self._done.summary
        if self._rejects is None or not summary.rejected or self._plan.path == "-":
            return
        refused = {outcome.index: outcome async for outcome in self._job.outcomes() if _must_be_mended(outcome)}
        await asyncio.to_thread(self._find, refused)

    def _find(self, refused: dict[int, JobOutcome]) -> None:
        assert self._rejects is not None  # noqa: S101 - only then there is something to find
        with open_rows(self._plan.path, self._plan.form, self._plan.template) as (reader, _):
            for index, row in enumerate(reader):
                if (outcome := refused.get(index)) is not None:
                    self._rejects.add(row.line, f"refused by the service: {outcome.status}", row.cells)


def _must_be_mended(outcome: JobOutcome) -> bool:
    status = outcome.status
    refused = outcome.delivery is Delivery.REJECTED and status is not None
    return refused and status is not None and 400 <= status < 500 and status not in _NOT_THE_ITEMS


def _why(name: str, ending: str) -> str:
    if ending == "cancelled":
        return f"the job {name} was cancelled; run the same command again to go on with it"
    return (
        f"the workers stopped the job {name}: {ending}, ten times in a row, whatever the number; mend the workers' "
        "credentials or address, then run the same command again"
    )


def how_to_go_on(done: RunResult) -> list[str]:
    """Return what a person may do next.

    Args:
        done: what came of it.
    """
    summary = done.summary
    lines = [done.why] if done.why else []
    if summary.ending == "finished" and summary.not_sent:
        lines.append("to try again what was not sent, run the same command again: what was sent is not sent again")
    if summary.unknown:
        lines.append(
            f"{summary.unknown:,} unknown: they may have their code; workers send them again only where their client "
            "has RetryPolicy(resend=Resend.AT_LEAST_ONCE)"
        )
    return lines
