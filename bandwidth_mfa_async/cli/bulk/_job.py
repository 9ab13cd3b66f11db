"""A bulk run by worker processes: submits rows to their ledger and watches the job."""

from __future__ import annotations

import asyncio
import math
import pathlib
from typing import TYPE_CHECKING, Final

from click.core import ParameterSource

from ..._clock import SystemClock, sleep_until
from ..._item_state import is_status_retryable_next_run
from ..._validation import checked_name
from ...bulk import BulkSummary
from ...errors import ConfigurationError, Delivery, MFAError
from ...worker._job import WENT_BACK, open_job
from ...worker._submission import Submission
from .._formats import plural
from .._limit_options import show_warnings
from ._display import REFRESH_INTERVAL, SENDING, Display
from ._input_scan import MAX_SAMPLES
from ._lease_watch import LeaseWatch
from ._plan import RunResult, open_rows
from ._rejects import UNKNOWN_REASON
from ._row_producer import RowProducer
from ._rows import BadRow
from ._source import row_problem

if TYPE_CHECKING:
    import click
    from rich.console import Console

    from ...worker import Job, JobOutcome, JobProgress, RedisLedger
    from .._signals import SignalHandlers
    from ._plan import Plan
    from ._rejects import RowFiles

SUBMITTING: Final = "submitting"
_CHUNK: Final = 500
NO_WORKER_AFTER: Final = 5.0
_NO_WORKER: Final = (
    f"no worker has taken anything for {NO_WORKER_AFTER:g} seconds; start one with: taskiq worker worker:broker (the "
    "module that makes your MFAWorker); Ctrl-C ends only the watching"
)


def _lease_wait(seconds: float, sending: int) -> str:
    """Return the line about a wait for a lease."""
    unknown = f"; its {plural(sending, 'item')} in flight will be unknown" if sending else ""
    return f"waiting up to {math.ceil(seconds)} s for the lease of a worker that died{unknown}"


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
    plan: Plan, ledger: RedisLedger, *, files: RowFiles, console: Console, signals: SignalHandlers
) -> RunResult:
    """Submit every row, watch until each has an outcome, and return the result.

    Args:
        plan: the run; its name is the job's name.
        ledger: the ledger to submit to.
        files: receive the rows that need correction, and those that are unknown.
        console: where the display is printed.
        signals: end the watching.
    """
    clock = SystemClock()
    result = RunResult(BulkSummary())
    show_warnings()
    try:
        async with ledger:
            job = open_job(ledger, job_name(plan))
            watcher = _JobWatcher(plan, ledger, job, result, files)
            display = Display(console, result.summary, plan.checked_rows, clock, throttled=False)
            with display, signals.during_run(watcher.stop):
                await watcher.run(display)
            if result.summary.ending == "finished":
                await watcher.write_files()
    except MFAError as error:
        result.error = error
        result.summary.ending = "failed"
    files.count(result)
    return result


class _JobWatcher:
    """Submits and watches one job.

    Args:
        plan: the run to submit.
        ledger: the ledger to submit to.
        job: the job in that ledger.
        result: updated while the job runs.
        files: receive the rows that need correction, and those that are unknown.
    """

    def __init__(self, plan: Plan, ledger: RedisLedger, job: Job, result: RunResult, files: RowFiles) -> None:
        self._plan = plan
        self._ledger = ledger
        self._job = job
        self._result = result
        self._files = files
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
        submitting = asyncio.ensure_future(self._submit(display))
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
            and progress.ending not in {None, WENT_BACK}
            and (progress.ending != "finished" or progress.not_sent)
        ):
            progress = await self._job.resume()
        clock = self._ledger.clock
        idle = before = progress.done, progress.sending
        idle_until: float | None = clock.monotonic() + NO_WORKER_AFTER
        leases, is_explained = LeaseWatch(self._ledger.lease), False
        while (progress := await self._poll_once(display) or progress).ending is None:
            now = progress.done, progress.sending
            if now != idle:
                idle_until = None
            elif idle_until is not None and clock.monotonic() >= idle_until:
                idle_until = None
                display.print_line(_NO_WORKER)
            wait = leases.longest_wait(await self._ledger.leases(self._job.name), clock.monotonic())
            if wait is None:
                is_explained = False
            elif now == before and not is_explained:
                is_explained = True
                display.print_line(_lease_wait(wait, progress.sending))
            before = now
            await sleep_until(clock, clock.monotonic() + REFRESH_INTERVAL)
        if progress.ending == "finished":
            self._result.summary.ending = "finished"
        else:
            self._result.summary.ending = "stopped"
            self._result.stop_reason = _stop_reason(self._job.name, str(progress.ending))

    async def _submit(self, display: Display) -> None:
        plan, producer = self._plan, RowProducer(self._plan, self._files)
        submission = Submission(self._ledger, self._job.name, producer, _CHUNK, plan.channel, plan.template, None)
        draining = asyncio.ensure_future(self._drain_loop(producer, display))
        try:
            await submission.run()
            await asyncio.to_thread(plan.input.verify)
        finally:
            draining.cancel()
            producer.close()
            self._drain_rows(producer, display)
            self._result.ignored, self._result.suspect_lines = producer.ignored, producer.suspect_lines

    async def _drain_loop(self, producer: RowProducer, display: Display) -> None:
        """Drop the submitted rows regularly, but keep the bad ones for the report."""
        clock = self._ledger.clock
        while True:
            self._drain_rows(producer, display)
            await sleep_until(clock, clock.monotonic() + REFRESH_INTERVAL)

    def _drain_rows(self, producer: RowProducer, display: Display) -> None:
        for index in sorted(producer.pending_rows):
            row = producer.pending_rows.pop(index)
            if isinstance(row, BadRow):
                if len(self._result.samples) < MAX_SAMPLES:
                    self._result.samples.append(row)
                    if self._plan.checked_rows is None:
                        display.print_line(row_problem(self._plan.path, row.line, row.reason))
                self._result.repeated += row.is_repeat
                if self._files.rejects is not None and not row.is_repeat:
                    self._files.rejects.add(row.line, row.reason, row.cells)

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

    async def write_files(self) -> None:
        """Write the rows that the service rejected because of their content, and those that are unknown.

        A pipe cannot be read again for that.
        """
        summary, files = self._result.summary, self._files
        if self._plan.input.is_pipe:
            return
        reasons: dict[int, str] = {}
        if (files.rejects is not None and summary.rejected) or (files.unknowns is not None and summary.unknown):
            async for outcome in self._job.outcomes():
                if outcome.delivery is Delivery.UNKNOWN and files.unknowns is not None:
                    reasons[outcome.index] = UNKNOWN_REASON
                elif files.rejects is not None and _needs_correction(outcome):
                    reasons[outcome.index] = f"rejected by the service: {outcome.status}"
        if reasons:
            await asyncio.to_thread(self._write_rows, reasons)

    def _write_rows(self, reasons: dict[int, str]) -> None:
        with open_rows(self._plan) as (reader, _):
            for index, row in enumerate(reader):
                reason = reasons.get(index)
                file = self._files.unknowns if reason == UNKNOWN_REASON else self._files.rejects
                if reason is not None and file is not None:
                    file.add(row.line, reason, row.cells)


def _needs_correction(outcome: JobOutcome) -> bool:
    status = outcome.status
    return outcome.delivery is Delivery.REJECTED and status is not None and not is_status_retryable_next_run(status)


def _stop_reason(name: str, ending: str) -> str:
    if ending == "cancelled":
        return f"the job {name} was cancelled; run the same command again to resume it"
    if ending == WENT_BACK:
        return (
            f"the workers stopped the job {name}: its Redis lost the newest outcomes, so codes that were sent since "
            f"would be sent again; compare with the service's records, then run bandwidth-mfa jobs {name} --resume"
        )
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
            f"{summary.unknown:,} unknown: may have been sent; workers send unknown items again only if their client "
            "has RetryPolicy(resend=Resend.AT_LEAST_ONCE)"
        )
    return lines
