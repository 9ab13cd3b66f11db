"""A bulk run of the command line: rows from a thread, outcomes to the display and the rejects, signals obeyed."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import tempfile
import threading
from collections import Counter, deque
from typing import TYPE_CHECKING, Any, Final, Self

from attrs import define, field, frozen

from ..._clock import SystemClock, sleep_until
from ...bulk import BulkSender, SQLiteJournal
from ...bulk._outcome import worth_repeating
from ...errors import APIStatusError, ConfigurationError, Delivery, InvalidRequestError, MFAError
from ._display import REFRESH, SENDING, Display
from ._input_scan import SAMPLES
from ._rows import BadRow, Row, RowReader, format_of
from ._source import Source, name_of, open_input

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

    from rich.console import Console

    from ..._client import MFAClient
    from ..._models import CodeTemplate
    from ...bulk import BulkSummary, ItemOutcome
    from ._rejects import Rejects
    from ._rows import Format

_BATCH: Final = 256
_BATCHES: Final = 4
SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)


@frozen(kw_only=True)
class Plan:
    """What a bulk run is to do.

    Attributes:
        path: the input; ``-`` for standard input.
        form: its format.
        template: what is sent where a row says nothing else.
        channel: ``"messaging"`` or ``"voice"``.
        journal: the journal's path; None for one that is thrown away after a run that finished.
        run: the run's name.
        max_in_flight: codes under way at once.
    """

    path: str
    form: Format
    template: CodeTemplate
    channel: str
    journal: str | None
    run: str
    max_in_flight: int


@define
class Done:
    """How a run went.

    Attributes:
        summary: the counts.
        previous: what became before of the skipped ones.
        samples: the first few bad rows.
        ignored: columns that nothing was done with.
        error: what ended it, if anything did.
        journal: where it can be resumed from; None when there is nothing to resume.
        rejects: rows written to the rejects file.
        why: why it ended before its end, where that is no error.
    """

    summary: BulkSummary
    previous: Counter[Delivery | None] = field(factory=Counter["Delivery | None"])
    samples: list[BadRow] = field(factory=list["BadRow"])
    ignored: list[str] = field(factory=list[str])
    error: MFAError | None = None
    journal: str | None = None
    rejects: int = 0
    why: str = ""


@contextlib.contextmanager
def open_rows(path: str, form: Format, template: CodeTemplate) -> Generator[tuple[RowReader, int | None]]:
    """Open an input; give its rows and its size in bytes, None where that is not known.

    Raises:
        InputFileError: it cannot be read.
    """
    stream, size = open_input(path)
    with contextlib.closing(stream):
        source = Source(stream, name_of(path))
        with contextlib.closing(source):
            yield RowReader(source, template, format_of(path, source, form)), size


class Feed:
    """Gives rows to a `BulkSender`, read by a thread: a disk or a pipe may be slow, and the loop must not wait.

    Args:
        plan: where the rows are.
        rejects: told of the columns before the first row comes.
    """

    def __init__(self, plan: Plan, rejects: Rejects | None) -> None:
        self.under_way: dict[int, Row | BadRow] = {}
        """Rows that were given and have no outcome yet, by their place in the input."""
        self.ignored: list[str] = []
        self._plan = plan
        self._rejects = rejects
        self._loop = asyncio.get_running_loop()
        self._batches: deque[list[Row | BadRow]] = deque()
        self._rows: Iterator[Row | BadRow] = iter(())
        self._room = threading.Semaphore(_BATCHES)
        self._given = 0
        self._wake: asyncio.Future[None] | None = None
        self._ended = False
        self._closed = False
        self._error: BaseException | None = None
        # Nobody waits for it at the end: it may be in the middle of a read from a pipe that says nothing.
        self._thread = threading.Thread(target=self._read, name="bandwidth-mfa-rows", daemon=True)

    def __aiter__(self) -> Self:
        self._thread.start()
        return self

    async def __anext__(self) -> Any:
        """Return the next row's request, or an `InvalidRequestError`, which a `BulkSender` takes for what it says.

        Raises:
            InputFileError: the file as a whole cannot be read any further.
        """
        while (row := next(self._rows, None)) is None:
            if self._batches:
                self._rows = iter(self._batches.popleft())
                self._room.release()
            elif self._ended:
                if self._error is not None:
                    raise self._error
                raise StopAsyncIteration
            else:
                self._wake = self._loop.create_future()
                await self._wake
        self.under_way[self._given] = row
        self._given += 1
        return row.template.to(row.to) if isinstance(row, Row) else InvalidRequestError("row", row.reason)

    def close(self) -> None:
        """Let the thread end as soon as it has something to give."""
        self._closed = True
        self._room.release()

    # The thread's side.

    def _read(self) -> None:
        batch: list[Row | BadRow] = []
        error: BaseException | None = None

        def hand_over() -> None:
            if batch:
                self._room.acquire()
                self._tell(self._take, batch.copy())
                batch.clear()

        try:
            with open_rows(self._plan.path, self._plan.form, self._plan.template) as (reader, _):
                # What was read goes out before more is waited for.
                reader.source.before_read = hand_over
                for row in reader:
                    if reader.rows == 1:
                        # The list itself: JSON Lines may add to it.
                        self.ignored = reader.ignored
                        if self._rejects is not None:
                            self._rejects.start(reader.header)
                    batch.append(row)
                    if len(batch) == _BATCH:
                        hand_over()
                    if self._closed:
                        return
        except Exception as failure:  # noqa: BLE001 - raised where the rows are awaited
            error = failure
        hand_over()
        self._tell(self._end, error)

    def _tell(self, what: Callable[[Any], None], value: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self._loop.call_soon_threadsafe(what, value)

    # The loop's side.

    def _take(self, batch: list[Row | BadRow]) -> None:
        self._batches.append(batch)
        self._rouse()

    def _end(self, error: BaseException | None) -> None:
        self._ended, self._error = True, error
        self._rouse()

    def _rouse(self) -> None:
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)


async def send(plan: Plan, client: MFAClient, *, total: int | None, rejects: Rejects | None, console: Console) -> Done:
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
    done = Done(sender.summary)
    with Display(console, sender.summary, total, clock) as display, _obeying(sender, display):
        try:
            async with sender as bulk:
                # Here rather than in the run, so that a journal of calls is refused before a row is read.
                await journal.bind(channel=plan.channel)
                if display.state == SENDING:
                    await _follow(bulk, Feed(plan, rejects), display, done, rejects)
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


def _left(done: Done) -> bool:
    """Return whether there is something that another run with the same journal may do."""
    summary = done.summary
    return summary.taken > 0 and (summary.ending != "finished" or summary.not_sent + summary.unknown > 0)


def _note(done: Done, outcome: ItemOutcome, row: Row | BadRow, rejects: Rejects | None) -> None:
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
    if outcome.delivery is not Delivery.REJECTED or not isinstance(error, APIStatusError) or worth_repeating(error):
        return None
    return f"refused by the service: {error.status} {error.error_text or ''}".rstrip()


async def _follow(bulk: BulkSender, feed: Feed, display: Display, done: Done, rejects: Rejects | None) -> None:
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
def _obeying(bulk: BulkSender, display: Display) -> Generator[None]:
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
