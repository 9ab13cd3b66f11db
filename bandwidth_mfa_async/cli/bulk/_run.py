"""A bulk run in this process: sends rows, shows progress, writes rejects and handles signals."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import tempfile
from typing import TYPE_CHECKING, Final

from ..._clock import SystemClock, sleep_until
from ..._item_state import is_retryable_next_run
from ...bulk import BulkSender, SQLiteJournal
from ...errors import APIStatusError, ConfigurationError, Delivery, MFAError
from ._display import REFRESH_INTERVAL, SENDING, Display
from ._input_scan import MAX_SAMPLES
from ._plan import RunResult
from ._row_producer import RowProducer
from ._rows import BadRow

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from rich.console import Console

    from ..._client import MFAClient
    from ...bulk import ItemOutcome
    from ._plan import Plan
    from ._rejects import Rejects
    from ._rows import InputRow

SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)


async def send(
    plan: Plan, client: MFAClient, *, total: int | None, rejects: Rejects | None, console: Console
) -> RunResult:
    """Send a code for every row and return the result, which contains the error that ended the run early.

    SIGINT and SIGTERM stay ignored after the run; the caller restores their handlers.

    Args:
        plan: the run.
        client: sends the codes.
        total: the number of rows in the input; None if not known.
        rejects: receives the rows that need correction.
        console: where the display is printed.
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
    with Display(console, sender.summary, total, clock) as display, _signal_handlers(sender, display):
        try:
            async with sender as bulk:
                # Bind before reading rows, so that a journal of another channel fails first.
                await journal.bind(channel=plan.channel)
                if total is not None:
                    await journal.record_input(total)
                if display.state == SENDING:
                    await _send_rows(bulk, RowProducer(plan, rejects), display, result, rejects)
        except MFAError as error:
            result.error = error
    # The remaining steps are short and report what was sent: another Ctrl-C must not prevent the report.
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
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
        reason: str | None = row.reason
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


async def _refresh_loop(display: Display, clock: SystemClock) -> None:
    while True:
        display.tick()
        await sleep_until(clock, clock.monotonic() + REFRESH_INTERVAL)


@contextlib.contextmanager
def _signal_handlers(bulk: BulkSender, display: Display) -> Generator[None]:
    """Drain the run on the first SIGINT or SIGTERM, and cancel it on the second."""

    def handle_signal() -> None:
        if display.state == SENDING:
            display.state = "draining"
            display.print_line("stopping: codes in flight may finish; a second signal cancels them")
            bulk.stop()
        else:
            display.state = "cancelling"
            bulk.cancel()

    with on_signals(handle_signal):
        yield


@contextlib.contextmanager
def on_signals(handler: Callable[[], None]) -> Generator[None]:
    """Call a function on each SIGINT and SIGTERM."""
    loop = asyncio.get_running_loop()
    for number in SIGNALS:
        loop.add_signal_handler(number, handler)
    try:
        yield
    finally:
        for number in SIGNALS:
            loop.remove_signal_handler(number)


def _temporary_folder() -> str:
    try:
        return tempfile.mkdtemp(prefix="bandwidth-mfa-")
    except OSError as error:
        raise ConfigurationError(
            f"cannot create a folder for the journal: {error.strerror or error}; use --journal, or set TMPDIR"
        ) from None
