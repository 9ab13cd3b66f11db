"""A bulk run by worker processes: submits rows to their ledger and watches the job."""

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
from ._display import REFRESH_INTERVAL, SENDING, Display
from ._input_scan import MAX_SAMPLES
from ._plan import RunResult, open_rows
from ._row_producer import RowProducer
from ._rows import BadRow

if TYPE_CHECKING:
    import click
    from rich.console import Console

    from ...worker import Job, JobOutcome, JobProgress
    from .._signals import SignalHandlers
    from ._plan import Plan
    from ._rejects import Rejects

SUBMITTING: Final = "submitting"
_CHUNK: Final = 500
# The 4xx answers about credentials, the URL, timing or the rate. Other 4xx answers are about the item and repeat.
_NOT_ABOUT_THE_ITEM: Final = frozenset({401, 403, 404, 408, 425, 429})


def check_options(context: click.Context) -> None:
    """Check that no option applies only to a run of this process.

    Raises:
        ConfigurationError: such an option is given; the message names the first one and the remedy.
    """
    for name in ("journal", "rate", "redis", "max_in_flight", "resend"):
        if context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            reason = "the ledger records every code" if name == "journal" else "the workers' own settings apply"
            raise ConfigurationError(f"--{name.replace('_', '-')}: leave it out with --worker: {reason}")


def job_name(plan: Plan) -> str:
    """Return the job's name: the run's name, else the file's name without its suffix.

    Raises:
        ConfigurationError: the input is standard input, or the name is not valid for a job.
    """
    if plan.run:
        return checked_name("--run", plan.run)
    if plan.path == "-":
        raise ConfigurationError("--run: name the job; standard input has no file name to use")
    try:
        return checked_name("the file's name", pathlib.PurePath(plan.path).stem)
    except ConfigurationError as error:
        raise ConfigurationError(f"--run: name the job; {error}") from None


async def send(
    plan: Plan, url: str, *, rejects: Rejects | None, console: Console, signals: SignalHandlers
) -> RunResult:
    """Submit every row, watch until each has an outcome, and return the result.

    Args:
        plan: the run; its name is the job's name.
        url: the URL of the ledger's Redis.
        rejects: receives the rows that need correction.
        console: where the display is printed.
        signals: end the watching.
    """
    clock = SystemClock()
    result = RunResult(BulkSummary())
    show_warnings()
    try:
        async with RedisLedger(url) as ledger:
            job = open_job(ledger, job_name(plan))
            watcher = _JobWatcher(plan, ledger, job, result, rejects)
            display = Display(console, result.summary, plan.checked_rows, clock, throttled=False)
            with display, signals.during_run(watcher.stop):
                await watcher.run(display)
            if result.summary.ending == "finished":
                await watcher.write_rejects()
    except MFAError as error:
        result.error = error
        result.summary.ending = "failed"
    result.rejects = 0 if rejects is None else rejects.count
    return result


class _JobWatcher:
    """Submits and watches one job.

    Args:
        plan: the run to submit.
        ledger: the ledger to submit to.
        job: the job in that ledger.
        result: updated while the job runs.
        rejects: receives the rows that need correction.
    """

    def __init__(self, plan: Plan, ledger: RedisLedger, job: Job, result: RunResult, rejects: Rejects | None) -> None:
        self._plan = plan
        self._ledger = ledger
        self._job = job
        self._result = result
        self._rejects = rejects
        self._task: asyncio.Task[None] | None = None
        self._ended = 0
        self._is_existing_job = False

    def stop(self) -> None:
        """Stop submitting and watching."""
        if self._task is not None:
            self._task.cancel()

    async def run(self, display: Display) -> None:
        """Submit and watch until the job ends or `stop` is called.

        Raises:
            MFAError: the input or the ledger cannot be used.
        """
        self._task = asyncio.ensure_future(self._run(display))
        await asyncio.wait([self._task])
        if not self._task.cancelled():
            self._task.result()
            return
        self._result.summary.ending = "stopped"
        self._result.stop_reason = (
            f"stopped watching: the workers continue with the {self._result.summary.taken:,} submitted items; run the "
            "same command again to submit the rest and watch; "
            f"bandwidth-mfa jobs {self._job.name} --cancel stops the workers"
        )

    async def _run(self, display: Display) -> None:
        display.state = SUBMITTING
        self._is_existing_job = bool(await self._ledger.facts(self._job.name))
        submitting = asyncio.ensure_future(self._submit())
        try:
            while not submitting.done():
                await self._poll_once(display)
                await asyncio.wait([submitting], timeout=REFRESH_INTERVAL)
            submitting.result()
        finally:
            submitting.cancel()
            await asyncio.wait([submitting])
        display.state = SENDING
        progress = await self._job.progress()
        if (
            self._is_existing_job
            and progress.ending is not None
            and (progress.ending != "finished" or progress.not_sent)
        ):
            progress = await self._job.resume()
        clock = self._ledger.clock
        while (progress := await self._poll_once(display) or progress).ending is None:
            await sleep_until(clock, clock.monotonic() + REFRESH_INTERVAL)
        if progress.ending == "finished":
            self._result.summary.ending = "finished"
        else:
            self._result.summary.ending = "stopped"
            self._result.stop_reason = _stop_reason(self._job.name, str(progress.ending))

    async def _submit(self) -> None:
        plan, producer = self._plan, RowProducer(self._plan, self._rejects)
        submission = Submission(self._ledger, self._job.name, producer, _CHUNK, plan.channel, plan.template, None)
        draining = asyncio.ensure_future(self._drain_loop(producer))
        try:
            await submission.run()
            await asyncio.to_thread(plan.input.verify)
        finally:
            draining.cancel()
            producer.close()
            self._drain_rows(producer)
            self._result.ignored = producer.ignored

    async def _drain_loop(self, producer: RowProducer) -> None:
        """Drop the submitted rows regularly, but keep the bad ones for the report."""
        clock = self._ledger.clock
        while True:
            self._drain_rows(producer)
            await sleep_until(clock, clock.monotonic() + REFRESH_INTERVAL)

    def _drain_rows(self, producer: RowProducer) -> None:
        for index in sorted(producer.pending_rows):
            row = producer.pending_rows.pop(index)
            if isinstance(row, BadRow):
                if len(self._result.samples) < MAX_SAMPLES:
                    self._result.samples.append(row)
                self._result.repeated += row.is_repeat
                if self._rejects is not None and not row.is_repeat:
                    self._rejects.add(row.line, row.reason, row.cells)

    async def _poll_once(self, display: Display) -> JobProgress | None:
        """Read the job's counts into the summary; return None while the job does not exist yet."""
        if not await self._ledger.facts(self._job.name):
            return None
        progress = await self._job.progress()
        summary = self._result.summary
        for name in (
            *("accepted", "rejected", "not_sent", "unknown", "invalid", "skipped"),
            *("possible_duplicates", "possible_duplicates_unrecorded"),
        ):
            setattr(summary, name, getattr(progress, name))
        summary.taken, summary.in_flight = progress.total, progress.sending
        self._result.previous[None] = progress.skipped
        summary.elapsed = display.elapsed
        ended = summary.accepted + summary.rejected + summary.not_sent + summary.unknown
        display.advance(max(0, ended - self._ended))
        self._ended = ended
        display.tick()
        return progress

    async def write_rejects(self) -> None:
        """Write the rows that the service rejected because of their content; a pipe cannot be read again for that."""
        summary = self._result.summary
        if self._rejects is None or not summary.rejected or self._plan.path == "-":
            return
        rejected = {outcome.index: outcome async for outcome in self._job.outcomes() if _needs_correction(outcome)}
        await asyncio.to_thread(self._write_rejected_rows, rejected)

    def _write_rejected_rows(self, rejected: dict[int, JobOutcome]) -> None:
        assert self._rejects is not None  # noqa: S101 - checked by the caller
        with open_rows(self._plan) as (reader, _):
            for index, row in enumerate(reader):
                if (outcome := rejected.get(index)) is not None:
                    self._rejects.add(row.line, f"rejected by the service: {outcome.status}", row.cells)


def _needs_correction(outcome: JobOutcome) -> bool:
    status = outcome.status
    if outcome.delivery is not Delivery.REJECTED or status is None:
        return False
    return 400 <= status < 500 and status not in _NOT_ABOUT_THE_ITEM


def _stop_reason(name: str, ending: str) -> str:
    if ending == "cancelled":
        return f"the job {name} was cancelled; run the same command again to resume it"
    return (
        f"the workers stopped the job {name}: {ending}, ten times in a row, for different numbers; correct the "
        "workers' credentials or URL, then run the same command again"
    )


def next_steps(result: RunResult) -> list[str]:
    """Return what the user can do next."""
    summary = result.summary
    lines = [result.stop_reason] if result.stop_reason else []
    if summary.ending == "finished" and summary.not_sent:
        lines.append("to retry items that were not sent, run the same command again: codes already sent are skipped")
    if summary.unknown:
        lines.append(
            f"{summary.unknown:,} unknown: the codes may have been sent; workers send them again only if their client "
            "has RetryPolicy(resend=Resend.AT_LEAST_ONCE)"
        )
    return lines
