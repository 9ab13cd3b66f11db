"""A bulk run of the command line: rows from a thread, outcomes to the display and the rejects, signals obeyed."""

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
from ._display import REFRESH, SENDING, Display
from ._input_scan import SAMPLES
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
    """Send to every row, and say how it went; what ends it early is in the answer.

    Signals are ignored from its end on, until the caller gives them back.

    Args:
        plan: what to do.
        client: sends.
        total: rows in the input; None when that is not known.
        rejects: takes the rows that must be mended.
        console: where the display goes.
    """
    clock = SystemClock()
    own_folder = None if plan.journal else _temporary_folder()
    journal = SQLiteJournal(
        plan.journal or os.path.join(own_folder or "", "journal.db"),  # noqa: PTH118 - a str all the way
        run=plan.run,
        template=plan.template,
    )
    sender = BulkSender(client, journal=journal, max_in_flight=plan.max_in_flight, channel=plan.channel)
    done = RunResult(sender.summary)
    with Display(console, sender.summary, total, clock) as display, _signal_handlers(sender, display):
        try:
            async with sender as bulk:
                # Here rather than in the run, so that a journal of calls is refused before a row is read.
                await journal.bind(channel=plan.channel)
                if display.state == SENDING:
                    await _follow(bulk, RowProducer(plan, rejects), display, done, rejects)
        except MFAError as error:
            done.error = error
    # The rest takes a moment, and tells what was sent: one more Ctrl-C must not keep that from who pressed it.
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    done.rejects = 0 if rejects is None else rejects.count
    if own_folder is not None and not _left(done):
        shutil.rmtree(own_folder, ignore_errors=True)
    elif _left(done):
        done.journal = journal.path
    return done


def _left(done: RunResult) -> bool:
    """Return whether there is something that another run with the same journal may do."""
    summary = done.summary
    return summary.taken > 0 and (summary.ending != "finished" or summary.not_sent + summary.unknown > 0)


def _note(done: RunResult, outcome: ItemOutcome, row: InputRow | BadRow, rejects: Rejects | None) -> None:
    """Count what the run does not, and keep a row that has to be mended."""
    if outcome.delivery is Delivery.SKIPPED:
        done.previous[outcome.previous] += 1
    if isinstance(row, BadRow):
        reason: str | None = row.reason
        if len(done.samples) < SAMPLES:
            done.samples.append(row)
    else:
        reason = _reason(outcome)
    if reason is not None and rejects is not None:
        rejects.add(row.line, reason, row.cells)


def _reason(outcome: ItemOutcome) -> str | None:
    """Return why a row will not be sent by another run either; None where it may be, or need not."""
    if outcome.previous is Delivery.REJECTED:
        return "refused by the service in an earlier run"
    if outcome.delivery is Delivery.INVALID:
        return str(outcome.error)
    error = outcome.error
    if (
        outcome.delivery is not Delivery.REJECTED
        or not isinstance(error, APIStatusError)
        or is_retryable_next_run(error)
    ):
        return None
    return f"refused by the service: {error.status} {error.error_text or ''}".rstrip()


async def _follow(
    bulk: BulkSender, feed: RowProducer, display: Display, done: RunResult, rejects: Rejects | None
) -> None:
    """Send, and let every outcome be seen, counted and, where it must be mended, written down."""
    ticker = asyncio.create_task(_tick(display, SystemClock()))
    try:
        async for outcome in bulk.send(feed):
            display.note(outcome)
            _note(done, outcome, feed.under_way.pop(outcome.index), rejects)
    finally:
        ticker.cancel()
        feed.close()
        done.ignored = feed.ignored


async def _tick(display: Display, clock: SystemClock) -> None:
    while True:
        display.tick()
        await sleep_until(clock, clock.monotonic() + REFRESH)


@contextlib.contextmanager
def _signal_handlers(bulk: BulkSender, display: Display) -> Generator[None]:
    """Let the first SIGINT or SIGTERM drain the run and the second cut it."""

    def obey() -> None:
        if display.state == SENDING:
            display.state = "draining"
            display.say("stopping: what is under way may end; once more to cut it")
            bulk.stop()
        else:
            display.state = "cutting"
            bulk.cancel()

    with on_signals(obey):
        yield


@contextlib.contextmanager
def on_signals(obey: Callable[[], None]) -> Generator[None]:
    """Call a function for each SIGINT and SIGTERM."""
    loop = asyncio.get_running_loop()
    for number in SIGNALS:
        loop.add_signal_handler(number, obey)
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
            f"no folder for a journal can be made: {error.strerror or error}; use --journal, or set TMPDIR"
        ) from None
