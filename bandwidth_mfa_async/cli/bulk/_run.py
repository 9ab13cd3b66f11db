"""A bulk run in this process: sends rows, shows progress, writes rejects and handles signals."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from typing import TYPE_CHECKING, Final

from ..._clock import SystemClock, sleep_until
from ..._item_state import is_retryable_next_run
from ..._keys import Keys
from ...bulk import BulkSender, SQLiteJournal
from ...errors import APIStatusError, ConfigurationError, Delivery, MFAError
from ._display import REFRESH_INTERVAL, SENDING, Display
from ._input_scan import MAX_SAMPLES
from ._plan import RunResult
from ._row_producer import RowProducer
from ._rows import BadRow, InputRow
from ._source import InputFileError, display_name

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.console import Console

    from ..._client import MFAClient
    from ...bulk import BulkSummary, ItemOutcome
    from .._signals import SignalHandlers
    from ._plan import Plan
    from ._rejects import Rejects

_TEXTED_BEFORE: Final = (
    "to: the journal has another text, scope or number of digits for this number, which was sent or may have been; "
    "only --allow-repeats sends this row as well"
)


async def send(
    plan: Plan, client: MFAClient, *, rejects: Rejects | None, console: Console, signals: SignalHandlers
) -> RunResult:
    """Send a code for every row and return the result, which contains the error that ended the run early.

    Args:
        plan: the run.
        client: sends the codes.
        rejects: receives the rows that need correction.
        console: where the display is printed.
        signals: drain the run.
    """
    clock = SystemClock()
    temporary_folder = None if plan.journal else _temporary_folder()
    journal = SQLiteJournal(
        plan.journal or os.path.join(temporary_folder or "", "journal.db"),  # noqa: PTH118 - a str all the way
        run=plan.run,
        template=plan.template,
    )
    sender = BulkSender(client, journal=journal, max_in_flight=plan.max_in_flight, channel=plan.channel)
    result = RunResult(sender.summary)
    display = Display(console, sender.summary, plan.checked_rows, clock)
    with display, signals.during_run(_signal_function(sender, display)):
        try:
            async with sender as bulk:
                # Bind before reading rows, so that a journal of another channel fails first.
                await journal.bind(channel=plan.channel)
                if plan.checked_rows is not None:
                    await journal.record_input(plan.checked_rows)
                if display.state == SENDING:
                    producer = RowProducer(plan, rejects, _NumberGuard(plan, journal).admit)
                    await _send_rows(bulk, producer, display, result, rejects)
                    await _check_input(plan, bulk.summary)
        except MFAError as error:
            result.error = error
    result.rejects = 0 if rejects is None else rejects.count
    if temporary_folder is not None and not _is_resumable(result):
        shutil.rmtree(temporary_folder, ignore_errors=True)
    elif _is_resumable(result):
        result.journal = journal.path
    return result


def _is_resumable(result: RunResult) -> bool:
    """Return whether another run with the same journal can send more."""
    summary = result.summary
    return summary.taken > 0 and (summary.ending != "finished" or summary.not_sent + summary.unknown > 0)


def _record(result: RunResult, outcome: ItemOutcome, row: InputRow | BadRow, rejects: Rejects | None) -> None:
    """Count skipped items by their earlier outcome, and keep a row that needs correction."""
    if outcome.delivery is Delivery.SKIPPED:
        result.previous[outcome.previous] += 1
    if isinstance(row, BadRow):
        reason: str | None = None if row.is_repeat else row.reason
        result.repeated += row.is_repeat
        if len(result.samples) < MAX_SAMPLES:
            result.samples.append(row)
    else:
        reason = _rejection_reason(outcome)
    if reason is not None and rejects is not None:
        rejects.add(row.line, reason, row.cells)


def _rejection_reason(outcome: ItemOutcome) -> str | None:
    """Return why another run cannot send this row either; None if it can, or if the row needs no other run."""
    if outcome.previous is Delivery.REJECTED:
        return "rejected by the service in an earlier run"
    if outcome.delivery is Delivery.INVALID:
        return str(outcome.error)
    error = outcome.error
    if (
        outcome.delivery is not Delivery.REJECTED
        or not isinstance(error, APIStatusError)
        or is_retryable_next_run(error)
    ):
        return None
    return f"rejected by the service: {error.status} {error.error_text or ''}".rstrip()


async def _send_rows(
    bulk: BulkSender, producer: RowProducer, display: Display, result: RunResult, rejects: Rejects | None
) -> None:
    """Send the rows; pass each outcome to the display, the result and the rejects."""
    ticker = asyncio.create_task(_refresh_loop(display, SystemClock()))
    try:
        async for outcome in bulk.send(producer):
            display.record(outcome)
            _record(result, outcome, producer.pending_rows.pop(outcome.index), rejects)
    finally:
        ticker.cancel()
        producer.close()
        result.ignored = producer.ignored


async def _check_input(plan: Plan, summary: BulkSummary) -> None:
    """Check that a finished run took all rows of a file that is still the one that was checked.

    Raises:
        InputFileError: it is not; the summary says that the run failed.
    """
    if summary.ending != "finished" or plan.checked_rows is None:
        return
    try:
        await asyncio.to_thread(plan.input.verify)
        if summary.taken != plan.checked_rows:
            problem = f"{plan.checked_rows:,} rows were checked, but {summary.taken:,} were read to be sent"
            raise InputFileError(display_name(plan.path), None, problem)
    except InputFileError:
        summary.ending = "failed"
        raise


class _NumberGuard:
    """Stops rows whose number has another text in the journal, from an earlier run or another input.

    A journal that was made by an earlier version knows such numbers only for rows that used the command's own text.

    Args:
        plan: the run.
        journal: the run's journal.
    """

    def __init__(self, plan: Plan, journal: SQLiteJournal) -> None:
        self._plan = plan
        self._journal = journal
        self._default_keys = Keys(plan.channel, plan.run)
        self._own_keys = Keys(plan.channel, plan.run)

    async def admit(self, batch: list[InputRow | BadRow]) -> list[InputRow | BadRow]:
        """Return a batch of rows, with bad rows in place of those that must not be sent.

        Raises:
            JournalError: the journal cannot be used.
        """
        template = self._plan.template
        rows = [row for row in batch if isinstance(row, InputRow)]
        if not self._journal.has_number_keys and all(
            row.template is template or row.template == template for row in rows
        ):
            return batch
        pairs = [
            (self._default_keys.digest(template.to(row.to)), self._own_keys.digest(row.template.to(row.to)))
            for row in rows
        ]
        allow = self._plan.allow_repeats
        texted = iter(await self._journal.claim_numbers(pairs, allow_repeats=allow))
        return [
            BadRow(row.line, _TEXTED_BEFORE, row.cells, is_repeat=True)
            if isinstance(row, InputRow) and next(texted)
            else row
            for row in batch
        ]


async def _refresh_loop(display: Display, clock: SystemClock) -> None:
    while True:
        display.tick()
        await sleep_until(clock, clock.monotonic() + REFRESH_INTERVAL)


def _signal_function(bulk: BulkSender, display: Display) -> Callable[[], None]:
    """Return a function that drains the run on the first signal, and cancels it on the second."""

    def on_signal() -> None:
        if display.state == SENDING:
            display.state = "draining"
            display.print_line("stopping: codes in flight may finish; a second signal cancels them")
            bulk.stop()
        else:
            display.state = "cancelling"
            bulk.cancel()

    return on_signal


def _temporary_folder() -> str:
    try:
        return tempfile.mkdtemp(prefix="bandwidth-mfa-")
    except OSError as error:
        raise ConfigurationError(
            f"cannot create a folder for the journal: {error.strerror or error}; use --journal, or set TMPDIR"
        ) from None
